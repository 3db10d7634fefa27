//! Ending well: a proxy that drains, and listeners that come and go.

use picker::{Finish, ListenerSpec, Tasks};
use proxy::Listeners;
use tokio::{net::TcpStream, runtime::Builder};

use crate::{
    fake::{Fake, STREAM_HEAD, TOKEN, chunk},
    frames::{
        DATA, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, RST_STREAM, block, completion_fields,
    },
    midstream::{check_cut, check_gone},
    refusals::check_shape,
    setting::{LOCALHOST, Port, Setting, Setup, completion, slow_sim, soon, until},
    wire::{Ended, Wire, get, post},
};

/// A stream that goes on for about two seconds.
async fn streaming(setting: &Setting) -> Wire {
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 60))).await;
    wire.so_far(|reply| !reply.data().is_empty()).await;
    wire
}

async fn check_finishes(mut wire: Wire) -> Wire {
    let reply = wire.answer().await;
    let data = reply.data();
    assert_eq!((reply.code, reply.ended, data.len()), (200, Ended::Clean, 61), "{reply:?}");
    assert_eq!(data[60], "[DONE]");
    wire
}

async fn refuses(addr: std::net::SocketAddr) -> bool {
    TcpStream::connect(addr).await.is_err()
}

#[tokio::test]
async fn a_draining_proxy_finishes_what_it_has_and_takes_nothing_new() {
    let server = slow_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    let running = streaming(&setting).await;
    let mut plain = setting.wire().await;
    plain.send(&post("/v1/completions", &completion(false, 60))).await;
    soon("both at work", server.handle().until(|handle| handle.live() == 2)).await;
    let mut idle = setting.wire().await;
    idle.send(&get("/v1/models")).await;
    assert_eq!(idle.answer().await.code, 200);
    let unused = setting.wire().await;
    until("all accepted", || setting.connections.running() == 5).await;

    setting.connections.stop();
    assert_eq!(idle.closed().await, b"", "an idle connection is closed");
    assert_eq!(unused.closed().await, b"", "an unused connection is closed");
    until("the listener closed", || setting.connections.running() == 2).await;
    assert!(refuses(setting.addr).await);
    assert_eq!(server.handle().live(), 2, "both are still at work");

    let running = check_finishes(running).await;
    assert_eq!(running.closed().await, b"", "its connection is not kept");
    let reply = plain.answer().await;
    assert_eq!(reply.json()["usage"]["completion_tokens"], 60);
    assert_eq!(plain.closed().await, b"");
    soon("all tasks ended", setting.connections.ended()).await;
    setting.record(3).await;
}

#[tokio::test]
async fn a_draining_proxy_does_not_wait_for_those_that_have_left() {
    let server = slow_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    let running = streaming(&setting).await;
    setting.connections.stop();
    drop(running);
    soon("all tasks ended", setting.connections.ended()).await;
    soon("aborted", server.handle().until(|handle| handle.aborted() == 1)).await;
}

/// An endpoint that gives one token and then nothing, behind a proxy.
async fn with_one_token() -> (Fake, Setting) {
    let fake = Fake::falling_silent_after(format!("{STREAM_HEAD}{}", chunk(TOKEN))).await;
    let setting = Setup::new(&[fake.addr]).start();
    (fake, setting)
}

/// The time to drain is over.
fn cut(setting: &Setting) {
    setting.connections.stop();
    setting.connections.cut();
}

async fn check_told_as_cut(setting: &Setting) {
    check_gone(setting, Finish::Draining, "LR").await;
    assert_eq!(setting.metric("tokenweir_broken_answers_total", &[r#"reason="draining""#]), 1);
    assert_eq!(setting.metric("tokenweir_client_disconnects_total", &[]), 0);
    soon("all tasks ended", setting.connections.ended()).await;
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_is_told_that_it_is_cut() {
    let (_fake, setting) = with_one_token().await;
    let mut running = streaming(&setting).await;
    cut(&setting);
    check_cut(&running.answer().await, TOKEN, 503);
    check_told_as_cut(&setting).await;
}

#[tokio::test]
async fn a_stream_of_http_2_that_outlasts_the_drain_is_told_so_too() {
    let (_fake, setting) = with_one_token().await;
    let mut client = Frames::open(setting.addr, &[]).await;
    let head = Frame::new(HEADERS, END_HEADERS, 1, block(&completion_fields(&[])));
    client.send(&[head, Frame::new(DATA, END_STREAM, 1, completion(true, 9))]).await;
    client.find(|frame| frame.kind == DATA).await.expect("a token");
    cut(&setting);
    let told = client.find(|frame| frame.kind == DATA).await.expect("an event").payload;
    assert!(String::from_utf8_lossy(&told).contains(r#""code":503"#), "{told:?}");
    client.find(|frame| frame.kind == RST_STREAM).await.expect("an unclean end");
    check_told_as_cut(&setting).await;
}

#[tokio::test]
async fn what_has_no_answer_when_the_drain_is_over_is_refused() {
    let fake = Fake::falling_silent_after("").await;
    let setting = Setup::new(&[fake.addr]).start();
    let request = post("/v1/completions", &completion(true, 9));
    let (mut sent, mut half) = (setting.wire().await, setting.wire().await);
    sent.send(&request).await;
    half.send(&request[..request.len() - 1]).await;
    until("one is sent on", || fake.seen().len() == 1).await;
    // All on one thread: when this is answered, what came before it has been read.
    assert_eq!(setting.ask(b"GET / HTTP/1.1\r\nHost: other.com\r\n\r\n").await.code, 404);
    cut(&setting);
    for wire in [&mut sent, &mut half] {
        let reply = wire.answer().await;
        check_shape(&reply, 503, "draining");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    setting.record(3).await;
    let refused =
        |record: &picker::RequestRecord| record.finish == Some(Finish::Refused("draining"));
    assert_eq!(setting.records().iter().filter(|record| refused(record)).count(), 2);
    soon("all tasks ended", setting.connections.ended()).await;
}

#[test]
fn an_answer_that_its_client_had_no_time_to_take_was_cut_by_the_gateway() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (_fake, setting, _client) = runtime.block_on(async {
        let (fake, setting) = with_one_token().await;
        let client = streaming(&setting).await;
        (fake, setting, client)
    });
    cut(&setting);
    // Nothing runs any more.
    drop(runtime);
    let records = setting.records();
    assert_eq!(records.len(), 1);
    let ended = (records[0].finish.clone(), records[0].response_code, records[0].response_flags);
    assert_eq!(ended, (Some(Finish::Draining), 200, "LR"));
}

#[tokio::test]
async fn a_request_that_comes_while_draining_is_refused() {
    let (server, setting) = Setting::with_sim().await;
    let request = post("/v1/completions", &completion(false, 1));
    let (begun, rest) = request.split_at(40);
    let mut wire = setting.wire().await;
    wire.send(begun).await;
    // All on one thread: when this is answered, what came before it has been read.
    setting.check_serves().await;
    setting.connections.stop();
    wire.send(rest).await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (503, Some("draining")));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(wire.closed().await, b"");
    assert_eq!(server.handle().requests(), 0);
    soon("all tasks ended", setting.connections.ended()).await;
}

#[tokio::test]
async fn a_stream_outlives_the_listener_it_came_through() {
    let server = slow_sim().await;
    let mut setting = Setup::new(&[server.addr()]).start();
    let running = streaming(&setting).await;
    let other = Port::free();
    let listeners = setting.move_to(&[&other]);
    assert!(setting.listeners.apply(&listeners).is_empty());
    until("the old listener closed", || setting.connections.running() == 2).await;
    assert!(refuses(setting.addr).await);
    let mut wire = Wire::open(other.addr).await;
    wire.send(&get("/v1/models")).await;
    assert_eq!(wire.answer().await.code, 200);
    check_finishes(running).await;
}

#[tokio::test]
async fn a_listener_that_stays_is_left_alone_and_one_may_come_back() {
    let (_server, mut setting) = Setting::with_sim().await;
    let (first, second) = (Port::free(), Port::free());
    for ports in [&[&first, &second][..], &[&first], &[&second, &first], &[&second], &[&first]] {
        let listeners = setting.move_to(ports);
        assert!(setting.listeners.apply(&listeners).is_empty());
        assert!(setting.listeners.apply(&listeners).is_empty(), "once more changes nothing");
        until("the others closed", || setting.connections.running() == ports.len()).await;
        for port in [&first, &second] {
            let wanted = ports.iter().any(|wanted| wanted.addr == port.addr);
            assert_eq!(refuses(port.addr).await, !wanted);
        }
        until("no connection left", || setting.connections.running() == ports.len()).await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_reported_and_the_others_are_served() {
    let (_server, mut setting) = Setting::with_sim().await;
    let taken = std::net::TcpListener::bind((LOCALHOST, 0)).expect("a free port");
    let addr = taken.local_addr().expect("address");
    let other = Port::free();
    let mut listeners = vec![ListenerSpec { port: addr.port(), gateways: vec!["a/b".into()] }];
    listeners.extend(setting.move_to(&[&other]));
    let errors = setting.listeners.apply(&listeners);
    assert_eq!((errors.len(), errors[0].addr), (1, addr));
    let text = errors[0].to_string();
    assert!(text.contains(&addr.to_string()) && text.contains("a/b"), "{text}");
    let mut wire = Wire::open(other.addr).await;
    wire.send(&get("/v1/models")).await;
    assert_eq!(wire.answer().await.code, 200);
    drop(taken);
    assert!(setting.listeners.apply(&listeners).is_empty(), "tried again");
}

#[tokio::test]
async fn listeners_follow_the_desired_state_until_the_proxy_drains() {
    let (_server, setting) = Setting::with_sim().await;
    let tasks = Tasks::clone(&setting.connections);
    let (first, second) = (Port::free(), Port::free());
    setting.move_to(&[&first]);
    let listeners = Listeners::new(setting.proxy.clone(), LOCALHOST);
    let changes = setting.writer.subscribe();
    tasks.spawn("follow", listeners.follow(setting.view.clone(), changes));
    check_opens(first.addr).await;
    setting.move_to(&[&second]);
    check_opens(second.addr).await;
    until("the first closed", || std::net::TcpStream::connect(first.addr).is_err()).await;
    setting.connections.stop();
    soon("all tasks ended", setting.connections.ended()).await;
    assert!(refuses(second.addr).await);
}

async fn check_opens(addr: std::net::SocketAddr) {
    until("the port opened", || std::net::TcpStream::connect(addr).is_ok()).await;
    let mut wire = Wire::open(addr).await;
    wire.send(&get("/v1/models")).await;
    assert_eq!(wire.answer().await.code, 200);
}
