//! Connections to endpoints: kept alive, given up before vLLM closes them, replaced once for free
//! when a kept one breaks before any byte of an answer.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use picker::{AppProtocol, Endpoint, EndpointSpec, Tasks, is_exhausted};
use scheduling::EndpointId;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Duration, Instant, timeout},
};

use crate::{Limits, driver::Driver};

pub(crate) type RequestBody = Full<Bytes>;

/// How long a connection that just finished an answer may take to be ready for the next request.
const READY_WAIT_MAX: Duration = Duration::from_millis(100);
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
    Reset(hyper::Error),
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
    http1: Vec<(Line, Instant)>,
    /// One connection carries every request.
    http2: Option<http2::SendRequest<RequestBody>>,
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
struct Line {
    sender: http1::SendRequest<RequestBody>,
    driver: Driver,
}

impl Line {
    /// Ready when it can carry a request, an error if it never will again.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.driver.poll(context, |context| self.sender.poll_ready(context))
    }
}

enum Sender {
    Http1(Line),
    Http2(http2::SendRequest<RequestBody>),
}

/// The connection an answer is coming over. Dropping it before the answer has ended closes the
/// connection, which is how an endpoint learns that its client has left.
#[derive(Debug)]
pub(crate) struct Lease {
    connections: Arc<Connections>,
    endpoint: EndpointId,
    line: Line,
}

impl Lease {
    /// Polls what comes over the connection.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.line.driver.poll(context, wanted)
    }

    /// The answer has ended: the connection can carry another.
    pub(crate) fn give_back(self) {
        if self.line.sender.is_closed() {
            return;
        }
        let mut idle = self.connections.idle.lock();
        let kept = &mut idle.entry(self.endpoint).or_default().http1;
        if kept.len() < self.connections.limits.upstream_idle_max {
            kept.push((self.line, Instant::now()));
        }
    }
}

/// An endpoint's response head, its body to come, and the connection to give back after it.
pub(crate) type Exchange = (Response<Incoming>, Option<Lease>);

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
        may_repeat: bool,
        request: impl Fn(Version) -> Request<RequestBody>,
    ) -> Result<Exchange, SendError> {
        let spec = &endpoint.spec;
        if let Some(kept) = self.kept(spec).await {
            match self.send_on(kept, spec, &request).await {
                Ok(exchange) => return Ok(exchange),
                Err(error) if error.is_canceled() || (may_repeat && !error.is_parse()) => {}
                Err(error) => return Err(SendError::Reset(error)),
            }
        }
        // Boxed: connecting is rare, and its state would make every request's future larger.
        let fresh = Box::pin(self.connect(spec)).await?;
        self.send_on(fresh, spec, &request).await.map_err(SendError::Reset)
    }

    async fn send_on(
        self: &Arc<Self>,
        sender: Sender,
        spec: &EndpointSpec,
        request: &impl Fn(Version) -> Request<RequestBody>,
    ) -> Result<Exchange, hyper::Error> {
        match sender {
            Sender::Http1(mut line) => {
                let mut sent = pin!(line.sender.send_request(request(Version::HTTP_11)));
                let response = poll_fn(|context| {
                    line.driver.poll(context, |context| sent.as_mut().poll(context))
                });
                let response = response.await?;
                let connections = Arc::clone(self);
                Ok((response, Some(Lease { connections, endpoint: spec.id.clone(), line })))
            }
            Sender::Http2(mut sender) => {
                let sent = sender.send_request(request(Version::HTTP_2)).await;
                if sent.is_err() {
                    self.forget_http2(&spec.id);
                }
                Ok((sent?, None))
            }
        }
    }

    /// A connection that is still good, as far as can be told.
    async fn kept(&self, spec: &EndpointSpec) -> Option<Sender> {
        if spec.protocol == AppProtocol::H2c {
            let kept = self.idle.lock().get(&spec.id).and_then(|idle| idle.http2.clone());
            return kept.filter(|sender| !sender.is_closed()).map(Sender::Http2);
        }
        loop {
            let popped = self.idle.lock().get_mut(&spec.id).and_then(|idle| idle.http1.pop());
            let (mut line, since) = popped?;
            if since.elapsed() >= self.limits.upstream_idle_timeout {
                continue;
            }
            line.driver.catch_up();
            // A look at it is mostly enough, and costs no timer.
            let now = poll_fn(|context| Poll::Ready(line.poll_ready(context))).await;
            let ready = match now {
                Poll::Ready(ready) => ready.is_ok(),
                Poll::Pending => {
                    let soon = timeout(READY_WAIT_MAX, poll_fn(|context| line.poll_ready(context)));
                    matches!(soon.await, Ok(Ok(())))
                }
            };
            if ready {
                return Some(Sender::Http1(line));
            }
        }
    }

    async fn connect(&self, spec: &EndpointSpec) -> Result<Sender, SendError> {
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
        let handshake = self.handshake(spec, TokioIo::new(stream));
        match timeout(limit, handshake).await {
            Ok(Ok(sender)) => Ok(sender),
            // Nothing of the request was sent: as if there had been no connection.
            Ok(Err(error)) => Err(SendError::Connect(error.to_string())),
            Err(_) => Err(SendError::Connect(format!("no handshake within {limit:?}"))),
        }
    }

    async fn handshake(
        &self,
        spec: &EndpointSpec,
        io: TokioIo<TcpStream>,
    ) -> Result<Sender, hyper::Error> {
        match spec.protocol {
            AppProtocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                Ok(Sender::Http1(Line { sender, driver: Driver::new(connection) }))
            }
            AppProtocol::H2c => {
                let (sender, connection) = http2::Builder::new(Executor(self.tasks.clone()))
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_INTERVAL)
                    .handshake(io)
                    .await?;
                self.tasks.spawn("upstream connection", async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "upstream connection ended");
                    }
                });
                self.idle.lock().entry(spec.id.clone()).or_default().http2 = Some(sender.clone());
                Ok(Sender::Http2(sender))
            }
        }
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
