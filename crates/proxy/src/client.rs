//! A client's connection, served: HTTP/1.1, or HTTP/2 with prior knowledge, as its first bytes say.
//!
//! - `requests`: one request after another, over our own HTTP/1.1
//! - `http2`: hyper's HTTP/2
//! - `body`: a request's body, over either

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use http1::{Downstream, HeadLimits};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Duration, timeout},
};

use crate::{
    Proxy,
    connections::keep_alive,
    downstream::{ClientStream, Watch, keep},
    head::Peer,
};

mod body;
mod http2;
mod requests;

pub(crate) use body::{BrokenOff, RequestBody};

use requests::{Ended, Http1};

/// What is read of one request's head; [`crate::Limits::header_bytes_max`] is checked below it, so
/// that too large a head gets a full answer.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// What the system may hold of answers that are not on their way yet. It also lets a client that
/// reads slowly show that it reads.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// How long a client may take to hear an answer that it did not wait for, and to stop sending.
const LINGER: Duration = Duration::from_secs(2);
/// What of it is read meanwhile.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How an HTTP/2 connection begins.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client that speaks HTTP/1.1, or may yet. What asks it for something locks it only for that.
pub(crate) type Client = Mutex<Downstream<ClientStream>>;

/// One client connection, until it closes or drains. Dropping the future cuts it.
pub(crate) async fn serve(
    proxy: Proxy,
    stream: TcpStream,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
) {
    prepare(&stream, proxy.limits().write_timeout);
    let metrics = Arc::clone(proxy.picker().metrics());
    let watch = Watch::new(*proxy.limits(), &peer);
    let limits = HeadLimits { bytes_max: HEAD_BYTES_MAX, headers_max: proxy.limits().headers_max };
    let stream = ClientStream::new(stream, Arc::clone(&watch));
    let client = Arc::new(Mutex::new(Downstream::new(stream, limits)));
    let http1 = Http1 { proxy: &proxy, client: &client, watch: &watch, peer };
    let finish = |_: Pin<&mut _>| client.lock().finish();
    let stopping = proxy.connections().stopping();
    let ended = keep(pin!(http1.serve()), finish, &watch, stopping, &metrics).await;
    match ended {
        Some(Ended::Answered) => linger(&client).await,
        Some(Ended::Broken) => {}
        Some(Ended::Http2) => {
            watch.speaks_http2();
            let Some(client) = Arc::into_inner(client) else { return };
            let (stream, begun) = client.into_inner().into_parts();
            Box::pin(http2::serve(&proxy, stream.behind(begun), peer, &watch)).await;
        }
        None => {
            if watch.head_was_late() && http1.refuse_late().await {
                linger(&client).await;
            }
        }
    }
}

/// Hears out a client that goes on sending after its last answer: to close on it would take the
/// answer from it.
async fn linger(client: &Client) {
    let mut left = LINGER_BYTES_MAX;
    let heard = poll_fn(|context| {
        let mut client = client.lock();
        // It may have sent more meanwhile.
        let has_left = client.poll_left(context).is_ready();
        if has_left || !client.is_spoken_to() {
            return Poll::Ready(());
        }
        client.poll_drain(context, &mut left)
    });
    // Whoever has not heard by then does not read.
    let _ = timeout(LINGER, heard).await;
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
