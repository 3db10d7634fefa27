//! Listeners: they come and go with the Gateways; each connection is one task.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use picker::{ListenerSpec, PoolView};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
};

use crate::{
    Carriers, Proxy,
    connections::keep_alive,
    downstream::{ClientStream, Reached, Streams, Watch, keep, turn_away},
    head::Peer,
};

/// Connections the kernel may hold before they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after the system refused to hand out a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a listener that could not be bound is tried again.
const REBIND_INTERVAL: Duration = Duration::from_secs(2);
/// What hyper may buffer of one request's head; [`crate::Limits::header_bytes_max`] is checked
/// below it, so that too large a head gets a full answer.
const HEAD_BUFFER_BYTES: usize = 256 * 1024;
/// So many headers hyper reads by itself. Where it is told a number, it makes room for them with every request; a head with
/// more than either is refused unread.
const USUAL_HEADERS_MAX: usize = 100;
/// What an HTTP/2 stream may hold of an answer its client does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// What the system may hold of answers that are not on their way yet. It also lets a client that
/// reads slowly show that it reads.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// Streams that an HTTP/2 client has reset before they were looked at; more end its connection
/// (CVE-2023-44487).
const HTTP2_RESETS_MAX: usize = 20;
/// Streams that were reset because their client broke the protocol; more end its connection
/// (CVE-2025-8671).
const HTTP2_ERRORS_MAX: usize = 64;
/// How often a silent HTTP/2 client is asked whether it is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A port could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {addr} (for {gateways}): {source}; stop what uses the port, or change it"
)]
pub struct BindError {
    pub addr: SocketAddr,
    pub gateways: String,
    pub source: io::Error,
}

/// The ports being listened on.
#[derive(Debug)]
pub struct Listeners {
    carriers: Carriers,
    bind: IpAddr,
    open: BTreeMap<u16, Arc<Notify>>,
    permits: Arc<Semaphore>,
    ports: Arc<OpenPorts>,
}

/// The ports being listened on right now, for whoever wants to know whether all that should be are.
#[derive(Debug, Default)]
pub struct OpenPorts(Mutex<BTreeSet<u16>>);

impl OpenPorts {
    /// Whether every port that is asked for is being listened on.
    pub fn cover(&self, wanted: &[ListenerSpec]) -> bool {
        let open = self.0.lock();
        wanted.iter().all(|spec| open.contains(&spec.port))
    }
}

impl Listeners {
    pub fn new(carriers: impl Into<Carriers>, bind: IpAddr) -> Self {
        let carriers = carriers.into();
        let permits = Arc::new(Semaphore::new(carriers.proxy().limits().connections_max));
        Self { carriers, bind, open: BTreeMap::new(), permits, ports: Arc::default() }
    }

    /// Listens on what is asked for and on nothing else. Every port that cannot be had is
    /// reported; the others are served. Connections of a closed port finish their requests.
    pub fn apply(&mut self, wanted: &[ListenerSpec]) -> Vec<BindError> {
        let closed: Vec<u16> = self
            .open
            .keys()
            .copied()
            .filter(|port| !wanted.iter().any(|spec| spec.port == *port))
            .collect();
        for port in closed {
            if let Some(close) = self.open.remove(&port) {
                tracing::info!(port, "listener closed");
                close.notify_waiters();
                close.notify_one();
            }
        }
        let missing: Vec<&ListenerSpec> =
            wanted.iter().filter(|spec| !self.open.contains_key(&spec.port)).collect();
        let errors: Vec<BindError> =
            missing.into_iter().filter_map(|spec| self.open_one(spec).err()).collect();
        *self.ports.0.lock() = self.open.keys().copied().collect();
        errors
    }

    /// The ports being listened on; kept up to date.
    pub fn ports(&self) -> Arc<OpenPorts> {
        Arc::clone(&self.ports)
    }

    fn open_one(&mut self, spec: &ListenerSpec) -> Result<(), BindError> {
        let addr = SocketAddr::new(self.bind, spec.port);
        let gateways = spec.gateways.join(", ");
        let listener = bind(addr).map_err(|source| BindError { addr, gateways, source })?;
        tracing::info!(%addr, gateways = spec.gateways.join(","), "listening");
        let close = Arc::new(Notify::new());
        let accept = Accept {
            carriers: self.carriers.clone(),
            port: spec.port,
            permits: Arc::clone(&self.permits),
            close: Arc::clone(&close),
        };
        self.carriers.proxy().connections().spawn("listener", accept.run(listener));
        self.open.insert(spec.port, close);
        Ok(())
    }

    /// Follows the desired state until the proxy drains. Ports that cannot be had are tried again.
    /// Dropping the future leaves the open listeners open.
    pub async fn follow(mut self, view: PoolView, mut changes: watch::Receiver<u64>) {
        let mut stopping = std::pin::pin!(self.carriers.proxy().connections().stopping());
        let mut reported = Vec::new();
        loop {
            let errors: Vec<String> =
                self.apply(&view.desired().listeners).iter().map(ToString::to_string).collect();
            if errors != reported {
                for error in &errors {
                    tracing::error!("{error}");
                }
            }
            let retry = !errors.is_empty();
            reported = errors;
            tokio::select! {
                biased;
                () = &mut stopping => return,
                applied = changes.changed() => if applied.is_err() { return },
                () = tokio::time::sleep(REBIND_INTERVAL), if retry => {}
            }
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether accepting failed because of the one connection that was to be accepted.
fn is_its_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}

struct Accept {
    carriers: Carriers,
    port: u16,
    permits: Arc<Semaphore>,
    close: Arc<Notify>,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        let mut stopping = std::pin::pin!(self.carriers.proxy().connections().stopping());
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopping => return,
                () = self.close.notified() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(port = self.port, "connections are accepted again");
                    }
                    self.admit(stream, remote);
                }
                // One connection that ended before it was taken says nothing of the next.
                Err(error) if is_its_own(&error) => {}
                Err(error) => {
                    Reached::OpenFiles.count(self.carriers.proxy().picker().metrics());
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(
                            %error, port = self.port,
                            "connections cannot be accepted; raise the limit of open files"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, remote: SocketAddr) {
        let connections = &self.carriers.proxy().picker().metrics().connections;
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            connections.with_label_values(&["refused"]).inc();
            Reached::Connections.count(self.carriers.proxy().picker().metrics());
            turn_away(&stream);
            return;
        };
        connections.with_label_values(&["accepted"]).inc();
        let local = stream.local_addr().unwrap_or(remote);
        let peer = Peer { remote, local, port: self.port };
        let serve = move |proxy, stream| serve_connection(proxy, stream, peer, permit);
        self.carriers.carry(stream, serve);
    }
}

/// One client connection, HTTP/1.1 or HTTP/2 with prior knowledge, until it closes or drains.
async fn serve_connection(
    proxy: Proxy,
    stream: TcpStream,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
) {
    prepare(&stream, proxy.limits().write_timeout);
    let metrics = Arc::clone(proxy.picker().metrics());
    let watch = Watch::new(*proxy.limits(), &peer);
    let service = {
        let (proxy, watch, metrics) = (proxy.clone(), Arc::clone(&watch), Arc::clone(&metrics));
        service_fn(move |request| {
            let active = watch.begin(&request, &metrics);
            let (proxy, metrics) = (proxy.clone(), Arc::clone(&metrics));
            async move {
                let response = Box::pin(proxy.serve(request, peer)).await;
                Ok::<_, Infallible>(active.answer(response, &metrics))
            }
        })
    };
    let builder = builder(&proxy);
    let stream = ClientStream::new(stream, proxy.clone(), peer, Arc::clone(&watch));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let finish =
        |connection: Pin<&mut auto::Connection<'_, _, _, _>>| connection.graceful_shutdown();
    let stopping = proxy.connections().stopping();
    if let Some(Err(error)) = keep(connection, finish, &watch, stopping, &metrics).await {
        tracing::debug!(error = %DebugChain(&*error), remote = %peer.remote, "connection ended");
        if breaks_protocol(&*error) {
            metrics.connections.with_label_values(&["protocol_error"]).inc();
        }
    }
}

/// Settings of a client's socket. Where the system refuses one, other limits hold.
fn prepare(stream: &TcpStream, write_timeout: Duration) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT could not be set");
    }
    // An HTTP/2 client that takes nothing has up to twice the time.
    keep_alive(stream, write_timeout.saturating_mul(2));
}

fn builder(proxy: &Proxy) -> auto::Builder<Streams> {
    let limits = proxy.limits();
    let streams = Streams {
        tasks: proxy.connections().clone(),
        metrics: Arc::clone(proxy.picker().metrics()),
        write_timeout: limits.write_timeout,
    };
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        // The time for a head is the connection's keeper's business.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BUFFER_BYTES);
    if limits.headers_max > USUAL_HEADERS_MAX {
        builder.http1().max_headers(limits.headers_max);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_pending_accept_reset_streams(HTTP2_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_ERRORS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BUFFER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}

/// Whether an HTTP/2 connection ended because its client does not keep to the protocol. What
/// HTTP/1.1 has of that was answered, and is counted as a refusal.
fn breaks_protocol(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_library();
        }
        cause = error.source();
    }
    false
}

/// An error and what caused it, on one line.
struct DebugChain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for DebugChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
