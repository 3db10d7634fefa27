//! Who of a pool may be chosen: those that are in trouble or just beginning are left out, unless they are too many.

use std::{borrow::Cow, time::Duration};

use smallvec::SmallVec;

use super::{Ledger, Slot, account::Account};
use crate::{CHOICES_MAX, Decision, OutlierDetection, slow_start::SlowStart};

/// Indices into the endpoints that a pick was offered.
type Indices = SmallVec<[usize; 16]>;

/// The endpoints among which a decision is made.
#[derive(Default)]
pub(super) struct Screened<'a> {
    pub(super) slots: Cow<'a, [Slot]>,
    /// Where they are among those offered; empty if they are all of them.
    places: Indices,
    left_out: Indices,
    /// Of those, the ones that would answer, and are to be spared.
    spared: Indices,
}

impl Screened<'_> {
    /// Makes a decision about these endpoints, or about those of them that were `kept`, one about all that were offered.
    pub(super) fn place(mut self, decision: &mut Decision, kept: Option<&[usize]>) {
        let place = |index: usize| self.places.get(index).copied().unwrap_or(index);
        for choice in &mut decision.choices {
            *choice = place(kept.map_or(*choice, |kept| kept[*choice]));
        }
        for (index, _) in &mut decision.costs {
            *index = place(kept.map_or(*index, |kept| kept[*index]));
        }
        if let Some(kept) = kept {
            let lost = (0..self.slots.len()).filter(|index| kept.binary_search(index).is_err());
            let lost: Indices = lost.map(place).collect();
            self.left_out.extend(lost);
            self.left_out.sort_unstable();
        }
        // Better to burden a beginner than to fail.
        let room = CHOICES_MAX.saturating_sub(decision.choices.len());
        decision.choices.extend(self.spared.into_iter().take(room));
        decision.left_out = self.left_out.into_vec();
    }
}

impl Ledger {
    /// Chooses the candidates among the endpoints of `usable`; at least one, if there is any. If not all can be, none of
    /// `absent` is, unless there are no others.
    pub(super) fn screen<'a>(
        &mut self,
        usable: &'a [Slot],
        absent: &[Slot],
        rule: &OutlierDetection,
        now: Duration,
    ) -> Screened<'a> {
        if self.accounts.are_settled(usable) {
            return Screened { slots: usable.into(), ..Screened::default() };
        }
        let lacks = |slot: &Slot| absent.binary_search(slot).is_ok();
        let anyone = absent.is_empty() || usable.iter().all(lacks);
        let offered = || (0..usable.len()).filter(|index| anyone || !lacks(&usable[*index]));
        let admitted = |index: &usize| self.accounts[usable[*index]].admits(now);
        let mut places: Indices = offered().filter(admitted).collect();
        let all = if anyone { usable.len() } else { offered().count() };
        if !rule.may_be_out(all - places.len(), all) {
            places = offered().collect();
        }
        let spared = self.beginners(usable, &places, now);
        places.retain(|place| !spared.contains(place));
        let left_out =
            (0..usable.len()).filter(|index| places.binary_search(index).is_err()).collect();
        let slots = places.iter().map(|place| usable[*place]).collect();
        Screened { slots, places, left_out, spared }
    }

    /// Those that are new among others and have as much as they may; in order.
    fn beginners(&mut self, usable: &[Slot], places: &[usize], now: Duration) -> Indices {
        let at = |place: &usize| usable[*place];
        let known = places.iter().map(|place| &self.accounts[at(place)]);
        let known = known.filter(|account| account.details.slow_start == SlowStart::Done);
        let most = known.map(Account::in_flight).max();
        for place in places {
            self.accounts[at(place)].details.slow_start.begin(most.is_some(), now);
        }
        let mut limited = |place: &usize| {
            let account = &mut self.accounts[at(place)];
            let limited = account.details.slow_start.limits(account.in_flight(), most, now);
            limited && most.is_some()
        };
        places.iter().copied().filter(|place| limited(place)).collect()
    }
}

#[cfg(test)]
mod tests;
