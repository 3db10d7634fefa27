//! Which endpoints of a pool do not have what others have: a model, since adapters are loaded at one endpoint after the other,
//! or an operation, such as those of an older server, or of one that is something else altogether.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use openai::Operation;
use parking_lot::Mutex;
use scheduling::{Slot, hash_name};
use smallvec::SmallVec;

/// How long it is believed.
const BELIEVED: Duration = Duration::from_secs(30);
/// Models and operations of endpoints remembered for a pool; of more, the latest.
const ABSENCES_MAX: usize = 256;

/// What an endpoint may not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Feature {
    /// By the hash of its name.
    Model(u64),
    Operation(Operation),
}

impl Feature {
    pub(crate) fn model(name: &str) -> Self {
        Self::Model(hash_name(name))
    }
}

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
    feature: Feature,
    slot: Slot,
    told: Duration,
}

impl Absences {
    /// The endpoint has just shown it.
    pub(crate) fn note(&self, feature: Feature, slot: Slot, now: Duration) {
        let mut told = self.told.lock();
        told.retain(|known| (known.feature, known.slot) != (feature, slot));
        if told.len() == ABSENCES_MAX {
            told.pop_front();
        }
        told.push_back(Absence { feature, slot, told: now });
        self.some.store(true, Ordering::Relaxed);
    }

    /// Those that do not have the model, or not the operation.
    pub(crate) fn of(
        &self,
        model: Option<&str>,
        operation: Option<Operation>,
        now: Duration,
    ) -> Slots {
        if !self.some.load(Ordering::Relaxed) {
            return Slots::new();
        }
        let wanted = [model.map(Feature::model), operation.map(Feature::Operation)];
        let mut told = self.told.lock();
        while told.front().is_some_and(|known| now.saturating_sub(known.told) >= BELIEVED) {
            told.pop_front();
        }
        self.some.store(!told.is_empty(), Ordering::Relaxed);
        let lacking = told.iter().filter(|known| wanted.contains(&Some(known.feature)));
        let mut slots: Slots = lacking.map(|known| known.slot).collect();
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
