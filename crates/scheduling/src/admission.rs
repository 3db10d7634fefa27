//! Requests wait here, and not in an endpoint's own queue, while every endpoint would make them wait: what is decided late is
//! decided knowing more, and what waits here can be overtaken by what matters more.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use crate::{Admission, Policy};

/// Waiting requests that are looked at, in order, for one that can go. The first may be one that finds no room yet.
const LOOKED_AT_MAX: usize = 64;
/// How often a waiting request may be overtaken by others that found room where it did not: by smaller ones, or by those of
/// a lower priority. Then an endpoint is kept for it.
const OVERTAKEN_MAX: u32 = 16;
/// Flows told apart in one priority; further ones share the place of flow 0.
const FLOWS_MAX: usize = 256;
/// Time in which what a flow has had fades to a third. One that had nothing in it is not there any more.
const RECENT: Duration = Duration::from_secs(30);
/// A flow has too much if it has had so many times the mean of the others lately, and more than by chance: so many
/// deviations more.
const OVER_SHARE: f64 = 1.5;
const CHANCE_DEVIATIONS: f64 = 2.0;
/// The shortest and the longest wait that a client is advised before it asks again.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// Weight of the newest interval between two requests that went.
const INTERVAL_NEW_WEIGHT: f64 = 0.1;

/// How requests of a pool wait in the gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowControl {
    /// Requests wait in the gateway while every endpoint would make them wait; otherwise they wait at an endpoint. If it is
    /// not said, they do under `predicted`: the others exist to be compared with what they are elsewhere.
    pub late_binding: Option<bool>,
    /// Requests waiting at once.
    pub requests_max: usize,
    /// What the bodies of those take together.
    pub bytes_max: u64,
    /// Longest wait of one.
    pub wait_max: Duration,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            late_binding: None,
            requests_max: 4_096,
            bytes_max: 256 * 1024 * 1024,
            wait_max: Duration::from_mins(1),
        }
    }
}

impl FlowControl {
    /// Whether requests wait in the gateway.
    pub fn is_on(&self, policy: Policy) -> bool {
        self.late_binding.unwrap_or(policy == Policy::Predicted)
    }
}

/// What the order of waiting hangs on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entry {
    /// Higher goes first.
    pub priority: i32,
    /// Whose it is. Flows of one priority share by tokens.
    pub flow: u64,
    /// Its size.
    pub tokens: f64,
    /// Memory its body takes meanwhile.
    pub bytes: u64,
}

/// Where a request waits. Orders as requests go, as far as priority and arrival decide.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ticket {
    priority: Reverse<i32>,
    flow: u64,
    number: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    waiter: T,
    entry: Entry,
    overtaken: u32,
}

/// What one flow has had.
#[derive(Debug)]
struct Flow<T> {
    /// Virtual time at which its next request starts.
    start: f64,
    /// Tokens, fading, and the squares of what each request had, fading twice as fast, as of a moment.
    used: f64,
    squares: f64,
    at: Duration,
    waiting: BTreeMap<u64, Waiting<T>>,
}

/// Requests of one priority.
///
/// Start-time fair queueing: virtual time is the start of the request that went last; a flow's next request starts when
/// its one before would have ended at one token a unit, but not in the past. The least start goes first.
#[derive(Debug)]
struct Band<T> {
    now: f64,
    flows: BTreeMap<u64, Flow<T>>,
}

/// The requests of one pool that wait. `T` stands for one of them.
#[derive(Debug)]
pub struct AdmissionQueue<T> {
    bands: BTreeMap<Reverse<i32>, Band<T>>,
    len: usize,
    bytes: u64,
    number: u64,
    /// When one went last, and the mean interval between two, in seconds.
    went: Option<Duration>,
    interval: Option<f64>,
}

impl<T> Default for AdmissionQueue<T> {
    fn default() -> Self {
        Self { bands: BTreeMap::new(), len: 0, bytes: 0, number: 0, went: None, interval: None }
    }
}

impl<T> AdmissionQueue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory that the bodies of those take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether one more would be too many.
    pub fn is_full(&self, entry: &Entry, limits: &FlowControl) -> bool {
        self.len >= limits.requests_max || self.bytes.saturating_add(entry.bytes) > limits.bytes_max
    }

    /// Lets a request wait.
    pub fn enter(&mut self, waiter: T, entry: Entry) -> Ticket {
        let number = self.number;
        self.number += 1;
        self.len += 1;
        self.bytes += entry.bytes;
        let priority = Reverse(entry.priority);
        let band = self.bands.entry(priority).or_default();
        let flow = band.place(entry.flow);
        let waiting = Waiting { waiter, entry, overtaken: 0 };
        band.flow(flow).waiting.insert(number, waiting);
        Ticket { priority, flow, number }
    }

    /// A request went without waiting; its flow has had its tokens all the same.
    pub fn passed(&mut self, entry: &Entry, now: Duration) {
        let band = self.bands.entry(Reverse(entry.priority)).or_default();
        let flow = band.place(entry.flow);
        band.charge(flow, entry.tokens, now);
    }

    /// When a request may go: it leaves room for others that matter more, or have had less, and may come.
    pub fn admission(&self, entry: &Entry, now: Duration) -> Admission {
        let priority = Reverse(entry.priority);
        let mut above = self.bands.range(..priority);
        let highest = above.find(|(_, band)| band.is_active(now)).map(|(priority, _)| priority.0);
        let own = self.bands.get(&priority);
        let too_much = own.is_some_and(|band| band.is_over_share(entry.flow, now));
        match (entry.priority, highest) {
            (..0, Some(1..)) => Admission::WhenUnnoticed,
            (..0, Some(_)) => Admission::WhenQuiet,
            // It is refused where others wait; as long as nobody has ever mattered more, it need not be sooner.
            (..0, None) if self.bands.range(..priority).next().is_none() => Admission::WhenFree,
            // Those come seldom, and are to find room when they do.
            (..0, None) => Admission::WhenSpare,
            _ if too_much => Admission::WhenQuiet,
            (_, Some(_)) => Admission::WhenSpare,
            (_, None) => Admission::WhenFree,
        }
    }

    /// The request that waits there.
    pub fn get(&self, ticket: Ticket) -> Option<&T> {
        self.waits(ticket).map(|waiting| &waiting.waiter)
    }

    /// Who may go now, in order: not more than a few.
    pub fn next(&self) -> Vec<Ticket> {
        let mut next = Vec::new();
        for (priority, band) in &self.bands {
            let order = band.order(LOOKED_AT_MAX - next.len()).into_iter();
            next.extend(order.map(|(flow, number)| Ticket { priority: *priority, flow, number }));
            if next.len() == LOOKED_AT_MAX {
                break;
            }
        }
        next
    }

    /// Whether the request that waits there was overtaken often enough. Those behind it leave it the endpoint where it finds
    /// room [soonest](crate::Unschedulable::Saturated).
    pub fn is_overdue(&self, ticket: Ticket) -> bool {
        self.waits(ticket).is_some_and(|waiting| waiting.overtaken >= OVERTAKEN_MAX)
    }

    /// Takes a request that goes. Those that found no room `before` it have been overtaken.
    pub fn go(&mut self, ticket: Ticket, before: &[Ticket], now: Duration) -> Option<T> {
        let waiting = self.remove(ticket)?;
        let band = self.bands.get_mut(&ticket.priority)?;
        band.charge(ticket.flow, waiting.entry.tokens, now);
        for passed in before {
            if let Some(passed) = self.waiting(*passed) {
                passed.overtaken += 1;
            }
        }
        self.went(now);
        Some(waiting.waiter)
    }

    /// Takes a request away that has left.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        self.remove(ticket).map(|waiting| waiting.waiter)
    }

    /// Takes away the latest request of the least priority, if that is less than this one.
    pub fn give_way(&mut self, priority: i32) -> Option<T> {
        let (least, band) = self.bands.iter().rev().find(|(_, band)| band.waits())?;
        if least.0 >= priority {
            return None;
        }
        let latest = band.flows.iter().filter_map(|(flow, waiting)| {
            let (number, _) = waiting.waiting.last_key_value()?;
            Some((*number, *flow))
        });
        let (number, flow) = latest.max()?;
        self.leave(Ticket { priority: *least, flow, number })
    }

    /// When to ask again: until as many have gone as wait now. `expected` tells the seconds between two that go, for as long
    /// as none were seen.
    pub fn retry_after(&self, expected: impl FnOnce() -> f64) -> Duration {
        let waiting = f64::from(u32::try_from(self.len).unwrap_or(u32::MAX));
        let seconds = self.interval.unwrap_or_else(expected) * (waiting + 1.0);
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(RETRY_AFTER_MAX);
        wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }

    fn went(&mut self, now: Duration) {
        if let Some(last) = self.went.replace(now) {
            let interval = now.saturating_sub(last).as_secs_f64();
            let mean = self.interval.get_or_insert(interval);
            *mean += INTERVAL_NEW_WEIGHT * (interval - *mean);
        }
        if self.len == 0 {
            // How long nobody asked for room says nothing of how soon there is some.
            self.went = None;
        }
    }

    fn waits(&self, ticket: Ticket) -> Option<&Waiting<T>> {
        self.bands.get(&ticket.priority)?.flows.get(&ticket.flow)?.waiting.get(&ticket.number)
    }

    fn waiting(&mut self, ticket: Ticket) -> Option<&mut Waiting<T>> {
        let flow = self.bands.get_mut(&ticket.priority)?.flows.get_mut(&ticket.flow)?;
        flow.waiting.get_mut(&ticket.number)
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Waiting<T>> {
        let band = self.bands.get_mut(&ticket.priority)?;
        let waiting = band.flows.get_mut(&ticket.flow)?.waiting.remove(&ticket.number)?;
        self.len -= 1;
        self.bytes -= waiting.entry.bytes;
        Some(waiting)
    }
}

impl<T> Default for Band<T> {
    fn default() -> Self {
        Self { now: 0.0, flows: BTreeMap::new() }
    }
}

impl<T> Band<T> {
    /// The flow's own place, or the one for all that are too many.
    fn place(&mut self, flow: u64) -> u64 {
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&flow) {
            // Those that are owed nothing and owe nothing need not be remembered.
            let now = self.now;
            self.flows.retain(|_, flow| !flow.waiting.is_empty() || flow.start > now);
        }
        self.known(flow)
    }

    /// Where a flow is accounted for, or would be.
    fn known(&self, flow: u64) -> u64 {
        let known = self.flows.contains_key(&flow) || self.flows.len() < FLOWS_MAX;
        if known { flow } else { 0 }
    }

    fn flow(&mut self, flow: u64) -> &mut Flow<T> {
        let start = self.now;
        self.flows.entry(flow).or_insert_with(|| Flow {
            start,
            used: 0.0,
            squares: 0.0,
            at: Duration::ZERO,
            waiting: BTreeMap::new(),
        })
    }

    /// Whether some flow was here lately.
    fn is_active(&self, now: Duration) -> bool {
        self.flows.values().any(|flow| flow.is_active(now))
    }

    fn is_over_share(&self, flow: u64, now: Duration) -> bool {
        let place = self.known(flow);
        let Some(own) = self.flows.get(&place) else { return false };
        let (mut sum, mut count) = (0.0, 0.0);
        for (_, other) in
            self.flows.iter().filter(|(id, other)| **id != place && other.is_active(now))
        {
            sum += other.used(now).0;
            count += 1.0;
        }
        let (used, deviation) = own.used(now);
        count > 0.0 && used - CHANCE_DEVIATIONS * deviation > OVER_SHARE * sum / count
    }

    fn waits(&self) -> bool {
        self.flows.values().any(|flow| !flow.waiting.is_empty())
    }

    fn charge(&mut self, flow: u64, tokens: f64, now: Duration) {
        let virtual_now = self.now;
        let flow = self.flow(flow);
        let start = flow.start.max(virtual_now);
        flow.start = start + tokens.max(1.0);
        let (used, deviation) = flow.used(now);
        (flow.used, flow.squares) = (used + tokens, deviation * deviation + tokens * tokens);
        flow.at = now;
        // Who goes out of turn does not take the time of those along whose turn it is: they would lose their lead.
        let waiting = self.flows.values().filter(|flow| !flow.waiting.is_empty());
        let least = waiting.map(|flow| flow.start).fold(start, f64::min);
        self.now = virtual_now.max(least);
    }

    /// Flow and number of those that wait, in the order in which they go.
    fn order(&self, at_most: usize) -> Vec<(u64, u64)> {
        let mut order: Vec<(f64, u64, u64)> = Vec::new();
        for (id, flow) in &self.flows {
            let mut start = flow.start.max(self.now);
            for (number, waiting) in flow.waiting.iter().take(at_most) {
                order.push((start, *number, *id));
                start += waiting.entry.tokens.max(1.0);
            }
        }
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order.truncate(at_most);
        order.into_iter().map(|(_, number, flow)| (flow, number)).collect()
    }
}

impl<T> Flow<T> {
    fn is_active(&self, now: Duration) -> bool {
        self.used > 0.0 && now.saturating_sub(self.at) <= RECENT
    }

    /// Tokens it has had lately, and their deviation if its requests come by chance.
    fn used(&self, now: Duration) -> (f64, f64) {
        let age = now.saturating_sub(self.at).as_secs_f64() / RECENT.as_secs_f64();
        let left = (-age).exp();
        (self.used * left, self.squares.sqrt() * left)
    }
}

#[cfg(test)]
mod tests;
