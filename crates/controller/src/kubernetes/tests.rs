//! An API server whose every answer a test writes, and the recorded answers of a real one.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use kube::{Client, client::Body};
use serde_json::Value;
use tower_test::mock::{self, Handle, SendResponse};

use super::{
    Following, backoff::RetryAfter, entry::Source, follower::Follower, store::Store, with_lost,
};
use crate::object::{Kind, POOL_GROUP};

type Answer = Response<BoxBody<Bytes, Infallible>>;

pub(super) const PODS: Source = Source { kind: Kind::Pod, group: "", version: "v1" };
pub(super) const POOLS: Source =
    Source { kind: Kind::InferencePool, group: POOL_GROUP, version: "v1" };

/// The server's side of the conversation.
pub(super) struct ApiServer {
    handle: Handle<Request<Body>, Answer>,
}

/// A request that waits for its answer.
pub(super) struct Asked {
    /// `GET /api/v1/pods`.
    pub(super) line: String,
    pub(super) query: String,
    pub(super) body: Value,
    send: SendResponse<Answer>,
}

pub(super) fn api_server() -> (Client, ApiServer) {
    let (service, handle) = mock::pair::<Request<Body>, Answer>();
    (Client::new(service, "default"), ApiServer { handle })
}

impl ApiServer {
    /// The next request, whatever it is.
    pub(super) async fn next(&mut self) -> Asked {
        let (request, send) = self.handle.next_request().await.expect("a request");
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Asked {
            line: format!("{} {}", head.method, head.uri.path()),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            send,
        }
    }

    /// The next request, which has to be this one.
    pub(super) async fn expect(&mut self, line: &str) -> Asked {
        let asked = self.next().await;
        assert_eq!(asked.line, line);
        asked
    }
}

impl Asked {
    pub(super) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }

    /// The version a watch begins at.
    pub(super) fn version(&self) -> &str {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == "resourceVersion").map_or("", |(_, version)| version)
    }

    pub(super) fn answer(self, status: u16, body: impl Into<String>) {
        let body = Full::new(Bytes::from(body.into())).boxed();
        self.send.send_response(Response::builder().status(status).body(body).unwrap());
    }

    pub(super) fn answer_with(self, status: u16, header: (&str, &str), body: &str) {
        let body = Full::new(Bytes::from(body.to_owned())).boxed();
        let response = Response::builder().status(status).header(header.0, header.1);
        self.send.send_response(response.body(body).unwrap());
    }

    /// An answer that never ends.
    pub(super) fn stay_open(self, begin: &str) {
        let begin = http_body::Frame::data(Bytes::from(begin.to_owned()));
        let body = stream::iter([Ok::<_, Infallible>(begin)]).chain(stream::pending());
        let body = BodyExt::boxed(StreamBody::new(body));
        self.send.send_response(Response::new(body));
    }

    /// The connection breaks.
    pub(super) fn fail(self) {
        self.send.send_error(std::io::Error::other("connection refused"));
    }
}

/// Status and body of a recorded answer.
pub(super) fn recorded(trace: &str) -> (u16, String) {
    let answer = trace.lines().skip_while(|line| line.starts_with("> "));
    let mut answer = answer.map(str::to_owned);
    let status = answer.next().expect("a status line");
    let status = status.split(' ').nth(1).expect("a status").parse().expect("a number");
    let body: Vec<String> = answer.skip_while(|line| !line.is_empty()).skip(1).collect();
    (status, body.join("\n") + "\n")
}

/// A follower, what it has heard, and the server it asks.
pub(super) fn follower(sources: &[Source]) -> (Follower, Arc<Store>, ApiServer) {
    let (client, server) = api_server();
    let store: Arc<Store> = Arc::default();
    store.discovered(sources);
    let follower = Follower {
        client,
        store: Arc::clone(&store),
        retry_after: RetryAfter::default(),
        namespace: None,
        labels: Arc::new(BTreeMap::new()),
    };
    (follower, store, server)
}

#[test]
fn a_kind_that_is_missing_once_is_not_given_up() {
    let (stop, _stopped) = tokio::sync::oneshot::channel();
    let following = Following::from([((PODS.kind, PODS.group), (PODS, stop))]);
    let mut missing = BTreeMap::new();
    assert_eq!(with_lost(vec![], &following, &mut missing), [PODS]);
    assert_eq!(with_lost(vec![PODS], &following, &mut missing), [PODS], "it is there again");
    assert_eq!(with_lost(vec![], &following, &mut missing), [PODS], "counted from the start");
    assert_eq!(with_lost(vec![], &following, &mut missing), []);
}
