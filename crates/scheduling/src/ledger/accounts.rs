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
    /// Which of them are certainly settled.
    settled: Vec<bool>,
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
        self.settled[slot.index()] = false;
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
        Slot(u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX))
    }

    /// To be called when its prompt blocks in use may have changed, and nothing else of it.
    pub(super) fn forget_outline(&mut self, slot: Slot) {
        self.outlined[slot.index()] = 0;
    }

    /// Tokens came, most of which change nothing that a decision asks for.
    pub(super) fn tokens(&mut self, claim: &mut Claim, tokens: f64, now: Duration) {
        let slot = claim.slot;
        let account = &mut self.all[slot.index()];
        let changed = account.tokens(claim, tokens, now);
        self.settled[slot.index()] = account.is_settled();
        if changed {
            self.forget_outline(slot);
        }
    }

    /// Whether nothing is or was lately the matter with any of these.
    pub(super) fn are_settled(&mut self, slots: &[Slot]) -> bool {
        slots.iter().all(|slot| {
            let settled = &mut self.settled[slot.index()];
            debug_assert!(!*settled || self.all[slot.index()].is_settled(), "a change was lost");
            *settled = *settled || self.all[slot.index()].is_settled();
            *settled
        })
    }

    /// Sets how fast an endpoint is beside others.
    pub(super) fn compare(&mut self, slot: Slot, others: &Common) {
        self.all[slot.index()].compare(others);
    }

    /// The same, and outlines it. `pinned` tells of the KV tokens of prompt blocks in use.
    #[inline]
    pub(super) fn outline_beside(
        &mut self,
        slot: Slot,
        others: &Common,
        pinned: impl FnOnce() -> f64,
    ) {
        if self.outlined[slot.index()] == others.number {
            return;
        }
        let account = &mut self.all[slot.index()];
        account.compare(others);
        let foreign = account.foreign(others.at.as_secs_f64(), &others.foreign);
        let load = account.load(&foreign, others.output_variance);
        let load = Load { kv_tokens: load.kv_tokens + pinned(), ..load };
        self.outlines[slot.index()] = Outline::of(&load, &account.speed(), account.in_flight());
        self.outlined[slot.index()] = others.number;
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
