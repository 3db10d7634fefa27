//! The engine on tokio's clock: one task steps it, requests hold tickets and wait for their tokens.
//!
//! A ticket's state is a count, not a queue, since everything about an answer but its progress is known beforehand: a
//! slow reader costs no memory and holds nobody up.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::wall;
use crate::engine::{AdapterId, Engine, EngineConfig, Metrics, Rejected, Request, RequestId};

/// Locks what a panic elsewhere may have poisoned: every critical section here leaves the state whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Label sets of `lora_requests_info` remembered at most; the oldest goes.
const LORA_SERIES_MAX: usize = 64;

/// One label set of `lora_requests_info`. The real server leaves every set it ever had in its answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LoraSeries {
    pub(super) running: Vec<AdapterId>,
    pub(super) waiting: Vec<AdapterId>,
    /// End of the last step with these sets, since 1970.
    pub(super) at: Duration,
}

/// An engine and those who wait for it.
#[derive(Debug)]
pub(super) struct Host {
    state: Mutex<State>,
    /// There is work, or the freeze is over.
    work: Notify,
    /// A step has ended.
    pub(super) stepped: Notify,
    began: Instant,
    /// The same moment since 1970.
    began_wall: Duration,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    /// Bounded by the engine, which refuses what is beyond its queue.
    seats: BTreeMap<RequestId, Arc<Mutex<Seat>>>,
    last_id: u64,
    aborted: u64,
    frozen: bool,
    /// V0 tells the adapters that wait; V1 repeats those that run.
    tells_waiting_adapters: bool,
    lora_series: VecDeque<LoraSeries>,
    /// When the engine was new, since 1970.
    created: Duration,
}

/// How far one request is.
#[derive(Debug, Default)]
struct Seat {
    tokens: u32,
    finished: bool,
    waker: Option<Waker>,
}

/// A request's place in the engine. Dropping it before the answer is complete aborts the request.
#[derive(Debug)]
pub(super) struct Ticket {
    host: Arc<Host>,
    id: RequestId,
    seat: Arc<Mutex<Seat>>,
}

impl Host {
    pub(super) fn new(config: EngineConfig, tells_waiting_adapters: bool) -> Host {
        let began_wall = wall::since_epoch();
        let state = State {
            engine: Engine::new(config),
            seats: BTreeMap::new(),
            last_id: 0,
            aborted: 0,
            frozen: false,
            tells_waiting_adapters,
            lora_series: VecDeque::new(),
            created: began_wall,
        };
        Host {
            state: Mutex::new(state),
            work: Notify::new(),
            stepped: Notify::new(),
            began: Instant::now(),
            began_wall,
        }
    }

    /// Puts an empty engine in the place of this one; whoever waits for tokens waits in vain. Nobody may be driving.
    pub(super) fn restart(&self, config: EngineConfig) {
        let mut state = lock(&self.state);
        state.engine = Engine::new(config);
        state.seats.clear();
        state.lora_series.clear();
        state.created = wall::since_epoch();
        drop(state);
        self.stepped.notify_waiters();
    }

    /// When the engine was new, since 1970.
    pub(super) fn created(&self) -> Duration {
        lock(&self.state).created
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Puts a request into the engine's queue; its id is given here.
    pub(super) fn offer(self: &Arc<Self>, mut request: Request) -> Result<Ticket, Rejected> {
        let mut state = lock(&self.state);
        state.last_id += 1;
        let id = RequestId(state.last_id);
        request.id = id;
        state.engine.offer(request, self.now())?;
        let seat = Arc::new(Mutex::new(Seat::default()));
        state.seats.insert(id, Arc::clone(&seat));
        drop(state);
        self.work.notify_one();
        Ok(Ticket { host: Arc::clone(self), id, seat })
    }

    /// Steps the engine for ever. Dropping the future stops the engine where it is.
    ///
    /// The engine's time is the sum of its steps, not the times at which the timer happened to fire: a coarse timer
    /// makes tokens late but not fewer.
    pub(super) async fn drive(&self) {
        let mut time = self.now();
        loop {
            let Some(length) = self.begin(time) else {
                self.work.notified().await;
                time = time.max(self.now());
                continue;
            };
            time += length;
            if time > self.now() {
                tokio::time::sleep_until(self.began + time).await;
            } else {
                tokio::task::yield_now().await;
            }
            while lock(&self.state).frozen {
                self.work.notified().await;
                time = time.max(self.now());
            }
            self.end(time);
        }
    }

    fn begin(&self, now: Duration) -> Option<Duration> {
        lock(&self.state).engine.begin_step(now)
    }

    fn end(&self, now: Duration) {
        let mut state = lock(&self.state);
        let State { engine, seats, tells_waiting_adapters, .. } = &mut *state;
        let effects = engine.end_step(now);
        for token in &effects.tokens {
            let Some(seat) = seats.get(&token.id) else { continue };
            let mut seat = lock(seat);
            seat.tokens += 1;
            seat.finished = token.last;
            if let Some(waker) = seat.waker.take() {
                waker.wake();
            }
        }
        for token in effects.tokens.iter().filter(|token| token.last) {
            seats.remove(&token.id);
        }
        let metrics = engine.metrics();
        let waiting = if *tells_waiting_adapters {
            &metrics.waiting_adapters
        } else {
            &metrics.running_adapters
        };
        let at = self.began_wall + now;
        let (running, waiting) = (metrics.running_adapters.clone(), waiting.clone());
        state.note_adapters(running, waiting, at);
        drop(state);
        self.stepped.notify_waiters();
    }

    fn leave(&self, id: RequestId) {
        let mut state = lock(&self.state);
        if state.seats.remove(&id).is_some() {
            state.engine.abort(id);
            state.aborted += 1;
        }
    }

    /// Stops or resumes the engine between two steps.
    pub(super) fn freeze(&self, frozen: bool) {
        lock(&self.state).frozen = frozen;
        self.work.notify_one();
    }

    /// Whether the series of adapters name those that wait.
    pub(super) fn tell_waiting_adapters(&self, tell: bool) {
        lock(&self.state).tells_waiting_adapters = tell;
    }

    /// The published metrics.
    pub(super) fn metrics(&self) -> Metrics {
        lock(&self.state).engine.metrics().clone()
    }

    /// Every label set `lora_requests_info` has.
    pub(super) fn lora_series(&self) -> Vec<LoraSeries> {
        lock(&self.state).lora_series.iter().cloned().collect()
    }

    /// Waiting requests and KV usage, as published.
    pub(super) fn load(&self) -> (u32, f64) {
        let state = lock(&self.state);
        let metrics = state.engine.metrics();
        (metrics.waiting_capacity + metrics.waiting_deferred, metrics.kv_cache_usage)
    }

    /// Requests whose answer is not complete and whose client is there.
    pub(super) fn live(&self) -> usize {
        lock(&self.state).seats.len()
    }

    /// Requests whose client left.
    pub(super) fn aborted(&self) -> u64 {
        lock(&self.state).aborted
    }

    pub(super) fn forget_adapter(&self, adapter: AdapterId) {
        lock(&self.state).engine.forget_adapter(adapter);
    }
}

impl State {
    fn note_adapters(&mut self, running: Vec<AdapterId>, waiting: Vec<AdapterId>, at: Duration) {
        let same = |s: &&mut LoraSeries| s.running == running && s.waiting == waiting;
        if let Some(series) = self.lora_series.iter_mut().find(same) {
            series.at = at;
            return;
        }
        if self.lora_series.len() >= LORA_SERIES_MAX {
            self.lora_series.pop_front();
        }
        self.lora_series.push_back(LoraSeries { running, waiting, at });
    }
}

impl Ticket {
    /// The number of tokens, once there are more than `seen`.
    pub(super) fn poll_beyond(&self, seen: u32, cx: &mut Context<'_>) -> Poll<u32> {
        let mut seat = lock(&self.seat);
        if seat.tokens > seen {
            return Poll::Ready(seat.tokens);
        }
        seat.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for the last token. Dropping the future loses nothing.
    pub(super) async fn finished(&self) {
        poll_fn(|cx| {
            let mut seat = lock(&self.seat);
            if seat.finished {
                return Poll::Ready(());
            }
            seat.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.host.leave(self.id);
    }
}

#[cfg(test)]
mod tests;
