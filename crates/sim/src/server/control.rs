//! The faults of a whole fleet at one address, which stays when servers refuse or crash.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::admin;
use super::errors::{ApiError, Dialect};
use super::observe::Handle;

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take for its one request.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an answer waits for the servers to have closed and opened their ports.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The servers of a fleet in its order.
type Servers = Arc<[(SocketAddr, Handle)]>;

/// The control address of a fleet, bound and not yet serving.
#[derive(Debug)]
pub(crate) struct Control {
    listener: TcpListener,
    addr: SocketAddr,
    servers: Servers,
}

impl Control {
    /// Binds the address; port 0 takes any free one.
    pub(crate) async fn bind(
        addr: SocketAddr,
        servers: Vec<(SocketAddr, Handle)>,
    ) -> io::Result<Control> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Control { listener, addr, servers: servers.into() })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves for ever. Dropping the future closes the port and every connection.
    pub(crate) async fn run(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (self.listener.accept().await, place)
            };
            tokio::select! {
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a task of the control address panicked");
                    }
                }
                (accepted, place) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let servers = Arc::clone(&self.servers);
                        connections.spawn(async move {
                            serve_connection(servers, stream).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// One request a connection: whoever breaks servers is in no hurry, and nothing has to be watched for idling.
async fn serve_connection(servers: Servers, stream: TcpStream) {
    let service = service_fn(|request| {
        let servers = Arc::clone(&servers);
        async move { Ok::<_, Infallible>(respond(&servers, request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection ended"),
        Err(_) => tracing::debug!("connection took too long"),
    }
}

async fn respond(servers: &Servers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = answer(servers, request).await;
    let text = match &answer {
        Ok(value) => value.to_string(),
        Err(error) => error.body(Dialect::OpenAi),
    };
    let mut response = Response::new(Full::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Err(error) = answer {
        if let Some(allow) = error.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        *response.status_mut() = error.status;
    }
    response
}

async fn answer(servers: &Servers, request: Request<Incoming>) -> Result<Value, ApiError> {
    let path = request.uri().path().strip_prefix("/faults").ok_or_else(ApiError::unknown_path)?;
    let chosen = match path.strip_prefix('/') {
        None if path.is_empty() => None,
        None => return Err(ApiError::unknown_path()),
        Some(index) => {
            let found = index.parse().ok().filter(|index| *index < servers.len());
            Some(found.ok_or_else(|| ApiError::no_server(index, servers.len()))?)
        }
    };
    match *request.method() {
        Method::GET => {}
        Method::POST => {
            let fault = admin::read(request).await?;
            let broken = match chosen {
                Some(index) => &servers[index..=index],
                None => servers,
            };
            for (_, handle) in broken {
                handle.set_fault(fault);
            }
            settle(broken).await;
        }
        _ => return Err(ApiError::wrong_method("GET, POST")),
    }
    if let Some(index) = chosen {
        return Ok(shown(index, &servers[index]));
    }
    let all = servers.iter().enumerate().map(|(index, server)| shown(index, server));
    Ok(json!({ "servers": all.collect::<Vec<Value>>() }))
}

/// Waits until the servers have done what they were told, so that a script's next command finds them so; not for ever,
/// because another process may have taken a port.
async fn settle(servers: &[(SocketAddr, Handle)]) {
    let settled = async {
        for (_, handle) in servers {
            handle.until(Handle::settled).await;
        }
    };
    if tokio::time::timeout(SETTLE_TIME_MAX, settled).await.is_err() {
        tracing::warn!("servers have not yet closed or opened their ports");
    }
}

fn shown(index: usize, (addr, handle): &(SocketAddr, Handle)) -> Value {
    let metrics = handle.metrics();
    json!({
        "index": index,
        "addr": addr.to_string(),
        "fault": handle.fault().to_string(),
        "running": metrics.running,
        "waiting": metrics.waiting_capacity + metrics.waiting_deferred,
        "kv_cache_usage": metrics.kv_cache_usage,
        "requests": handle.requests(),
    })
}
