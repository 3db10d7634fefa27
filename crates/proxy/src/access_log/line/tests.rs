//! Lines of the access log.

use openai::Usage;
use picker::{PoolKey, PoolKind, Refusal};

use super::*;

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

pub(crate) fn full() -> RequestRecord {
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

fn json_line(record: &RequestRecord) -> String {
    let mut line = Vec::new();
    json(record, &mut line);
    String::from_utf8(line).unwrap()
}

fn text_line(record: &RequestRecord) -> String {
    let mut line = Vec::new();
    text(record, &mut line);
    String::from_utf8(line).unwrap()
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

#[test]
fn addresses_read_as_they_are_displayed() {
    for text in ["0.0.0.0:0", "10.1.2.3:4000", "255.100.99.9:65535", "127.0.0.1:80", "[::1]:8080"] {
        let (addr, mut out) = (text.parse().unwrap(), Vec::new());
        address(addr, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}

#[test]
fn a_second_that_has_been_written_is_not_taken_for_another() {
    let read = |micros| {
        let mut out = Vec::new();
        timestamp(SystemTime::UNIX_EPOCH + Duration::from_micros(micros), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(read(1_795_341_141_234_567), "2026-11-22T09:52:21.234Z");
    assert_eq!(read(1_795_341_141_999_999), "2026-11-22T09:52:21.999Z");
    assert_eq!(read(1_795_341_142_000_000), "2026-11-22T09:52:22.000Z");
    assert_eq!(read(1_795_341_141_000_001), "2026-11-22T09:52:21.000Z");
}
