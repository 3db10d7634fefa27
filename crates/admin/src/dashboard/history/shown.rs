//! The history as JSON: what pages are told each second, and what they ask for.

use picker::TalliedOutcome;
use serde::{Serialize, Serializer};

use super::{History, MINUTE, Of, Outcome, Point, READINGS_MAX, STEP, Series, approximate};
use crate::dashboard::window::Quantiles;

/// A series as pages are told of it each second.
#[derive(Serialize)]
pub(in crate::dashboard) struct SeriesJson<'a> {
    #[serde(flatten)]
    of: &'a Of,
    /// Since the start.
    total: TotalJson,
    /// The newest second; rates are per second.
    point: PointJson,
    minute: MinuteJson,
    hour: TimesJson,
}

#[derive(Serialize)]
struct TotalJson {
    requests: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    refusals: u64,
    retries: u64,
    disconnects: u64,
    broken: u64,
}

/// Mean rates per second, and times.
#[derive(Serialize)]
struct MinuteJson {
    requests: Digits,
    prompt_tokens: Digits,
    completion_tokens: Digits,
    #[serde(flatten)]
    times: TimesJson,
}

/// p50, p90 and p99 in seconds; null of none.
#[derive(Serialize)]
struct TimesJson {
    ttft: Times,
    tpot: Times,
}

#[derive(Serialize)]
struct PointJson {
    requests: Digits,
    prompt_tokens: Digits,
    completion_tokens: Digits,
    refusals: Digits,
    retries: Digits,
    broken: Digits,
    in_flight: Option<u32>,
    queued: Option<usize>,
    ttft: Times,
    tpot: Times,
}

/// Points of equal distance, oldest first, one list for each number.
#[derive(Serialize)]
struct Columns {
    requests: Vec<Digits>,
    prompt_tokens: Vec<Digits>,
    completion_tokens: Vec<Digits>,
    refusals: Vec<Digits>,
    retries: Vec<Digits>,
    broken: Vec<Digits>,
    in_flight: Vec<Option<u32>>,
    queued: Vec<Option<usize>>,
    ttft: Vec<Times>,
    tpot: Vec<Times>,
}

type Times = Option<[Digits; 3]>;

/// As many digits as are shown; null if it is not known.
#[derive(Clone, Copy)]
struct Digits(f32);

#[derive(Serialize)]
pub(in crate::dashboard) struct OutcomeJson<'a> {
    outcome: &'static str,
    pool: &'a str,
    what: &'a str,
    total: u64,
    five_minutes: u64,
    hour: u64,
}

/// `/history`: one list of requests a series, or everything of one series.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum HistoryJson {
    Overview(Vec<OverviewJson>),
    Points(Box<PointsJson>),
}

#[derive(Serialize)]
pub(crate) struct OverviewJson {
    #[serde(flatten)]
    of: Of,
    step_seconds: u64,
    requests: Vec<Digits>,
}

#[derive(Serialize)]
pub(crate) struct PointsJson {
    #[serde(flatten)]
    of: Of,
    /// Of the newest second; counts up by one each.
    sequence: u64,
    /// One a second.
    seconds: Columns,
    step_seconds: u64,
    /// One a step.
    steps: Columns,
}

impl History {
    /// Counts the seconds that have points.
    pub(in crate::dashboard) fn sequence(&self) -> u64 {
        self.seconds
    }

    pub(in crate::dashboard) fn shown(&self) -> Vec<SeriesJson<'_>> {
        self.series.iter().map(|(of, series)| series.shown(of, self.seconds)).collect()
    }

    pub(in crate::dashboard) fn outcomes_shown(&self) -> Vec<OutcomeJson<'_>> {
        let outcomes = self.outcomes.iter();
        outcomes.map(|((kind, pool, what), outcome)| outcome.shown(*kind, pool, what)).collect()
    }

    pub(in crate::dashboard) fn overview(&self) -> HistoryJson {
        let of_series = |(of, series): (&Of, &Series)| OverviewJson {
            of: of.clone(),
            step_seconds: STEP,
            requests: series.by_step.iter().map(|point| Digits(point.requests)).collect(),
        };
        HistoryJson::Overview(self.series.iter().map(of_series).collect())
    }

    pub(in crate::dashboard) fn points(&self, of: &Of) -> Option<HistoryJson> {
        let series = self.series.get(of)?;
        Some(HistoryJson::Points(Box::new(PointsJson {
            of: of.clone(),
            sequence: self.sequence(),
            seconds: Columns::of(series.by_second.iter()),
            step_seconds: STEP,
            steps: Columns::of(series.by_step.iter()),
        })))
    }
}

impl Series {
    /// As it is when so many seconds have points.
    fn shown<'a>(&self, of: &'a Of, seconds: u64) -> SeriesJson<'a> {
        let totals = &self.totals;
        SeriesJson {
            of,
            total: TotalJson {
                requests: totals.requests,
                prompt_tokens: totals.prompt_tokens,
                completion_tokens: totals.completion_tokens,
                refusals: totals.refusals,
                retries: totals.retries,
                disconnects: totals.disconnects,
                broken: totals.broken,
            },
            point: PointJson::of(self.by_second.back(0).unwrap_or(&Point::GAP)),
            minute: MinuteJson {
                requests: self.lately(seconds, |point| point.requests),
                prompt_tokens: self.lately(seconds, |point| point.prompt_tokens),
                completion_tokens: self.lately(seconds, |point| point.completion_tokens),
                times: TimesJson::of(self.since(&self.second_readings)),
            },
            hour: TimesJson::of(self.since(&self.minute_readings)),
        }
    }

    /// The mean of the latest minute. Before its first point a series had nothing; what is missing later is not known.
    fn lately(&self, seconds: u64, rate: fn(&Point) -> f32) -> Digits {
        let latest = self.by_second.iter().rev().take(READINGS_MAX - 1).map(rate);
        let (known, gaps): (Vec<f32>, Vec<f32>) = latest.partition(|rate| rate.is_finite());
        let counted = seconds.min(MINUTE).saturating_sub(gaps.len() as u64);
        Digits(known.iter().sum::<f32>() / approximate(counted))
    }
}

impl Outcome {
    fn shown<'a>(&self, kind: TalliedOutcome, pool: &'a str, what: &'a str) -> OutcomeJson<'a> {
        let since = |minutes: usize| {
            let before = self.minute_readings.back(minutes - 1).copied().unwrap_or_default();
            self.count.saturating_sub(before)
        };
        let outcome = match kind {
            TalliedOutcome::Pick => "pick",
            TalliedOutcome::Retry => "retry",
            TalliedOutcome::Refusal => "refusal",
            TalliedOutcome::Disconnect => "disconnect",
            TalliedOutcome::Broken => "broken",
        };
        let (total, five_minutes, hour) = (self.count, since(5), since(READINGS_MAX - 1));
        OutcomeJson { outcome, pool, what, total, five_minutes, hour }
    }
}

impl TimesJson {
    fn of([ttft, tpot]: [Quantiles; 2]) -> Self {
        Self { ttft: times(ttft), tpot: times(tpot) }
    }
}

impl PointJson {
    fn of(point: &Point) -> Self {
        Self {
            requests: Digits(point.requests),
            prompt_tokens: Digits(point.prompt_tokens),
            completion_tokens: Digits(point.completion_tokens),
            refusals: Digits(point.refusals),
            retries: Digits(point.retries),
            broken: Digits(point.broken),
            in_flight: point.in_flight,
            queued: point.queued,
            ttft: times(point.ttft),
            tpot: times(point.tpot),
        }
    }
}

impl Columns {
    fn of<'a>(points: impl Iterator<Item = &'a Point>) -> Self {
        let points: Vec<&Point> = points.collect();
        let rates = |rate: fn(&Point) -> f32| points.iter().map(|one| Digits(rate(one))).collect();
        Self {
            requests: rates(|point| point.requests),
            prompt_tokens: rates(|point| point.prompt_tokens),
            completion_tokens: rates(|point| point.completion_tokens),
            refusals: rates(|point| point.refusals),
            retries: rates(|point| point.retries),
            broken: rates(|point| point.broken),
            in_flight: points.iter().map(|point| point.in_flight).collect(),
            queued: points.iter().map(|point| point.queued).collect(),
            ttft: points.iter().map(|point| times(point.ttft)).collect(),
            tpot: points.iter().map(|point| times(point.tpot)).collect(),
        }
    }
}

fn times(quantiles: Quantiles) -> Times {
    quantiles.map(|quantiles| quantiles.map(Digits))
}

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.0.is_finite() {
            return serializer.serialize_none();
        }
        let value = f64::from(self.0);
        // Four digits: one more than is shown.
        let scale = 10_f64.powi(3 - magnitude(value));
        serializer.serialize_f64((value * scale).round() / scale)
    }
}

/// The power of ten of its first digit.
#[expect(clippy::cast_possible_truncation, reason = "logarithms of what a float holds are small")]
fn magnitude(value: f64) -> i32 {
    if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 }
}
