//! A server's life: it accepts connections, and does what a fault asks of the whole process.
//!
//! Faults of single requests are looked up where requests are answered. Here are those that take the port, the
//! connections or the engine away, and the clock of those that end by themselves.

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use super::Shared;
use super::connection::serve_connection;
use super::observe::{Condition, Handle};

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the port is tried when a fault has ended: somebody else may have taken it meanwhile.
const BIND_ATTEMPTS_MAX: u32 = 100;
/// How long to wait between two of them.
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// A server at work. Dropping it ends all of its tasks.
#[derive(Debug)]
pub(super) struct Life {
    shared: Arc<Shared>,
    addr: SocketAddr,
    /// None while a fault closes the port, and until it can be bound again.
    listener: Option<TcpListener>,
    /// Times that was tried in vain.
    bind_attempts: u32,
    places: Arc<Semaphore>,
    connections: JoinSet<()>,
    /// The one task that steps the engine.
    engine: JoinSet<()>,
    conditions: watch::Receiver<Condition>,
    /// The condition last looked at, whose cuts and crashes are done.
    current: Condition,
}

/// What a life consists of.
enum Event {
    Stop,
    /// The fault has changed.
    Changed,
    /// The time of the fault is over.
    Over,
    /// It is time to try the port.
    Rebind,
    Ended(Result<(), JoinError>),
    Accepted(io::Result<TcpStream>, Option<OwnedSemaphorePermit>),
}

impl Life {
    pub(super) fn new(shared: Arc<Shared>, addr: SocketAddr, listener: TcpListener) -> Life {
        let mut conditions = shared.watch.conditions();
        // The server may have been broken before it ran.
        conditions.mark_changed();
        Life {
            shared,
            addr,
            listener: Some(listener),
            bind_attempts: 0,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            connections: JoinSet::new(),
            engine: JoinSet::new(),
            conditions,
            current: Condition::default(),
        }
    }

    /// Serves until `stop` resolves. Dropping the future ends everything at once.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        self.start_engine();
        loop {
            match self.next(stop.as_mut()).await {
                Event::Stop => break,
                Event::Changed => self.obey().await,
                Event::Over => Handle(Arc::clone(&self.shared)).heal(self.current.number),
                Event::Rebind => self.open().await,
                Event::Ended(Ok(())) => {}
                Event::Ended(Err(error)) => {
                    tracing::error!(%error, "a task of the simulated server panicked");
                }
                Event::Accepted(Ok(stream), place) => {
                    let shared = Arc::clone(&self.shared);
                    self.connections.spawn(async move {
                        serve_connection(shared, stream).await;
                        drop(place);
                    });
                }
                Event::Accepted(Err(error), _) => {
                    // Out of file descriptors, most likely: give the others time to end.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.close();
    }

    async fn next(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> Event {
        let accepted = async {
            let Some(listener) = &self.listener else { return pending().await };
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            Event::Accepted(listener.accept().await.map(|(stream, _)| stream), place)
        };
        let over = async {
            let Some(ends) = self.current.ends else { return pending().await };
            tokio::time::sleep_until(ends).await;
        };
        let closed = self.listener.is_none() && !self.current.fault.closes_port();
        let attempts = self.bind_attempts;
        let rebind = async {
            match attempts {
                0 if closed => {}
                1..BIND_ATTEMPTS_MAX if closed => tokio::time::sleep(BIND_PAUSE).await,
                _ => pending().await,
            }
        };
        tokio::select! {
            () = stop => Event::Stop,
            // The sender lives as long as what is shared.
            Ok(()) = self.conditions.changed() => Event::Changed,
            () = over => Event::Over,
            () = rebind => Event::Rebind,
            Some(ended) = self.connections.join_next() => Event::Ended(ended),
            Some(ended) = self.engine.join_next() => Event::Ended(ended),
            accepted = accepted => accepted,
        }
    }

    /// Does what the fault of the moment, and those that came and went since the last look, ask for.
    async fn obey(&mut self) {
        let new = self.conditions.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.current, new);
        self.bind_attempts = 0;
        if self.current.cuts != before.cuts {
            // The port first: who is in its queue is refused, too.
            self.close();
            self.connections.shutdown().await;
        }
        if self.current.crashes != before.crashes {
            self.engine.shutdown().await;
            self.shared.restart();
            self.start_engine();
        }
        self.shared.watch.set_carried_out(&self.current);
    }

    fn start_engine(&mut self) {
        let host = Arc::clone(&self.shared.host);
        self.engine.spawn(async move { host.drive().await });
    }

    fn close(&mut self) {
        self.listener = None;
        self.shared.watch.set_listening(false);
    }

    async fn open(&mut self) {
        match TcpListener::bind(self.addr).await {
            Ok(listener) => {
                self.listener = Some(listener);
                self.shared.watch.set_listening(true);
            }
            Err(error) => {
                self.bind_attempts += 1;
                if self.bind_attempts == BIND_ATTEMPTS_MAX {
                    tracing::error!(%error, addr = %self.addr, "cannot listen again; free the port, then set a fault");
                }
            }
        }
    }
}
