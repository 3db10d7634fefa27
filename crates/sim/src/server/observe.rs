//! For tests: what a server has seen, and ways to break it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::Notify;

use super::Shared;
use super::host::lock;
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

/// What is wrong with a server. One thing at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Requests for text get this status at once, as from a draining server (500) or a full one (503).
    Status(StatusCode),
    /// Requests for text get no byte, ever; health and metrics are fine.
    Hang,
    /// The connection of a request for text is cut after so many tokens; a plain answer is cut before its first byte.
    CutAfter(u32),
    /// The engine dies after so many tokens: streams end politely with an error event, plain answers are 500.
    DieAfter(u32),
    /// The engine stands still. Streams stop, metrics freeze, health stays 200.
    Freeze,
    /// `/health` is 503, everything else works.
    Unhealthy,
    /// `/metrics` gives no byte.
    MetricsHang,
    /// `/metrics` gives text that is no exposition.
    MetricsGarbage,
    /// `/metrics` gives this status.
    MetricsStatus(StatusCode),
}

/// Counters of a server, beside the engine's own.
#[derive(Debug, Default)]
pub(super) struct Watch {
    requests: AtomicU64,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    connections_total: AtomicU64,
    recent: Mutex<VecDeque<Seen>>,
    fault: Mutex<Fault>,
    /// (handler, method, class of status); bounded by the table of paths.
    answered: Mutex<BTreeMap<(&'static str, &'static str, &'static str), u64>>,
    changed: Notify,
}

impl Watch {
    /// A request for text has arrived.
    pub(super) fn saw(&self, seen: Seen) {
        let body = seen.body.slice(..seen.body.len().min(RECENT_BODY_BYTES_MAX));
        let mut recent = lock(&self.recent);
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Seen { body, ..seen });
        drop(recent);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn fault(&self) -> Fault {
        *lock(&self.fault)
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

    /// Requests the engine dropped because their client left.
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

    /// Breaks the server, or repairs it with [`Fault::None`]. Requests under way keep the fault they came in with,
    /// except that a freeze holds and frees them, too.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.0.watch.fault) = fault;
        self.0.host.freeze(fault == Fault::Freeze);
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
