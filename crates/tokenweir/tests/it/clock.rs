//! The time of day jumps by hours, both ways, and nothing hangs on it.
//!
//! Who reads the time of day, and why a jump does no harm:
//!
//! - `picker::wall_clock` is the one place in the rooms that ship; clippy refuses every other way. It is asked for
//!   `start_time` of a request's record, from which the access log's line and a span are made (a span's end is its start plus
//!   what the monotonic clock measured); for `time` of a decision and of a dashboard's tick; for `applied` of a
//!   configuration; and in Kubernetes for `lastTransitionTime` of conditions and the times in a Lease, which others only
//!   compare with what they were before. Each of them is shown, and none is compared with another.
//! - `sim` has its own for `created` and `date`.
//! - Libraries ask for the `date` of an answer, and for whether a certificate is valid (of a Kubernetes API server, or a
//!   collector of traces): with a clock that is wrong by more than the certificate's life that is refused, as it should be.
//!
//! All that waits, ages or measures is on tokio's clock: timeouts, the queue, ejections, scrapes, rates of tokens.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::Value;
use sim::{Fault, Profile, SimConfig};
use tokio::time::Instant;

use crate::gateway::{
    Endpoint, Gateway, Start, ask, completion, connect, free_port, get, is_whole, post, until,
};

const JUMP_HOURS: i64 = 10;

/// The time of day of a process, as far as it is ahead of everybody's.
struct WallClock {
    shim: PathBuf,
    seconds: PathBuf,
}

impl WallClock {
    fn new(test: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{test}"));
        fs::create_dir_all(&folder).expect("a folder");
        let (shim, seconds) = (folder.join("wall_clock.so"), folder.join("seconds"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/wall_clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).args([&shim, &source]);
        assert!(compiler.status().expect("a C compiler").success());
        fs::write(&seconds, 0_i64.to_ne_bytes()).expect("a file");
        Self { shim, seconds }
    }

    fn start(&self) -> Start {
        let set = |name, path: &Path| (name, path.as_os_str().to_owned());
        let environment =
            vec![set("LD_PRELOAD", &self.shim), set("WALL_CLOCK_SECONDS", &self.seconds)];
        Start { environment, ..Start::default() }
    }

    /// In place: the process has the file before its eyes.
    fn is_ahead_by(&self, hours: i64) {
        let mut file = File::options().write(true).open(&self.seconds).expect("a file");
        file.write_all(&(hours * 3600).to_ne_bytes()).expect("room");
    }
}

/// How far a time of day is ahead of ours.
fn hours_ahead(time: &Value) -> i64 {
    let time: Timestamp = time.as_str().expect("a time").parse().expect("a time");
    let ours = Timestamp::try_from(picker::wall_clock()).expect("a time");
    let ahead = time.duration_since(ours);
    (ahead + SignedDuration::from_mins(30)).as_secs().div_euclid(3600)
}

/// Reads on until so many events have come.
fn read_events(stream: &mut impl Read, answer: &mut String, events: usize) {
    let mut buffer = [0; 4096];
    while answer.matches("data: ").count() < events {
        let count = stream.read(&mut buffer).expect("it goes on");
        assert!(count > 0, "it broke off: {answer}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

/// Seconds since the endpoint told its load.
fn metrics_age(gateway: &Gateway) -> f64 {
    let page = ask(gateway.stats, &get("/stats/prometheus"));
    let line = page.lines().find(|line| line.starts_with("tokenweir_endpoint_metrics_age_seconds"));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).expect("an age")
}

#[test]
fn requests_timeouts_ejections_and_scrapes_do_not_notice_what_time_of_day_it_is() {
    let clock = WallClock::new("all");
    let config = SimConfig { speedup: 5.0, ..SimConfig::default() };
    let (endpoint, other) = (Endpoint::start(config.clone()), Endpoint::start(config));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clock-all");
    let (settings, access_log) = (folder.join("settings.yaml"), folder.join("access.log"));
    fs::write(&settings, "limits: {header-timeout: 1s}\n").expect("a file");
    let stdout = File::create(&access_log).expect("a file").into();
    let start = Start { stdout, ..clock.start() };
    let (settings, url) = (settings.display().to_string(), other.url());
    let more = ["--config", settings.as_str(), "--endpoint", url.as_str()];
    let mut gateway = Gateway::before(&endpoint, start, &more);

    // A stream, and every clock on a wall goes back and forth meanwhile.
    clock.is_ahead_by(JUMP_HOURS);
    let mut stream = connect(gateway.port);
    stream.write_all(completion(200).as_bytes()).expect("it reads");
    let mut answer = String::new();
    for (events, hours) in [(10, -JUMP_HOURS), (40, JUMP_HOURS), (70, 0), (100, -JUMP_HOURS)] {
        read_events(&mut stream, &mut answer, events);
        clock.is_ahead_by(hours);
    }
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(is_whole(&answer), "{answer}");

    // A timeout, neither at once nor in ten hours.
    for hours in [JUMP_HOURS, -JUMP_HOURS] {
        let began = Instant::now();
        let mut slow = connect(gateway.port);
        slow.write_all(b"POST /v1").expect("it reads");
        clock.is_ahead_by(hours);
        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains("x-tokenweir-reason: header_timeout\r\n"), "{answer}");
        assert!(began.elapsed() >= Duration::from_secs(1));
    }

    // An ejection, which ends though the clock goes back. Who fails there is answered by the other.
    clock.is_ahead_by(JUMP_HOURS);
    endpoint.server.handle().set_fault(Fault::CutAfter(0));
    until("an ejection", || {
        assert!(is_whole(&gateway.completion()));
        gateway.times_said("endpoint is ejected") == 1
    });
    clock.is_ahead_by(-JUMP_HOURS);
    endpoint.server.handle().set_fault(Fault::None);
    until("its end", || {
        is_whole(&gateway.completion()) && gateway.times_said("endpoint is readmitted") == 1
    });

    // What is scraped is neither old nor of tomorrow.
    for hours in [JUMP_HOURS, -JUMP_HOURS] {
        clock.is_ahead_by(hours);
        let before = gateway.metric("tokenweir_scrapes_total", "");
        until("scrapes", || gateway.metric("tokenweir_scrapes_total", "") > before + 2);
        let age = metrics_age(&gateway);
        assert!((0.0..60.0).contains(&age), "{age}");
    }

    let counted = gateway.metric("asm_llm_proxy_completion_tokens", "");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
    check_log(&fs::read_to_string(&access_log).expect("a log"), counted);
}

/// The first line's time is what the clock showed; what took time took none of the jumps.
fn check_log(log: &str, counted: u64) {
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(hours_ahead(&lines[0]["start_time"]), JUMP_HOURS, "{}", lines[0]);
    for line in &lines {
        for (name, value) in line.as_object().expect("an object") {
            let is_time = name == "duration" || name.ends_with("_ms") || name.ends_with("_time");
            if let Some(millis) = value.as_f64().filter(|_| is_time) {
                assert!((0.0..60_000.0).contains(&millis), "{name} in {line}");
            }
        }
    }
    let stream = &lines[0];
    assert_eq!(stream["request_completion_tokens"], 200);
    // 199 tokens, a few milliseconds each.
    assert!(stream["tpot_ms"].as_f64().is_some_and(|millis| millis > 0.1), "{stream}");
    let tokens = lines.iter().filter_map(|line| line["request_completion_tokens"].as_u64());
    assert_eq!(tokens.sum::<u64>(), counted);
}

/// A pool over one endpoint whose requests wait in the gateway for so long.
fn patient(port: u16, endpoint: &Endpoint, max_wait: &str) -> String {
    let number = endpoint.server.addr().port();
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: gateway}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: vllm}}
spec: {{address: 127.0.0.1, labels: {{app: vllm}}, ports: {{http: {number}}}}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {{name: pool}}
spec: {{targetPortNumber: 8000, selector: {{app: vllm}}}}
---
apiVersion: tokenweir.dev/v1alpha1
kind: InferencePolicy
metadata: {{name: patient}}
spec:
  targetRef: {{group: inference.networking.x-k8s.io, kind: InferencePool, name: pool}}
  flowControl: {{maxWait: {max_wait}}}
---
apiVersion: istio.alibabacloud.com/v1
kind: LLMRoute
metadata: {{name: route}}
spec:
  gateways: [gateway]
  host: test.com
  rules:
  - backendRefs:
    - backendRef: {{group: inference.networking.x-k8s.io, kind: InferencePool, name: pool}}
"
    )
}

#[test]
fn a_request_waits_in_the_gateway_as_long_as_it_may_whatever_time_of_day_it_is() {
    let clock = WallClock::new("queue");
    // Room for 48 tokens, of which a prompt of a hundred bytes takes half: one is at work, the next one waits.
    let profile = Profile { blocks: 4, ..SimConfig::default().profile };
    let endpoint = Endpoint::start(SimConfig { profile, ..SimConfig::default() });
    let asked = |whose: &str| {
        let prompt = whose.repeat(100 / whose.len());
        let body = format!(
            r#"{{"model":"/model/llama2","prompt":"{prompt}","max_tokens":10,"stream":true}}"#
        );
        post(&body, "connection: close\r\n")
    };
    let port = free_port();
    let objects = clock.seconds.with_file_name("objects.yaml");
    fs::write(&objects, patient(port, &endpoint, "1s")).expect("a file");
    let mut gateway = Gateway::start(port, clock.start(), &["-f", &objects.display().to_string()]);
    until("a scrape", || gateway.metric("tokenweir_scrapes_total", "ok") > 0);
    endpoint.server.handle().set_fault(Fault::Freeze);
    let mut first = connect(port);
    first.write_all(asked("mine ").as_bytes()).expect("it reads");
    until("it is at work", || endpoint.server.handle().in_flight() == 1);
    for hours in [JUMP_HOURS, -JUMP_HOURS] {
        let began = Instant::now();
        let mut second = connect(port);
        second.write_all(asked("yours ").as_bytes()).expect("it reads");
        second.set_nonblocking(true).expect("a socket");
        let refused = || second.peek(&mut [0]).is_ok();
        until("it waits", || gateway.metric("tokenweir_queue_requests", "") == 1 || refused());
        second.set_nonblocking(false).expect("a socket");
        clock.is_ahead_by(hours);
        let mut refused = String::new();
        second.read_to_string(&mut refused).expect("an answer");
        assert!(refused.contains("x-tokenweir-reason: queue_timeout\r\n"), "{refused}");
        assert!(began.elapsed() >= Duration::from_secs(1));
    }
    endpoint.server.handle().set_fault(Fault::None);
    let mut answer = String::new();
    first.read_to_string(&mut answer).expect("an answer");
    assert!(is_whole(&answer), "{answer}");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
}
