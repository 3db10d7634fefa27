//! A small HTTP server whose behaviour a test changes while it runs.

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use picker::Tasks;
use tokio::net::{TcpListener, TcpStream};

/// How a path is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Text(u16, String),
    /// The head never comes.
    Hang,
    /// The body never ends; with or without saying so first.
    Endless,
    /// The body is announced longer than the client may want.
    Announced(u64),
    /// The connection closes after this answer.
    ThenClose(String),
}

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) health: Answer,
    pub(crate) metrics: Answer,
}

/// Runs until dropped; then its port refuses and its connections are closed.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Tasks,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    connections: AtomicU64,
    scrapes: AtomicU64,
    checks: AtomicU64,
    /// Later requests on a connection are met by its close.
    requests_max: AtomicU64,
    http2: bool,
}

impl Server {
    pub(crate) async fn start(address: SocketAddr, script: Script, http2: bool) -> Self {
        let listener = TcpListener::bind(address).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            connections: AtomicU64::default(),
            scrapes: AtomicU64::default(),
            checks: AtomicU64::default(),
            requests_max: AtomicU64::new(u64::MAX),
            http2,
        });
        let tasks = crate::setting::tasks();
        let accept = accept(listener, Arc::clone(&shared), tasks.clone());
        let stopping = tasks.stopping();
        tasks.spawn("accept", async {
            tokio::select! {
                () = accept => {}
                () = stopping => {}
            }
        });
        Self { address, shared, tasks }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.script.lock().expect("script"));
    }

    /// From now on a connection closes, without an answer, at the request after this many.
    pub(crate) fn limit_requests(&self, requests_max: u64) {
        self.shared.requests_max.store(requests_max, Ordering::Relaxed);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn scrapes(&self) -> u64 {
        self.shared.scrapes.load(Ordering::Relaxed)
    }

    pub(crate) fn checks(&self) -> u64 {
        self.shared.checks.load(Ordering::Relaxed)
    }

    /// Gone, with every connection closed.
    pub(crate) async fn stop(self) {
        self.tasks.stop();
        self.tasks.ended().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: Tasks) {
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let serve = serve(stream, Arc::clone(&shared));
        let stopping = tasks.stopping();
        tasks.spawn("connection", async {
            tokio::select! {
                () = serve => {}
                () = stopping => {}
            }
        });
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let http2 = shared.http2;
    let requests = AtomicU64::default();
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        let request_number = requests.fetch_add(1, Ordering::Relaxed);
        async move {
            if request_number >= shared.requests_max.load(Ordering::Relaxed) {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            Ok(answer(request.uri().path(), &shared).await)
        }
    });
    let io = TokioIo::new(stream);
    if http2 {
        let _ = http2::Builder::new(Local).serve_connection(io, service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }
}

/// The test server runs one connection's HTTP/2 streams as tasks of the test.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        crate::setting::tasks().spawn("stream", future);
    }
}

async fn answer(path: &str, shared: &Shared) -> Response<Either<Full<Bytes>, Endless>> {
    let answer = {
        let script = shared.script.lock().expect("script");
        if path == "/health" {
            shared.checks.fetch_add(1, Ordering::Relaxed);
            script.health.clone()
        } else {
            assert_eq!(path, "/metrics");
            shared.scrapes.fetch_add(1, Ordering::Relaxed);
            script.metrics.clone()
        }
    };
    let text = |text: String| Either::Left(Full::from(text));
    match answer {
        Answer::Text(status, body) => {
            let mut response = Response::new(text(body));
            *response.status_mut() = StatusCode::from_u16(status).expect("status");
            response
        }
        Answer::Hang => pending().await,
        Answer::Endless => Response::new(Either::Right(Endless)),
        Answer::Announced(length) => {
            let mut response = Response::new(Either::Right(Endless));
            response.headers_mut().insert("content-length", length.into());
            response
        }
        Answer::ThenClose(body) => {
            let mut response = Response::new(text(body));
            response.headers_mut().insert("connection", "close".parse().expect("header"));
            response
        }
    }
}

/// A body of spaces without an end.
pub(crate) struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static SPACES: [u8; 64 * 1024] = [b' '; 64 * 1024];
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&SPACES)))))
    }
}
