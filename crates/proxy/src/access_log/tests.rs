//! Lines of the access log, and the log itself.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
};

use openai::Usage;
use picker::{Finish, PoolKey, PoolKind, Refusal};

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn bare() -> RequestRecord {
    RequestRecord {
        start_time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_341_141_234_567),
        method: "POST".into(),
        path: "/v1/completions".into(),
        authority: "test.com".into(),
        request_id: "id-1".into(),
        ..RequestRecord::new("10.1.2.3:4000".parse().unwrap(), "[::1]:8008".parse().unwrap())
    }
}

fn full() -> RequestRecord {
    let bare = bare();
    let first = bare.started + Duration::from_micros(12_345);
    RequestRecord {
        user_agent: Some("curl/8".into()),
        x_forwarded_for: Some("1.1.1.1".into()),
        route: Some("default/route/rule".into()),
        pool: Some(PoolKey {
            kind: PoolKind::InferencePool,
            namespace: "default".into(),
            name: "pool".into(),
            port: 0,
        }),
        policy: Some("queue-kv-local"),
        reason: Some("load"),
        request_model: Some("chat".into()),
        model_known: true,
        target_model: Some("chat-v2".into()),
        stream: true,
        upstream_host: Some("10.0.0.1:8000".into()),
        upstream_cluster: Some("outbound|8000||pool.default.svc.cluster.local".into()),
        attempts: 2,
        response_code: 200,
        bytes_received: 120,
        bytes_sent: 4567,
        queue: Some(Duration::from_micros(1500)),
        upstream_service_time: Some(Duration::from_micros(7999)),
        first_token: Some(first),
        last_token: Some(first + Duration::from_millis(100)),
        usage: Usage {
            prompt_tokens: Some(30),
            completion_tokens: Some(11),
            cached_tokens: Some(16),
        },
        finish: Some(Finish::Complete(Some("stop".into()))),
        ..bare
    }
}

/// The line without its one value that differs from run to run.
fn json_without_duration(record: &RequestRecord) -> String {
    let line = json_line(record);
    let (before, after) = line.split_once(r#""duration":"#).unwrap();
    let (duration, after) = after.split_once(',').unwrap();
    duration.parse::<u64>().unwrap();
    format!("{before}{after}")
}

#[test]
fn a_full_record_is_one_line_of_json() {
    let expected = concat!(
        r#"{"start_time":"2026-11-22T09:52:21.234Z","method":"POST","path":"/v1/completions","#,
        r#""protocol":"HTTP/1.1","response_code":200,"response_flags":"-","bytes_received":120,"#,
        r#""bytes_sent":4567,"upstream_service_time":7,"upstream_host":"10.0.0.1:8000","#,
        r#""upstream_cluster":"outbound|8000||pool.default.svc.cluster.local","#,
        r#""route_name":"default/route/rule","authority":"test.com","user_agent":"curl/8","#,
        r#""x_forwarded_for":"1.1.1.1","request_id":"id-1","#,
        r#""downstream_local_address":"[::1]:8008","downstream_remote_address":"10.1.2.3:4000","#,
        r#""request_model":"chat","request_prompt_tokens":30,"request_completion_tokens":11,"#,
        r#""target_model":"chat-v2","stream":true,"ttft_ms":12.345,"tpot_ms":10.0,"queue_ms":1.5,"#,
        r#""cached_tokens":16,"attempts":2,"policy":"queue-kv-local","reason":"load","#,
        r#""finish":"stop"}"#,
    );
    assert_eq!(json_without_duration(&full()), expected);
}

#[test]
fn what_a_refused_request_has_not_got_is_absent() {
    let mut record = bare();
    let refusal = Refusal::NoRoute { host: "test.com".into(), path: "/v1/completions".into() };
    record.refuse(&refusal, 99);
    let expected = concat!(
        r#"{"start_time":"2026-11-22T09:52:21.234Z","method":"POST","path":"/v1/completions","#,
        r#""protocol":"HTTP/1.1","response_code":404,"response_flags":"NR","bytes_received":0,"#,
        r#""bytes_sent":99,"authority":"test.com","request_id":"id-1","#,
        r#""downstream_local_address":"[::1]:8008","downstream_remote_address":"10.1.2.3:4000","#,
        r#""stream":false,"attempts":0,"finish":"no_route"}"#,
    );
    assert_eq!(json_without_duration(&record), expected);
}

#[test]
fn a_complete_answer_without_a_reason_has_no_finish() {
    let finish = |finish| {
        let line = json_line(&RequestRecord { finish, ..bare() });
        serde_json::from_str::<serde_json::Value>(&line).unwrap().get("finish").cloned()
    };
    assert_eq!(finish(Some(Finish::Complete(None))), None);
    assert_eq!(finish(Some(Finish::ClientGone)), Some("client_gone".into()));
    assert_eq!(finish(Some(Finish::EndpointGone)), Some("endpoint_gone".into()));
    assert_eq!(finish(Some(Finish::IdleTimeout)), Some("idle_timeout".into()));
}

/// Text that would break a line or forge a field.
const EVIL: &str = "a\"b\\c\nd\r\te \u{1b}[31m\u{202e}\u{0}";

fn evil() -> RequestRecord {
    RequestRecord {
        path: EVIL.into(),
        authority: EVIL.into(),
        user_agent: Some(EVIL.into()),
        x_forwarded_for: Some(EVIL.into()),
        request_id: EVIL.into(),
        request_model: Some(EVIL.into()),
        upstream_host: Some(EVIL.into()),
        finish: Some(Finish::Complete(Some(EVIL.into()))),
        ..full()
    }
}

#[test]
fn no_text_breaks_a_line_of_json() {
    let line = json_line(&evil());
    assert!(!line.chars().any(|c| c.is_ascii_control()), "{line:?}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    for key in ["path", "user_agent", "request_model", "finish"] {
        assert_eq!(value[key], EVIL, "{key}");
    }
}

#[test]
fn a_text_line_is_envoys_with_our_fields_behind() {
    let line = text_line(&full());
    let expected = r#"[2026-11-22T09:52:21.234Z] "POST /v1/completions HTTP/1.1" 200 - 120 4567 "#;
    let rest = line.strip_prefix(expected).unwrap();
    let (duration, rest) = rest.split_once(' ').unwrap();
    duration.parse::<u64>().unwrap();
    assert_eq!(
        rest,
        r#""1.1.1.1" "curl/8" "id-1" "test.com" "10.0.0.1:8000" model=chat prompt_tokens=30 completion_tokens=11 ttft_ms=12.345 tpot_ms=10 attempts=2 reason=load finish=stop"#
    );
    let line = text_line(&bare());
    assert!(line.ends_with(r#""-" "-" "id-1" "test.com" "-" attempts=0"#), "{line}");
}

#[test]
fn no_text_breaks_a_text_line() {
    let line = text_line(&evil());
    assert!(!line.chars().any(char::is_control) && !line.contains('\u{202e}'), "{line:?}");
    // The quotes of the fields themselves: the request, five more.
    let quotes = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
    assert_eq!(quotes, 12, "{line}");
}

/// A place to write to that can be held up.
#[derive(Clone, Default)]
struct Paper(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    held: bool,
    broken: bool,
    /// Somebody waits to write.
    waiting: bool,
}

impl Written {
    fn lines(&self) -> usize {
        std::str::from_utf8(&self.bytes).unwrap().lines().count()
    }
}

impl Paper {
    fn change(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn until(&self, what: &str, condition: impl Fn(&Written) -> bool) {
        let written = self.0.0.lock().unwrap();
        let (_written, timeout) =
            self.0.1.wait_timeout_while(written, SOON, |written| !condition(written)).unwrap();
        assert!(!timeout.timed_out(), "not in time: {what}");
    }

    fn lines(&self) -> usize {
        self.0.0.lock().unwrap().lines()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.0.lock().unwrap();
        written.waiting = true;
        self.0.1.notify_all();
        written = self.0.1.wait_while(written, |written| written.held).unwrap();
        written.waiting = false;
        if written.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        written.bytes.extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(paper: &Paper) -> (AccessLog, IntCounter) {
    let dropped = IntCounter::new("dropped", "lines").unwrap();
    let log = AccessLog::new(paper.clone(), LogFormat::Json, dropped.clone()).unwrap();
    (log, dropped)
}

#[test]
fn a_line_is_written_soon_without_being_asked_for() {
    let paper = Paper::default();
    let (log, dropped) = log(&paper);
    log.write(&full());
    paper.until("the line", |written| written.bytes.ends_with(b"\"finish\":\"stop\"}\n"));
    assert_eq!(dropped.get(), 0);
}

#[test]
fn after_a_flush_every_line_is_there() {
    let paper = Paper::default();
    let (log, dropped) = log(&paper);
    for _ in 0..1000 {
        log.write(&full());
    }
    log.flush(SOON);
    assert_eq!((paper.lines(), dropped.get()), (1000, 0));
}

#[test]
fn after_the_logs_end_every_line_is_there() {
    let paper = Paper::default();
    let (log, _) = log(&paper);
    for _ in 0..10 {
        log.write(&full());
    }
    drop(log);
    paper.until("ten lines", |written| written.lines() == 10);
}

/// A log whose paper takes nothing and whose buffer is full; the lines it has taken.
fn full_log(paper: &Paper) -> (AccessLog, IntCounter, usize) {
    paper.change(|written| written.held = true);
    let (log, dropped) = log(paper);
    log.write(&full());
    paper.until("the writer held up", |written| written.waiting);
    // The writer may go on for a few lines, as long as they fit its own buffer.
    let mut taken = 1;
    while dropped.get() < 10 {
        log.write(&full());
        taken += 1;
        assert!(taken <= 2 * LINES_MAX, "the buffer has no end");
    }
    (log, dropped, taken - 10)
}

#[test]
fn a_full_buffer_drops_lines_and_counts_them() {
    let paper = Paper::default();
    let (log, dropped, taken) = full_log(&paper);
    assert!(taken >= LINES_MAX, "{taken}");
    paper.change(|written| written.held = false);
    log.flush(SOON);
    assert_eq!((paper.lines(), dropped.get()), (taken, 10));
    log.write(&full());
    log.flush(SOON);
    assert_eq!(paper.lines(), taken + 1, "it goes on");
}

#[test]
fn a_flush_gives_up_in_time_even_if_the_buffer_is_full() {
    let paper = Paper::default();
    let (log, _, _) = full_log(&paper);
    let (done, ended) = sync_channel(1);
    let flusher = std::thread::spawn(move || {
        log.flush(Duration::from_millis(50));
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(SOON);
    paper.change(|written| written.held = false);
    flusher.join().unwrap();
    assert!(ended.is_ok(), "the flush waited for a paper that takes nothing");
}

#[test]
fn a_log_that_cannot_be_written_ends_and_counts() {
    let paper = Paper::default();
    paper.change(|written| written.broken = true);
    let (log, dropped) = log(&paper);
    log.write(&full());
    log.flush(SOON);
    let deadline = Instant::now() + SOON;
    while dropped.get() == 0 {
        log.write(&full());
        assert!(Instant::now() < deadline);
    }
    assert_eq!(paper.lines(), 0);
}
