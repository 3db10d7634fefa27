//! vLLM's metrics page, read in one pass for the few names the gateway wants.
//!
//! Not a Prometheus parser: lines that are not wanted are skipped by their prefix, and a line that
//! makes no sense is as good as absent.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc, time::Duration};

use memchr::{memchr, memchr2};
use scheduling::{Reading, Signals};

#[cfg(test)]
mod tests;

/// Adapters read from one page; more than an engine can hold at once.
pub const ADAPTERS_MAX: usize = 1_024;

/// Reads a page. `None` if it is not vLLM's: none of the gauges every version has is on it.
///
/// `heard` is stamped on every reading. Counters that are not there read as zero, because older
/// versions begin to show them with the first request.
pub fn parse_metrics(page: &[u8], heard: Duration) -> Option<Signals> {
    let mut tally = Tally::default();
    let mut rest = page;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        if let Some(line) = line.strip_prefix(b"vllm:") {
            tally.take(line);
        } else if let Some(rest) = line.strip_prefix(b"process_start_time_seconds") {
            tally.process_start = greatest(tally.process_start, plain(rest));
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    tally.signals(heard)
}

/// What the page has said so far. Data-parallel engines have a series each.
#[derive(Default)]
struct Tally<'a> {
    process_start: Option<f64>,
    waiting: Option<f64>,
    running: Option<f64>,
    kv_usage: Option<f64>,
    prompt_tokens: Option<f64>,
    generation_tokens: Option<f64>,
    block_tokens: Option<u32>,
    blocks: Option<u64>,
    adapters: Option<Adapters<'a>>,
}

/// A series of `lora_requests_info`, its labels as written.
#[derive(Clone, Copy)]
struct Adapters<'a> {
    at: f64,
    max: &'a [u8],
    running: &'a [u8],
}

impl<'a> Tally<'a> {
    /// Takes in a line, its `vllm:` taken off.
    fn take(&mut self, line: &'a [u8]) {
        let name_end = line.iter().position(|byte| matches!(byte, b'{' | b' ' | b'\t'));
        let (name, rest) = line.split_at(name_end.unwrap_or(line.len()));
        match name {
            b"num_requests_waiting" => add(&mut self.waiting, plain(rest)),
            b"num_requests_running" => add(&mut self.running, plain(rest)),
            // V1's name and V0's; some versions show both.
            b"kv_cache_usage_perc" | b"gpu_cache_usage_perc" => {
                let fullest = plain(rest).map(|value| value.min(1.0));
                self.kv_usage = greatest(self.kv_usage, fullest);
            }
            b"prompt_tokens_total" => add(&mut self.prompt_tokens, plain(rest)),
            b"generation_tokens_total" => add(&mut self.generation_tokens, plain(rest)),
            b"cache_config_info" => self.take_cache_config(rest),
            b"lora_requests_info" => self.take_adapters(rest),
            _ => {}
        }
    }

    fn take_cache_config(&mut self, rest: &'a [u8]) {
        let (mut block_tokens, mut blocks) = (None, None);
        let rest = labels(rest, |name, text| match name {
            b"block_size" => block_tokens = number(text).filter(|&tokens: &u32| tokens > 0),
            b"num_gpu_blocks" => blocks = number(text).filter(|&blocks: &u64| blocks > 0),
            _ => {}
        });
        if rest.and_then(value).is_none() {
            return;
        }
        // With several ranks each series tells the server's total: to add them would count it
        // once a rank.
        self.block_tokens = smallest(self.block_tokens, block_tokens);
        self.blocks = smallest(self.blocks, blocks);
    }

    fn take_adapters(&mut self, rest: &'a [u8]) {
        let (mut max, mut running) = (None, None);
        let rest = labels(rest, |name, text| match name {
            b"max_lora" => max = Some(text),
            b"running_lora_adapters" => running = Some(text),
            _ => {}
        });
        let (Some(at), Some(running)) = (rest.and_then(value), running) else { return };
        // Series of former sets of adapters stay on the page; the value is the time of each.
        if self.adapters.is_none_or(|last| at >= last.at) {
            self.adapters = Some(Adapters { at, max: max.unwrap_or_default(), running });
        }
    }

    fn signals(self, heard: Duration) -> Option<Signals> {
        if self.waiting.is_none() && self.running.is_none() && self.kv_usage.is_none() {
            return None;
        }
        let adapters_max = self.adapters.and_then(|adapters| number(adapters.max));
        let counter = |sum: Option<f64>| Some(count(sum.unwrap_or(0.0))).map(at(heard));
        Some(Signals {
            waiting: self.waiting.map(count_u32).map(at(heard)),
            running: self.running.map(count_u32).map(at(heard)),
            kv_usage: self.kv_usage.map(at(heard)),
            kv_block_tokens: self.block_tokens.map(at(heard)),
            kv_blocks: self.blocks.map(at(heard)),
            adapters_max: adapters_max.map(at(heard)),
            running_adapters: self.adapters.map(|adapters| Arc::new(names(adapters.running))),
            process_start: self.process_start.map(at(heard)),
            prompt_tokens: counter(self.prompt_tokens),
            generation_tokens: counter(self.generation_tokens),
        })
    }
}

fn at<T>(heard: Duration) -> impl Fn(T) -> Reading<T> {
    move |value| Reading { value, heard }
}

fn add(sum: &mut Option<f64>, value: Option<f64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
}

fn greatest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

fn smallest<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}

/// A sum as a whole number.
#[expect(clippy::cast_possible_truncation, reason = "saturates; sums this large are nonsense")]
#[expect(clippy::cast_sign_loss, reason = "only values that are not negative are taken")]
fn count(sum: f64) -> u64 {
    sum.round() as u64
}

fn count_u32(sum: f64) -> u32 {
    u32::try_from(count(sum)).unwrap_or(u32::MAX)
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The value of a series whose labels do not matter.
fn plain(rest: &[u8]) -> Option<f64> {
    value(labels(rest, |_, _| {})?)
}

/// The value behind a series; a timestamp may follow. NaN, infinities and negative values say
/// nothing.
fn value(rest: &[u8]) -> Option<f64> {
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    number(&rest[..end]).filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

/// Visits names and values (as written, still escaped) of the labels; returns what follows them.
fn labels<'a>(text: &'a [u8], mut visit: impl FnMut(&[u8], &'a [u8])) -> Option<&'a [u8]> {
    let text = text.trim_ascii_start();
    let Some(mut rest) = text.strip_prefix(b"{") else { return Some(text) };
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b"}") {
            return Some(after);
        }
        let equals = memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let quoted = rest[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
        let end = closing_quote(quoted)?;
        visit(name, &quoted[..end]);
        let after = quoted[end + 1..].trim_ascii_start();
        rest = after.strip_prefix(b",").unwrap_or(after);
    }
}

fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// The adapters in a comma-separated label.
fn names(text: &[u8]) -> BTreeSet<String> {
    let text = unescape(text);
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.take(ADAPTERS_MAX).map(str::to_owned).collect()
}

fn unescape(text: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(text);
    if !text.contains('\\') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}
