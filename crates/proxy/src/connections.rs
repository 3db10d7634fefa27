//! Connections to endpoints: kept alive, given up before vLLM closes them, replaced once for free
//! when a kept one breaks before any byte of an answer.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use picker::{AppProtocol, Endpoint, EndpointSpec, Tasks, is_exhausted};
use scheduling::EndpointId;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Duration, Instant, timeout},
};

use crate::{Limits, head::Outgoing};

/// How often connections that lay idle for too long are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often an HTTP/2 endpoint is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// When a silent peer is asked whether it is still there, and how often before it is given up.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Starts HTTP/2's own tasks as tasks of ours.
#[derive(Clone, Debug)]
pub(crate) struct Executor(pub(crate) Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("http2 stream", future);
    }
}

/// A peer that vanished without a word, as in a power cut, is noticed. Where the system will not
/// probe, other limits hold.
pub(crate) fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "TCP keepalive could not be set");
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
    /// The endpoint has seen nothing of the request.
    fn is_unsent(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, http1::Error::Unsent),
            Self::Http2(error) => error.is_canceled(),
        }
    }

    /// The endpoint has answered, only badly.
    fn is_answer(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, http1::Error::Malformed(_)),
            Self::Http2(error) => error.is_parse(),
        }
    }
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
    /// One connection carries every request.
    http2: Option<http2::SendRequest<Full<Bytes>>>,
}

enum Open {
    Http1(Box<http1::Connection>),
    Http2(http2::SendRequest<Full<Bytes>>),
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
    Http2(Incoming),
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
            Self::Http2(body) => ready!(Pin::new(body).poll_frame(context)).map(|frame| Ok(frame?)),
        };
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { connection, .. } => connection.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { connection, .. } => connection.size_hint(),
            Self::Http2(body) => body.size_hint(),
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
                Err(error) if request.head.may_repeat() && !error.is_answer() => {}
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
            Open::Http2(mut sender) => {
                let sent = sender.send_request(request.http2()).await;
                if sent.is_err() {
                    self.forget_http2(&spec.id);
                }
                let (parts, body) = sent?.into_parts();
                Ok((Response::from_parts(parts, ()), AnswerBody::Http2(body)))
            }
        }
    }

    /// A connection that is still good, as far as can be told.
    async fn kept(&self, spec: &EndpointSpec) -> Option<Open> {
        if spec.protocol == AppProtocol::H2c {
            let kept = self.idle.lock().get(&spec.id).and_then(|idle| idle.http2.clone());
            return kept.filter(|sender| !sender.is_closed()).map(Open::Http2);
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
        keep_alive(&stream);
        match spec.protocol {
            AppProtocol::Http1 => Ok(Open::Http1(Box::new(http1::Connection::new(stream)))),
            AppProtocol::H2c => {
                match timeout(limit, self.handshake(spec, stream)).await {
                    Ok(Ok(sender)) => Ok(Open::Http2(sender)),
                    // Nothing of the request was sent: as if there had been no connection.
                    Ok(Err(error)) => Err(SendError::Connect(error.to_string())),
                    Err(_) => Err(SendError::Connect(format!("no handshake within {limit:?}"))),
                }
            }
        }
    }

    async fn handshake(
        &self,
        spec: &EndpointSpec,
        stream: TcpStream,
    ) -> Result<http2::SendRequest<Full<Bytes>>, hyper::Error> {
        let (sender, connection) = http2::Builder::new(Executor(self.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .handshake(TokioIo::new(stream))
            .await?;
        self.tasks.spawn("upstream connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        self.idle.lock().entry(spec.id.clone()).or_default().http2 = Some(sender.clone());
        Ok(sender)
    }

    fn forget_http2(&self, endpoint: &EndpointId) {
        if let Some(idle) = self.idle.lock().get_mut(endpoint) {
            idle.http2.take_if(|sender| sender.is_closed());
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        let old = self.limits.upstream_idle_timeout;
        self.idle.lock().retain(|_, idle| {
            idle.http1.retain(|(_, since)| now - *since < old);
            idle.http2.take_if(|sender| sender.is_closed());
            !idle.http1.is_empty() || idle.http2.is_some()
        });
    }
}
