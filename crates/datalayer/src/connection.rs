//! One connection to an endpoint.
//!
//! The task that uses a connection also drives it, so dropping it closes its socket at once and no
//! task outlives the endpoint. (HTTP/2 brings tasks of its own, which end with the connection.)

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use picker::{AppProtocol, EndpointSpec, Tasks};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::failure::Failure;

/// For looking up the name, connecting and the handshake together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Longest head of an answer, and what is read at once. Every connection keeps as much between rounds.
const HEAD_BYTES_MAX: usize = 8 * 1024;

pub(crate) struct Connection {
    sender: Sender,
    driver: Driver,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    H2c(http2::SendRequest<Empty<Bytes>>),
}

struct Driver {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl Connection {
    /// Connects within [`CONNECT_TIMEOUT`]. Dropping the future closes what was opened.
    pub(crate) async fn open(spec: &EndpointSpec, tasks: &Tasks) -> Result<Self, Failure> {
        let opened = timeout(CONNECT_TIMEOUT, Self::handshake(spec, tasks)).await;
        opened.unwrap_or(Err(Failure::ConnectTimeout(CONNECT_TIMEOUT)))
    }

    async fn handshake(spec: &EndpointSpec, tasks: &Tasks) -> Result<Self, Failure> {
        let io = TokioIo::new(connect(spec).await?);
        let path = "the handshake";
        let unanswered = |error| Failure::Unanswered { path, error };
        let (sender, future): (_, Pin<Box<dyn Future<Output = ()> + Send>>) = match spec.protocol {
            AppProtocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.read_buf_exact_size(Some(HEAD_BYTES_MAX));
                let (sender, driver) = builder.handshake(io).await.map_err(unanswered)?;
                // Its error is also the request's, where it matters.
                (Sender::Http1(sender), Box::pin(async move { drop(driver.await) }))
            }
            AppProtocol::H2c => {
                let executor = Executor(tasks.clone());
                let (sender, driver) = http2::handshake(executor, io).await.map_err(unanswered)?;
                (Sender::H2c(sender), Box::pin(async move { drop(driver.await) }))
            }
        };
        Ok(Self { sender, driver: Driver { future, ended: false } })
    }

    /// Gets a path into `body`, at most `body_bytes_max` of it. Dropping the future midway leaves the
    /// connection unfit for more, so it should be dropped with it; so it is after a failure.
    pub(crate) async fn get(
        &mut self,
        authority: &str,
        path: &'static str,
        body: &mut Vec<u8>,
        body_bytes_max: usize,
    ) -> Result<StatusCode, Failure> {
        let Self { sender, driver } = self;
        let exchange = async {
            let answer = sender.send(authority, path).await;
            let answer = answer.map_err(|error| Failure::Unanswered { path, error })?;
            let status = answer.status();
            collect(answer.into_body(), path, body, body_bytes_max).await?;
            Ok(status)
        };
        driver.run_during(exchange).await
    }

    /// Minds the connection while waiting for something else: it notices the peer's close.
    pub(crate) async fn idle_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.driver.run_during(work).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        let sender = match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::H2c(sender) => sender.is_closed(),
        };
        sender || self.driver.ended
    }
}

impl Sender {
    async fn send(
        &mut self,
        authority: &str,
        path: &'static str,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let mut request = Request::new(Empty::new());
        match self {
            Self::Http1(sender) => {
                *request.uri_mut() = http::Uri::from_static(path);
                if let Ok(host) = authority.parse() {
                    request.headers_mut().insert(header::HOST, host);
                }
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::H2c(sender) => {
                let uri = http::Uri::builder().scheme("http").authority(authority);
                *request.uri_mut() = uri.path_and_query(path).build().unwrap_or_default();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

impl Driver {
    async fn run_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            // The connection first: what it delivers with its last breath still reaches the work.
            if !self.ended && self.future.as_mut().poll(context).is_ready() {
                self.ended = true;
            }
            work.as_mut().poll(context)
        })
        .await
    }
}

async fn connect(spec: &EndpointSpec) -> Result<TcpStream, Failure> {
    let addresses = lookup_host((&*spec.host, spec.port)).await.map_err(Failure::Connect)?;
    let mut failure = Failure::NoAddress;
    for address in addresses.take(ADDRESSES_MAX) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(Failure::Connect)?;
                return Ok(stream);
            }
            Err(error) => failure = Failure::Connect(error),
        }
    }
    Err(failure)
}

async fn collect(
    mut answer: Incoming,
    path: &'static str,
    body: &mut Vec<u8>,
    body_bytes_max: usize,
) -> Result<(), Failure> {
    let too_large = || Failure::TooLarge { path, max: body_bytes_max };
    body.clear();
    if answer.size_hint().lower() > body_bytes_max as u64 {
        return Err(too_large());
    }
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(|error| Failure::BrokenOff { path, error })?;
        let Some(data) = frame.data_ref() else { continue };
        if body.len() + data.len() > body_bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(data);
    }
    Ok(())
}

/// Starts HTTP/2's own tasks as tasks of ours.
#[derive(Clone)]
struct Executor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("scrape connection", future);
    }
}
