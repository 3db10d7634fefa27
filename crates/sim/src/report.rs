//! What a comparison came to, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::comparison::Outcome;
use crate::world::Placement;

mod html;
mod palette;
mod plot;

/// A comparison at one load, and, if it was asked for, over many.
#[derive(Clone, Debug)]
pub struct Report {
    /// `S1`, `trace`, `live S1`, …
    pub scenario: String,
    /// What it shows.
    pub title: String,
    /// What requests are like.
    pub workload: String,
    /// Requests a second, on average; `None` in a closed loop.
    pub rate: Option<f64>,
    /// Requests come in stages, each of which waits for the end of the one before.
    pub staged: bool,
    /// The fluid capacity, which no policy can exceed.
    pub lambda_star: f64,
    /// How often each policy was run.
    pub seeds: u32,
    /// Requests a run.
    pub requests: u64,
    /// A policy each, in the order asked for; the oracle among them unless it was live.
    pub outcomes: Vec<Outcome>,
    /// The same at rising rates.
    pub sweep: Vec<SweepPoint>,
}

/// One rate of a sweep.
#[derive(Clone, Debug)]
pub struct SweepPoint {
    /// Requests a second.
    pub rate: f64,
    /// As [`Report::outcomes`].
    pub outcomes: Vec<Outcome>,
}

/// What ends a sensible load: first tokens come so many times later than they could.
const KNEE_SLOWDOWN: f64 = 10.0;

/// Columns of the table of results, and what they mean.
const COLUMNS: [(&str, &str); 16] = [
    ("policy", "who chose the endpoints"),
    ("TTFT mean", "time to first token, from the arrival at the gateway"),
    ("p50", "half of the requests had their first token within this"),
    ("p90", "nine of ten requests had their first token within this"),
    ("p99", "all but one of a hundred had their first token within this"),
    ("± 95 %", "half the confidence interval of the mean TTFT, from the spread over seeds"),
    ("/ oracle", "mean TTFT over that of the oracle, which sees all and decides last"),
    ("TPOT", "mean time between tokens after the first"),
    ("E2E", "mean time from arrival to last token"),
    ("req/s", "requests answered a second"),
    ("tok/s", "tokens of answers a second"),
    ("hits", "share of prompt tokens found in prefix caches"),
    ("KV CoV", "spread of KV use over endpoints: deviation over mean; 0 is even"),
    ("preempt", "requests that lost their KV blocks and were computed again"),
    ("swaps", "times an adapter was brought into a slot"),
    ("refused", "requests refused, by gateway or endpoint"),
];

impl Report {
    /// Whether more is asked for than the pool can ever do.
    pub fn is_overload(&self) -> bool {
        !self.staged && self.rate.is_some_and(|rate| rate >= self.lambda_star)
    }

    /// The highest rate of the sweep, from the lowest on, at which a policy's mean TTFT is within ten times the idle floor.
    pub fn knee(&self, policy: usize) -> Option<f64> {
        let bearable = |point: &&SweepPoint| {
            let outcome = &point.outcomes[policy];
            !outcome.stopped && outcome.ttft.mean() <= Some(KNEE_SLOWDOWN * outcome.floor())
        };
        self.sweep.iter().take_while(bearable).last().map(|point| point.rate)
    }

    /// How much is asked for, in words.
    fn load(&self) -> String {
        self.rate.map_or("closed loop".to_owned(), |rate| {
            format!("{rate:.3} requests/s, {:.0} % of λ*", rate / self.lambda_star * 100.0)
        })
    }

    /// What to know before believing the figures.
    fn warnings(&self) -> Vec<String> {
        let overload = self.is_overload().then(|| {
            let load = self.load();
            format!(
                "unstable: {load} is more than this pool can do; queues grow for as long as the run lasts"
            )
        });
        let stopped = self.outcomes.iter().filter(|outcome| outcome.stopped).map(|outcome| {
            let name = outcome.placement.name();
            format!("unstable: {name} was stopped, because requests only piled up")
        });
        overload.into_iter().chain(stopped).collect()
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}: {}", self.scenario, self.title);
        let _ = writeln!(
            text,
            "{} · {} · λ* {:.3} requests/s · {} seeds × {} requests",
            self.workload,
            self.load(),
            self.lambda_star,
            self.seeds,
            self.requests
        );
        if let Some(first) = self.outcomes.first() {
            let _ = writeln!(text, "idle floor (L1) of the mean TTFT: {}", seconds(first.floor()));
        }
        text.push('\n');
        text.push_str(&grid(&Report::rows(&self.outcomes)));
        for warning in self.warnings() {
            let _ = writeln!(text, "\n{warning}");
        }
        if !self.sweep.is_empty() {
            text.push_str("\nmean TTFT over the load\n");
            text.push_str(&grid(&self.sweep_rows()));
        }
        text
    }

    fn rows(outcomes: &[Outcome]) -> Vec<Vec<String>> {
        let oracle = outcomes.iter().find(|outcome| outcome.placement == Placement::Oracle);
        let oracle = oracle.and_then(|oracle| oracle.ttft.mean());
        let row = |outcome: &Outcome| {
            let mean = outcome.ttft.mean();
            vec![
                outcome.placement.name().to_owned(),
                some_seconds(mean),
                some_seconds(outcome.ttft.quantile(0.5)),
                some_seconds(outcome.ttft.quantile(0.9)),
                some_seconds(outcome.ttft.quantile(0.99)),
                outcome.ci95_ttft_mean().map_or(NONE.to_owned(), seconds),
                mean.zip(oracle)
                    .map_or(NONE.to_owned(), |(mean, oracle)| format!("{:.2}", mean / oracle)),
                some_seconds(outcome.tpot.mean()),
                some_seconds(outcome.e2e.mean()),
                format!("{:.3}", outcome.requests_per_s()),
                format!("{:.0}", outcome.output_tokens_per_s()),
                format!("{:.3}", outcome.prefix_hit_ratio()),
                format!("{:.3}", outcome.kv_cov()),
                outcome.preemptions().to_string(),
                outcome.adapter_swaps().to_string(),
                outcome.refused().to_string(),
            ]
        };
        let header = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect();
        std::iter::once(header).chain(outcomes.iter().map(row)).collect()
    }

    fn sweep_rows(&self) -> Vec<Vec<String>> {
        let names = self.outcomes.iter().map(|outcome| outcome.placement.name().to_owned());
        let header = ["req/s".to_owned(), "of λ*".to_owned()].into_iter().chain(names).collect();
        let knee = |index| self.knee(index).map_or(NONE.to_owned(), |knee| format!("{knee:.3}"));
        let knees = ["knee".to_owned(), String::new()]
            .into_iter()
            .chain((0..self.outcomes.len()).map(knee))
            .collect();
        let row = |point: &SweepPoint| {
            let load = format!("{:.0} %", point.rate / self.lambda_star * 100.0);
            let cells = point.outcomes.iter().map(|outcome| some_seconds(outcome.ttft.mean()));
            [format!("{:.3}", point.rate), load].into_iter().chain(cells).collect()
        };
        let rows = self.sweep.iter().map(row);
        std::iter::once(header).chain(rows).chain([knees]).collect()
    }

    /// All figures, for programs. Equal comparisons give equal bytes.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("scenario", json!(self.scenario));
        put("workload", json!(self.workload));
        put("rate", maybe(self.rate));
        put("lambda_star", number(self.lambda_star));
        put("seeds", json!(self.seeds));
        put("requests", json!(self.requests));
        put("unstable", json!(self.is_overload()));
        let floor = self.outcomes.first().map_or(0.0, Outcome::floor);
        put("idle_floor_ttft_mean_s", number(floor));
        put("results", Value::Array(self.outcomes.iter().map(figures).collect()));
        if !self.sweep.is_empty() {
            let point = |point: &SweepPoint| {
                let results: Vec<Value> = point.outcomes.iter().map(figures).collect();
                json!({
                    "rate": number(point.rate),
                    "load": number(point.rate / self.lambda_star),
                    "results": results,
                })
            };
            put("sweep", Value::Array(self.sweep.iter().map(point).collect()));
            let knee = |(index, outcome): (usize, &Outcome)| {
                let knee = maybe(self.knee(index));
                (outcome.placement.name().to_owned(), knee)
            };
            put("knees", Value::Object(self.outcomes.iter().enumerate().map(knee).collect()));
        }
        Value::Object(object)
    }
}

fn figures(outcome: &Outcome) -> Value {
    let Outcome { ttft, tpot, e2e, .. } = outcome;
    json!({
        "policy": outcome.placement.name(),
        "ttft_mean_s": maybe(ttft.mean()),
        "ttft_p50_s": maybe(ttft.quantile(0.5)),
        "ttft_p90_s": maybe(ttft.quantile(0.9)),
        "ttft_p99_s": maybe(ttft.quantile(0.99)),
        "tpot_mean_s": maybe(tpot.mean()),
        "tpot_p50_s": maybe(tpot.quantile(0.5)),
        "tpot_p99_s": maybe(tpot.quantile(0.99)),
        "e2e_mean_s": maybe(e2e.mean()),
        "e2e_p99_s": maybe(e2e.quantile(0.99)),
        "requests_per_s": number(outcome.requests_per_s()),
        "output_tokens_per_s": number(outcome.output_tokens_per_s()),
        "prefix_hit_ratio": number(outcome.prefix_hit_ratio()),
        "kv_cov": number(outcome.kv_cov()),
        "prefill_imbalance": number(outcome.imbalance()),
        "preemptions": outcome.preemptions(),
        "adapter_swaps": outcome.adapter_swaps(),
        "completed": ttft.count(),
        "refused": outcome.refused(),
        "cut": outcome.cut(),
        "retries": outcome.retries(),
        "faulty_share": number(outcome.faulty_share()),
        "backlog": number(outcome.backlog()),
        "stopped": outcome.stopped,
        "ci95_ttft_mean_s": maybe(outcome.ci95_ttft_mean()),
    })
}

/// Six significant digits: more would be noise.
fn number(value: f64) -> Value {
    let rounded = format!("{value:.5e}").parse::<f64>().unwrap_or(value);
    serde_json::Number::from_f64(rounded).map_or(Value::Null, Value::Number)
}

fn maybe(value: Option<f64>) -> Value {
    value.map_or(Value::Null, number)
}

/// What stands where there is no figure.
const NONE: &str = "–";

fn some_seconds(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), seconds)
}

/// A time with three significant digits and its unit.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0} s"),
        v if v >= 10.0 => format!("{v:.1} s"),
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 0.1 => format!("{:.0} ms", v * 1e3),
        v if v >= 0.01 => format!("{:.1} ms", v * 1e3),
        v => format!("{:.2} ms", v * 1e3),
    }
}

/// Rows with their columns under each other, numbers to the right.
fn grid(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(width(column) - cell.chars().count());
            if column == 0 {
                let _ = write!(line, "{cell}{pad}");
            } else {
                let _ = write!(line, "  {pad}{cell}");
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
