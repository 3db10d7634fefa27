//! The threads that carry: a client's connection, its requests and their way to the endpoints stay on one thread.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{net::TcpStream, runtime::Handle};

use crate::Proxy;

/// The proxy on each of its threads. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Carriers(Arc<[Carrier]>);

#[derive(Debug)]
struct Carrier {
    /// Absent for the thread that listens.
    runtime: Option<Handle>,
    proxy: Proxy,
    /// Connections it has.
    connections: AtomicUsize,
}

impl From<Proxy> for Carriers {
    /// One thread, or one runtime of several, does it all.
    fn from(proxy: Proxy) -> Self {
        Self::new(&proxy, &[])
    }
}

impl Carriers {
    /// `proxy` on the thread that listens, and beside it on these runtimes, each of which is driven by one thread. Every
    /// thread has connections of its own to the endpoints.
    pub fn new(proxy: &Proxy, others: &[Handle]) -> Self {
        let threads = others.len() + 1;
        // It has its share of idle connections, too.
        let first = if threads > 1 { proxy.beside(threads) } else { proxy.clone() };
        let others = others.iter().map(|runtime| {
            let _there = runtime.enter();
            (Some(runtime.clone()), proxy.beside(threads))
        });
        let all: Vec<_> = others.collect();
        let all = std::iter::once((None, first)).chain(all);
        let carrier =
            |(runtime, proxy)| Carrier { runtime, proxy, connections: AtomicUsize::new(0) };
        Self(all.map(carrier).collect())
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        &self.0[0].proxy
    }

    /// Serves a connection on the thread that has the fewest.
    pub(crate) fn carry<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(Proxy, TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let load = |index: &usize| self.0[*index].connections.load(Ordering::Relaxed);
        let index = (0..self.0.len()).min_by_key(load).unwrap_or(0);
        let place = Place::take(self, index);
        let Carrier { runtime, proxy, .. } = &self.0[index];
        let (proxy, tasks) = (proxy.clone(), proxy.connections());
        let Some(runtime) = runtime else {
            return tasks.spawn("client connection", async move {
                let _place = place;
                serve(proxy, stream).await;
            });
        };
        // It is to be woken by the thread that serves it.
        match stream.into_std() {
            Ok(stream) => tasks.spawn_on(runtime, "client connection", async move {
                let _place = place;
                match TcpStream::from_std(stream) {
                    Ok(stream) => serve(proxy, stream).await,
                    Err(error) => lost(&error),
                }
            }),
            Err(error) => lost(&error),
        }
    }
}

fn lost(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be handed to its thread");
}

/// A connection, counted where it is.
struct Place {
    carriers: Carriers,
    index: usize,
}

impl Place {
    fn take(carriers: &Carriers, index: usize) -> Self {
        carriers.0[index].connections.fetch_add(1, Ordering::Relaxed);
        Self { carriers: carriers.clone(), index }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.carriers.0[self.index].connections.fetch_sub(1, Ordering::Relaxed);
    }
}
