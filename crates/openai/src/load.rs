//! What a server says of its load along with an answer: Open Request Cost Aggregation (ORCA).
//!
//! A request that asks for it with [`LOAD_REQUEST_HEADER`] is answered with [`LOAD_HEADER`], if the
//! server knows how: vLLM 0.32 does, for completions and chats that are not streamed and went well.

use serde_json::Value;

/// Names the format that a client wants a server's load in.
pub const LOAD_REQUEST_HEADER: &str = "endpoint-load-metrics-format";
/// The format to ask for. vLLM's JSON has one entry a name, so that of several data-parallel
/// engines all but one are missing.
pub const LOAD_FORMAT: &str = "TEXT";
/// What the server says of its load.
pub const LOAD_HEADER: &str = "endpoint-load-metrics";
/// Longest load report that is read; hundreds of engines fit in.
pub const LOAD_BYTES_MAX: usize = 16 * 1024;

/// A server's load as it ended an answer. What it did not say, or not as a number that makes sense,
/// is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Requests in the queue, summed over the server's engines.
    pub waiting: Option<u32>,
    /// Requests in the batch, likewise. vLLM does not tell.
    pub running: Option<u32>,
    /// Share of the KV cache in use, 0 to 1; of the fullest engine.
    pub kv_usage: Option<f64>,
}

impl LoadReport {
    /// Reads the value of [`LOAD_HEADER`]: `TEXT named_metrics.NAME=1.0, …` or
    /// `JSON {"named_metrics": {"NAME": 1.0, …}}`. `None` if nothing in it is of use.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        if value.len() > LOAD_BYTES_MAX {
            return None;
        }
        let space = value.iter().position(u8::is_ascii_whitespace)?;
        let (format, report) = value.split_at(space);
        let mut tally = Tally::default();
        if format.eq_ignore_ascii_case(b"TEXT") {
            tally.take_text(report);
        } else if format.eq_ignore_ascii_case(b"JSON") {
            tally.take_json(report);
        }
        let report = LoadReport {
            waiting: tally.waiting.map(count),
            running: tally.running.map(count),
            kv_usage: tally.kv_usage,
        };
        (report != LoadReport::default()).then_some(report)
    }
}

/// What was said so far. A name comes once for each engine.
#[derive(Default)]
struct Tally {
    waiting: Option<f64>,
    running: Option<f64>,
    kv_usage: Option<f64>,
}

impl Tally {
    fn take_text(&mut self, report: &[u8]) {
        for pair in report.split(|byte| *byte == b',') {
            // A colon is as clear.
            let split = pair.iter().position(|byte| matches!(byte, b'=' | b':'));
            let Some((name, rest)) = split.map(|at| pair.split_at(at)) else { continue };
            let name = name.trim_ascii();
            let name = name.strip_prefix(b"named_metrics.").unwrap_or(name);
            let value = std::str::from_utf8(rest.get(1..).unwrap_or_default().trim_ascii());
            if let Some(value) = value.ok().and_then(|value| value.parse().ok()) {
                self.take(name, value);
            }
        }
    }

    fn take_json(&mut self, report: &[u8]) {
        let Ok(Value::Object(report)) = serde_json::from_slice(report) else { return };
        let Some(Value::Object(named)) = report.get("named_metrics") else { return };
        for (name, value) in named {
            if let Some(value) = value.as_f64() {
                self.take(name.as_bytes(), value);
            }
        }
    }

    fn take(&mut self, name: &[u8], value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        match name {
            b"num_requests_waiting" => add(&mut self.waiting, value),
            b"num_requests_running" => add(&mut self.running, value),
            // Its name in V1 and in V0.
            b"kv_cache_usage_perc" | b"gpu_cache_usage_perc" => {
                self.kv_usage = Some(self.kv_usage.unwrap_or(0.0).max(value.min(1.0)));
            }
            _ => {}
        }
    }
}

fn add(sum: &mut Option<f64>, value: f64) {
    *sum = Some(sum.unwrap_or(0.0) + value);
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates; sums this large are nonsense")]
#[expect(clippy::cast_sign_loss, reason = "only values that are not negative are taken")]
fn count(sum: f64) -> u32 {
    sum.round() as u32
}

#[cfg(test)]
mod tests;
