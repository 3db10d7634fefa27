//! Which LoRA adapters are on an endpoint, by what was sent there.

use smallvec::SmallVec;

use crate::AdapterFit;

/// Adapter slots of an endpoint that has not told: vLLM's default is 1, but one that serves adapters has more.
const SLOTS_DEFAULT: usize = 4;
/// Idle adapters remembered of an endpoint; the one used least recently is forgotten.
const IDLE_MAX: usize = 64;

/// An endpoint's adapters. A batch holds as many as there are slots; vLLM lets requests of further ones wait, and those of
/// the adapters in the slots pass them. One line of a processor's cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct AdapterResidency {
    /// What a decision reads of every endpoint: whose slots they are, first those in use, then those that were used last.
    slots: [u64; SLOTS_DEFAULT],
    /// Of these, how many are in use, and how many are anybody's.
    active: u8,
    resident: u8,
    /// No slot is without a request.
    full: bool,
    /// There are more slots than that.
    more: bool,
    /// Adapters in use if another one came, over the slots there are.
    pressure: f64,
    names: Box<Names>,
}

#[derive(Clone, Debug)]
struct Names {
    /// Adapters with requests in flight and how many, in the order in which they came: the first ones have the slots.
    active: SmallVec<[(u64, u32); SLOTS_DEFAULT]>,
    /// Those without, the most recently used last.
    idle: Vec<u64>,
    slots: usize,
}

impl Default for AdapterResidency {
    fn default() -> Self {
        let names = Names { active: SmallVec::new(), idle: Vec::new(), slots: SLOTS_DEFAULT };
        let mut none = Self {
            slots: [0; SLOTS_DEFAULT],
            active: 0,
            resident: 0,
            full: false,
            more: false,
            pressure: 0.0,
            names: Box::new(names),
        };
        none.note();
        none
    }
}

impl Names {
    fn free(&self) -> usize {
        self.slots.saturating_sub(self.active.len())
    }

    /// Those that are in slots, those in use first.
    fn in_slots(&self) -> impl Iterator<Item = u64> {
        let active = self.active.iter().map(|(adapter, _)| *adapter).take(self.slots);
        active.chain(self.idle.iter().rev().copied().take(self.free()))
    }

    fn fit(&self, adapter: u64) -> AdapterFit {
        match self.in_slots().position(|resident| resident == adapter) {
            Some(place) if place < self.active.len() => AdapterFit::Active,
            Some(_) => AdapterFit::Resident,
            None if self.free() == 0 => AdapterFit::Full,
            None => AdapterFit::Room,
        }
    }
}

impl AdapterResidency {
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.names.slots = slots.max(1);
        self.note();
    }

    #[inline]
    pub(crate) fn fit(&self, adapter: Option<u64>) -> AdapterFit {
        let Some(adapter) = adapter else { return AdapterFit::Base };
        if self.more {
            return self.names.fit(adapter);
        }
        // Without a branch that hangs on where it is: that is different on every endpoint, and none of a thousand guesses of
        // the processor would be better than chance.
        let place = |at: u8| if self.slots[usize::from(at)] == adapter { at } else { u8::MAX };
        let place = place(0).min(place(1)).min(place(2)).min(place(3));
        let absent = if self.full { AdapterFit::Full } else { AdapterFit::Room };
        let there = if place < self.resident { AdapterFit::Resident } else { absent };
        if place < self.active { AdapterFit::Active } else { there }
    }

    /// Adapters in use if another one came, over the slots there are.
    #[inline]
    pub(crate) fn pressure(&self) -> f64 {
        self.pressure
    }

    /// To be called when the names have changed.
    fn note(&mut self) {
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let few = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        let Names { active, slots, .. } = &*self.names;
        self.pressure = count(active.len() + 1) / count(*slots);
        self.more = *slots > SLOTS_DEFAULT;
        self.full = self.names.free() == 0;
        self.active = few(active.len().min(*slots));
        self.resident = 0;
        for (own, adapter) in self.slots.iter_mut().zip(self.names.in_slots()) {
            *own = adapter;
            self.resident += 1;
        }
    }

    pub(crate) fn charge(&mut self, adapter: u64) {
        let Names { active, idle, .. } = &mut *self.names;
        if let Some((_, requests)) = active.iter_mut().find(|(active, _)| *active == adapter) {
            *requests += 1;
            return;
        }
        idle.retain(|idle| *idle != adapter);
        active.push((adapter, 1));
        self.note();
    }

    /// Those that no request uses are not there any more.
    pub(crate) fn forget(&mut self) {
        self.names.idle.clear();
        self.note();
    }

    /// A request has ended. Whether its adapter `stays` where it was.
    pub(crate) fn release(&mut self, adapter: u64, stays: bool) {
        let Names { active, idle, .. } = &mut *self.names;
        let Some(place) = active.iter().position(|(active, _)| *active == adapter) else {
            return;
        };
        let (_, requests) = &mut active[place];
        *requests -= 1;
        if *requests == 0 {
            active.remove(place);
            if idle.len() == IDLE_MAX {
                idle.remove(0);
            }
            idle.extend(stays.then_some(adapter));
            self.note();
        }
    }
}

#[cfg(test)]
mod tests;
