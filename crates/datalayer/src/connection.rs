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
use http::{Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use picker::{AppProtocol, EndpointSpec, Tasks};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::failure::{Cause, Failure};

/// For looking up the name, connecting and the handshake together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

pub(crate) enum Connection {
    /// Holds nothing while it is idle.
    Http1(http1::Connection),
    H2c(Box<H2c>),
}

pub(crate) struct H2c {
    sender: http2::SendRequest<Empty<Bytes>>,
    driver: Driver,
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
        let stream = connect(spec).await?;
        match spec.protocol {
            AppProtocol::Http1 => Ok(Self::Http1(http1::Connection::new(stream))),
            AppProtocol::H2c => {
                let shaken = http2::handshake(Executor(tasks.clone()), TokioIo::new(stream)).await;
                let (sender, driver) = shaken.map_err(|error| Failure::Unanswered {
                    path: "the handshake",
                    error: error.into(),
                })?;
                // Its error is also the request's, where it matters.
                let future = Box::pin(async move { drop(driver.await) });
                let driver = Driver { future, ended: false };
                Ok(Self::H2c(Box::new(H2c { sender, driver })))
            }
        }
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
        match self {
            Self::Http1(connection) => {
                let unanswered =
                    |error: http1::Error| Failure::Unanswered { path, error: error.into() };
                let head = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
                let sent = connection.send(&Method::GET, head.into_bytes(), Bytes::new());
                let status = sent.await.map_err(unanswered)?.status();
                collect(connection, path, body, body_bytes_max).await?;
                Ok(status)
            }
            Self::H2c(h2c) => h2c.get(authority, path, body, body_bytes_max).await,
        }
    }

    /// Minds the connection while waiting for something else: it notices the peer's close.
    pub(crate) async fn idle_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        match self {
            Self::Http1(connection) => {
                let mut work = pin!(work);
                poll_fn(|context| {
                    // That it has become unfit is seen by who asks next.
                    let _unfit = connection.poll_unfit(context);
                    work.as_mut().poll(context)
                })
                .await
            }
            Self::H2c(h2c) => h2c.driver.run_during(work).await,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(connection) => !connection.is_reusable(),
            Self::H2c(h2c) => h2c.sender.is_closed() || h2c.driver.ended,
        }
    }
}

impl H2c {
    async fn get(
        &mut self,
        authority: &str,
        path: &'static str,
        body: &mut Vec<u8>,
        body_bytes_max: usize,
    ) -> Result<StatusCode, Failure> {
        let Self { sender, driver } = self;
        let unanswered = |error: hyper::Error| Failure::Unanswered { path, error: error.into() };
        let exchange = async {
            let uri = http::Uri::builder().scheme("http").authority(authority);
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = uri.path_and_query(path).build().unwrap_or_default();
            sender.ready().await.map_err(unanswered)?;
            let answer = sender.send_request(request).await.map_err(unanswered)?;
            let status = answer.status();
            collect(&mut answer.into_body(), path, body, body_bytes_max).await?;
            Ok(status)
        };
        driver.run_during(exchange).await
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

async fn collect<B>(
    answer: &mut B,
    path: &'static str,
    body: &mut Vec<u8>,
    body_bytes_max: usize,
) -> Result<(), Failure>
where
    B: Body<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    let too_large = || Failure::TooLarge { path, max: body_bytes_max };
    body.clear();
    if answer.size_hint().lower() > body_bytes_max as u64 {
        return Err(too_large());
    }
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(|error| Failure::BrokenOff { path, error: error.into() })?;
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
