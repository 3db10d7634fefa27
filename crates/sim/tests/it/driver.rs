//! Load on a server: what the figures say against what the server saw.

use std::time::Duration;

use http::StatusCode;
use openai::Operation;
use sim::driver::{Failure, Outcome, Plan, Prompts, Target, calibrate, drive, first_model};
use sim::workload::Popularity;
use sim::{Fault, Pace, Running, Server, SimConfig, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn target(addr: std::net::SocketAddr) -> Target {
    Target::resolve(&format!("http://{addr}/v1")).await.expect("a URL")
}

async fn plan(server: &Running, pace: Pace, requests: u64) -> Plan {
    let target = target(server.addr()).await;
    let model = first_model(&target).await.expect("it lists models");
    Plan { requests: Some(requests), ..Plan::new(target, model, Workload::llmperf(), pace) }
}

async fn run(plan: &Plan) -> Outcome {
    drive(plan, std::future::pending(), &|_| {}).await
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand tokens")]
fn same(sum: f64, count: u64) -> bool {
    (sum - count as f64).abs() < 0.5
}

#[tokio::test]
async fn tokens_and_requests_are_those_the_server_counts() {
    for operation in [Operation::Completions, Operation::ChatCompletions] {
        let server = Server::start(SimConfig::fast()).await.unwrap();
        let mut plan = plan(&server, Pace::Closed(4), 20).await;
        plan.operation = operation;
        plan.warmup = 2;
        let measured = run(&plan).await;
        assert_eq!((measured.completed, measured.failed, measured.started), (20, 0, 20));
        assert_eq!(server.handle().requests(), 22);
        assert!(server.handle().connections_total() <= 5, "four users and a list of models");
        // The first two were not counted.
        let shapes = || plan.workload.arrivals(&plan.pace, plan.seed).take(22);
        let warm: u32 = shapes().take(2).map(|arrival| arrival.shape.output_tokens).sum();
        let generated = server.handle().generation_tokens();
        assert_eq!(measured.output_tokens, generated - u64::from(warm));
        assert_eq!(measured.ttft.count(), 20);
        assert_eq!(measured.tpot.count(), 20);
        // One chunk a token, and a gap before each but the first.
        assert_eq!(measured.itl.count(), measured.output_tokens - 20);
        assert!(measured.ttft.max() <= measured.e2e.max());
        assert_eq!(measured.without_usage, 0);
    }
}

#[tokio::test]
async fn prompts_have_the_drawn_lengths() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut plan = plan(&server, Pace::Closed(2), 20).await;
    let expected: u32 = plan
        .workload
        .arrivals(&plan.pace, plan.seed)
        .take(20)
        .map(|arrival| arrival.shape.prompt_tokens)
        .sum();
    for (operation, ids) in [
        (Operation::Completions, false),
        (Operation::Completions, true),
        (Operation::ChatCompletions, false),
    ] {
        plan.operation = operation;
        plan.prompts = if ids {
            Prompts::TokenIds(1000, 2000)
        } else {
            Prompts::Words(calibrate(&plan).await.unwrap().expect("it counts"))
        };
        let measured = run(&plan).await;
        assert_eq!(measured.prompt_tokens, u64::from(expected), "{operation:?} {:?}", plan.prompts);
        assert!(same(measured.prompt_lengths.sum(), expected.into()));
    }
}

#[tokio::test]
async fn shared_segments_are_found_in_the_cache_and_another_salt_is_not() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut plan = plan(&server, Pace::Closed(1), 6).await;
    plan.workload = Workload::shared_prefix(1, 6, 800, 80, 4);
    let hits = || server.handle().metrics().prefix_hits;
    run(&plan).await;
    assert!(hits() >= 790 * 4, "{}", hits());
    plan.requests = Some(1);
    plan.salt = 1;
    let before = hits();
    run(&plan).await;
    assert!(hits() - before < 32, "{}", hits() - before);
}

#[tokio::test]
async fn adapters_are_asked_for_by_name() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut plan = plan(&server, Pace::Closed(1), 12).await;
    plan.workload = plan.workload.with_adapters(Popularity::uniform(2));
    plan.adapters = vec!["sql-lora".to_owned(), "tweet-summary".to_owned()];
    assert_eq!(run(&plan).await.completed, 12);
    let asked = |name: &str| {
        let wanted = format!(r#"{{"model":"{name}","#);
        let recent = server.handle().recent();
        recent.iter().filter(|seen| seen.body.starts_with(wanted.as_bytes())).count()
    };
    assert_eq!(asked("sql-lora") + asked("tweet-summary"), 12);
    assert!(asked("sql-lora") > 0 && asked("tweet-summary") > 0);
}

#[tokio::test]
async fn failures_are_counted_by_kind() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut plan = plan(&server, Pace::Closed(2), 5).await;
    for (fault, kind) in [
        (Fault::Status(StatusCode::SERVICE_UNAVAILABLE), Failure::Status(503)),
        (Fault::CutAfter(3), Failure::Cut),
        (Fault::DieAfter(3), Failure::ErrorEvent),
        (Fault::Hang, Failure::Timeout),
    ] {
        server.handle().set_fault(fault);
        if kind == Failure::Timeout {
            plan.timeout = Duration::from_millis(300);
        }
        let measured = run(&plan).await;
        assert_eq!((measured.completed, measured.failed), (0, 5), "{kind}");
        let kinds: Vec<_> = measured.errors.iter().map(|(kind, e)| (*kind, e.count)).collect();
        assert_eq!(kinds, [(kind, 5)]);
        assert!(!measured.errors[&kind].first.is_empty());
        assert_eq!(measured.e2e.count(), 0);
    }
    server.stop().await;
    let measured = run(&plan).await;
    assert_eq!(measured.errors[&Failure::Connect].count, 5);
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_has_no_first_token() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let plan = Plan { stream: false, ..plan(&server, Pace::Closed(2), 5).await };
    let measured = run(&plan).await;
    assert_eq!((measured.completed, measured.ttft.count(), measured.itl.count()), (5, 0, 0));
    assert_eq!((measured.e2e.count(), measured.ntpot.count()), (5, 5));
    assert_eq!(measured.output_tokens, server.handle().generation_tokens());
}

/// A server that stands still for a while is seen by everyone who would have come meanwhile, not by the one that was
/// there.
#[tokio::test]
async fn a_stall_shows_in_all_requests_that_were_due_meanwhile() {
    const STALL: Duration = Duration::from_millis(400);
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut plan = plan(&server, Pace::Constant(100.0), 100).await;
    plan.workload = Workload::shared_prefix(1000, 1, 10, 10, 4);
    let handle = server.handle().clone();
    let stall = async {
        handle.until(|handle| handle.requests() >= 30).await;
        handle.set_fault(Fault::Freeze);
        tokio::time::sleep(STALL).await;
        handle.set_fault(Fault::None);
    };
    let (measured, ()) = tokio::join!(run(&plan), stall);
    assert_eq!(measured.completed, 100);
    // Forty were due while it stood still; they waited between nothing and all of it.
    assert!(measured.ttft.max().unwrap() > 0.35, "{:?}", measured.ttft.max());
    assert!(measured.ttft.quantile(0.75).unwrap() > 0.1, "{:?}", measured.ttft.quantile(0.75));
    assert!(measured.ttft.min().unwrap() < 0.1, "{:?}", measured.ttft.min());
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate_and_ends_with_its_duration() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut plan = plan(&server, Pace::Constant(100.0), 0).await;
    (plan.requests, plan.duration) = (None, Some(Duration::from_millis(500)));
    let measured = run(&plan).await;
    assert_eq!(measured.completed, 50);
    assert!(measured.duration >= Duration::from_millis(490), "{:?}", measured.duration);
    assert_eq!(measured.lateness.count(), 50);
}

#[tokio::test]
async fn what_has_no_room_is_not_sent_and_said() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    server.handle().set_fault(Fault::Hang);
    let mut plan = plan(&server, Pace::Constant(1000.0), 10).await;
    // Nobody gives up before the last of them was due.
    (plan.in_flight_max, plan.timeout) = (3, Duration::from_secs(1));
    let measured = run(&plan).await;
    assert_eq!((measured.started, measured.failed, measured.not_sent), (3, 3, 7));
}

#[tokio::test]
async fn a_stopped_run_tells_what_it_has() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let plan = Plan { requests: None, ..plan(&server, Pace::Closed(3), 0).await };
    let handle = server.handle().clone();
    let stop = async move {
        handle.until(|handle| handle.requests() >= 20).await;
        handle.set_fault(Fault::Hang);
        handle.until(|handle| handle.in_flight() == 3 && handle.live() == 0).await;
    };
    let measured = drive(&plan, stop, &|_| {}).await;
    assert!(measured.interrupted && measured.completed >= 17);
    assert_eq!(measured.unfinished(), 3);
    server.handle().until(|handle| handle.in_flight() == 0).await;
}

/// Keep-alive servers close connections when they like, also right before a request.
#[tokio::test]
async fn a_connection_closed_between_requests_costs_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = target(listener.local_addr().unwrap()).await;
    let serving = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 1 << 16];
            let mut got = 0;
            while !bytes[..got].ends_with(b"}") {
                got += stream.read(&mut bytes[got..]).await.unwrap();
            }
            let body = r#"{"choices":[{"text":"x","finish_reason":"length"}]}"#;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let plan = Plan::new(target, "m", Workload::llmperf(), Pace::Closed(1));
    let plan = Plan { stream: false, requests: Some(5), ..plan };
    let measured = tokio::select! {
        measured = run(&plan) => measured,
        () = serving => unreachable!(),
    };
    assert_eq!((measured.completed, measured.failed), (5, 0), "{:?}", measured.errors);
    assert_eq!(measured.without_usage, 5);
}

#[tokio::test]
async fn urls_of_other_kinds_are_refused() {
    for (url, said) in [
        ("https://test.com", "TLS is not supported yet"),
        ("test.com:80", "is no URL"),
        ("ftp://test.com", "is no URL"),
        ("/v1", "is no URL"),
    ] {
        let error = Target::resolve(url).await.unwrap_err().to_string();
        assert!(error.contains(said), "{url}: {error}");
    }
}
