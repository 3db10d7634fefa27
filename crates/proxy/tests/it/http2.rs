//! HTTP/2 with prior knowledge, from clients and to endpoints.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, request::Parts};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use picker::Finish;
use sim::Fault;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    fake::TOKEN,
    setting::{LOCALHOST, Setting, Setup, check_left, completion, fast_sim, slow_sim, soon, until},
    wire::post,
};

/// An HTTP/2 client connection.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinSet<()>,
}

impl Client {
    async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the proxy listens");
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, driven) = handshake.await.expect("a handshake");
        let mut connection = JoinSet::new();
        connection.spawn(async move { drop(driven.await) });
        Self { sender, connection }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let response = soon("a response", self.sender.send_request(request)).await;
        response.expect("a response")
    }

    async fn closed(mut self) {
        soon("the connection closed", self.connection.join_next()).await;
    }
}

fn request(body: String) -> Request<Full<Bytes>> {
    Request::post("http://test.com/v1/completions")
        .header("content-type", "application/json")
        .header("te", "trailers")
        .body(Full::new(body.into()))
        .expect("a request")
}

async fn text(response: Response<Incoming>) -> String {
    let body = soon("the body", response.into_body().collect()).await.expect("a whole body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

#[tokio::test]
async fn a_client_may_speak_http_2() {
    let (server, setting) = Setting::with_sim().await;
    let mut client = Client::open(setting.addr).await;
    let response = client.send(request(completion(true, 3))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let id = response.headers()["x-request-id"].clone();
    assert!(response.headers().contains_key("x-tokenweir-endpoint"));
    let text = text(response).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let seen = server.handle().last().expect("a request");
    assert_eq!(seen.headers["host"], "test.com");
    assert_eq!(seen.headers["x-request-id"], id);
    assert!(!seen.headers.contains_key("te"));
    let record = setting.record(1).await;
    assert_eq!((record.protocol, record.authority.as_str()), ("HTTP/2", "test.com"));
    assert_eq!(record.usage.completion_tokens, Some(3));
}

#[tokio::test]
async fn one_connection_carries_many_requests_at_once() {
    let (server, setting) = Setting::with_sim().await;
    let client = Client::open(setting.addr).await;
    let mut requests = JoinSet::new();
    for tokens in 1..=40 {
        let mut sender = client.sender.clone();
        requests.spawn(async move {
            let response = sender.send_request(request(completion(true, tokens))).await;
            let text = text(response.expect("a response")).await;
            assert_eq!(text.matches("data: ").count(), tokens as usize + 1);
        });
    }
    while let Some(done) = soon("all answers", requests.join_next()).await {
        done.expect("an answer");
    }
    assert_eq!(server.handle().requests(), 40);
    setting.record(40).await;
    assert_eq!(setting.metric("tokenweir_connections_total", &["accepted"]), 1);
}

#[tokio::test]
async fn refusals_are_the_same_over_http_2() {
    let (_server, setting) = Setting::with_sim().await;
    let mut client = Client::open(setting.addr).await;
    let response = client.send(request("[]".into())).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["x-tokenweir-reason"], "invalid_body");
    let mut other = request(completion(false, 1));
    *other.uri_mut() = "http://other.com/".parse().expect("a URI");
    assert_eq!(client.send(other).await.status(), StatusCode::NOT_FOUND);
    let mut many = request(completion(false, 1));
    for n in 0..150 {
        many.headers_mut().append("x-many", HeaderValue::from(n));
    }
    let response = client.send(many).await;
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(client.send(request(completion(false, 1))).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_its_client_resets_is_aborted_and_its_neighbours_go_on() {
    let server = slow_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    let mut client = Client::open(setting.addr).await;
    let neighbour = client.send(request(completion(true, 50))).await;
    let mut leaving = client.send(request(completion(true, 3000))).await;
    soon("a token", leaving.frame()).await.expect("a frame").expect("data");
    drop(leaving);
    soon("aborted", server.handle().until(|handle| handle.aborted() == 1)).await;
    check_left(&{
        until("its record", || setting.records().len() == 1).await;
        setting.records().remove(0)
    });
    assert_eq!(text(neighbour).await.matches("data: ").count(), 51);
}

#[tokio::test]
async fn a_cut_stream_ends_with_a_reset() {
    let dying = fast_sim().await;
    dying.handle().set_fault(Fault::CutAfter(3));
    let setting = Setup::new(&[dying.addr()]).start();
    let mut client = Client::open(setting.addr).await;
    let mut response = client.send(request(completion(true, 100))).await;
    let mut received = Vec::new();
    let error = loop {
        match soon("a frame", response.frame()).await.expect("no clean end") {
            Ok(frame) => received.extend(frame.into_data().unwrap_or_default()),
            Err(error) => break error,
        }
    };
    let received = String::from_utf8_lossy(&received).into_owned();
    assert!(received.contains(r#"data: {"error":"#), "{received} {error}");
    assert!(!received.contains("[DONE]"));
    assert_eq!(setting.record(1).await.finish, Some(Finish::EndpointGone));
}

#[tokio::test]
async fn a_draining_proxy_finishes_the_streams_of_an_http_2_connection() {
    let server = slow_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    let mut client = Client::open(setting.addr).await;
    let mut response = client.send(request(completion(true, 50))).await;
    soon("a token", response.frame()).await.expect("a frame").expect("data");
    let idle = Client::open(setting.addr).await;
    setting.connections.stop();
    idle.closed().await;
    let text = text(response).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    client.closed().await;
    soon("all tasks ended", setting.connections.ended()).await;
}

/// What an endpoint's answer consists of.
enum Answer {
    Whole(Full<Bytes>),
    /// One token, then nothing, until it is dropped.
    Stuck(Option<Bytes>, Arc<AtomicUsize>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Stuck(first, _) => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Poll::Pending,
            },
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Self::Stuck(_, left) = self {
            left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An endpoint that speaks nothing but HTTP/2.
struct Endpoint {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<(Parts, Bytes)>>>,
    opened: Arc<AtomicUsize>,
    /// Stuck answers that were given up.
    left: Arc<AtomicUsize>,
    /// Ends every connection when it is dropped.
    task: JoinSet<()>,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.expect("a free port");
        Self::serve(listener)
    }

    fn serve(listener: TcpListener) -> Self {
        let addr = listener.local_addr().expect("address");
        let (seen, opened, left) = (Arc::default(), Arc::default(), Arc::default());
        let mut endpoint = Self { addr, seen, opened, left, task: JoinSet::new() };
        let (seen, opened, left) =
            (Arc::clone(&endpoint.seen), Arc::clone(&endpoint.opened), Arc::clone(&endpoint.left));
        endpoint.task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                let (seen, left) = (Arc::clone(&seen), Arc::clone(&left));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, left) = (Arc::clone(&seen), Arc::clone(&left));
                    async move {
                        let (parts, body) = request.into_parts();
                        let stuck = parts.uri.path() == "/v1/completions";
                        let body = body.collect().await.expect("a body").to_bytes();
                        seen.lock().push((parts, body));
                        Ok::<_, Infallible>(answer(stuck, left))
                    }
                });
                connections.spawn(async move {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        endpoint
    }

    fn headers(&self) -> HeaderMap {
        self.seen.lock().last().expect("a request").0.headers.clone()
    }
}

fn answer(stuck: bool, left: Arc<AtomicUsize>) -> Response<Answer> {
    let (kind, body) = if stuck {
        ("text/event-stream", Answer::Stuck(Some(Bytes::from_static(TOKEN.as_bytes())), left))
    } else {
        let body = br#"{"model":"m","usage":{"prompt_tokens":2,"completion_tokens":3}}"#;
        ("application/json", Answer::Whole(Full::new(Bytes::from_static(body))))
    };
    Response::builder().header("content-type", kind).body(body).expect("a response")
}

#[tokio::test]
async fn an_endpoint_may_speak_http_2() {
    let endpoint = Endpoint::start().await;
    let setting = Setup::h2c(endpoint.addr).start();
    for nth in 1..=10 {
        let body = completion(false, nth);
        let reply = setting.ask(&post("/v1/chat/completions", &body)).await;
        assert_eq!((reply.code, &reply.json()["model"]), (200, &"m".into()));
        assert_eq!(reply.version, "HTTP/1.1");
        let (parts, received) = endpoint.seen.lock().pop().expect("a request");
        assert_eq!((parts.version, received), (Version::HTTP_2, Bytes::from(body)));
        assert_eq!(parts.uri.to_string(), "http://test.com/v1/chat/completions");
        for name in ["host", "connection", "transfer-encoding", "te"] {
            assert!(!parts.headers.contains_key(name), "{name}");
        }
        let record = setting.record(nth as usize).await;
        assert_eq!((record.usage.completion_tokens, record.attempts), (Some(3), 1));
    }
    assert_eq!(endpoint.opened.load(Ordering::Relaxed), 1, "one connection for all");
}

#[tokio::test]
async fn http_2_passes_from_client_to_endpoint() {
    let endpoint = Endpoint::start().await;
    let setting = Setup::h2c(endpoint.addr).start();
    let mut client = Client::open(setting.addr).await;
    let mut request = request(completion(false, 1));
    *request.uri_mut() = "http://test.com/v1/embeddings?a=b".parse().expect("a URI");
    let response = client.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(response).await.starts_with("{\"model\""));
    let headers = endpoint.headers();
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers.get_all("content-length").iter().count(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_not_the_connection() {
    let endpoint = Endpoint::start().await;
    let setting = Setup::h2c(endpoint.addr).start();
    for nth in 1..=3 {
        let mut wire = setting.wire().await;
        wire.send(&post("/v1/completions", &completion(true, 9))).await;
        wire.so_far(|reply| reply.text() == TOKEN).await;
        drop(wire);
        until("the stream reset", || endpoint.left.load(Ordering::Relaxed) == nth).await;
        check_left(&setting.record(nth).await);
    }
    assert_eq!(endpoint.opened.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_lost_http_2_connection_cuts_its_streams_and_is_replaced() {
    let endpoint = Endpoint::start().await;
    let setting = Setup::h2c(endpoint.addr).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 9))).await;
    wire.so_far(|reply| reply.text() == TOKEN).await;
    let addr = endpoint.addr;
    drop(endpoint);
    let reply = wire.answer().await;
    assert_eq!(reply.ended, crate::wire::Ended::Cut);
    assert!(reply.text().starts_with(TOKEN) && reply.text().contains("\"error\""), "{reply:?}");
    assert_eq!(setting.record(1).await.finish, Some(Finish::EndpointGone));

    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("reuse");
    socket.bind(addr).expect("the same port");
    let endpoint = Endpoint::serve(socket.listen(16).expect("a listener"));
    let reply = setting.ask(&post("/v1/chat/completions", &completion(false, 1))).await;
    assert_eq!(reply.code, 200, "{reply:?}");
    assert_eq!(endpoint.opened.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_http_2_is_a_reset() {
    let server = fast_sim().await;
    let setting = Setup::h2c(server.addr()).start();
    let reply = setting.ask(&post("/v1/completions", &completion(false, 1))).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")));
}
