//! HTTP/2 from clients, which is hyper's.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    pin::{Pin, pin},
    sync::Arc,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Duration;

use super::{HEAD_BYTES_MAX, RequestBody};
use crate::{
    Proxy,
    downstream::{ClientStream, Streams, Watch, keep},
    head::Peer,
};

/// What a stream may hold of an answer its client does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that a client has reset before they were looked at; more end its connection
/// (CVE-2023-44487).
const RESETS_MAX: usize = 20;
/// Streams that were reset because their client broke the protocol; more end its connection
/// (CVE-2025-8671).
const ERRORS_MAX: usize = 64;
/// How often a silent client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection, until it closes or drains. Dropping the future cuts it.
pub(super) async fn serve(proxy: &Proxy, stream: ClientStream, peer: Peer, watch: &Arc<Watch>) {
    let metrics = Arc::clone(proxy.picker().metrics());
    let service = {
        let (proxy, watch, metrics) = (proxy.clone(), Arc::clone(watch), Arc::clone(&metrics));
        service_fn(move |request: http::Request<_>| {
            let active = watch.begin(true, &metrics);
            let (proxy, request) = (proxy.clone(), request.map(RequestBody::Http2));
            async move {
                let response = Box::pin(proxy.serve(request, peer)).await;
                Ok::<_, Infallible>(active.answer(response))
            }
        })
    };
    let connection = builder(proxy).serve_connection(TokioIo::new(stream), service);
    let finish = |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
    let stopping = proxy.connections().stopping();
    if let Some(Err(error)) = keep(pin!(connection), finish, watch, stopping, &metrics).await {
        tracing::debug!(error = %DebugChain(&error), remote = %peer.remote, "connection ended");
        if breaks_protocol(&error) {
            metrics.connections.with_label_values(&["protocol_error"]).inc();
        }
    }
}

fn builder(proxy: &Proxy) -> http2::Builder<Streams> {
    let limits = proxy.limits();
    let mut builder = http2::Builder::new(Streams {
        tasks: proxy.connections().clone(),
        metrics: Arc::clone(proxy.picker().metrics()),
        write_timeout: limits.write_timeout,
    });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(ERRORS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Whether a connection ended because its client does not keep to the protocol.
fn breaks_protocol(error: &(dyn Error + 'static)) -> bool {
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
struct DebugChain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for DebugChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
