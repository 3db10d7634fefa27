//! Connections to the server, used again while they live.
//!
//! A connection has no task of its own: who uses it polls it along with the exchange, so that no byte changes tasks.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use openai::Operation;
use tokio::net::TcpStream;

use super::{Plan, Target};

/// Connections kept for use; beyond, they are closed after use.
const IDLE_MAX: usize = 4096;

/// A request, ready to be sent.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) body: Bytes,
    /// It is to be measured; otherwise it warms the server up.
    pub(super) counted: bool,
    /// As drawn, for servers that do not count.
    pub(super) prompt_tokens: u32,
}

/// Sends requests of one plan.
#[derive(Debug)]
pub(super) struct Client {
    addrs: Vec<std::net::SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
    pub(super) operation: Operation,
    pub(super) stream: bool,
    pub(super) timeout: Duration,
    /// Most recently used last.
    idle: Mutex<Vec<Link>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    Connect(io::Error),
    Http(hyper::Error),
}

impl Client {
    pub(super) fn new(plan: &Plan) -> Client {
        Client::of(&plan.target, plan.operation, plan.stream, plan.timeout)
    }

    pub(super) fn of(
        target: &Target,
        operation: Operation,
        stream: bool,
        timeout: Duration,
    ) -> Client {
        let path = match operation {
            Operation::ChatCompletions => "/v1/chat/completions",
            _ => "/v1/completions",
        };
        Client {
            addrs: target.addrs.clone(),
            headers: target.headers.clone(),
            uri: uri(target, path),
            operation,
            stream,
            timeout,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Sends a request, on a connection that was used before if there is one. The server may just have closed it; so,
    /// unanswered there, the request goes out once more on a connection of its own. Dropping the future closes the
    /// connection.
    pub(super) async fn send(&self, body: Bytes) -> Result<(Link, Response<Incoming>), Unanswered> {
        if let Some(mut link) = self.pop()
            && let Ok(response) = link.send(self.request(body.clone())).await
        {
            return Ok((link, response));
        }
        let mut link = Link::open(&self.addrs).await?;
        let response = link.send(self.request(body)).await.map_err(Unanswered::Http)?;
        Ok((link, response))
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn keep(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && link.is_open() {
            idle.push(link);
        }
    }

    fn pop(&self) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        request(Method::POST, self.uri.clone(), self.headers.clone(), body)
    }
}

pub(super) fn uri(target: &Target, path: &str) -> Uri {
    // Prefix and path come from URLs that were parsed.
    format!("{}{path}", target.prefix).parse().unwrap_or_default()
}

pub(super) fn request(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

type Connection = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// A connection and the sender into it.
#[derive(Debug)]
pub(super) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    /// What moves its bytes; none once it is closed.
    mover: Option<Pin<Box<Connection>>>,
}

impl Link {
    /// Dropping the future gives up.
    pub(super) async fn open(addrs: &[std::net::SocketAddr]) -> Result<Link, Unanswered> {
        let stream = TcpStream::connect(addrs).await.map_err(Unanswered::Connect)?;
        // Without it small writes may wait; requests are correct either way.
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(Unanswered::Http)?;
        Ok(Link { sender, mover: Some(Box::pin(connection)) })
    }

    fn is_open(&self) -> bool {
        self.mover.is_some() && !self.sender.is_closed()
    }

    /// Sends a request and waits for the answer's head. Dropping the future breaks the connection.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        let Link { sender, mover } = self;
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        moving(mover, exchange).await
    }

    /// Waits for what needs the connection's bytes, such as an answer's body. Dropping the future loses nothing.
    pub(super) async fn along<T>(&mut self, what: impl Future<Output = T>) -> T {
        moving(&mut self.mover, what).await
    }
}

async fn moving<T>(mover: &mut Option<Pin<Box<Connection>>>, what: impl Future<Output = T>) -> T {
    let mut what = pin!(what);
    poll_fn(|cx| {
        if let Some(connection) = mover
            && connection.as_mut().poll(cx).is_ready()
        {
            // How it ended is told to whoever waits for something from it.
            *mover = None;
        }
        what.as_mut().poll(cx)
    })
    .await
}
