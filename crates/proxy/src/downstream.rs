//! A client's connection over its life: what it is doing, and how long that may take.
//!
//! Who speaks HTTP on it knows the bounds of one message. What lies between and beyond messages is
//! bounded here: the time for a head, the time without a request, the time in which the client takes
//! nothing of what is written, and the connection's age.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use picker::{Metrics, Tasks};
use scheduling::hash_bytes;
use tokio::time::{Duration, Instant};

use crate::{Limits, alarm::Alarm, head::Peer, relay::Cut, reply::ReplyBody};

mod stream;

pub(crate) use stream::{ClientStream, turn_away};

/// How long a connection that is being closed may take to see that it has nothing more to do.
const CLOSE_LINGER: Duration = Duration::from_secs(5);
/// The part of a connection's age that chance takes off, so that those opened together do not end
/// together.
const AGE_JITTER: f64 = 0.1;

/// What ends a connection, or keeps one out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reached {
    Connections,
    HeaderTimeout,
    ConnectionIdle,
    ConnectionAge,
    WriteTimeout,
    Http2Streams,
    OpenFiles,
}

impl Reached {
    pub(crate) fn count(self, metrics: &Metrics) {
        let limit = match self {
            Self::Connections => "connections",
            Self::HeaderTimeout => "header-timeout",
            Self::ConnectionIdle => "connection-idle-timeout",
            Self::ConnectionAge => "connection-age",
            Self::WriteTimeout => "write-timeout",
            Self::Http2Streams => "http2-streams",
            Self::OpenFiles => "open-files",
        };
        metrics.limits_reached.with_label_values(&[limit]).inc();
    }
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing; it is to be looked at again then.
    Until(Instant),
    /// It may finish what it has and take nothing new.
    Finish(Reached),
    /// It is over.
    Close(Reached),
    /// It was asked to finish and has nothing left.
    Closed,
}

/// One connection's doings, shared by all that see a part of them.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: Limits,
    /// When it is as old as it may become.
    old_at: Instant,
    state: Mutex<State>,
    /// Something has begun that ends sooner than what was looked for.
    news: AtomicBool,
}

#[derive(Debug)]
struct State {
    http2: bool,
    requests: u32,
    /// Since when there is no request.
    idle_since: Instant,
    /// Since when a head is awaited or arriving.
    head_since: Option<Instant>,
    /// Since when the client has taken nothing of what is there for it.
    blocked_since: Option<Instant>,
    /// Since when it is asked to finish.
    finishing_since: Option<Instant>,
    old: bool,
    /// It was given up because a head did not come.
    late: bool,
}

impl Watch {
    pub(crate) fn new(limits: Limits, peer: &Peer) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            http2: false,
            requests: 0,
            idle_since: now,
            head_since: Some(now),
            blocked_since: None,
            finishing_since: None,
            old: false,
            late: false,
        };
        Arc::new(Self {
            old_at: now + jittered(limits.connection_age_max, peer),
            limits,
            state: Mutex::new(state),
            news: AtomicBool::new(false),
        })
    }

    /// The client has begun as HTTP/2 begins: no head is due, the time without requests counts.
    pub(crate) fn speaks_http2(&self) {
        let mut state = self.state.lock();
        (state.http2, state.head_since) = (true, None);
    }

    /// A head has begun, and is not whole.
    pub(crate) fn bytes_came(&self) {
        let mut state = self.state.lock();
        if state.head_since.is_none() {
            state.head_since = Some(Instant::now());
            self.news.store(true, Ordering::Relaxed);
        }
    }

    /// The client takes nothing at the moment, or takes something again.
    fn blocked(&self, blocked: bool) {
        self.state.lock().blocked_since = blocked.then(Instant::now);
        if blocked {
            self.news.store(true, Ordering::Relaxed);
        }
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>, http2: bool, metrics: &Metrics) -> Active {
        let mut state = self.state.lock();
        state.head_since = None;
        state.requests += 1;
        if http2 && state.requests == self.limits.http2_streams_max {
            Reached::Http2Streams.count(metrics);
        }
        Active { watch: Arc::clone(self) }
    }

    fn ended(&self) {
        let mut state = self.state.lock();
        state.requests -= 1;
        if state.requests == 0 {
            state.idle_since = Instant::now();
            if state.finishing_since.is_some() {
                self.news.store(true, Ordering::Relaxed);
            }
            // Else what is due next is due after the idle time, and it is looked at again before.
        }
    }

    pub(crate) fn head_was_late(&self) -> bool {
        self.state.lock().late
    }

    fn is_old(&self) -> bool {
        self.state.lock().old
    }

    /// It was asked to finish.
    fn finishing(&self) {
        self.state.lock().finishing_since.get_or_insert_with(Instant::now);
        self.news.store(true, Ordering::Relaxed);
    }

    fn verdict(&self) -> Verdict {
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut next = now + self.limits.connection_idle_timeout;
        let mut over = |since: Instant, time: Duration| {
            next = next.min(since + time);
            since + time <= now
        };
        if let Some(since) = state.blocked_since
            && over(since, self.limits.write_timeout)
        {
            return Verdict::Close(Reached::WriteTimeout);
        }
        if let Some(since) = state.finishing_since {
            if state.requests == 0 && over(since.max(state.idle_since), CLOSE_LINGER) {
                return Verdict::Closed;
            }
            return Verdict::Until(next);
        }
        if !state.old && over(self.old_at, Duration::ZERO) {
            state.old = true;
            if state.http2 {
                return Verdict::Finish(Reached::ConnectionAge);
            }
            // HTTP/1.1 says so with the next answer: a request that is on its way is not lost.
        }
        if state.requests == 0 {
            if let Some(since) = state.head_since {
                if over(since, self.limits.header_read_timeout) {
                    state.late = true;
                    return Verdict::Close(Reached::HeaderTimeout);
                }
            } else if over(state.idle_since, self.limits.connection_idle_timeout) {
                return Verdict::Finish(Reached::ConnectionIdle);
            }
        }
        Verdict::Until(next)
    }
}

/// A time that chance has shortened.
fn jittered(time: Duration, peer: &Peer) -> Duration {
    let hash = hash_bytes(u64::from(peer.port), peer.remote.to_string().as_bytes());
    #[expect(clippy::cast_precision_loss, reason = "chance needs no precision")]
    let chance = hash as f64 / u64::MAX as f64;
    time.mul_f64(1.0 - AGE_JITTER * chance)
}

/// Runs a connection until it ends by itself, or until a limit ends it, which gives `None`.
/// `finish` lets it finish what it has, which `stopping` asks for. Dropping the future leaves the
/// connection where it is.
pub(crate) async fn keep<C: Future>(
    mut connection: Pin<&mut C>,
    finish: impl Fn(Pin<&mut C>),
    watch: &Watch,
    stopping: impl Future<Output = ()>,
    metrics: &Metrics,
) -> Option<C::Output> {
    let mut stopping = pin!(stopping);
    let mut stopped = false;
    let mut alarm = Alarm::at(watch.old_at);
    // Whoever kept it before has had the news.
    watch.news.store(true, Ordering::Relaxed);
    poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(Some(ended));
            }
            if !stopped && stopping.as_mut().poll(context).is_ready() {
                stopped = true;
                finish(connection.as_mut());
                watch.finishing();
                continue;
            }
            if watch.news.load(Ordering::Relaxed) {
                // Whatever becomes news from here on is in the verdict.
                watch.news.store(false, Ordering::Relaxed);
            } else {
                ready!(alarm.poll(context));
            }
            match watch.verdict() {
                // A timer is moved only to ring earlier, or when it has rung.
                Verdict::Until(next) => {
                    if next < alarm.time() || alarm.has_rung() {
                        alarm.set(next);
                    }
                    ready!(alarm.poll(context));
                    watch.news.store(true, Ordering::Relaxed);
                }
                Verdict::Finish(reached) => {
                    reached.count(metrics);
                    finish(connection.as_mut());
                    watch.finishing();
                }
                Verdict::Close(reached) => {
                    reached.count(metrics);
                    return Poll::Ready(None);
                }
                Verdict::Closed => return Poll::Ready(None),
            }
        }
    })
    .await
}

/// A request at work, to the end of its answer.
#[derive(Debug)]
pub(crate) struct Active {
    watch: Arc<Watch>,
}

impl Active {
    /// Over HTTP/1.1 the last answer says that it is the last, when the connection has become old.
    pub(crate) fn note_age(&self, response: &mut Response<ReplyBody>, metrics: &Metrics) {
        if self.watch.is_old() {
            Reached::ConnectionAge.count(metrics);
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }

    /// The answer, followed to its end.
    pub(crate) fn answer(self, response: Response<ReplyBody>) -> Response<ClientBody> {
        let turn = TURN.try_with(Arc::clone).ok();
        response.map(|inner| ClientBody { inner, turn, _active: self })
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.watch.ended();
    }
}

/// The body of an answer on its way to an HTTP/2 client.
#[derive(Debug)]
pub(crate) struct ClientBody {
    inner: ReplyBody,
    turn: Option<Arc<Turn>>,
    _active: Active,
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.inner).poll_frame(context);
        if let Some(turn) = &this.turn {
            turn.asked.fetch_add(1, Ordering::Relaxed);
            let given = matches!(frame, Poll::Ready(Some(Ok(_))));
            turn.clients.store(given, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Whose turn it is in an answer: the client's to take, or the endpoint's to give.
#[derive(Debug, Default)]
struct Turn {
    /// How often more was asked for.
    asked: AtomicU64,
    /// Something was given, and more not asked for since.
    clients: AtomicBool,
}

tokio::task_local! {
    /// Of the HTTP/2 stream whose task this is.
    static TURN: Arc<Turn>;
}

/// Runs the streams of an HTTP/2 connection, each until its end or until its client takes nothing
/// of it for the write timeout: then it is reset, and its neighbours go on. What blocks the
/// connection itself blocks its writes, and [`Watch`] sees that.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) write_timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (metrics, timeout) = (Arc::clone(&self.metrics), self.write_timeout);
        self.tasks.spawn("http2 stream", async move {
            if !until_stuck(stream, timeout).await {
                Reached::WriteTimeout.count(&metrics);
            }
        });
    }
}

/// False if the client took nothing for so long, which is noticed within twice that time.
async fn until_stuck(stream: impl Future<Output = ()>, timeout: Duration) -> bool {
    let turn = Arc::new(Turn::default());
    let mut stream = pin!(TURN.scope(Arc::clone(&turn), stream));
    let mut alarm = Alarm::at(Instant::now() + timeout);
    let mut before = 0;
    poll_fn(|context| {
        loop {
            if stream.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            ready!(alarm.poll(context));
            let asked = turn.asked.load(Ordering::Relaxed);
            if turn.clients.load(Ordering::Relaxed) && asked == before {
                return Poll::Ready(false);
            }
            before = asked;
            alarm.set(Instant::now() + timeout);
        }
    })
    .await
}

#[cfg(test)]
mod tests;
