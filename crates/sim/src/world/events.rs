//! What will happen next: a heap of events by time, and by the order in which they were thought of.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::fault::FaultEdge;

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The next request of the workload comes.
    Arrive,
    /// A request reaches its endpoint.
    Deliver { live: u32, endpoint: u32 },
    /// An endpoint's step is over. Steps begun before a restart are of an older life.
    StepEnd { endpoint: u32, life: u32 },
    /// What a step did reaches the gateways.
    Heard { batch: u32 },
    /// A gateway learns that a request was refused or lost.
    Lost { live: u32 },
    /// A gateway asks an endpoint for its metrics.
    ScrapeSent { gateway: u32, endpoint: u32 },
    /// The question arrives.
    ScrapeRead { scrape: u32 },
    /// The answer arrives.
    ScrapeHeard { scrape: u32 },
    /// A fault begins or ends.
    Fault { index: u32, edge: FaultEdge },
    /// The state of the pool is noted.
    Sample,
}

impl Event {
    /// Whether it can change anything for a request: looking, which goes on for ever, does not.
    fn does(self) -> bool {
        !matches!(
            self,
            Event::ScrapeSent { .. }
                | Event::ScrapeRead { .. }
                | Event::ScrapeHeard { .. }
                | Event::Sample
        )
    }
}

/// The events to come.
#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    /// Events to come that are not only looking.
    pub(super) doings: u64,
}

impl Events {
    pub(super) fn at(&mut self, when: Duration, event: Event) {
        let nanos = u64::try_from(when.as_nanos()).unwrap_or(u64::MAX);
        self.count += 1;
        self.doings += u64::from(event.does());
        self.heap.push(Reverse((nanos, self.count, event)));
    }

    pub(super) fn next(&mut self) -> Option<(Duration, Event)> {
        let Reverse((nanos, _, event)) = self.heap.pop()?;
        self.doings -= u64::from(event.does());
        Some((Duration::from_nanos(nanos), event))
    }
}

/// Things named by small numbers that are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn add(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.entries[index as usize] = Some(value);
            return index;
        }
        self.entries.push(Some(value));
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn peek(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.as_ref()
    }

    pub(super) fn take(&mut self, index: u32) -> Option<T> {
        let value = self.entries.get_mut(index as usize)?.take();
        if value.is_some() {
            self.free.push(index);
        }
        value
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
