//! HTTP/2 by the frame: what RFC 9113 asks of a server, as the well-known conformance suite lists
//! it, and floods.

use crate::{
    fake::{Fake, STREAM_HEAD, TOKEN, chunk},
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PADDED,
        PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
        completion_fields,
    },
    setting::{Setting, Setup, completion, slow_sim, soon, until},
};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

const INITIAL_WINDOW_SIZE: u16 = 4;

/// The head of a completion.
fn head(stream: u32, flags: u8) -> Frame {
    Frame::new(HEADERS, END_HEADERS | flags, stream, block(&completion_fields(&[])))
}

/// A whole request.
fn request(stream: u32, body: &str) -> Vec<Frame> {
    vec![head(stream, 0), Frame::new(DATA, END_STREAM, stream, body)]
}

fn window(stream: u32, bytes: u32) -> Frame {
    Frame::new(WINDOW_UPDATE, 0, stream, bytes.to_be_bytes())
}

fn setting_frame(id: u16, value: u32) -> Frame {
    Frame::new(SETTINGS, 0, 0, [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn reset(stream: u32) -> Frame {
    Frame::new(RST_STREAM, 0, stream, CANCEL.to_be_bytes())
}

/// These frames end their connection, with one of these codes if any is told.
async fn check_ends(what: &str, frames: &[Frame], codes: &[u32]) {
    let (server, setting) = Setting::with_sim().await;
    let mut client = Frames::open(setting.addr, &[]).await;
    client.send(frames).await;
    if let Some(goaway) = client.find(|frame| frame.kind == GOAWAY).await {
        assert!(codes.contains(&goaway.code()), "{what}: {goaway:?}");
        assert!(client.find(|frame| frame.kind == HEADERS).await.is_none(), "{what} is served");
    }
    assert_eq!(server.handle().requests(), 0, "{what} reached the endpoint");
    assert_eq!(setting.metric("tokenweir_connections_total", &["protocol_error"]), 1, "{what}");
    setting.check_serves().await;
    until("nothing is left", || setting.connections.running() == 1).await;
}

#[tokio::test]
async fn frames_that_are_not_allowed_end_their_connection() {
    let ping = [7; 8];
    let too_large = vec![0; 16_385];
    for (what, frames, code) in [
        ("DATA on stream 0", vec![Frame::new(DATA, 0, 0, "x")], PROTOCOL_ERROR),
        ("DATA on an idle stream", vec![Frame::new(DATA, 0, 1, "x")], PROTOCOL_ERROR),
        ("HEADERS on stream 0", vec![head(0, END_STREAM)], PROTOCOL_ERROR),
        ("an even stream", vec![head(2, END_STREAM)], PROTOCOL_ERROR),
        (
            "a frame too large",
            vec![head(1, 0), Frame::new(DATA, 0, 1, too_large)],
            FRAME_SIZE_ERROR,
        ),
        ("a short PING", vec![Frame::new(PING, 0, 0, &ping[..6])], FRAME_SIZE_ERROR),
        ("a PING on a stream", vec![Frame::new(PING, 0, 1, ping)], PROTOCOL_ERROR),
        ("half a setting", vec![Frame::new(SETTINGS, 0, 0, [0, 4, 0])], FRAME_SIZE_ERROR),
        ("settings of a stream", vec![Frame::new(SETTINGS, 0, 1, [])], PROTOCOL_ERROR),
        ("an ACK with settings", vec![Frame::new(SETTINGS, ACK, 0, [0; 6])], FRAME_SIZE_ERROR),
        ("a window too large", vec![setting_frame(4, 1 << 31)], FLOW_CONTROL_ERROR),
        ("frames too small", vec![setting_frame(5, 16_383)], PROTOCOL_ERROR),
        ("frames too large", vec![setting_frame(5, 1 << 24)], PROTOCOL_ERROR),
        ("a push setting of 2", vec![setting_frame(2, 2)], PROTOCOL_ERROR),
        ("a window not enlarged", vec![window(0, 0)], PROTOCOL_ERROR),
        ("a window beyond all", vec![window(0, (1 << 31) - 1)], FLOW_CONTROL_ERROR),
        ("a short WINDOW_UPDATE", vec![Frame::new(WINDOW_UPDATE, 0, 0, [0; 3])], FRAME_SIZE_ERROR),
        ("a window of an idle stream", vec![window(1, 5)], PROTOCOL_ERROR),
        ("a reset of stream 0", vec![reset(0)], PROTOCOL_ERROR),
        ("a reset of an idle stream", vec![reset(1)], PROTOCOL_ERROR),
        (
            "a short RST_STREAM",
            vec![head(1, 0), Frame::new(RST_STREAM, 0, 1, [0; 3])],
            FRAME_SIZE_ERROR,
        ),
        (
            "a push from a client",
            vec![Frame::new(PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2])],
            PROTOCOL_ERROR,
        ),
    ] {
        // Where the RFC has a code of its own for a frame's size, the library may say less.
        check_ends(what, &frames, &[code, PROTOCOL_ERROR]).await;
    }
}

#[tokio::test]
async fn heads_that_are_none_end_their_connection() {
    let ping = [7; 8];
    for (what, frames, code) in [
        (
            "CONTINUATION of nothing",
            vec![Frame::new(CONTINUATION, END_HEADERS, 1, [])],
            PROTOCOL_ERROR,
        ),
        (
            "CONTINUATION after the end",
            vec![head(1, 0), Frame::new(CONTINUATION, END_HEADERS, 1, [])],
            PROTOCOL_ERROR,
        ),
        (
            "a PING inside a head",
            vec![Frame::new(HEADERS, 0, 1, []), Frame::new(PING, 0, 0, ping)],
            PROTOCOL_ERROR,
        ),
        (
            "another stream inside a head",
            vec![Frame::new(HEADERS, 0, 1, []), Frame::new(CONTINUATION, END_HEADERS, 3, [])],
            PROTOCOL_ERROR,
        ),
        ("field 0", vec![Frame::new(HEADERS, END_HEADERS, 1, [0x80])], COMPRESSION_ERROR),
        ("field 127", vec![Frame::new(HEADERS, END_HEADERS, 1, [0xff, 0])], COMPRESSION_ERROR),
        ("a cut field", vec![Frame::new(HEADERS, END_HEADERS, 1, [0, 9, b'x'])], COMPRESSION_ERROR),
        (
            "more padding than frame",
            vec![head(1, 0), Frame::new(DATA, PADDED, 1, [9, b'x'])],
            PROTOCOL_ERROR,
        ),
        ("GOAWAY of a stream", vec![Frame::new(GOAWAY, 0, 1, [0; 8])], PROTOCOL_ERROR),
        ("a short PRIORITY", vec![Frame::new(PRIORITY, 0, 1, [0; 4])], FRAME_SIZE_ERROR),
        ("a PRIORITY of stream 0", vec![Frame::new(PRIORITY, 0, 0, [0; 5])], PROTOCOL_ERROR),
    ] {
        check_ends(what, &frames, &[code, PROTOCOL_ERROR]).await;
    }
}

#[tokio::test]
async fn a_stream_is_opened_once_and_in_order() {
    let old = [request(5, "{}"), request(3, "{}")].concat();
    check_ends_after_one(&old, &[PROTOCOL_ERROR, STREAM_CLOSED]).await;
    let closed = [request(5, "{}"), vec![Frame::new(DATA, 0, 5, "x")]].concat();
    check_ends_after_one(&closed, &[PROTOCOL_ERROR, STREAM_CLOSED]).await;
}

/// The first of two requests may be answered; the second is not.
async fn check_ends_after_one(frames: &[Frame], codes: &[u32]) {
    let (_server, setting) = Setting::with_sim().await;
    let mut client = Frames::open(setting.addr, &[]).await;
    client.send(frames).await;
    let refused = |frame: &Frame| matches!(frame.kind, GOAWAY | RST_STREAM);
    if let Some(refused) = client.find(refused).await {
        assert!(codes.contains(&refused.code()), "{refused:?}");
    }
    setting.check_serves().await;
}

/// A request with these fields and this body is refused. Either it is refused alone and its
/// neighbour is served, or it ends its connection; no endpoint hears of it.
async fn check_refused(what: &str, fields: &[(&str, &str)], body: Option<&str>) {
    let (server, setting) = Setting::with_sim().await;
    let mut client = Frames::open(setting.addr, &[]).await;
    let flags = if body.is_none() { END_HEADERS | END_STREAM } else { END_HEADERS };
    client.send(&[Frame::new(HEADERS, flags, 1, block(fields))]).await;
    if let Some(body) = body {
        client.send(&[Frame::new(DATA, END_STREAM, 1, body)]).await;
    }
    client.send(&request(3, &completion(false, 2))).await;
    let (mut refused, mut answered) = (false, false);
    while !(refused && answered) {
        let frame = client.next().await.unwrap_or_else(|| panic!("{what} is not answered"));
        if frame.kind == GOAWAY {
            assert_eq!(frame.code(), PROTOCOL_ERROR, "{what}");
            break;
        }
        let ok = frame.payload.first() == Some(&0x88);
        match (frame.stream, frame.kind) {
            (1, RST_STREAM) => refused = true,
            (1, HEADERS) => {
                assert!(!ok, "{what} was served");
                refused = true;
            }
            (3, HEADERS) => {
                assert!(ok, "the neighbour of {what}");
                answered = true;
            }
            _ => {}
        }
    }
    let requests = server.handle().requests();
    assert_eq!(requests, u64::from(answered), "{what} reached the endpoint");
}

#[tokio::test]
async fn a_malformed_request_reaches_no_endpoint() {
    let body = completion(false, 2);
    let short = (body.len() - 1).to_string();
    let long = (body.len() + 1).to_string();
    for (what, more) in [
        ("an upper-case name", ("X-Upper", "x")),
        ("a pseudo-field at the end", (":path", "/v1/completions")),
        ("an unknown pseudo-field", (":x", "x")),
        ("a status", (":status", "200")),
        ("connection", ("connection", "keep-alive")),
        ("keep-alive", ("keep-alive", "1")),
        ("proxy-connection", ("proxy-connection", "close")),
        ("upgrade", ("upgrade", "h2c")),
        ("transfer-encoding", ("transfer-encoding", "chunked")),
        ("a te that is not trailers", ("te", "gzip")),
        ("a body longer than its length", ("content-length", short.as_str())),
        ("a body shorter than its length", ("content-length", long.as_str())),
        ("a length that is none", ("content-length", "-1")),
        ("a line end in a value", ("x-a", "b\r\nx-c: d")),
        ("a zero in a value", ("x-a", "b\0")),
        ("a line end in a name", ("x\r\na", "b")),
        ("a colon in a name", ("x-a:b", "c")),
        ("a space in a name", ("x a", "b")),
        ("no name", ("", "b")),
        ("several hosts", ("host", "other.com")),
    ] {
        if what == "several hosts" {
            // The authority is the host; another one beside it may not reach the endpoint.
            check_one_host(more).await;
        } else {
            check_refused(what, &completion_fields(&[more]), Some(&body)).await;
        }
    }
    let usual = completion_fields(&[]);
    for (what, left_out) in
        [("no method", ":method"), ("no path", ":path"), ("no scheme", ":scheme")]
    {
        let fields: Vec<_> = usual.iter().copied().filter(|(name, _)| *name != left_out).collect();
        check_refused(what, &fields, Some(&body)).await;
    }
    for (what, name, value) in [
        ("an empty path", ":path", ""),
        ("a path with a line end", ":path", "/v1/completions HTTP/1.1\r\nx: y"),
        ("a path with a space", ":path", "/v1/comple tions"),
        ("a method with a space", ":method", "GE T"),
        ("an empty method", ":method", ""),
        ("an authority with a line end", ":authority", "test.com\r\nx: y"),
        ("another scheme's form", ":path", "*"),
        ("a query without a path", ":path", "?x=1"),
        ("a path without a slash", ":path", "v1/completions"),
    ] {
        let with = |field: &(&'static str, &'static str)| {
            if field.0 == name { (name, value) } else { *field }
        };
        let fields: Vec<_> = completion_fields(&[]).iter().map(with).collect();
        check_refused(what, &fields, Some(&body)).await;
    }
    let connect = [(":method", "CONNECT"), (":authority", "test.com:80")];
    check_refused("a tunnel", &connect, None).await;
}

async fn check_one_host(more: (&str, &str)) {
    let (server, setting) = Setting::with_sim().await;
    let mut client = Frames::open(setting.addr, &[]).await;
    let fields = completion_fields(&[more]);
    client.send(&[Frame::new(HEADERS, END_HEADERS, 1, block(&fields))]).await;
    client.send(&[Frame::new(DATA, END_STREAM, 1, completion(false, 2))]).await;
    if client.answer(1).await.is_some_and(|(ok, _)| ok) {
        let hosts = server.handle().last().expect("a request").headers;
        let hosts: Vec<_> = hosts.get_all("host").iter().collect();
        assert_eq!(hosts, ["test.com"]);
    }
}

#[tokio::test]
async fn what_may_come_between_is_passed_over() {
    let (server, setting) = Setting::with_sim().await;
    let mut client = Frames::open(setting.addr, &[]).await;
    let body = completion(false, 2);
    let fields = block(&completion_fields(&[("x-long", "v".repeat(300).as_str())]));
    let (begin, rest) = fields.split_at(40);
    let padded = [&[3][..], &body.as_bytes()[..10], &[0; 3]].concat();
    client
        .send(&[
            setting_frame(0xff, 7),
            Frame::new(0xee, 0xff, 0, "a frame of a kind nobody knows"),
            Frame::new(PRIORITY, 0, 9, [0, 0, 0, 0, 16]),
            Frame::new(HEADERS, 0, 1, begin),
            Frame::new(CONTINUATION, 0, 1, []),
            Frame::new(CONTINUATION, END_HEADERS, 1, rest),
            Frame::new(DATA, PADDED, 1, padded),
            Frame::new(DATA, 0, 1, []),
            Frame::new(PING, 0, 0, [5; 8]),
            Frame::new(DATA, 0, 1, &body.as_bytes()[10..]),
            Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, block(&[("x-sum", "1")])),
        ])
        .await;
    let pong = client.find(|frame| frame.kind == PING && frame.flags == ACK).await;
    assert_eq!(pong.expect("an answer").payload, [5; 8]);
    let (ok, answer) = client.answer(1).await.expect("an answer");
    assert!(ok, "{}", String::from_utf8_lossy(&answer));
    let seen = server.handle().last().expect("a request");
    assert_eq!(seen.body, body.as_bytes(), "without padding and trailers");
    assert_eq!(seen.headers["x-long"].len(), 300);
    assert!(!seen.headers.contains_key("x-sum"), "a trailer is no header");
}

#[tokio::test]
async fn an_answer_waits_for_its_window_to_the_byte() {
    let (_server, setting) = Setting::with_sim().await;
    let mut client = Frames::open(setting.addr, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    client.send(&request(1, &completion(true, 20))).await;
    let head = client.find(|frame| frame.kind == HEADERS).await.expect("a head");
    assert_eq!(head.payload[0], 0x88);
    let mut got = Vec::new();
    for bytes in [1, 10, 100, 1_000_000] {
        // What comes before the answer to a PING is all that may come.
        client
            .send(&[window(1, bytes), Frame::new(PING, 0, 0, bytes.to_be_bytes().repeat(2))])
            .await;
        let due = got.len() + bytes as usize;
        loop {
            let frame = client.next().await.expect("a frame");
            if frame.kind == DATA {
                got.extend(&frame.payload);
            }
            assert!(got.len() <= due, "{} of {due}", got.len());
            if frame.ends_stream() || got.len() == due {
                break;
            }
        }
    }
    assert!(got.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&got));
}

#[tokio::test]
async fn a_client_that_says_goodbye_gets_what_it_asked_for() {
    let server = slow_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    let mut client = Frames::open(setting.addr, &[]).await;
    client.send(&request(1, &completion(true, 20))).await;
    client.find(|frame| frame.kind == HEADERS).await.expect("a head");
    client.send(&[Frame::new(GOAWAY, 0, 0, [0; 8])]).await;
    let mut rest = Vec::new();
    while let Some(frame) = client.find(|frame| frame.kind == DATA).await {
        rest.extend(&frame.payload);
        if frame.ends_stream() {
            break;
        }
    }
    assert!(rest.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&rest));
    assert!(client.find(|_| false).await.is_none(), "then the connection ends");
}

#[tokio::test]
async fn requests_above_the_limit_of_one_connection_are_refused() {
    let fake = Fake::falling_silent_after([STREAM_HEAD, &chunk(TOKEN)].concat()).await;
    let setting = Setup::new(&[fake.addr]).limits(|limits| limits.http2_streams_max = 2).start();
    let mut client = Frames::open(setting.addr, &[]).await;
    let settings = client.find(|frame| frame.kind == SETTINGS && frame.flags == 0).await;
    let told = settings.expect("settings").payload;
    assert!(told.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 2]), "{told:?}");
    client.send(&[Frame::new(SETTINGS, ACK, 0, [])]).await;
    for stream in [1, 3, 5] {
        client.send(&request(stream, &completion(true, 2))).await;
    }
    let refused = client.find(|frame| frame.kind == RST_STREAM).await.expect("a refusal");
    assert_eq!((refused.stream, refused.code()), (5, REFUSED_STREAM));
    client.send(&[reset(1)]).await;
    until("room for another", || setting.in_flight() == 1).await;
    client.send(&request(7, &completion(true, 2))).await;
    let next = client.find(|frame| frame.stream == 7).await.expect("an answer");
    assert_eq!(next.kind, HEADERS);
    drop(client);
    setting.record(3).await;
}

/// Sends this again and again, and never reads; the connection must end, and nothing stay behind.
async fn check_flood(what: &str, setting: &Setting, round: impl Fn(u32) -> Vec<Frame>) {
    let mut client = Frames::open(setting.addr, &[]).await;
    let flood = async {
        for nth in 0.. {
            let frames: Vec<u8> = round(nth).iter().flat_map(Frame::bytes).collect();
            if !client.send_bytes(&frames).await {
                return;
            }
        }
    };
    soon(what, flood).await;
    setting.check_serves().await;
    until("nothing in flight", || setting.in_flight() == 0).await;
    until("nothing is left", || setting.connections.running() == 1).await;
}

#[tokio::test]
async fn a_flood_of_requests_and_resets_ends_its_connection() {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(true, 2);
    check_flood("the end of rapid resets", &setting, |nth| {
        let streams = (0..200).map(|n| 1 + 2 * (200 * nth + n));
        streams.flat_map(|id| [request(id, &body), vec![reset(id)]].concat()).collect()
    })
    .await;
    assert_eq!(setting.metric("tokenweir_connections_total", &["protocol_error"]), 1);
    assert!(server.handle().requests() < 1000, "{}", server.handle().requests());
}

#[tokio::test]
async fn a_flood_of_resets_is_told_to_calm_down() {
    let (_server, setting) = Setting::with_sim().await;
    let mut client = Frames::open(setting.addr, &[]).await;
    let frames: Vec<Frame> =
        (0..100).flat_map(|n| [head(2 * n + 1, 0), reset(2 * n + 1)]).collect();
    client.send(&frames).await;
    let goaway = client.find(|frame| frame.kind == GOAWAY).await.expect("a word");
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn a_flood_of_malformed_requests_ends_its_connection() {
    let (server, setting) = Setting::with_sim().await;
    let fields = block(&completion_fields(&[("connection", "close")]));
    check_flood("the end of malformed requests", &setting, |nth| {
        let streams = (0..50).map(|n| 1 + 2 * (50 * nth + n));
        streams
            .map(|id| Frame::new(HEADERS, END_HEADERS | END_STREAM, id, fields.clone()))
            .collect()
    })
    .await;
    assert_eq!(server.handle().requests(), 0);
}

#[tokio::test]
async fn a_head_without_an_end_ends_its_connection() {
    let (server, setting) = Setting::with_sim().await;
    let fields = block(&[("x-a", "v".repeat(10_000).as_str())]);
    check_flood("the end of a head without an end", &setting, |nth| {
        let kind = if nth == 0 { HEADERS } else { CONTINUATION };
        vec![Frame::new(kind, 0, 1, fields.clone())]
    })
    .await;
    let (server_requests, empty) = (server.handle().requests(), Vec::new());
    assert_eq!(server_requests, 0);
    check_flood("the end of empty frames", &setting, |nth| {
        let kind = if nth == 0 { HEADERS } else { CONTINUATION };
        vec![Frame::new(kind, 0, 1, empty.clone())]
    })
    .await;
}

#[tokio::test]
async fn questions_from_one_that_hears_no_answer_end_its_connection() {
    let server = crate::setting::fast_sim().await;
    let setting = Setup::new(&[server.addr()])
        .limits(|limits| limits.write_timeout = std::time::Duration::from_millis(200))
        .start();
    for frame in [Frame::new(PING, 0, 0, [1; 8]), Frame::new(SETTINGS, 0, 0, [])] {
        let frames = vec![frame; 1000];
        check_flood("the end of questions", &setting, |_| frames.clone()).await;
    }
}

#[tokio::test]
async fn a_preface_that_trickles_in_is_no_reason_to_wait() {
    let server = crate::setting::fast_sim().await;
    let setting = Setup::new(&[server.addr()])
        .limits(|limits| limits.header_read_timeout = std::time::Duration::from_millis(100))
        .start();
    let mut wire = setting.wire().await;
    wire.send(&PREFACE[..20]).await;
    assert_eq!(wire.closed().await, b"");
    assert_eq!(setting.metric("tokenweir_limits_reached_total", &["header-timeout"]), 1);
}
