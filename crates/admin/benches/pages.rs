//! What a page of a large fleet costs, over a socket: a scrape, the endpoints, and a tick of an open dashboard.
//!
//! `cargo bench -p admin`. Prometheus asks for the first each 15 s or so, a dashboard is told a tick each second: divided by
//! that, a time is a share of a core.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use admin::{Views, serve_admin, serve_stats};
use divan::{Bencher, black_box, counter::BytesCount};
use openai::Usage;
use picker::{
    AppProtocol, Asked, Assignment, Desired, EndpointPicker, EndpointSpec, Finish, Health, Journal,
    Metrics, PoolKey, PoolKind, PoolSpec, RequestRecord, Tasks, Workload, monotonic,
};
use scheduling::{EndpointId, Policy, Reading, ScrapeMark, Signals};
use serde_json::json;
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};

const ENDPOINTS: usize = 300;
/// Each with series of its own.
const MODELS: usize = 11;
const REQUESTS: usize = 2_000;

fn main() {
    divan::main();
}

#[derive(Debug)]
struct NoJournal;

impl Journal for NoJournal {
    fn write(&self, _: &RequestRecord) {}
}

struct Fleet {
    stats: SocketAddr,
    admin: SocketAddr,
    _at_work: Vec<Assignment>,
    _runtime: Runtime,
}

impl Fleet {
    /// Endpoints that have told everything, requests that have ended, and some at work.
    fn start() -> Self {
        let workload = Workload { name: "tokenweir".into(), namespace: "default".into() };
        let metrics = Arc::new(Metrics::new(workload).expect("metrics"));
        let tasks = Tasks::new(metrics.panics.clone());
        let picker = EndpointPicker::new(metrics, Arc::new(NoJournal), 1);
        let runtime = Runtime::new().expect("a runtime");
        let (stats, admin, at_work) = runtime.block_on(async {
            let at_work = fill(&picker);
            let views = Arc::new(views(&picker));
            let (stats, for_stats) = bind().await;
            let (admin, for_admin) = bind().await;
            tasks.spawn("stats", serve_stats(for_stats, Arc::clone(&views), tasks.clone()));
            tasks.spawn("admin", serve_admin(for_admin, views, tasks.clone()));
            (stats, admin, at_work)
        });
        Self { stats, admin, _at_work: at_work, _runtime: runtime }
    }
}

fn views(picker: &EndpointPicker) -> Views {
    Views {
        view: picker.view(),
        objects: Arc::new(|| json!([])),
        config: Arc::new(|| json!({ "generation": 1 })),
        ready: Arc::new(|| Ok(())),
        drain: Arc::new(|| {}),
        levels: Arc::new(|| json!({})),
        set_levels: Arc::new(|_| Ok(())),
    }
}

async fn bind() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    (listener.local_addr().expect("an address"), listener)
}

fn host(nth: usize) -> String {
    format!("10.0.{}.{}", nth / 250, nth % 250)
}

/// The requests that are still at work.
fn fill(picker: &EndpointPicker) -> Vec<Assignment> {
    let kind = PoolKind::InferencePool;
    let key = PoolKey { kind, namespace: "default".into(), name: "llama".into(), port: 0 };
    let id = |nth| EndpointId::new(format!("{}:8000", host(nth)));
    let endpoint = |nth: usize| EndpointSpec {
        id: id(nth),
        workload: format!("vllm-{nth}").into(),
        host: host(nth).into(),
        port: 8000,
        protocol: AppProtocol::Http1,
    };
    let endpoints = (0..ENDPOINTS).map(endpoint).collect();
    let pool = PoolSpec { endpoints, ..PoolSpec::new(key.clone(), Policy::Predicted) };
    let writer = picker.writer();
    writer.apply(Desired { pools: vec![pool], ..Desired::default() });
    let heard = monotonic();
    for nth in 0..ENDPOINTS {
        let signals = Signals {
            running: Some(Reading { value: 7, heard }),
            waiting: Some(Reading { value: 1, heard }),
            kv_usage: Some(Reading { value: 0.375, heard }),
            kv_blocks: Some(Reading { value: 4_000, heard }),
            kv_block_tokens: Some(Reading { value: 16, heard }),
            ..Signals::default()
        };
        writer.health(&id(nth), Health::Ready);
        writer.signals(&id(nth), signals, ScrapeMark::NOTHING);
    }
    for nth in 0..REQUESTS {
        let mut assignment = pick(picker, &key, nth);
        let begun = Instant::now();
        assignment.tokens(begun);
        assignment.tokens(begun + Duration::from_secs(1));
        let (prompt_tokens, completion_tokens) = (Some(500), Some(150));
        assignment.usage(Usage { prompt_tokens, completion_tokens, cached_tokens: None });
        assignment.note(|record| (record.response_code, record.model_known) = (200, true));
        assignment.finish(Finish::Complete(Some("stop".to_owned())));
    }
    (0..ENDPOINTS).map(|nth| pick(picker, &key, nth)).collect()
}

fn pick(picker: &EndpointPicker, pool: &PoolKey, nth: usize) -> Assignment {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut open = picker.open(RequestRecord {
        method: "POST".into(),
        path: "/v1/completions".into(),
        authority: "test.com".into(),
        request_id: format!("request-{nth}"),
        request_model: Some(format!("model-{}", nth % MODELS)),
        stream: true,
        ..RequestRecord::new(address, address)
    });
    let routed = picker.straight_to(pool);
    let mut pick = pin!(picker.pick(&routed, Asked::default(), &mut open));
    match pick.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(assignment) => assignment.expect("an endpoint"),
        Poll::Pending => panic!("it waits"),
    }
}

/// Asks, and reads until the answer is whole.
fn read(stream: &mut TcpStream, path: &str, is_whole: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it reads");
    let mut answer = Vec::with_capacity(2 << 20);
    let mut buffer = vec![0; 1 << 20];
    while !is_whole(&answer) {
        let count = stream.read(&mut buffer).expect("it answers");
        assert!(count > 0, "it broke off");
        answer.extend_from_slice(&buffer[..count]);
    }
    answer
}

/// A body of the length that its head says.
fn has_body(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let (_, length) = head.split_once("content-length: ").expect("a length");
    let length = length.lines().next().and_then(|line| line.parse::<usize>().ok());
    answer.len() == end + 4 + length.expect("a number")
}

/// A chunk with an event in it.
fn has_event(answer: &[u8]) -> bool {
    answer.ends_with(b"\n\n\r\n") && answer.windows(7).any(|window| window == b"\ndata: ")
}

fn page(bencher: Bencher<'_, '_>, addr: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let bytes = read(&mut stream, path, has_body).len();
    let ask = || black_box(read(&mut stream, path, has_body));
    bencher.counter(BytesCount::new(bytes)).bench_local(ask);
}

#[divan::bench]
fn a_scrape_of_metrics(bencher: Bencher<'_, '_>) {
    let fleet = Fleet::start();
    page(bencher, fleet.stats, "/metrics");
}

#[divan::bench]
fn the_endpoints(bencher: Bencher<'_, '_>) {
    let fleet = Fleet::start();
    page(bencher, fleet.admin, "/endpoints");
}

/// The first one, which a page gets when it is opened.
#[divan::bench]
fn a_tick_of_a_dashboard(bencher: Bencher<'_, '_>) {
    let fleet = Fleet::start();
    let open = || {
        let mut stream = TcpStream::connect(fleet.admin).expect("it listens");
        read(&mut stream, "/events", has_event)
    };
    bencher.counter(BytesCount::new(open().len())).bench_local(|| black_box(open()));
}
