//! The access log: one line a request, Istio's keys and ours. Written by a thread of its own, so
//! that a slow reader of the log slows no request.

use std::{
    fmt::Write as _,
    io::{BufWriter, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use picker::{Journal, RequestRecord};
use prometheus::IntCounter;
use serde::Serialize;
use tokio::time::Instant;

/// Lines waiting for the writer; a full buffer drops lines and counts them.
const LINES_MAX: usize = 8192;
/// Longest time a written line stays in the buffer.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// How often a flush looks for a place in a full buffer.
const FLUSH_RETRY: Duration = Duration::from_millis(10);

/// How lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Writes [`RequestRecord`]s as lines.
#[derive(Debug)]
pub struct AccessLog {
    messages: SyncSender<Message>,
    format: LogFormat,
    dropped: IntCounter,
}

enum Message {
    Line(String),
    /// Answered once everything before it is out.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Starts the writer thread, which ends when the log is dropped. `dropped` counts lines that
    /// found the buffer full.
    pub fn new(
        sink: impl Write + Send + 'static,
        format: LogFormat,
        dropped: IntCounter,
    ) -> std::io::Result<Self> {
        let (messages, waiting) = sync_channel(LINES_MAX);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(BufWriter::new(sink), &waiting))?;
        Ok(Self { messages, format, dropped })
    }

    /// Blocks until every line so far is written, or the time is over.
    pub fn flush(&self, wait_max: Duration) {
        let (done, flushed) = sync_channel(1);
        let mut message = Message::Flush(done);
        let mut left = wait_max;
        // A full buffer is asked again: waiting for a place in it would have no end.
        while let Err(error) = self.messages.try_send(message) {
            let TrySendError::Full(back) = error else { break };
            message = back;
            if left.is_zero() {
                break;
            }
            let pause = left.min(FLUSH_RETRY);
            left -= pause;
            // Nothing can come yet: this only passes the time.
            let _nothing = flushed.recv_timeout(pause);
        }
        if flushed.recv_timeout(left).is_err() {
            tracing::warn!("the end of the access log may be missing");
        }
    }
}

impl Journal for AccessLog {
    fn write(&self, record: &RequestRecord) {
        let line = match self.format {
            LogFormat::Json => json_line(record),
            LogFormat::Text => text_line(record),
        };
        if self.messages.try_send(Message::Line(line)).is_err() {
            self.dropped.inc();
        }
    }
}

fn write_lines(mut sink: impl Write, waiting: &Receiver<Message>) {
    // When the oldest unflushed line has waited for long enough.
    let mut flush_at: Option<Instant> = None;
    loop {
        let next = match flush_at {
            Some(at) => waiting.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let written = match &next {
            Ok(Message::Line(line)) => {
                flush_at.get_or_insert_with(|| Instant::now() + FLUSH_INTERVAL);
                writeln!(sink, "{line}")
            }
            Ok(Message::Flush(_)) | Err(_) => {
                flush_at = None;
                sink.flush()
            }
        };
        if let Err(error) = written {
            tracing::error!(%error, "access log cannot be written; it ends here");
            return;
        }
        match next {
            Ok(Message::Flush(done)) => drop(done.try_send(())),
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Message::Line(_)) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A line's fields, in their order. Absent is absent.
#[derive(Serialize)]
struct Line<'a> {
    start_time: String,
    method: &'a str,
    path: &'a str,
    protocol: &'a str,
    response_code: u16,
    response_flags: &'a str,
    bytes_received: u64,
    bytes_sent: u64,
    duration: u64,
    #[serde(flatten)]
    upstream: Upstream<'a>,
    authority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x_forwarded_for: Option<&'a str>,
    request_id: &'a str,
    downstream_local_address: String,
    downstream_remote_address: String,
    #[serde(flatten)]
    inference: Inference<'a>,
}

#[derive(Serialize)]
struct Upstream<'a> {
    #[serde(rename = "upstream_service_time", skip_serializing_if = "Option::is_none")]
    service_time: Option<u64>,
    #[serde(rename = "upstream_host", skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(rename = "upstream_cluster", skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    #[serde(rename = "route_name", skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
}

#[derive(Serialize)]
struct Inference<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_prompt_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_model: Option<&'a str>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpot_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u64>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish: Option<&'a str>,
}

fn json_line(record: &RequestRecord) -> String {
    let finish = record.finish.as_ref().and_then(picker::Finish::name);
    let line = Line {
        start_time: timestamp(record.start_time),
        method: &record.method,
        path: &record.path,
        protocol: record.protocol,
        response_code: record.response_code,
        response_flags: record.response_flags,
        bytes_received: record.bytes_received,
        bytes_sent: record.bytes_sent,
        duration: whole_millis(record.started.elapsed()),
        upstream: Upstream {
            service_time: record.upstream_service_time.map(whole_millis),
            host: record.upstream_host.as_deref(),
            cluster: record.upstream_cluster.as_deref(),
            route: record.route.as_deref(),
        },
        authority: &record.authority,
        user_agent: record.user_agent.as_deref(),
        x_forwarded_for: record.x_forwarded_for.as_deref(),
        request_id: &record.request_id,
        downstream_local_address: record.downstream_local.to_string(),
        downstream_remote_address: record.downstream_remote.to_string(),
        inference: Inference {
            request_model: record.request_model.as_deref(),
            request_prompt_tokens: record.usage.prompt_tokens,
            request_completion_tokens: record.usage.completion_tokens,
            target_model: record.target_model.as_deref(),
            stream: record.stream,
            ttft_ms: record.ttft().map(millis),
            tpot_ms: record.tpot().map(millis),
            queue_ms: record.queue.map(millis),
            cached_tokens: record.usage.cached_tokens,
            attempts: record.attempts,
            policy: record.policy,
            reason: record.reason,
            finish: finish.as_deref(),
        },
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// Envoy's default text format, then what is ours as `key=value`.
fn text_line(record: &RequestRecord) -> String {
    let dash = |text: Option<&str>| text.unwrap_or("-").escape_debug().to_string();
    let mut line = format!(
        "[{}] \"{} {} {}\" {} {} {} {} {} \"{}\" \"{}\" \"{}\" \"{}\" \"{}\"",
        timestamp(record.start_time),
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
    let finish = record.finish.as_ref().and_then(picker::Finish::name);
    let fields = [
        ("model", record.request_model.as_ref().map(|model| model.escape_debug().to_string())),
        ("prompt_tokens", record.usage.prompt_tokens.map(|n| n.to_string())),
        ("completion_tokens", record.usage.completion_tokens.map(|n| n.to_string())),
        ("ttft_ms", record.ttft().map(|t| millis(t).to_string())),
        ("tpot_ms", record.tpot().map(|t| millis(t).to_string())),
        ("attempts", Some(record.attempts.to_string())),
        ("reason", record.reason.map(str::to_owned)),
        ("finish", finish.map(|finish| finish.escape_debug().to_string())),
    ];
    for (key, value) in fields {
        if let Some(value) = value
            && write!(line, " {key}={value}").is_err()
        {
            break;
        }
    }
    line
}

fn timestamp(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds to the microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests;
