//! LoRA adapters in memory: a few slots on the GPU, more in the CPU cache, the rest on disk; least recently used out.

use std::time::Duration;

use super::AdapterId;

/// What it costs to bring an adapter in.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadCost {
    pub(super) swap: Duration,
    pub(super) disk: Duration,
}

/// Which adapters are where. The most recently used is last.
#[derive(Debug)]
pub(super) struct AdapterMemory {
    slots: Vec<AdapterId>,
    slots_max: usize,
    cpu: Vec<AdapterId>,
    cpu_max: usize,
    cost: LoadCost,
    swaps: u64,
}

impl AdapterMemory {
    pub(super) fn new(slots_max: u32, cpu_max: u32, cost: LoadCost) -> AdapterMemory {
        AdapterMemory {
            slots: Vec::new(),
            slots_max: slots_max.max(1) as usize,
            cpu: Vec::new(),
            // The CPU cache holds what is in the slots, too.
            cpu_max: cpu_max.max(slots_max).max(1) as usize,
            cost,
            swaps: 0,
        }
    }

    /// Times an adapter was brought into a slot.
    pub(super) fn swaps(&self) -> u64 {
        self.swaps
    }

    /// Adapters one batch may hold.
    pub(super) fn slots_max(&self) -> usize {
        self.slots_max
    }

    /// Makes the adapters of a batch resident; how long the step waits for that. Loads come one after another.
    pub(super) fn activate(&mut self, batch: &[AdapterId]) -> Duration {
        let mut wait = Duration::ZERO;
        // Touch those that are in first, so that none of this batch makes room for another.
        for adapter in batch.iter().filter(|a| self.slots.contains(a)).copied().collect::<Vec<_>>()
        {
            touch(&mut self.slots, adapter, self.slots_max);
        }
        for &adapter in batch {
            if !self.slots.contains(&adapter) {
                wait += self.cost.swap;
                self.swaps += 1;
                if !self.cpu.contains(&adapter) {
                    wait += self.cost.disk;
                }
                touch(&mut self.slots, adapter, self.slots_max);
            }
            touch(&mut self.cpu, adapter, self.cpu_max);
        }
        wait
    }

    /// Forgets an adapter that was unloaded.
    pub(super) fn forget(&mut self, adapter: AdapterId) {
        self.slots.retain(|a| *a != adapter);
        self.cpu.retain(|a| *a != adapter);
    }
}

/// Moves or adds `adapter` to the most recently used end of a list of at most `max`.
fn touch(list: &mut Vec<AdapterId>, adapter: AdapterId, max: usize) {
    list.retain(|a| *a != adapter);
    if list.len() >= max {
        list.remove(0);
    }
    list.push(adapter);
}
