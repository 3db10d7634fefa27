//! What a page is told each second: the whole of the present, so that a page that missed some needs none of them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use picker::wall_clock;
use serde::Serialize;
use serde_json::Value;

use super::history::{History, OutcomeJson, SeriesJson};
use crate::{
    Views,
    decisions::{self, DecisionJson},
    endpoints::{self, PoolJson},
};

/// Newest decisions in a tick; `/decisions` has more.
const DECISIONS_MAX: usize = 4;

#[derive(Serialize)]
struct TickJson<'a> {
    /// Of the newest point of the history.
    sequence: u64,
    /// Milliseconds since 1970.
    time: i64,
    uptime_seconds: u64,
    version: &'static str,
    /// Why the gateway takes no traffic, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_ready: Option<String>,
    configuration: ConfigurationJson,
    pools: Vec<PoolJson>,
    series: Vec<SeriesJson<'a>>,
    outcomes: Vec<OutcomeJson<'a>>,
    decisions: Vec<DecisionJson>,
}

/// Enough to know when to ask for `/config_dump` and `/objects` again.
#[derive(Serialize)]
struct ConfigurationJson {
    generation: Value,
    /// Changes with anything that is to be shown of it.
    version: String,
}

/// One server-sent event.
pub(super) fn write(
    views: &Views,
    history: &History,
    uptime: Duration,
) -> serde_json::Result<Bytes> {
    let tick = TickJson {
        sequence: history.sequence(),
        time: Timestamp::try_from(wall_clock()).map_or(0, Timestamp::as_millisecond),
        uptime_seconds: uptime.as_secs(),
        version: env!("CARGO_PKG_VERSION"),
        not_ready: (views.ready)().err(),
        configuration: configuration(&(views.config)()),
        pools: endpoints::list(&views.view),
        series: history.shown(),
        outcomes: history.outcomes_shown(),
        decisions: decisions::latest(&views.view, DECISIONS_MAX),
    };
    let mut event = b"data: ".to_vec();
    // JSON has no line breaks but those that are asked for.
    serde_json::to_writer(&mut event, &tick)?;
    event.extend(b"\n\n");
    Ok(event.into())
}

fn configuration(shown: &Value) -> ConfigurationJson {
    let mut hasher = DefaultHasher::new();
    shown.to_string().hash(&mut hasher);
    let version = format!("{:016x}", hasher.finish());
    ConfigurationJson { generation: shown["generation"].clone(), version }
}
