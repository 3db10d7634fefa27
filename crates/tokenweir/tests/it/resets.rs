//! A client that takes HTTP/2's bargain and gives nothing for it: streams that are accepted, set to work, and reset.
//!
//! Floods of resets before a stream was looked at end their connection (`conformance.rs` of the proxy). These here were looked
//! at, and cancelling what one no longer wants is what resets are for: editors do so with most of their completions. So no
//! number of them ends a connection. What bounds them is what bounds requests, the streams of a connection at once; what is
//! cancelled has to cost the endpoint and the gateway nothing any more.

use std::{io::Read, io::Write, net::SocketAddr};

use bytes::Bytes;
use h2::{Reason, SendStream, client::SendRequest};
use http::Request;
use sim::{Fault, SimConfig};
use tokio::{net::TcpStream, runtime::Runtime};

use crate::gateway::{
    Endpoint, Gateway, Start, completion, connect, is_whole, resident_kib, until,
};

/// At once; fewer than a connection's streams may be.
const STREAMS: usize = 100;
const ROUNDS: usize = 40;
/// After so many the gateway has all the memory that it needs for them.
const ROUNDS_FIRST: usize = 10;
/// What all further ones together may add: less than 2 KiB each.
const GROWTH_KIB_MAX: u64 = 6 * 1024;

/// Sends one whole request, and waits for nothing.
async fn begin(client: &SendRequest<Bytes>) -> SendStream<Bytes> {
    let body = r#"{"model":"/model/llama2","prompt":"Say this","max_tokens":50,"stream":true}"#;
    let request = Request::post("http://test.com/v1/completions")
        .header("content-type", "application/json")
        .body(())
        .expect("a request");
    let mut ready = client.clone().ready().await.expect("the connection stands");
    let (_answer, mut stream) = ready.send_request(request, false).expect("a stream");
    stream.send_data(Bytes::from_static(body.as_bytes()), true).expect("room");
    stream
}

#[test]
fn streams_that_are_reset_while_they_are_at_work_cost_nothing_and_hurt_nobody() {
    let endpoint = Endpoint::start(SimConfig { speedup: 2.0, ..SimConfig::default() });
    let gateway = Gateway::before(&endpoint, Start::default(), &[]);
    let runtime = Runtime::new().expect("a runtime");
    let handle = endpoint.server.handle();

    // A neighbour, who is answered while all of that goes on; the others are not, to be reset in the midst of work.
    let mut neighbour = connect(gateway.port);
    neighbour.write_all(completion(300).as_bytes()).expect("it reads");
    until("the neighbour is under way", || handle.in_flight() == 1);
    handle.set_fault(Fault::Hang);

    let (client, connection) = runtime.block_on(async {
        let addr = SocketAddr::from(([127, 0, 0, 1], gateway.port));
        let stream = TcpStream::connect(addr).await.expect("it listens");
        h2::client::handshake(stream).await.expect("a handshake")
    });
    runtime.spawn(connection);
    let mut settled_kib = 0;
    for round in 1..=ROUNDS {
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(runtime.block_on(begin(&client)));
        }
        until("all are at work", || handle.requests() == 1 + (round * STREAMS) as u64);
        for stream in &mut streams {
            stream.send_reset(Reason::CANCEL);
        }
        until("all are aborted", || handle.in_flight() <= 1);
        until("their claims came back", || gateway.metric("tokenweir_endpoint_in_flight", "") <= 1);
        if round == ROUNDS_FIRST {
            settled_kib = resident_kib(&gateway);
        }
    }
    let grown_kib = resident_kib(&gateway).saturating_sub(settled_kib);
    assert!(grown_kib <= GROWTH_KIB_MAX, "{grown_kib} KiB more than after {ROUNDS_FIRST} rounds");
    let left = gateway.metric("tokenweir_client_disconnects_total", "");
    assert_eq!(left, (ROUNDS * STREAMS) as u64);

    let mut answer = String::new();
    neighbour.read_to_string(&mut answer).expect("it is answered");
    assert!(is_whole(&answer), "{answer}");
    // The endpoint is not to blame, and the connection is as good as before.
    assert_eq!(gateway.times_said("endpoint is ejected"), 0);
    handle.set_fault(Fault::None);
    assert!(is_whole(&gateway.completion()));
    let before = handle.requests();
    let _stream = runtime.block_on(begin(&client));
    until("one more of this client", || handle.requests() > before);
}
