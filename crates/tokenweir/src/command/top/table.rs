//! The table: one line an endpoint, in the order asked for.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::{
    Order,
    fleet::{Endpoint, Fleet, Pool, State},
};
use crate::args::SortBy;

/// What is not known.
const UNKNOWN: &str = "-";
const COLUMNS: usize = 12;
const HEADS: [&str; COLUMNS] = [
    "ENDPOINT",
    "POOL",
    "STATE",
    "IN FLIGHT",
    "RUNNING",
    "WAITING",
    "KV",
    "PREFILL",
    "TTFT",
    "TOKENS/S",
    "SCRAPED",
    "ADAPTERS",
];
/// These are words, which stand at the left; the rest are numbers.
const WORDS: [usize; 4] = [0, 1, 2, 11];

/// One endpoint in one pool.
struct Row<'a> {
    pool: String,
    endpoint: &'a Endpoint,
    tokens: Option<f64>,
}

/// A summary, the heads, and a line for each endpoint.
pub(super) fn lines(fleet: &Fleet, order: Order) -> Vec<String> {
    let of_pool = |pool: &Pool| pool.label();
    let mut rows: Vec<Row<'_>> = fleet
        .pools
        .iter()
        .flat_map(|pool| pool.endpoints.iter().map(move |endpoint| (of_pool(pool), endpoint)))
        .map(|(pool, endpoint)| Row { pool, endpoint, tokens: fleet.tokens_per_second(endpoint) })
        .collect();
    rows.sort_by(|a, b| compare(a, b, order));
    let mut cells = vec![heads(order)];
    cells.extend(rows.iter().map(Row::cells));
    let widths: [usize; COLUMNS] = std::array::from_fn(|at| {
        cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)
    });
    let line = |row: &[String; COLUMNS]| {
        let cell = |(at, text): (usize, &String)| {
            let width = widths[at];
            if WORDS.contains(&at) { format!("{text:<width$}") } else { format!("{text:>width$}") }
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_owned()
    };
    std::iter::once(summary(fleet, &rows)).chain(cells.iter().map(line)).collect()
}

/// The next column to sort by.
pub(super) fn after(by: SortBy) -> SortBy {
    let all = SortBy::value_variants();
    let at = all.iter().position(|one| *one == by).unwrap_or_default();
    all[(at + 1) % all.len()]
}

/// The column sorted by is marked.
fn heads(order: Order) -> [String; COLUMNS] {
    let sorted = SortBy::value_variants().iter().position(|one| *one == order.by);
    std::array::from_fn(|at| {
        let mark = if order.reverse { "↑" } else { "↓" };
        if sorted == Some(at) { format!("{}{mark}", HEADS[at]) } else { HEADS[at].to_owned() }
    })
}

fn summary(fleet: &Fleet, rows: &[Row<'_>]) -> String {
    let mut states = std::collections::BTreeMap::<State<'_>, usize>::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut in_flight = 0;
    for row in rows {
        // In several pools it is still one.
        if seen.insert(&row.endpoint.id) {
            *states.entry(row.endpoint.state()).or_default() += 1;
            in_flight += row.endpoint.in_flight;
        }
    }
    let states: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {}", state.word())).collect();
    let queued: usize = fleet.pools.iter().map(|pool| pool.queued).sum();
    let count = seen.len();
    let of = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    format!(
        "endpoints {count}: {of}; requests in flight {in_flight}, waiting in the gateway {queued}"
    )
}

impl Row<'_> {
    fn cells(&self) -> [String; COLUMNS] {
        let Self { pool, endpoint, tokens } = self;
        [
            endpoint.id.clone(),
            pool.clone(),
            endpoint.state().word().to_owned(),
            endpoint.in_flight.to_string(),
            known(endpoint.running, |count| count.to_string()),
            known(endpoint.waiting, |count| count.to_string()),
            known(endpoint.kv_usage, |share| format!("{:.1} %", share * 100.0)),
            known(endpoint.prefill_tokens_pending, |tokens| format!("{tokens:.0}")),
            known(endpoint.predicted_ttft_seconds, time),
            known(*tokens, |rate| format!("{rate:.1}")),
            known(endpoint.scrape_age_seconds, time),
            adapters(endpoint),
        ]
    }

    /// What it is sorted by.
    fn key(&self, by: SortBy) -> Key<'_> {
        let Self { pool, endpoint, tokens } = self;
        match by {
            SortBy::Endpoint => Key::Word(&endpoint.id),
            SortBy::Pool => Key::Word(pool),
            SortBy::State => Key::State(endpoint.state()),
            SortBy::InFlight => Key::Number(Some(f64::from(endpoint.in_flight))),
            SortBy::Running => Key::Number(endpoint.running.map(f64::from)),
            SortBy::Waiting => Key::Number(endpoint.waiting.map(f64::from)),
            SortBy::Kv => Key::Number(endpoint.kv_usage),
            SortBy::Prefill => Key::Number(endpoint.prefill_tokens_pending),
            SortBy::Ttft => Key::Number(endpoint.predicted_ttft_seconds),
            SortBy::Tokens => Key::Number(*tokens),
            SortBy::Scraped => Key::Number(endpoint.scrape_age_seconds),
        }
    }
}

#[derive(Debug)]
enum Key<'a> {
    Word(&'a str),
    State(State<'a>),
    Number(Option<f64>),
}

/// Words from A to Z, states from the worst, numbers from the largest; the unknown last, whichever way; equals by endpoint.
fn compare(a: &Row<'_>, b: &Row<'_>, order: Order) -> Ordering {
    let turned = |ordering: Ordering| if order.reverse { ordering.reverse() } else { ordering };
    let sorted = match (a.key(order.by), b.key(order.by)) {
        (Key::Word(a), Key::Word(b)) => turned(a.cmp(b)),
        (Key::State(a), Key::State(b)) => turned(a.cmp(&b)),
        (Key::Number(Some(a)), Key::Number(Some(b))) => turned(b.total_cmp(&a)),
        (Key::Number(a), Key::Number(b)) => a.is_none().cmp(&b.is_none()),
        // The same column of both.
        _ => Ordering::Equal,
    };
    sorted.then_with(|| a.endpoint.id.cmp(&b.endpoint.id)).then_with(|| a.pool.cmp(&b.pool))
}

fn known<T>(value: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), shown)
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

/// How many run, of how many that fit, and which.
fn adapters(endpoint: &Endpoint) -> String {
    let Some(names) = &endpoint.running_adapters else { return UNKNOWN.to_owned() };
    let of = endpoint.adapters_max.map_or_else(String::new, |max| format!("/{max}"));
    format!("{}{of} {}", names.len(), names.join(",")).trim_end().to_owned()
}

#[cfg(test)]
mod tests;
