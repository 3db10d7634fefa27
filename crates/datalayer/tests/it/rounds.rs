//! Rounds: what is learned from good servers, and that bad ones do no harm.

use std::{net::SocketAddr, time::Duration};

use datalayer::METRICS_BYTES_MAX;
use picker::{AppProtocol, Health};

use crate::{
    server::{Answer, Script, Server},
    setting::{Setting, endpoint, pool_key, record, until},
};

const INTERVAL: Duration = Duration::from_millis(5);

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn page(waiting: u32) -> String {
    format!("vllm:num_requests_waiting{{engine=\"0\"}} {waiting}\n")
}

fn good(waiting: u32) -> Script {
    Script { health: Answer::Text(200, String::new()), metrics: Answer::Text(200, page(waiting)) }
}

async fn server(script: Script) -> Server {
    Server::start(any_port(), script, false).await
}

fn setting(server: &Server) -> Setting {
    let spec = endpoint(server.address, AppProtocol::Http1);
    Setting::start(INTERVAL, &[("pool", &[spec])])
}

/// One connection has carried every round, but for those after which it was given up, as on a machine too busy to answer in
/// time.
fn check_shared(server: &Server, setting: &Setting) {
    let connections = server.connections();
    let late = setting.scrapes("pool", "timeout");
    assert!(connections <= 1 + late, "{connections} connections, {late} scrapes late");
}

#[tokio::test]
async fn many_rounds_share_one_connection() {
    let server = server(good(3)).await;
    let setting = setting(&server);
    until("twenty scrapes", || server.scrapes() >= 20).await;
    check_shared(&server, &setting);
    assert_eq!(setting.waiting(), Some(3));
    assert_eq!(setting.health(), Health::Ready);

    server.set(|script| script.metrics = Answer::Text(200, page(4)));
    until("the new value", || setting.waiting() == Some(4)).await;
    setting.end().await;
}

#[tokio::test]
async fn http2_endpoints_are_asked_over_http2() {
    let server = Server::start(any_port(), good(3), true).await;
    let spec = endpoint(server.address, AppProtocol::H2c);
    let setting = Setting::start(INTERVAL, &[("pool", &[spec])]);
    until("twenty scrapes", || server.scrapes() >= 20).await;
    until("ready", || setting.health() == Health::Ready && setting.waiting() == Some(3)).await;
    check_shared(&server, &setting);
    setting.end().await;
}

#[tokio::test]
async fn names_are_looked_up() {
    let server = server(good(3)).await;
    let mut spec = endpoint(server.address, AppProtocol::Http1);
    spec.host = "localhost".into();
    let setting = Setting::start(INTERVAL, &[("pool", &[spec])]);
    until("ready", || setting.health() == Health::Ready && setting.waiting() == Some(3)).await;
    setting.end().await;
}

#[tokio::test]
async fn a_connection_the_server_closes_is_opened_anew_without_a_bad_word() {
    let script = Script { metrics: Answer::ThenClose(page(3)), ..good(0) };
    let server = server(script).await;
    let setting = setting(&server);
    until("ready", || setting.health() == Health::Ready).await;
    until("ten connections", || server.connections() >= 10).await;
    assert_eq!(setting.health(), Health::Ready);
    assert_eq!(setting.scrapes("pool", "failed"), 0);
    assert!(setting.scrapes("pool", "ok") >= 8);
    setting.end().await;
}

#[tokio::test]
async fn a_connection_that_closes_under_a_request_is_no_bad_sign() {
    let server = server(good(3)).await;
    // A health check and a scrape; the next check meets the close that vLLM has for idle connections.
    server.limit_requests(2);
    let setting = setting(&server);
    until("ready", || setting.health() == Health::Ready).await;
    until("many scrapes", || {
        assert_eq!(setting.health(), Health::Ready);
        setting.scrapes("pool", "ok") >= 20
    })
    .await;
    assert_eq!(setting.scrapes("pool", "failed"), 0);
    assert!(server.connections() >= 20);

    server.limit_requests(0);
    until("a close on every connection", || setting.health() == Health::Unready).await;
    setting.end().await;
}

#[tokio::test]
async fn pages_that_are_no_use_keep_the_last_reading_and_the_health() {
    let table = [
        ("invalid", Answer::Text(200, "<html>hello".to_owned())),
        ("invalid", Answer::Text(200, "\u{0}\u{1}vllm:\n".repeat(1000))),
        ("failed", Answer::Text(500, page(9))),
        ("failed", Answer::Text(404, page(9))),
        ("too_large", Answer::Endless),
        ("too_large", Answer::Announced(METRICS_BYTES_MAX as u64 + 1)),
        ("timeout", Answer::Hang),
    ];
    for (outcome, answer) in table {
        let server = server(good(3)).await;
        let setting = setting(&server);
        until("a first reading", || setting.waiting() == Some(3)).await;
        server.set(|script| script.metrics = answer.clone());
        until(outcome, || setting.scrapes("pool", outcome) >= 2).await;
        assert_eq!(setting.waiting(), Some(3), "{answer:?}");
        assert_eq!(setting.health(), Health::Ready, "{answer:?}");

        let heard = setting.member().signals.waiting.map(|reading| reading.heard);
        server.set(|script| script.metrics = Answer::Text(200, page(5)));
        until("a new reading", || setting.waiting() == Some(5)).await;
        assert!(setting.member().signals.waiting.map(|reading| reading.heard) > heard);
        setting.end().await;
    }
}

#[tokio::test]
async fn a_hanging_metrics_page_does_not_keep_health_from_being_asked() {
    let server = server(Script { metrics: Answer::Hang, ..good(0) }).await;
    let setting = setting(&server);
    until("ready", || setting.health() == Health::Ready).await;
    server.set(|script| script.health = Answer::Text(503, String::new()));
    let (checks, start) = (server.checks(), tokio::time::Instant::now());
    until("unready", || setting.health() == Health::Unready).await;
    assert!(server.checks() <= checks + 2, "the next check tells");
    // The page was not waited for as long as one may take at the most.
    assert!(start.elapsed() < Duration::from_secs(4), "took {:?}", start.elapsed());
    setting.end().await;
}

#[tokio::test]
async fn health_is_what_the_health_check_says() {
    let table = [
        (200, Health::Ready),
        (204, Health::Ready),
        (404, Health::Ready),
        (500, Health::Unready),
        (503, Health::Unready),
    ];
    for (status, health) in table {
        let server =
            server(Script { health: Answer::Text(status, "x".repeat(100)), ..good(3) }).await;
        let setting = setting(&server);
        until("asked", || setting.health() == health).await;
        until("read all the same", || setting.waiting() == Some(3)).await;
        setting.end().await;
    }
}

#[tokio::test]
async fn a_health_check_without_an_answer_is_unready() {
    let server = server(Script { health: Answer::Hang, ..good(0) }).await;
    let setting = setting(&server);
    until("unready", || setting.health() == Health::Unready).await;
    until("counted", || setting.scrapes("pool", "timeout") >= 1).await;
    setting.end().await;
}

#[tokio::test]
async fn a_server_that_goes_is_unready_until_it_is_back() {
    let first = server(good(3)).await;
    let address = first.address;
    let setting = setting(&first);
    until("a first reading", || setting.waiting() == Some(3)).await;
    assert_eq!(setting.health(), Health::Ready);

    first.stop().await;
    until("unready", || setting.health() == Health::Unready).await;
    until("counted", || setting.scrapes("pool", "failed") >= 2).await;
    assert_eq!(setting.waiting(), Some(3));

    let second = Server::start(address, good(7), false).await;
    until("ready again", || setting.health() == Health::Ready).await;
    until("read again", || setting.waiting() == Some(7)).await;
    assert_eq!(second.connections(), 1);
    setting.end().await;
}

#[tokio::test]
async fn scrapers_come_and_go_with_their_endpoints() {
    let (one, two) = (server(good(1)).await, server(good(2)).await);
    let spec = |server: &Server| endpoint(server.address, AppProtocol::Http1);
    let setting = Setting::start(INTERVAL, &[("pool", &[spec(&one)])]);
    until("a scrape of the first", || one.scrapes() > 0).await;
    assert_eq!(setting.tasks.running(), 2, "the datalayer and one scraper");

    setting.apply(&[("pool", &[spec(&one), spec(&two)])]);
    until("a scrape of the second", || two.scrapes() > 0).await;
    assert_eq!(setting.tasks.running(), 3);
    assert_eq!(one.connections(), 1, "who stays keeps its connection");

    setting.apply(&[("pool", &[spec(&two)])]);
    until("the first scraper has ended", || setting.tasks.running() == 2).await;
    assert_eq!(two.connections(), 1);

    setting.apply(&[]);
    until("both have ended", || setting.tasks.running() == 1).await;
    setting.end().await;
}

#[tokio::test]
async fn an_endpoint_that_left_and_came_back_is_asked_afresh() {
    let server = server(good(3)).await;
    let spec = endpoint(server.address, AppProtocol::Http1);
    let setting = Setting::start(INTERVAL, &[("pool", std::slice::from_ref(&spec))]);
    until("ready", || setting.health() == Health::Ready).await;
    // Both at once, so that the datalayer may see only the second.
    setting.apply(&[]);
    setting.apply(&[("pool", &[spec])]);
    until("ready again", || setting.health() == Health::Ready).await;
    until("one scraper", || setting.tasks.running() == 2).await;
    setting.end().await;
}

#[tokio::test]
async fn a_scrape_counts_once_in_each_pool_of_the_endpoint() {
    let server = server(good(3)).await;
    let spec = endpoint(server.address, AppProtocol::Http1);
    let one = std::slice::from_ref(&spec);
    let setting = Setting::start(INTERVAL, &[("a", one), ("b", one)]);
    until("some scrapes", || setting.scrapes("a", "ok") >= 5).await;
    assert!(setting.scrapes("b", "ok") >= 5);
    assert!(server.scrapes() <= setting.scrapes("a", "ok") + 2, "one scrape for both");

    setting.apply(&[("b", one)]);
    let (a, b) = (setting.scrapes("a", "ok"), setting.scrapes("b", "ok"));
    until("more scrapes", || setting.scrapes("b", "ok") >= b + 10).await;
    assert!(setting.scrapes("a", "ok") <= a + 2, "it has left a");
    assert_eq!(server.connections(), 1, "its connection stayed");
    setting.end().await;
}

#[tokio::test]
async fn each_reading_is_told_apart_from_the_requests_it_cannot_have_seen() {
    let server = server(good(3)).await;
    let setting = setting(&server);
    until("ready", || setting.health() == Health::Ready).await;
    let routed = setting.picker.straight_to(&pool_key("pool"));
    let mut open = setting.picker.open(record());
    let picked = setting.picker.pick(&routed, picker::Asked::default(), &mut open).await;
    let assignment = picked.expect("an assignment");
    assert_eq!(assignment.endpoint().sent_since_scrape(), 1);
    until("the scrape after the pick", || assignment.endpoint().sent_since_scrape() == 0).await;
    assert_eq!(assignment.endpoint().in_flight(), 1);
    drop(assignment);
    setting.end().await;
}
