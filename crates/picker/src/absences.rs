//! Which endpoints of a pool have said that they do not have a model: adapters are loaded at one endpoint after the other.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use scheduling::{Slot, hash_name};
use smallvec::SmallVec;

/// How long it is believed.
const BELIEVED: Duration = Duration::from_secs(30);
/// Models of endpoints remembered for a pool; of more, the latest.
const ABSENCES_MAX: usize = 256;

/// In order.
pub(crate) type Slots = SmallVec<[Slot; 8]>;

/// What a pool's endpoints do not have.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    /// So that a pick takes no lock where there is nothing to know.
    some: AtomicBool,
    /// The oldest first.
    told: Mutex<VecDeque<Absence>>,
}

#[derive(Debug)]
struct Absence {
    model: u64,
    slot: Slot,
    told: Duration,
}

impl Absences {
    /// The endpoint has just said so.
    pub(crate) fn note(&self, model: &str, slot: Slot, now: Duration) {
        let model = hash_name(model);
        let mut told = self.told.lock();
        told.retain(|known| (known.model, known.slot) != (model, slot));
        if told.len() == ABSENCES_MAX {
            told.pop_front();
        }
        told.push_back(Absence { model, slot, told: now });
        self.some.store(true, Ordering::Relaxed);
    }

    /// Those that do not have the model.
    pub(crate) fn of(&self, model: &str, now: Duration) -> Slots {
        if !self.some.load(Ordering::Relaxed) {
            return Slots::new();
        }
        let model = hash_name(model);
        let mut told = self.told.lock();
        while told.front().is_some_and(|known| now.saturating_sub(known.told) >= BELIEVED) {
            told.pop_front();
        }
        self.some.store(!told.is_empty(), Ordering::Relaxed);
        let mut slots: Slots =
            told.iter().filter(|known| known.model == model).map(|known| known.slot).collect();
        slots.sort_unstable();
        slots
    }

    /// The endpoints are not what they were; what was theirs may now be another's.
    pub(crate) fn forget(&self) {
        let mut told = self.told.lock();
        told.clear();
        self.some.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
