//! One connection: HTTP/1.1 as uvicorn speaks it, closed after five idle seconds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::observe::{Connected, Handle};
use super::serve::{Afterwards, serve};
use super::{Shared, body::Cut};

/// How long uvicorn keeps an idle connection that has been used: `VLLM_HTTP_TIMEOUT_KEEP_ALIVE`.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Whether anything is going on on a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    open: AtomicUsize,
    served: AtomicUsize,
    changed: Notify,
}

/// A request on a connection, up to the last byte of its answer.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Busy {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.changed.notify_one();
        Busy(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.served.fetch_add(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

impl Activity {
    /// Waits until the connection, having been used, has been idle for [`KEEP_ALIVE`].
    async fn idle(&self) {
        loop {
            let used = self.served.load(Ordering::Relaxed) > 0;
            if used && self.open.load(Ordering::Relaxed) == 0 {
                tokio::select! {
                    () = tokio::time::sleep(KEEP_ALIVE) => return,
                    () = self.changed.notified() => {}
                }
            } else {
                self.changed.notified().await;
            }
        }
    }
}

/// Serves a connection to its end. Dropping the future closes it at once, in the middle of an answer if need be.
pub(super) async fn serve_connection(shared: Arc<Shared>, stream: TcpStream) {
    let afterwards = OnceLock::new();
    serve_requests(&shared, stream, &afterwards).await;
    // Only now is the answer to whoever set it out.
    if let Some(Afterwards(fault)) = afterwards.into_inner() {
        Handle(shared).set_fault(fault);
    }
}

async fn serve_requests(
    shared: &Arc<Shared>,
    stream: TcpStream,
    afterwards: &OnceLock<Afterwards>,
) {
    let _connected = Connected::new(shared);
    // One event a packet, as uvicorn does.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let (shared, busy) = (Arc::clone(shared), Busy::new(&activity));
        async move {
            let response = serve(&shared, request).await?;
            if let Some(fault) = response.extensions().get::<Afterwards>() {
                // Such a response is the connection's last.
                let _ = afterwards.set(*fault);
            }
            Ok::<_, Cut>(response.map(|body| body.holding(busy)))
        }
    });
    let connection = http1::Builder::new()
        // The five seconds above are uvicorn's only limit.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::pin(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            return;
        }
        () = activity.idle() => connection.as_mut().graceful_shutdown(),
    }
    // Idle, so this is over at once, unless a request has just come.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}
