//! Several equal servers on consecutive ports, and one address to break them from: what `tokenweir sim --replicas` and
//! `tokenweir demo` run.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::server::{Control, Handle, Server, SimConfig};

/// Servers one process runs at most.
pub const REPLICAS_MAX: u16 = 1024;

/// Why a fleet does not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// An address cannot be bound.
    #[error(
        "cannot listen on {addr}: {source}; choose another address, or stop what listens there"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The ports run out, or none or too many servers are asked for.
    #[error(
        "{replicas} servers do not fit from {first} on: ports end at 65535, and there may be 1 to {REPLICAS_MAX} servers"
    )]
    Count {
        /// The first address.
        first: SocketAddr,
        /// How many were asked for.
        replicas: u16,
    },
}

/// Servers bound and not yet running.
#[derive(Debug)]
pub struct Fleet {
    servers: Vec<Server>,
    control: Option<Control>,
}

impl Fleet {
    /// Binds `replicas` ports from the one of `first` on; port 0 takes any free ones. All or none.
    pub async fn bind(
        config: SimConfig,
        first: SocketAddr,
        replicas: u16,
    ) -> Result<Fleet, FleetError> {
        let last = first.port().checked_add(replicas.saturating_sub(1));
        if replicas == 0 || replicas > REPLICAS_MAX || last.is_none() {
            return Err(FleetError::Count { first, replicas });
        }
        let mut servers = Vec::with_capacity(replicas.into());
        for index in 0..replicas {
            let port = if first.port() == 0 { 0 } else { first.port() + index };
            let addr = SocketAddr::new(first.ip(), port);
            let server = Server::bind(config.clone(), addr).await;
            servers.push(server.map_err(|source| FleetError::Bind { addr, source })?);
        }
        Ok(Fleet { servers, control: None })
    }

    /// Adds an address at which all servers can be watched and broken over HTTP; port 0 takes any free one.
    pub async fn controlled_at(self, addr: SocketAddr) -> Result<Fleet, FleetError> {
        let servers = self.addrs().into_iter().zip(self.handles()).collect();
        let control = Control::bind(addr, servers).await;
        let control = control.map_err(|source| FleetError::Bind { addr, source })?;
        Ok(Fleet { control: Some(control), ..self })
    }

    /// The address of [`Fleet::controlled_at`].
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(Control::addr)
    }

    /// Where they listen.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(Server::addr).collect()
    }

    /// To watch and break them.
    pub fn handles(&self) -> Vec<Handle> {
        self.servers.iter().map(Server::handle).collect()
    }

    /// Serves until `stop` resolves, then ends all at once. Dropping the future does the same.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for server in self.servers {
            let mut stopped = stopped.clone();
            tasks.spawn(server.run(async move {
                // An error means that the sender is gone, which is an order to stop, too.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            }));
        }
        if let Some(control) = self.control {
            let mut stopped = stopped.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = control.run() => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
            });
        }
        stop.await;
        stopping.send_replace(true);
        while tasks.join_next().await.is_some() {}
    }
}

/// Binds a fleet and serves until `stop` resolves. Dropping the future ends all servers.
pub async fn run_fleet(
    config: SimConfig,
    first: SocketAddr,
    replicas: u16,
    stop: impl Future<Output = ()>,
) -> Result<(), FleetError> {
    Fleet::bind(config, first, replicas).await?.run(stop).await;
    Ok(())
}
