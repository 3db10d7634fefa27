//! Endpoints that fail in every way there is, under two hundred clients that never stop asking.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use parking_lot::Mutex;
use picker::{AppProtocol, Finish};
use sim::{Fault, Running, Server, SimConfig};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    fake::{Fake, json_answer},
    setting::{Setting, Setup, completion, endpoint},
    wire::{Ended, Reply, Wire, post_with},
};

const CLIENTS: usize = 200;
const TOKENS: u32 = 6;
/// What vLLM says while it shuts down.
const DRAINING: &str =
    r#"{"error":{"message":"cannot schedule new futures after shutdown","type":"x","code":500}}"#;
/// How long silence is borne before an answer, and inside it. Long enough for a busy machine.
const FIRST_TOKEN: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(7);
/// Until something must have happened, and how often that is looked at.
const DEADLINE: Duration = Duration::from_mins(4);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long a crashed endpoint is away, and a failing one left out.
const AWAY: Duration = Duration::from_millis(100);

/// How a request ended, as its client sees it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Seen {
    Whole,
    /// With some tokens, and visibly.
    Broken,
    /// As the endpoint's own error, which is passed on as it is.
    Error,
}

/// Judges an answer; whatever is neither whole nor visibly broken is a failure.
fn seen(reply: &Reply, stream: bool) -> Seen {
    let dead = reply.text().contains("EngineCore");
    if !stream && dead {
        assert_eq!((reply.code, reply.ended), (500, Ended::Clean), "{reply:?}");
        return Seen::Error;
    }
    assert_eq!(reply.code, 200, "refused, though another endpoint was well: {reply:?}");
    if !stream {
        assert_eq!(reply.ended, Ended::Clean, "{reply:?}");
        assert_eq!(reply.json()["usage"]["completion_tokens"], TOKENS, "{reply:?}");
        return Seen::Whole;
    }
    let data = reply.data();
    let told = data.iter().filter(|data| data.starts_with(r#"{"error""#)).count();
    let tokens = data.iter().filter(|data| data.contains(r#""choices":[{"#)).count();
    if told == 0 {
        let whole = (reply.ended, data.last().map(String::as_str), tokens);
        assert_eq!(whole, (Ended::Clean, Some("[DONE]"), TOKENS as usize), "{reply:?}");
        return Seen::Whole;
    }
    assert!(tokens > 0 && told == 1, "another endpoint would have done: {reply:?}");
    // A dead engine ends politely behind its error, which passes as it is.
    assert_eq!(reply.ended, if dead { Ended::Clean } else { Ended::Cut }, "{reply:?}");
    Seen::Broken
}

/// Waits until `condition` holds. Two hundred clients on a busy machine take their time.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let all = async {
        while !condition() {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(DEADLINE, all).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// What all clients have seen.
struct Clients {
    ends: Mutex<Vec<(String, Seen)>>,
    /// Answers of each.
    turns: [AtomicUsize; CLIENTS],
    over: AtomicBool,
}

impl Default for Clients {
    fn default() -> Self {
        let turns = std::array::from_fn(|_| AtomicUsize::new(0));
        Self { ends: Mutex::default(), turns, over: AtomicBool::new(false) }
    }
}

impl Clients {
    /// Waits until each has begun a request after this, and seen its end.
    async fn all_asked(&self) {
        let turns = || self.turns.iter().map(|turn| turn.load(Ordering::Relaxed));
        let before: Vec<_> = turns().collect();
        eventually("everybody asked", || {
            turns().zip(&before).all(|(now, before)| now >= before + 2)
        })
        .await;
    }

    /// Asks again and again, on connections that last as long as the proxy lets them.
    async fn ask(self: Arc<Self>, number: usize, addr: SocketAddr) {
        let mut wire = Wire::open(addr).await;
        while !self.over.load(Ordering::Relaxed) {
            let turn = self.turns[number].fetch_add(1, Ordering::Relaxed);
            let (id, stream) =
                (format!("client-{number}-{turn}"), !(number + turn).is_multiple_of(4));
            let body = completion(stream, TOKENS);
            let headers = format!("x-request-id: {id}\r\n");
            wire.send(&post_with("/v1/completions", &headers, body.as_bytes())).await;
            let reply = wire.answer().await;
            assert_eq!(reply.header("x-request-id"), Some(id.as_str()), "another's answer");
            let seen = seen(&reply, stream);
            self.ends.lock().push((id, seen));
            if reply.ended == Ended::Cut {
                assert_eq!(wire.closed().await, b"", "something follows a cut answer");
                wire = Wire::open(addr).await;
            }
        }
    }
}

/// Requests that were moved, and answers that broke.
fn troubles(setting: &Setting, clients: &Clients) -> u64 {
    let broken = clients.ends.lock().iter().filter(|(_, seen)| *seen != Seen::Whole).count();
    setting.metric("tokenweir_retries_total", &[]) + broken as u64
}

/// Breaks one endpoint while it has work, until every client has been through it, then mends it.
/// Requests keep the fault that they came in with: nobody is left who has it when this ends.
async fn suffer(victim: &Running, fault: Fault, setting: &Setting, clients: &Clients) {
    let handle = victim.handle();
    eventually("the endpoint has work", || handle.live() >= CLIENTS / 10).await;
    let before = troubles(setting, clients);
    handle.set_fault(fault);
    let shows = || troubles(setting, clients) > before;
    eventually(&format!("{fault} shows"), shows).await;
    clients.all_asked().await;
    handle.set_fault(Fault::None);
    eventually("the endpoint is well", || handle.settled()).await;
    clients.all_asked().await;
}

/// An endpoint joins that shuts down: it is healthy, empty and fast, and serves nobody.
async fn join_draining(setting: &Setting, clients: &Clients) {
    let draining = Fake::answering(json_answer("500 Internal Server Error", DRAINING)).await;
    let before = troubles(setting, clients);
    setting.change(|pool| pool.endpoints.push(endpoint(draining.addr, AppProtocol::Http1)));
    eventually("it is tried", || troubles(setting, clients) > before).await;
    clients.all_asked().await;
    setting.change(|pool| drop(pool.endpoints.pop()));
    clients.all_asked().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_lose_nothing_but_answers_that_had_begun() {
    let config = || SimConfig { speedup: 2.0, ..SimConfig::default() };
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        endpoints.push(Server::start(config()).await.expect("a simulated server"));
    }
    let addrs: Vec<_> = endpoints.iter().map(Running::addr).collect();
    let setting = Setup::new(&addrs)
        .ejecting_for(AWAY)
        .limits(|limits| limits.connect_timeout = FIRST_TOKEN)
        .pool(|pool| {
            pool.delivery.first_token_timeout = Some(FIRST_TOKEN);
            pool.delivery.idle_timeout = IDLE;
        })
        .start();
    let clients = Arc::new(Clients::default());
    let mut asking = JoinSet::new();
    for number in 0..CLIENTS {
        asking.spawn(Arc::clone(&clients).ask(number, setting.addr));
    }
    let faults = [
        Fault::Refuse,
        Fault::Crash(AWAY),
        Fault::Hang,
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        Fault::CutAfter(0),
        Fault::CutAfter(3),
        Fault::DieAfter(0),
        Fault::DieAfter(3),
        Fault::Freeze,
    ];
    for (nth, fault) in faults.into_iter().enumerate() {
        // The last of them is never broken.
        suffer(&endpoints[nth % 3], fault, &setting, &clients).await;
    }
    join_draining(&setting, &clients).await;
    clients.over.store(true, Ordering::Relaxed);
    while let Some(ended) = asking.join_next().await {
        ended.expect("every answer is whole or visibly broken");
    }
    let ends = clients.ends.lock().clone();
    check_counted(&setting, &ends).await;
    for endpoint in &endpoints {
        eventually("nothing runs on", || endpoint.handle().in_flight() == 0).await;
    }
}

/// One record for each answer, which says what its client saw; every move is counted.
async fn check_counted(setting: &Setting, ends: &[(String, Seen)]) {
    setting.record(ends.len()).await;
    let records = setting.records();
    let said: BTreeSet<_> = records
        .iter()
        .map(|record| {
            let seen = match &record.finish {
                Some(Finish::Complete(_)) if record.response_code == 500 => Seen::Error,
                Some(Finish::Complete(_)) => Seen::Whole,
                Some(Finish::EndpointGone | Finish::IdleTimeout) => Seen::Broken,
                other => panic!("{other:?}: {record:?}"),
            };
            (record.request_id.clone(), seen)
        })
        .collect();
    assert_eq!(records.len(), ends.len(), "a request was answered twice");
    assert_eq!(said, ends.iter().cloned().collect());
    assert!(ends.iter().any(|(_, seen)| *seen == Seen::Broken), "nothing broke");
    let moves: u64 = records.iter().map(|record| u64::from(record.attempts) - 1).sum();
    assert_eq!(setting.metric("tokenweir_retries_total", &[]), moves);
    for outcome in ["unreachable", "reset", "error", "first_token_timeout"] {
        assert!(setting.metric("tokenweir_retries_total", &[outcome]) > 0, "{outcome}");
    }
}
