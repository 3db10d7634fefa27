//! Listeners: they come and go with the Gateways; each connection is one task.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use picker::{ListenerSpec, PoolView};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
};

use crate::{
    Carriers, client,
    downstream::{Reached, turn_away},
    head::Peer,
};

/// Connections the kernel may hold before they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after the system refused to hand out a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a listener that could not be bound is tried again.
const REBIND_INTERVAL: Duration = Duration::from_secs(2);
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
        let serve = move |proxy, stream| client::serve(proxy, stream, peer, permit);
        self.carriers.carry(stream, serve);
    }
}
