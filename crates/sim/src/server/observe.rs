//! What a server has seen, and the switch that breaks it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::fault::Fault;
use super::host::lock;
use super::{Shared, exposition};
use crate::engine::Metrics;

/// Requests remembered at most; the oldest goes.
pub const RECENT_MAX: usize = 64;
/// Bytes remembered of a request's body.
pub const RECENT_BODY_BYTES_MAX: usize = 1 << 20;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, cut at [`RECENT_BODY_BYTES_MAX`].
    pub body: Bytes,
}

/// The fault a server has, and what of it is still to be carried out. The counters are there because a fault may be
/// gone before anybody looked: a crash has to happen even so.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub(super) fault: Fault,
    /// How many faults there were before; names this one.
    pub(super) number: u64,
    /// When it ends by itself.
    pub(super) ends: Option<Instant>,
    /// How often all connections were to be cut, crashes included.
    pub(super) cuts: u64,
    pub(super) crashes: u64,
    /// What `/metrics` repeats.
    page: Option<Bytes>,
}

/// Counters of a server, beside the engine's own.
#[derive(Debug)]
pub(super) struct Watch {
    requests: AtomicU64,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    connections_total: AtomicU64,
    recent: Mutex<VecDeque<Seen>>,
    condition: watch::Sender<Condition>,
    /// The port is open.
    listening: AtomicBool,
    /// The number of the last condition whose cuts and crashes are done.
    carried_out: AtomicU64,
    /// (handler, method, class of status); bounded by the table of paths.
    answered: Mutex<BTreeMap<(&'static str, &'static str, &'static str), u64>>,
    changed: Notify,
}

impl Watch {
    /// Of a server whose port is open.
    pub(super) fn new() -> Watch {
        Watch {
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connections_total: AtomicU64::new(0),
            recent: Mutex::default(),
            condition: watch::Sender::default(),
            listening: AtomicBool::new(true),
            carried_out: AtomicU64::new(0),
            answered: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A request for text has arrived; which one it is, counted from 1.
    pub(super) fn saw(&self, seen: Seen) -> u64 {
        let body = seen.body.slice(..seen.body.len().min(RECENT_BODY_BYTES_MAX));
        let mut recent = lock(&self.recent);
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Seen { body, ..seen });
        drop(recent);
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.changed.notify_waiters();
        number
    }

    pub(super) fn fault(&self) -> Fault {
        self.condition.borrow().fault
    }

    /// To be told of every change of the fault.
    pub(super) fn conditions(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    /// The metrics page of the moment the fault began; none if the fault is another by now.
    pub(super) fn frozen_page(&self) -> Option<Bytes> {
        self.condition.borrow().page.clone()
    }

    /// The port has been opened or closed.
    pub(super) fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
        self.stir();
    }

    /// The connections that a condition cuts are gone, and so is an engine that it kills.
    pub(super) fn set_carried_out(&self, condition: &Condition) {
        // Whoever sees the number sees the port as it is by then.
        self.carried_out.store(condition.number, Ordering::Release);
        self.stir();
    }

    /// Forgets what a server forgets when it starts anew; what tests count goes on.
    pub(super) fn restart(&self) {
        lock(&self.answered).clear();
    }

    pub(super) fn answered(&self, handler: &'static str, method: &Method, status: StatusCode) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::HEAD => "HEAD",
            _ => "OTHER",
        };
        let class = match status.as_u16() / 100 {
            2 => "2xx",
            4 => "4xx",
            _ => "5xx",
        };
        *lock(&self.answered).entry((handler, method, class)).or_default() += 1;
    }

    pub(super) fn answers(&self) -> BTreeMap<(&'static str, &'static str, &'static str), u64> {
        lock(&self.answered).clone()
    }

    /// Something a test may wait for has changed.
    pub(super) fn stir(&self) {
        self.changed.notify_waiters();
    }
}

/// Counts a request for text for as long as it lives.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>);

impl InFlight {
    pub(super) fn new(shared: &Arc<Shared>) -> InFlight {
        shared.watch.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.watch.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.watch.stir();
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(super) struct Connected(Arc<Shared>);

impl Connected {
    pub(super) fn new(shared: &Arc<Shared>) -> Connected {
        shared.watch.connections.fetch_add(1, Ordering::Relaxed);
        shared.watch.connections_total.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(shared))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.watch.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.watch.stir();
    }
}

/// Watches and breaks one server. Cheap to clone; outlives the server.
#[derive(Clone, Debug)]
pub struct Handle(pub(super) Arc<Shared>);

impl Handle {
    /// Requests for text that arrived whole, faults included.
    pub fn requests(&self) -> u64 {
        self.0.watch.requests.load(Ordering::Relaxed)
    }

    /// Requests for text that have arrived and whose answer has not ended.
    pub fn in_flight(&self) -> usize {
        self.0.watch.in_flight.load(Ordering::Relaxed)
    }

    /// Requests in the engine, queue included, at this moment. The gauges of [`Handle::metrics`] are a step behind.
    pub fn live(&self) -> usize {
        self.0.host.live()
    }

    /// Requests the engine dropped because their client left or was cut off.
    pub fn aborted(&self) -> u64 {
        self.0.host.aborted()
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.0.watch.connections.load(Ordering::Relaxed)
    }

    /// Connections there ever were.
    pub fn connections_total(&self) -> u64 {
        self.0.watch.connections_total.load(Ordering::Relaxed)
    }

    /// Prompt tokens of requests that got a first token.
    pub fn prompt_tokens(&self) -> u64 {
        self.metrics().prompt_tokens
    }

    /// Tokens given out.
    pub fn generation_tokens(&self) -> u64 {
        self.metrics().generation_tokens
    }

    /// The engine's metrics as of its last step.
    pub fn metrics(&self) -> Metrics {
        self.0.host.metrics()
    }

    /// The last [`RECENT_MAX`] requests for text, oldest first.
    pub fn recent(&self) -> Vec<Seen> {
        lock(&self.0.watch.recent).iter().cloned().collect()
    }

    /// The last request for text.
    pub fn last(&self) -> Option<Seen> {
        lock(&self.0.watch.recent).back().cloned()
    }

    /// What is wrong with the server now.
    pub fn fault(&self) -> Fault {
        self.0.watch.fault()
    }

    /// Whether the running server has done what its fault asks of it: cut connections, closed or opened its port.
    pub fn settled(&self) -> bool {
        let watch = &self.0.watch;
        let condition = watch.condition.borrow();
        watch.carried_out.load(Ordering::Acquire) == condition.number
            && watch.listening.load(Ordering::Relaxed) != condition.fault.closes_port()
    }

    /// Breaks the server, or repairs it with [`Fault::None`]. Requests under way keep the fault they came in with,
    /// except that a freeze holds and frees them, too, and that refusing and crashing cut them.
    ///
    /// Connections are cut, and the port closed and opened, a moment later; [`Handle::settled`] says when.
    pub fn set_fault(&self, fault: Fault) {
        let page = match fault {
            Fault::MetricsFrozen => Some(exposition::write(&self.0).into()),
            _ => None,
        };
        self.0.watch.condition.send_modify(|condition| {
            *condition = Condition {
                fault,
                number: condition.number + 1,
                ends: fault.lasts().map(|time| Instant::now() + time),
                cuts: condition.cuts + u64::from(fault.closes_port()),
                crashes: condition.crashes + u64::from(matches!(fault, Fault::Crash(_))),
                page,
            };
            self.obey(fault);
        });
        self.0.watch.stir();
    }

    /// Ends the fault of this number, unless another has taken its place.
    pub(super) fn heal(&self, number: u64) {
        self.0.watch.condition.send_if_modified(|condition| {
            if condition.number != number {
                return false;
            }
            let next = Condition { number: number + 1, page: None, ..condition.clone() };
            *condition = Condition { fault: Fault::None, ends: None, ..next };
            self.obey(Fault::None);
            true
        });
        self.0.watch.stir();
    }

    /// What of a fault is the engine's, done under the lock of the fault so that two of them do not mix.
    fn obey(&self, fault: Fault) {
        self.0.host.freeze(fault.freezes());
        self.0.host.tell_waiting_adapters(self.0.legacy_with(fault));
    }

    /// Waits until `condition` holds; it is looked at whenever a request arrives or ends, a connection closes, or a
    /// step ends. Dropping the future stops waiting.
    pub async fn until(&self, condition: impl Fn(&Handle) -> bool) {
        loop {
            let changed = self.0.watch.changed.notified();
            let stepped = self.0.host.stepped.notified();
            if condition(self) {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = stepped => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
