//! All accounts, and of each the outline that decisions among many endpoints read.
//!
//! An outline is made anew after a change of its account, which nobody has to remember: who takes an account to change it
//! makes its outline stale. What changes with time alone, such as how old a page is, shows when endpoints are next compared.

use std::{
    ops::{Index, IndexMut},
    time::Duration,
};

use super::{Claim, Common, Slot, account::Account};
use crate::{Load, outline::Outline};

#[derive(Debug, Default)]
pub(super) struct Accounts {
    all: Vec<Account>,
    outlines: Vec<Outline>,
    /// Which comparison of a pool's endpoints each comes from; 0 if something has changed since.
    outlined: Vec<u32>,
    /// Those where something has, each once.
    stale: Vec<Slot>,
    /// Which accounts are certainly settled.
    settled: Vec<bool>,
    /// The others, each once.
    unsettled: Vec<Slot>,
}

impl Index<Slot> for Accounts {
    type Output = Account;

    #[inline]
    fn index(&self, slot: Slot) -> &Account {
        &self.all[slot.index()]
    }
}

impl IndexMut<Slot> for Accounts {
    #[inline]
    fn index_mut(&mut self, slot: Slot) -> &mut Account {
        self.forget_outline(slot);
        self.note_settled(slot, false);
        &mut self.all[slot.index()]
    }
}

impl Accounts {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn push(&mut self, account: Account) -> Slot {
        self.all.push(account);
        self.outlines.push(Outline::default());
        self.outlined.push(0);
        self.settled.push(false);
        let slot = Slot(u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX));
        self.unsettled.push(slot);
        slot
    }

    /// To be called when its prompt blocks in use may have changed, and nothing else of it.
    pub(super) fn forget_outline(&mut self, slot: Slot) {
        if std::mem::take(&mut self.outlined[slot.index()]) != 0 {
            self.stale.push(slot);
        }
    }

    fn note_settled(&mut self, slot: Slot, settled: bool) {
        if std::mem::replace(&mut self.settled[slot.index()], settled) && !settled {
            self.unsettled.push(slot);
        }
    }

    /// Tokens came, most of which change nothing that a decision asks for.
    pub(super) fn tokens(&mut self, claim: &mut Claim, tokens: f64, now: Duration) {
        let slot = claim.slot;
        let account = &mut self.all[slot.index()];
        let changed = account.tokens(claim, tokens, now);
        let settled = account.is_settled();
        // That it has become so shows when it is next asked for.
        if !settled {
            self.note_settled(slot, false);
        }
        if changed {
            self.forget_outline(slot);
        }
    }

    /// Whether nothing is or was lately the matter with any of these.
    pub(super) fn are_settled(&mut self, slots: &[Slot]) -> bool {
        let Self { all, settled, unsettled, .. } = self;
        unsettled.retain(|slot| {
            settled[slot.index()] = all[slot.index()].is_settled();
            !settled[slot.index()]
        });
        unsettled.is_empty() || slots.iter().all(|slot| settled[slot.index()])
    }

    /// Sets how fast an endpoint is beside others.
    pub(super) fn compare(&mut self, slot: Slot, others: &Common) {
        self.all[slot.index()].compare(others);
    }

    /// The same, and outlines them: all of `slots` if these were not compared with each other before, else those that have
    /// changed since. `pinned` tells of the KV tokens of prompt blocks in use.
    pub(super) fn outline_beside(
        &mut self,
        slots: &[Slot],
        anew: bool,
        others: &Common,
        pinned: impl Fn(Slot) -> f64,
    ) {
        let mut stale = std::mem::take(&mut self.stale);
        for slot in if anew { slots } else { &stale } {
            let account = &mut self.all[slot.index()];
            account.compare(others);
            let foreign = account.foreign(others.at.as_secs_f64(), &others.foreign);
            let load = account.load(&foreign, others.output_variance);
            let load = Load { kv_tokens: load.kv_tokens + pinned(*slot), ..load };
            self.outlines[slot.index()] = Outline::of(&load, &account.speed(), account.in_flight());
            self.outlined[slot.index()] = others.number;
        }
        stale.clear();
        self.stale = stale;
    }

    /// Since it was last compared with these.
    #[inline]
    pub(super) fn outline(&self, slot: Slot, others: &Common) -> &Outline {
        debug_assert_eq!(self.outlined[slot.index()], others.number, "an outline is stale");
        &self.outlines[slot.index()]
    }
}

#[cfg(test)]
mod tests;
