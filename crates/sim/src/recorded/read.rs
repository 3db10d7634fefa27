//! `requests.jsonl` and `meta.json`.

use std::time::Duration;

use serde_json::Value;

use super::{Limits, RecordedRequest, Served};
use crate::workload::TraceError;
use crate::workload::trace::{Problems, fields, length, lines, shown};

/// Fields of a request; what else is there is not looked at.
const FIELDS: [&str; 6] =
    ["input_toks", "output_toks", "arrival_time", "queued_ts", "first_token_ts", "last_token_ts"];

/// Seconds taken for a time: up to the year 2255.
const SECONDS_MAX: f64 = 9e9;

/// A request with its times as they stand in the file.
struct Raw {
    line: u32,
    prompt_tokens: u32,
    output_tokens: u32,
    arrival: f64,
    queued: f64,
    first_token: f64,
    last_token: f64,
}

pub(super) fn requests(path: &str, text: &str) -> Result<Vec<RecordedRequest>, TraceError> {
    let mut problems = Problems::default();
    let mut raw = Vec::new();
    for (number, line) in lines(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        match request(number, line) {
            Ok(request) => raw.push(request),
            Err(what) => problems.add(number, what),
        }
    }
    if problems.is_empty() && raw.is_empty() {
        let fields = FIELDS.join(", ");
        problems.add(
            1,
            format!("there are no requests; a JSON object a line is expected, with {fields}"),
        );
    }
    if !problems.is_empty() {
        return Err(problems.error(path));
    }
    Ok(on_one_clock(&mut raw))
}

fn request(line: u32, text: &str) -> Result<Raw, String> {
    let [input, output, arrival, queued, first, last] = fields(text, FIELDS)?;
    let some = |name: &str, value: &Value| match length(name, value)? {
        0 => Err(format!("{name} is 0; at least 1 is expected: leave the request out")),
        tokens => Ok(tokens),
    };
    let raw = Raw {
        line,
        prompt_tokens: some(FIELDS[0], &input)?,
        output_tokens: some(FIELDS[1], &output)?,
        arrival: time(FIELDS[2], &arrival)?,
        queued: time(FIELDS[3], &queued)?,
        first_token: time(FIELDS[4], &first)?,
        last_token: time(FIELDS[5], &last)?,
    };
    if raw.queued <= raw.first_token && raw.first_token <= raw.last_token {
        return Ok(raw);
    }
    Err(format!(
        "queued_ts {}, first_token_ts {} and last_token_ts {} are expected in this order",
        raw.queued, raw.first_token, raw.last_token
    ))
}

fn time(name: &str, value: &Value) -> Result<f64, String> {
    value.as_f64().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        let found = shown(&value.to_string());
        format!("{name} is {found}; seconds are expected: leave out requests that failed")
    })
}

/// See the module above for what the clocks are.
fn on_one_clock(raw: &mut [Raw]) -> Vec<RecordedRequest> {
    raw.sort_by(|a, b| a.arrival.total_cmp(&b.arrival));
    let start = raw.first().map_or(0.0, |request| request.arrival);
    let apart = raw.iter().map(|request| request.arrival - request.queued);
    let apart = apart.fold(f64::NEG_INFINITY, f64::max) - start;
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let request = |raw: &Raw| RecordedRequest {
        arrival: duration(raw.arrival - start),
        prompt_tokens: raw.prompt_tokens,
        output_tokens: raw.output_tokens,
        served: Served {
            first_token: duration(raw.first_token + apart),
            last_token: duration(raw.last_token + apart),
        },
        line: raw.line,
    };
    raw.iter().map(request).collect()
}

/// Where `meta.json` may have a value, the first that has it counts.
const CACHE: [&[&str]; 3] =
    [&["resolved_config", "cache_config"], &["kv_cache"], &["engine_kwargs"]];
const SCHEDULER: [&[&str]; 2] = [&["resolved_config", "scheduler_config"], &["engine_kwargs"]];
const MODEL: [&[&str]; 2] = [&["resolved_config", "model_config"], &["engine_kwargs"]];

pub(super) fn meta(path: &str, text: &str) -> Result<(Limits, Option<u64>), TraceError> {
    let mut problems = Problems::default();
    let value: Value = match serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        Ok(value) => value,
        Err(error) => {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
            problems.add(line, format!("this is not JSON: {error}"));
            return Err(problems.error(path));
        }
    };
    if !value.is_object() {
        problems.add(1, "a JSON object is expected, as LLMServingSim's bench writes it");
        return Err(problems.error(path));
    }
    let mut meta = Meta { value: &value, text, problems };
    let limits = Limits {
        num_gpu_blocks: meta.count(&CACHE, "num_gpu_blocks"),
        block_size: meta.count(&CACHE, "block_size"),
        max_num_seqs: meta.count(&SCHEDULER, "max_num_seqs"),
        max_num_batched_tokens: meta.count(&SCHEDULER, "max_num_batched_tokens"),
        max_model_len: meta.count(&MODEL, "max_model_len"),
        enable_prefix_caching: meta.read(
            &CACHE,
            "enable_prefix_caching",
            "true or false",
            Value::as_bool,
        ),
    };
    let preemptions = meta.read(&[&[]], "num_preemptions", "a whole number", Value::as_u64);
    if meta.problems.is_empty() {
        Ok((limits, preemptions))
    } else {
        Err(meta.problems.error(path))
    }
}

struct Meta<'a> {
    value: &'a Value,
    text: &'a str,
    problems: Problems,
}

impl Meta<'_> {
    fn count(&mut self, places: &[&[&str]], name: &str) -> Option<u32> {
        let positive = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|n| *n > 0);
        self.read(places, name, "a whole number of at least 1", positive)
    }

    /// The value at the first place that has one that is not null.
    fn read<T>(
        &mut self,
        places: &[&[&str]],
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let at = |place: &&[&str]| {
            let object = place.iter().try_fold(self.value, |value, key| value.get(key))?;
            object.get(name).filter(|value| !value.is_null())
        };
        let found = places.iter().find_map(at)?;
        let value = read(found);
        if value.is_none() {
            let quoted = format!("\"{name}\"");
            let line = lines(self.text).find(|(_, line)| line.contains(&quoted));
            let found = shown(&found.to_string());
            let what = format!("{name} is {found}; {expected} is expected");
            self.problems.add(line.map_or(1, |(number, _)| number), what);
        }
        value
    }
}
