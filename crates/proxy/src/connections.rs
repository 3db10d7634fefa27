//! Connections to endpoints: kept alive, given up before vLLM closes them, replaced once for free
//! when a kept one breaks before any byte of an answer.

use std::{
    collections::BTreeMap,
    error::Error as _,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use picker::{AppProtocol, Endpoint, EndpointSpec, Tasks, is_exhausted};
use scheduling::EndpointId;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Duration, Instant, timeout},
};

use crate::{Limits, head::Outgoing};

mod http2;

use http2::Http2;

/// How often connections that lay idle for too long are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// When a silent peer is asked whether it is still there, and how often before it is given up.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES_MAX: u32 = 3;
/// How long a peer may acknowledge nothing: as long as these take together.
const GONE_AFTER: Duration = PROBE_AFTER.saturating_add(PROBE_INTERVAL.saturating_mul(PROBES_MAX));

/// Starts HTTP/2's own tasks as tasks of ours.
#[derive(Clone, Debug)]
pub(crate) struct Executor(pub(crate) Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("http2 stream", future);
    }
}

/// A peer that vanished without a word, as in a power cut, is noticed within [`GONE_AFTER`], or
/// within its patience, should that be longer. Where the system will not do that, other limits hold.
///
/// Linux sends no probes while something it has sent is not acknowledged, such as a request, and
/// would go on sending that for a quarter of an hour; the second setting ends this. It also counts a
/// peer among the gone that is there and takes nothing, hence `patience`: how long it may do that.
pub(crate) fn keep_alive(stream: &TcpStream, patience: Duration) {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
    if let Err(error) = socket.set_tcp_keepalive(&probes.with_retries(PROBES_MAX)) {
        tracing::debug!(%error, "TCP keepalive could not be set");
    }
    if let Err(error) = socket.set_tcp_user_timeout(Some(GONE_AFTER.max(patience))) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT could not be set");
    }
}

/// Why an endpoint gave no response head.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No connection: the endpoint has not seen the request.
    Connect(String),
    /// The gateway itself has no connection to give: no fault of the endpoint.
    Exhausted(String),
    /// The connection broke before a response head came.
    Reset(Broken),
}

/// Why an exchange stopped midway.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Http1(#[from] http1::Error),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl Broken {
    /// The endpoint has seen nothing of the request, or has looked at nothing of it.
    pub(crate) fn is_unsent(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, http1::Error::Unsent),
            Self::Http2(error) => error.is_canceled() || h2_cause(error).is_some_and(is_refusal),
        }
    }

    /// Nothing of an answer has come.
    fn is_unanswered(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, http1::Error::Unanswered(_)),
            // To reset a stream is an answer; it is the connection that may have been dead.
            Self::Http2(error) => !h2_cause(error).is_some_and(h2::Error::is_reset),
        }
    }
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

/// The endpoint says that it has not looked at the request (RFC 9113, 8.7). Of a GOAWAY without an
/// error only streams above its last one hear; with an error all of a connection hear alike.
fn is_refusal(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)
            || error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
}

/// All connections to all endpoints.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    tasks: Tasks,
    idle: Mutex<BTreeMap<EndpointId, Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Last used last; at most `upstream_idle_max`.
    http1: Vec<(Box<http1::Connection>, Instant)>,
    /// Also those in use, oldest first, with when that was last seen. One is opened when a request
    /// finds the others full; at most `upstream_idle_max` are kept idle.
    http2: Vec<(Arc<Http2>, Instant)>,
}

enum Open {
    Http1(Box<http1::Connection>),
    Http2(Arc<Http2>),
}

/// The body of an answer, and the connection it comes over. Dropping it before it has ended closes the
/// connection, or resets the stream, which is how an endpoint learns that its client has left.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Http1 {
        connection: Box<http1::Connection>,
        endpoint: EndpointId,
        connections: Arc<Connections>,
    },
    Http2 {
        body: Incoming,
        /// Held for as long as the stream has a place on it.
        _connection: Arc<Http2>,
    },
}

impl AnswerBody {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = match self {
            Self::Http1 { connection, .. } => {
                ready!(Pin::new(&mut **connection).poll_frame(context)).map(|frame| Ok(frame?))
            }
            Self::Http2 { body, .. } => {
                ready!(Pin::new(body).poll_frame(context)).map(|frame| Ok(frame?))
            }
        };
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { connection, .. } => connection.is_end_stream(),
            Self::Http2 { body, .. } => body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { connection, .. } => connection.size_hint(),
            Self::Http2 { body, .. } => body.size_hint(),
        }
    }

    /// It has ended: its connection can carry another.
    pub(crate) fn give_back(self) {
        let Self::Http1 { connection, endpoint, connections } = self else { return };
        if !connection.is_reusable() {
            return;
        }
        let mut idle = connections.idle.lock();
        let kept = &mut idle.entry(endpoint).or_default().http1;
        if kept.len() < connections.limits.upstream_idle_max {
            kept.push((connection, Instant::now()));
        }
    }
}

/// An endpoint's response head, and its body to come.
pub(crate) type Exchange = (Response<()>, AnswerBody);

impl Connections {
    pub(crate) fn new(limits: Limits, tasks: &Tasks) -> Arc<Self> {
        let connections = Arc::new(Self { limits, tasks: tasks.clone(), idle: Mutex::default() });
        let weak = Arc::downgrade(&connections);
        let stopping = tasks.stopping();
        tasks.spawn("sweep idle connections", async move {
            let mut stopping = std::pin::pin!(stopping);
            loop {
                tokio::select! {
                    biased;
                    () = &mut stopping => break,
                    () = tokio::time::sleep(SWEEP_INTERVAL) => {}
                }
                let Some(connections) = weak.upgrade() else { break };
                connections.sweep();
            }
        });
        connections
    }

    /// Others, kept apart from these: the idle ones that may be kept are shared out among so many.
    pub(crate) fn beside(&self, threads: usize) -> Arc<Self> {
        let upstream_idle_max = self.limits.upstream_idle_max.div_ceil(threads);
        Self::new(Limits { upstream_idle_max, ..self.limits }, &self.tasks)
    }

    /// Sends a request and waits for the response head. Dropping the future closes the connection.
    ///
    /// A kept connection that breaks before any byte of an answer is replaced by a new one, once,
    /// if the request was not sent on it or may be sent twice.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        request: &mut Outgoing<'_>,
    ) -> Result<Exchange, SendError> {
        let spec = &endpoint.spec;
        if let Some(kept) = self.kept(spec).await {
            match self.send_on(kept, spec, request).await {
                Ok(exchange) => return Ok(exchange),
                Err(error) if error.is_unsent() => {}
                Err(error) if request.head.may_repeat() && error.is_unanswered() => {}
                Err(error) => return Err(SendError::Reset(error)),
            }
        }
        // Boxed: connecting is rare, and its state would make every request's future larger.
        let fresh = Box::pin(self.connect(spec)).await?;
        self.send_on(fresh, spec, request).await.map_err(SendError::Reset)
    }

    async fn send_on(
        self: &Arc<Self>,
        open: Open,
        spec: &EndpointSpec,
        request: &mut Outgoing<'_>,
    ) -> Result<Exchange, Broken> {
        request.note_connected();
        match open {
            Open::Http1(mut connection) => {
                let method = &request.head.parts.method;
                let sent = connection.send(method, request.http1(), request.body.clone());
                let response = sent.await?;
                let (endpoint, connections) = (spec.id.clone(), Arc::clone(self));
                Ok((response, AnswerBody::Http1 { connection, endpoint, connections }))
            }
            Open::Http2(connection) => {
                let (parts, body) = connection.send(request.http2()).await?.into_parts();
                let answer = AnswerBody::Http2 { body, _connection: connection };
                Ok((Response::from_parts(parts, ()), answer))
            }
        }
    }

    /// A connection that is still good, as far as can be told.
    async fn kept(&self, spec: &EndpointSpec) -> Option<Open> {
        if spec.protocol == AppProtocol::H2c {
            let mut idle = self.idle.lock();
            let mut kept = idle.get_mut(&spec.id)?.http2.iter_mut();
            // The first that has room, so that the last become idle.
            let (connection, used) = kept.find(|(connection, _)| connection.has_room())?;
            *used = Instant::now();
            return Some(Open::Http2(Arc::clone(connection)));
        }
        loop {
            let popped = self.idle.lock().get_mut(&spec.id).and_then(|idle| idle.http1.pop());
            let (mut connection, since) = popped?;
            if since.elapsed() >= self.limits.upstream_idle_timeout {
                continue;
            }
            let good = poll_fn(|context| Poll::Ready(connection.poll_unfit(context).is_pending()));
            if good.await {
                return Some(Open::Http1(connection));
            }
        }
    }

    async fn connect(&self, spec: &EndpointSpec) -> Result<Open, SendError> {
        let limit = self.limits.connect_timeout;
        let connected = timeout(limit, TcpStream::connect((&*spec.host, spec.port))).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_exhausted(&error) => {
                return Err(SendError::Exhausted(error.to_string()));
            }
            Ok(Err(error)) => return Err(SendError::Connect(error.to_string())),
            Err(_) => return Err(SendError::Connect(format!("no connection within {limit:?}"))),
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(endpoint = %spec.id, %error, "TCP_NODELAY could not be set");
        }
        keep_alive(&stream, GONE_AFTER);
        match spec.protocol {
            AppProtocol::Http1 => Ok(Open::Http1(Box::new(http1::Connection::new(stream)))),
            AppProtocol::H2c => {
                match timeout(limit, Http2::handshake(stream, &self.tasks)).await {
                    Ok(Ok(connection)) => {
                        let kept = (Arc::clone(&connection), Instant::now());
                        self.idle.lock().entry(spec.id.clone()).or_default().http2.push(kept);
                        Ok(Open::Http2(connection))
                    }
                    // Nothing of the request was sent: as if there had been no connection.
                    Ok(Err(error)) => Err(SendError::Connect(error.to_string())),
                    Err(_) => Err(SendError::Connect(format!("no handshake within {limit:?}"))),
                }
            }
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        let old = self.limits.upstream_idle_timeout;
        self.idle.lock().retain(|_, idle| {
            idle.http1.retain(|(_, since)| now - *since < old);
            let (mut kept, mut unused) = (0, 0);
            idle.http2.retain_mut(|(connection, used)| {
                let spared = if connection.streams() > 0 {
                    *used = now;
                    true
                } else {
                    unused += 1;
                    unused <= self.limits.upstream_idle_max && now - *used < old
                };
                // The first is kept for as long as its endpoint keeps it.
                let keep = !connection.is_closed() && (kept == 0 || spared);
                kept += usize::from(keep);
                keep
            });
            !idle.http1.is_empty() || !idle.http2.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
