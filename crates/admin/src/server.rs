//! The accept loop of a small HTTP/1.1 server, and its limits.

use std::{convert::Infallible, future::ready, pin::pin, sync::Arc, time::Duration};

use http::{Request, request::Parts};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use picker::Tasks;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::answer::Answer;

/// Connections of one server; more wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 128;
/// For a request's head to arrive; an idle connection is closed after it as well.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request, and hyper's read buffer with it.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// A connection ends after this, so that a client that does not read its answer goes away.
const CONNECTION_LIFE_MAX: Duration = Duration::from_mins(10);
/// For the answer under way when a connection has to end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Between failures to accept, such as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers a request; its body is ignored.
pub(crate) trait Handler: Fn(&Parts) -> Answer + Send + Sync + 'static {}

impl<F: Fn(&Parts) -> Answer + Send + Sync + 'static> Handler for F {}

/// Serves until `tasks` are stopping.
pub(crate) async fn serve(listener: TcpListener, tasks: Tasks, handler: impl Handler) {
    tokio::select! {
        () = accept(&listener, &tasks, Arc::new(handler)) => {}
        () = tasks.stopping() => {}
    }
}

async fn accept(listener: &TcpListener, tasks: &Tasks, handler: Arc<impl Handler>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let addr = listener.local_addr().ok();
    let mut failing = false;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(?addr, "accepting on a port of the gateway's own again");
                }
                let (handler, stop) = (Arc::clone(&handler), tasks.clone());
                tasks.spawn("admin connection", async move {
                    connection(stream, stop, handler).await;
                    drop(place);
                });
            }
            Err(error) => {
                if std::mem::replace(&mut failing, true) {
                    tracing::debug!(%error, ?addr, "still not accepting");
                } else {
                    tracing::warn!(
                        %error, ?addr,
                        "cannot accept on a port of the gateway's own; raise the limit of open files"
                    );
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, tasks: Tasks, handler: Arc<impl Handler>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (parts, _ignored) = request.into_parts();
        ready(Ok::<_, Infallible>(handler(&parts)))
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // How a client's connection ends is its own business.
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION_LIFE_MAX) => {}
        () = tasks.stopping() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FAREWELL_TIMEOUT, connection).await;
}
