//! An HTTP/2 connection to an endpoint, which many requests share.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, Connection, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use picker::Tasks;
use tokio::{net::TcpStream, time::Duration};

use super::Executor;

/// Streams of one connection; an endpoint may allow fewer.
const STREAMS_MAX: usize = 100;
/// What an endpoint may send of an answer beyond what was taken of it. So much times the streams may
/// lie here, if nobody reads.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same of all answers of a connection: as much as there can be, so that those nobody reads do
/// not hold up the others. (And a connection whose small frames, such as tokens, outweigh half of
/// it untaken would be closed.)
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// How often an endpoint is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Whoever holds one of these has a place for a stream on it, but for the one that keeps it for others.
#[derive(Debug)]
pub(crate) struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
}

type Polled = Connection<TokioIo<TcpStream>, Full<Bytes>, Executor>;

/// What its task polls, and who sends asks for the endpoint's limit; nothing once it has ended.
#[derive(Clone, Debug)]
struct Driver(Arc<Mutex<Option<Polled>>>);

impl Http2 {
    /// Dropping the future closes the connection.
    pub(super) async fn handshake(
        stream: TcpStream,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, hyper::Error> {
        let (sender, connection) = Builder::new(Executor(tasks.clone()))
            .timer(TokioTimer::new())
            // Until the endpoint has told its limit.
            .initial_max_send_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = Driver(Arc::new(Mutex::new(Some(connection))));
        let task = driver.clone();
        tasks.spawn("upstream connection", async move {
            if let Err(error) = poll_fn(|context| task.poll(context)).await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Arc::new(Self { sender, driver }))
    }

    /// Sends a request and waits for the response head. Dropping the future, or the body, resets the
    /// stream.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        self.sender.clone().send_request(request).await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// How many are under way, as who keeps it sees it.
    pub(super) fn streams(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }

    /// Another one would be sent at once, and not wait in a queue that nobody sees.
    pub(super) fn has_room(self: &Arc<Self>) -> bool {
        !self.is_closed() && self.streams() < self.driver.streams_max()
    }
}

impl Driver {
    fn poll(&self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let mut driver = self.0.lock();
        let Some(connection) = &mut *driver else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(connection).poll(context));
        // Who sends is to see it closed.
        *driver = None;
        Poll::Ready(ended)
    }

    fn streams_max(&self) -> usize {
        let allowed = self.0.lock().as_ref().map_or(0, Connection::current_max_send_streams);
        allowed.min(STREAMS_MAX)
    }
}
