//! The rod: what a gateway built on hyper costs at the least. It passes requests on in turn; it reads no body, counts
//! nothing, waits for nobody.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderValue, Request, Response, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    port: u16,
    #[arg(required = true)]
    to: Vec<u16>,
}

struct Relay {
    to: Vec<u16>,
    turn: AtomicUsize,
    /// Of each port.
    idle: Vec<Mutex<Vec<SendRequest<Incoming>>>>,
}

pub(crate) async fn run(arguments: Arguments) -> io::Result<()> {
    let idle = arguments.to.iter().map(|_| Mutex::default()).collect();
    let relay = Arc::new(Relay { to: arguments.to, turn: AtomicUsize::new(0), idle });
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let relay = Arc::clone(&relay);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let relay = Arc::clone(&relay);
                async move { Ok::<_, Infallible>(relay.pass(request).await) }
            });
            // A client that leaves is no news.
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Relay {
    async fn pass(self: Arc<Self>, mut request: Request<Incoming>) -> Response<RelayBody> {
        let at = self.turn.fetch_add(1, Ordering::Relaxed) % self.to.len();
        let host = HeaderValue::from_str(&format!("127.0.0.1:{}", self.to[at])).expect("a host");
        request.headers_mut().insert(header::HOST, host);
        let mut sender = self.sender(at).await.expect("the mock is there");
        let response = sender.send_request(request).await.expect("the mock answers");
        response.map(|body| RelayBody { body, back: Some((self, at, sender)) })
    }

    async fn sender(&self, at: usize) -> io::Result<SendRequest<Incoming>> {
        loop {
            let kept = self.idle[at].lock().pop();
            let Some(mut sender) = kept else { break };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(("127.0.0.1", self.to[at])).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            client::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// An answer's body; at its end the connection can carry another.
struct RelayBody {
    body: Incoming,
    back: Option<(Arc<Relay>, usize, SendRequest<Incoming>)>,
}

impl http_body::Body for RelayBody {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, hyper::Error>>> {
        let frame = std::pin::Pin::new(&mut self.body).poll_frame(context);
        if self.body.is_end_stream()
            && let Some((relay, at, sender)) = self.back.take()
        {
            relay.idle[at].lock().push(sender);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
