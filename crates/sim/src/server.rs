//! The engine over HTTP: a server that answers as vLLM 0.32 does, byte for byte where a gateway can tell.
//!
//! One task steps the engine, one task serves a connection; all belong to [`Server::run`] and end with it, or with a
//! crash that was asked for. Time is tokio's, so tests that pause it pause the server.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

mod admin;
mod answer;
mod ask;
mod body;
mod config;
mod connection;
mod control;
mod errors;
mod exposition;
mod fault;
mod host;
mod life;
mod models;
mod observe;
mod prompt;
mod serve;
mod wall;

pub use config::SimConfig;
pub(crate) use control::Control;
pub use fault::{FAULT_FORMS, Fault, FaultError, Share};
pub use observe::{Handle, RECENT_BODY_BYTES_MAX, RECENT_MAX, Seen};

use crate::tokens::{Origin, tokenize};
use host::{Host, lock};
use life::Life;
use models::Models;
use observe::Watch;

/// What every request of one server needs.
#[derive(Debug)]
struct Shared {
    config: SimConfig,
    host: Arc<Host>,
    models: Models,
    watch: Watch,
    ids: Mutex<fastrand::Rng>,
}

impl Shared {
    /// Sixteen hexadecimal digits that no other answer has.
    fn fresh_id(&self) -> String {
        format!("{:016x}", lock(&self.ids).u64(..))
    }

    /// Whether a server of this fault has the metric names of V0.
    fn legacy_with(&self, fault: Fault) -> bool {
        self.config.legacy_metrics || fault == Fault::MetricsOld
    }

    /// Everything as when the server was new, but for what tests count. Nobody may be driving the engine.
    fn restart(&self) {
        self.host.restart(self.config.engine());
        self.models.restart(&self.config.loras);
        self.watch.restart();
    }
}

/// A simulated vLLM server, bound and not yet running.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Binds the address; port 0 takes any free one. Connections queue up until [`Server::run`].
    pub async fn bind(config: SimConfig, addr: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let models = Models::new(&config.model, config.profile.max_model_len, &config.loras);
        let host = Arc::new(Host::new(config.engine(), config.legacy_metrics));
        // Servers of one seed give equal texts but not equal ids.
        let ids = fastrand::Rng::with_seed(config.seed ^ (u64::from(addr.port()) << 32));
        let watch = Watch::new();
        let shared = Shared { config, host, models, watch, ids: Mutex::new(ids) };
        Ok(Server { listener, addr, shared: Arc::new(shared) })
    }

    /// Binds any free port of the loopback interface and runs there until the [`Running`] is dropped.
    pub async fn start(config: SimConfig) -> io::Result<Running> {
        Server::start_at(config, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Binds this address and runs there until the [`Running`] is dropped.
    pub async fn start_at(config: SimConfig, addr: SocketAddr) -> io::Result<Running> {
        Ok(Running::new(Server::bind(config, addr).await?))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// To watch and break it.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Serves until `stop` resolves, then closes the port and every connection at once, as a killed server does. A fault
    /// may close the port in between and open the same one again.
    /// Dropping the future does the same.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, addr, shared } = self;
        Life::new(shared, addr, listener).run(stop).await;
    }
}

impl SimConfig {
    /// The text a server of these settings answers a completion's prompt with: the first `tokens` tokens.
    pub fn completion_text(&self, model: &str, prompt: &str, tokens: u32) -> String {
        let model = if model.is_empty() { &self.model } else { model };
        Origin::new(self.seed, model, &tokenize(prompt)).text(tokens)
    }
}

/// A server running in its own task; dropping it kills the server.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    task: JoinSet<()>,
}

impl Running {
    fn new(server: Server) -> Running {
        let (addr, handle) = (server.addr(), server.handle());
        let (stop, stopped) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(server.run(async move {
            // An error means that the sender is gone, which is an order to stop, too.
            let _ = stopped.await;
        }));
        Running { addr, handle, stop: Some(stop), task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// To watch and break it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Kills the server and waits until its port is free. Dropping the future kills it, too.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        while self.task.join_next().await.is_some() {}
    }
}
