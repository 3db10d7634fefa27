//! A line of the access log.

use std::{
    cell::RefCell,
    fmt::Display,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use picker::{Finish, RequestRecord};
use serde::Serialize;

/// A JSON object that is written field by field. Absent is absent.
struct Object<'a>(&'a mut Vec<u8>);

/// A field's key with all that is written around it.
macro_rules! key {
    ($key:literal) => {
        concat!(",\"", $key, "\":")
    };
}

impl Object<'_> {
    /// What comes from outside; its escapes are written.
    fn text(&mut self, key: &'static str, text: &str) {
        self.0.extend_from_slice(key.as_bytes());
        if is_plain(text) {
            self.between_quotes(text.as_bytes());
        } else if serde_json::to_writer(&mut *self.0, text).is_err() {
            // Strings do not fail, and a vector takes everything.
            self.0.extend_from_slice(b"null");
        }
    }

    /// A name of our own, which needs no escapes.
    fn name(&mut self, key: &'static str, name: &str) {
        self.0.extend_from_slice(key.as_bytes());
        self.between_quotes(name.as_bytes());
    }

    fn between_quotes(&mut self, text: &[u8]) {
        self.0.push(b'"');
        self.0.extend_from_slice(text);
        self.0.push(b'"');
    }

    fn address(&mut self, key: &'static str, value: SocketAddr) {
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(b'"');
        address(value, self.0);
        self.0.push(b'"');
    }

    fn number(&mut self, key: &'static str, number: impl Serialize) {
        self.0.extend_from_slice(key.as_bytes());
        if serde_json::to_writer(&mut *self.0, &number).is_err() {
            self.0.extend_from_slice(b"null");
        }
    }
}

/// Whether nothing in it has to be escaped. Without early exit, which lets it be read many bytes at once.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    text.bytes().fold(true, |all, byte| all & plain(byte))
}

pub(super) fn json(record: &RequestRecord, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"start_time\":\"");
    timestamp(record.start_time, out);
    out.push(b'"');
    let mut line = Object(out);
    line.text(key!("method"), &record.method);
    line.text(key!("path"), &record.path);
    line.name(key!("protocol"), record.protocol);
    line.number(key!("response_code"), record.response_code);
    line.name(key!("response_flags"), record.response_flags);
    line.number(key!("bytes_received"), record.bytes_received);
    line.number(key!("bytes_sent"), record.bytes_sent);
    line.number(key!("duration"), whole_millis(record.started.elapsed()));
    json_upstream(record, &mut line);
    line.text(key!("authority"), &record.authority);
    if let Some(agent) = &record.user_agent {
        line.text(key!("user_agent"), agent);
    }
    if let Some(clients) = &record.x_forwarded_for {
        line.text(key!("x_forwarded_for"), clients);
    }
    line.text(key!("request_id"), &record.request_id);
    line.address(key!("downstream_local_address"), record.downstream_local);
    line.address(key!("downstream_remote_address"), record.downstream_remote);
    json_inference(record, &mut line);
    out.push(b'}');
}

fn json_upstream(record: &RequestRecord, line: &mut Object<'_>) {
    if let Some(time) = record.upstream_service_time {
        line.number(key!("upstream_service_time"), whole_millis(time));
    }
    if let Some(host) = &record.upstream_host {
        line.text(key!("upstream_host"), host);
    }
    if let Some(cluster) = &record.upstream_cluster {
        line.text(key!("upstream_cluster"), cluster);
    }
    if let Some(route) = &record.route {
        line.text(key!("route_name"), route);
    }
}

fn json_inference(record: &RequestRecord, line: &mut Object<'_>) {
    if let Some(model) = &record.request_model {
        line.text(key!("request_model"), model);
    }
    if let Some(tokens) = record.usage.prompt_tokens {
        line.number(key!("request_prompt_tokens"), tokens);
    }
    if let Some(tokens) = record.usage.completion_tokens {
        line.number(key!("request_completion_tokens"), tokens);
    }
    if let Some(model) = &record.target_model {
        line.text(key!("target_model"), model);
    }
    line.number(key!("stream"), record.stream);
    let times = [
        (key!("ttft_ms"), record.ttft()),
        (key!("tpot_ms"), record.tpot()),
        (key!("queue_ms"), record.queue),
    ];
    for (key, time) in times {
        if let Some(time) = time {
            line.number(key, millis(time));
        }
    }
    if let Some(tokens) = record.usage.cached_tokens {
        line.number(key!("cached_tokens"), tokens);
    }
    line.number(key!("attempts"), record.attempts);
    if let Some(policy) = record.policy {
        line.name(key!("policy"), policy);
    }
    if let Some(reason) = record.reason {
        line.name(key!("reason"), reason);
    }
    if let Some(finish) = record.finish.as_ref().and_then(Finish::name) {
        line.text(key!("finish"), &finish);
    }
}

/// Envoy's default text format, then what is ours as `key=value`.
pub(super) fn text(record: &RequestRecord, out: &mut Vec<u8>) {
    out.push(b'[');
    timestamp(record.start_time, out);
    let head = format_args!(
        "] \"{} {} {}\" {} {} {} {} {} \"{}\" \"{}\" \"{}\" \"{}\" \"{}\"",
        record.method,
        record.path.escape_debug(),
        record.protocol,
        record.response_code,
        record.response_flags,
        record.bytes_received,
        record.bytes_sent,
        whole_millis(record.started.elapsed()),
        dash(record.x_forwarded_for.as_deref()),
        dash(record.user_agent.as_deref()),
        record.request_id.escape_debug(),
        record.authority.escape_debug(),
        dash(record.upstream_host.as_deref()),
    );
    display(head, out);
    let finish = record.finish.as_ref().and_then(Finish::name);
    field("model", record.request_model.as_deref().map(str::escape_debug), out);
    field("prompt_tokens", record.usage.prompt_tokens, out);
    field("completion_tokens", record.usage.completion_tokens, out);
    field("ttft_ms", record.ttft().map(millis), out);
    field("tpot_ms", record.tpot().map(millis), out);
    field("attempts", Some(record.attempts), out);
    field("reason", record.reason, out);
    field("finish", finish.as_deref().map(str::escape_debug), out);
}

fn field(key: &str, value: Option<impl Display>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        display(format_args!(" {key}={value}"), out);
    }
}

fn dash(text: Option<&str>) -> std::str::EscapeDebug<'_> {
    text.unwrap_or("-").escape_debug()
}

thread_local! {
    /// The last second that was written, since 1970, and how it reads.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// A calendar is slow to reckon with: most lines begin in the same second as the line before.
fn timestamp(time: SystemTime, out: &mut Vec<u8>) {
    let Ok(since) = time.duration_since(SystemTime::UNIX_EPOCH) else { return };
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            let read =
                Timestamp::try_from(at).map(|at| at.strftime("%Y-%m-%dT%H:%M:%S").to_string());
            (*second, *text) = (since.as_secs(), read.unwrap_or_default());
        }
        out.extend_from_slice(text.as_bytes());
    });
    let millis = since.subsec_millis();
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

/// As it is displayed, but for the detour through a formatter, which most addresses can do without.
fn address(address: SocketAddr, out: &mut Vec<u8>) {
    if address.is_ipv4() {
        ip(address.ip(), out);
        out.push(b':');
        number(address.port(), out);
    } else {
        display(address, out);
    }
}

/// Likewise.
pub(crate) fn ip(ip: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(v4) = ip else { return display(ip, out) };
    for (place, byte) in v4.octets().into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        number(byte, out);
    }
}

/// Likewise.
fn number(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn display(value: impl Display, out: &mut Vec<u8>) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "a vector takes everything");
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds to the microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
pub(super) mod tests;
