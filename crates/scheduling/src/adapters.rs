//! Which LoRA adapters are on an endpoint, by what was sent there.

use smallvec::SmallVec;

use crate::AdapterFit;

/// Adapter slots of an endpoint that has not told: vLLM's default is 1, but one that serves adapters has more.
const SLOTS_DEFAULT: usize = 4;
/// Idle adapters remembered of an endpoint; the one used least recently is forgotten.
const IDLE_MAX: usize = 64;

/// An endpoint's adapters. A batch holds as many as there are slots; vLLM lets requests of further ones wait, and those of
/// the adapters in the slots pass them.
#[derive(Clone, Debug)]
pub(crate) struct AdapterResidency {
    /// Adapters with requests in flight and how many, in the order in which they came: the first ones have the slots.
    active: SmallVec<[(u64, u32); SLOTS_DEFAULT]>,
    /// Those without, the most recently used last.
    idle: Vec<u64>,
    slots: usize,
    pressure: f64,
}

impl Default for AdapterResidency {
    fn default() -> Self {
        let mut none =
            Self { active: SmallVec::new(), idle: Vec::new(), slots: SLOTS_DEFAULT, pressure: 0.0 };
        none.press();
        none
    }
}

impl AdapterResidency {
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.slots = slots.max(1);
        self.press();
    }

    pub(crate) fn fit(&self, adapter: Option<u64>) -> AdapterFit {
        let Some(adapter) = adapter else { return AdapterFit::Base };
        let free = self.slots.saturating_sub(self.active.len());
        let resident = || self.idle.iter().rev().take(free).any(|idle| *idle == adapter);
        match self.active.iter().position(|(active, _)| *active == adapter) {
            Some(place) if place < self.slots => AdapterFit::Active,
            Some(_) => AdapterFit::Full,
            None if free == 0 => AdapterFit::Full,
            None if resident() => AdapterFit::Resident,
            None => AdapterFit::Room,
        }
    }

    /// Adapters in use if another one came, over the slots there are.
    pub(crate) fn pressure(&self) -> f64 {
        self.pressure
    }

    fn press(&mut self) {
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        self.pressure = count(self.active.len() + 1) / count(self.slots);
    }

    pub(crate) fn charge(&mut self, adapter: u64) {
        if let Some((_, requests)) = self.active.iter_mut().find(|(active, _)| *active == adapter) {
            *requests += 1;
            return;
        }
        self.idle.retain(|idle| *idle != adapter);
        self.active.push((adapter, 1));
        self.press();
    }

    pub(crate) fn release(&mut self, adapter: u64) {
        let Some(place) = self.active.iter().position(|(active, _)| *active == adapter) else {
            return;
        };
        let (_, requests) = &mut self.active[place];
        *requests -= 1;
        if *requests == 0 {
            self.active.remove(place);
            self.press();
            if self.idle.len() == IDLE_MAX {
                self.idle.remove(0);
            }
            self.idle.push(adapter);
        }
    }
}

#[cfg(test)]
mod tests;
