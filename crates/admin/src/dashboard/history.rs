//! What was sampled: of everything together, of each pool and of each model, for an hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use picker::{OutcomeTally, PoolView, TalliedOutcome, Tally};
use serde::Serialize;

use super::{
    TICK,
    window::{Buckets, Latest, Quantiles},
};

mod shown;

pub(crate) use shown::HistoryJson;
pub(super) use shown::{OutcomeJson, SeriesJson};

/// Points at one a second.
const SECONDS_MAX: usize = 300;
/// Points at one a step.
const STEPS_MAX: usize = 240;
const STEP: u64 = 15;
/// Seconds whose times make one point: of a single one there are often none.
const POINT_SECONDS: usize = 15;
/// Readings of buckets: every second for a minute, every minute for an hour, and the one before.
const READINGS_MAX: usize = 61;
const MINUTE: u64 = 60;
/// Pools and models that have a history of their own, at about 60 KiB each; more are one, [`OTHER`].
const POOLS_MAX: usize = 64;
const MODELS_MAX: usize = 128;
/// As in the labels of metrics.
const OTHER: &str = "other";
/// Outcomes told apart by pool and reason.
const OUTCOMES_MAX: usize = 256;

/// What a series is of.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "of", content = "name", rename_all = "lowercase")]
pub(super) enum Of {
    All,
    /// By its label in metrics.
    Pool(String),
    Model(String),
}

/// Locked for as long as a sample or a reading takes, never across a wait.
#[derive(Debug, Default)]
pub(super) struct SharedHistory(Mutex<History>);

impl SharedHistory {
    pub(super) fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct History {
    series: BTreeMap<Of, Series>,
    outcomes: BTreeMap<(TalliedOutcome, String, String), Outcome>,
    pools: Names<POOLS_MAX>,
    models: Names<MODELS_MAX>,
    /// Names of the pools that a destination service has or had.
    services: BTreeMap<String, BTreeSet<String>>,
    /// Seconds that have points.
    seconds: u64,
    sampled: Option<Duration>,
}

/// The first names that came, up to a maximum.
#[derive(Debug, Default)]
struct Names<const MAX: usize>(BTreeSet<String>);

/// Counts since the start, and what is there now.
#[derive(Clone, Debug, Default)]
struct Totals {
    requests: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    refusals: u64,
    retries: u64,
    disconnects: u64,
    broken: u64,
    in_flight: Option<u32>,
    queued: Option<usize>,
    buckets: Buckets,
}

/// A moment: rates per second, and what was there.
#[derive(Clone, Copy, Debug)]
struct Point {
    requests: f32,
    prompt_tokens: f32,
    completion_tokens: f32,
    refusals: f32,
    retries: f32,
    broken: f32,
    in_flight: Option<u32>,
    queued: Option<usize>,
    ttft: Quantiles,
    tpot: Quantiles,
}

#[derive(Debug)]
struct Series {
    totals: Totals,
    /// As of the latest step.
    at_step: Totals,
    by_second: Latest<Point>,
    by_step: Latest<Point>,
    second_readings: Latest<Buckets>,
    minute_readings: Latest<Buckets>,
}

/// How often something happened.
#[derive(Debug)]
struct Outcome {
    count: u64,
    minute_readings: Latest<u64>,
}

impl History {
    /// Takes the point of the second that has passed, and of those that were missed, if the process was held up.
    pub(super) fn sample(&mut self, view: &PoolView, now: Duration) {
        let passed = self.sampled.map_or(TICK, |before| now.saturating_sub(before));
        self.sampled = Some(now);
        let missed = (passed + TICK / 2).as_secs().saturating_sub(1).min(SECONDS_MAX as u64);
        for _ in 0..missed {
            self.seconds += 1;
            for series in self.series.values_mut() {
                series.pass(Point::GAP, self.seconds);
            }
        }
        self.seconds += 1;
        let seconds = self.seconds;
        let tally = view.tally();
        for (of, totals) in self.read(view, &tally) {
            let series = self.series.entry(of).or_insert_with(Series::new);
            let point = series.take(totals, passed);
            series.pass(point, seconds);
        }
        self.count(&tally.outcomes);
    }

    /// What each series comes to at this moment.
    fn read(&mut self, view: &PoolView, tally: &Tally) -> BTreeMap<Of, Totals> {
        let mut found = BTreeMap::<Of, Totals>::new();
        let members = view.members();
        let in_flight = members.iter().map(|member| member.endpoint.in_flight()).sum();
        let (mut queued, pools) = (0, view.pools());
        for (key, members) in &pools {
            let name = self.pools.of(&key.label());
            self.has_service(key.service(), &name);
            let waiting = view.queue(key).0;
            queued += waiting;
            let totals = found.entry(Of::Pool(name)).or_default();
            let in_flight: u32 = members.iter().map(|member| member.endpoint.in_flight()).sum();
            *totals.in_flight.get_or_insert(0) += in_flight;
            *totals.queued.get_or_insert(0) += waiting;
        }
        let all = found.entry(Of::All).or_default();
        (all.in_flight, all.queued) = (Some(in_flight), Some(queued));
        for one in &tally.requests {
            let (pool, model) = (self.pools.of(&one.pool), self.models.of(&one.model));
            for of in [Of::All, Of::Pool(pool), Of::Model(model)] {
                let totals = found.entry(of).or_default();
                totals.requests += one.requests;
                totals.buckets.add(one);
            }
        }
        for one in &tally.tokens {
            let model = Of::Model(self.models.of(&one.model));
            let pools = self.services.get(&one.service).into_iter().flatten();
            for of in [Of::All, model].into_iter().chain(pools.cloned().map(Of::Pool)) {
                let totals = found.entry(of).or_default();
                totals.prompt_tokens += one.prompt;
                totals.completion_tokens += one.completion;
            }
        }
        for one in &tally.outcomes {
            for of in [Of::All, Of::Pool(self.pools.of(&one.pool))] {
                let totals = found.entry(of).or_default();
                match one.outcome {
                    TalliedOutcome::Pick => {}
                    TalliedOutcome::Retry => totals.retries += one.count,
                    TalliedOutcome::Refusal => totals.refusals += one.count,
                    TalliedOutcome::Disconnect => totals.disconnects += one.count,
                    TalliedOutcome::Broken => totals.broken += one.count,
                }
            }
        }
        found
    }

    /// Notes which destination a pool's tokens are counted for.
    fn has_service(&mut self, service: String, pool: &str) {
        let room = self.services.len() < POOLS_MAX;
        if let Some(pools) = self.services.get_mut(&service) {
            if !pools.contains(pool) {
                pools.insert(pool.to_owned());
            }
        } else if room {
            self.services.insert(service, BTreeSet::from([pool.to_owned()]));
        }
    }

    fn count(&mut self, outcomes: &[OutcomeTally]) {
        for one in outcomes {
            let key = (one.outcome, one.pool.clone(), one.what.clone());
            if let Some(outcome) = self.outcomes.get_mut(&key) {
                outcome.count = one.count;
            } else if self.outcomes.len() < OUTCOMES_MAX {
                let mut minute_readings = Latest::new(READINGS_MAX);
                minute_readings.push(0);
                self.outcomes.insert(key, Outcome { count: one.count, minute_readings });
            }
        }
        if self.seconds.is_multiple_of(MINUTE) {
            for outcome in self.outcomes.values_mut() {
                outcome.minute_readings.push(outcome.count);
            }
        }
    }
}

impl<const MAX: usize> Names<MAX> {
    /// The name, if it has come before or there is room for it.
    fn of(&mut self, name: &str) -> String {
        if !self.0.contains(name) {
            if self.0.len() == MAX {
                return OTHER.to_owned();
            }
            self.0.insert(name.to_owned());
        }
        name.to_owned()
    }
}

impl Series {
    fn new() -> Self {
        let readings = || {
            let mut readings = Latest::new(READINGS_MAX);
            readings.push(Buckets::default());
            readings
        };
        Self {
            totals: Totals::default(),
            at_step: Totals::default(),
            by_second: Latest::new(SECONDS_MAX),
            by_step: Latest::new(STEPS_MAX),
            second_readings: readings(),
            minute_readings: readings(),
        }
    }

    /// Takes the newest totals; the point they make with the ones before.
    fn take(&mut self, totals: Totals, passed: Duration) -> Point {
        let before = std::mem::replace(&mut self.totals, totals);
        let earlier = self.second_readings.back(POINT_SECONDS - 1);
        Point::between(&before, &self.totals, passed, earlier.unwrap_or(&before.buckets))
    }

    /// One more second has passed.
    fn pass(&mut self, point: Point, seconds: u64) {
        self.by_second.push(point);
        self.second_readings.push(self.totals.buckets.clone());
        if seconds.is_multiple_of(STEP) {
            let step = TICK * u32::try_from(STEP).unwrap_or(1);
            let before = std::mem::replace(&mut self.at_step, self.totals.clone());
            self.by_step.push(Point::between(&before, &self.totals, step, &before.buckets));
        }
        if seconds.is_multiple_of(MINUTE) {
            self.minute_readings.push(self.totals.buckets.clone());
        }
    }

    fn since(&self, readings: &Latest<Buckets>) -> [Quantiles; 2] {
        let before = readings.back(READINGS_MAX - 1);
        before.map_or([None, None], |before| self.totals.buckets.since(before))
    }
}

impl Point {
    /// Of a second in which nobody looked.
    const GAP: Self = Self {
        requests: f32::NAN,
        prompt_tokens: f32::NAN,
        completion_tokens: f32::NAN,
        refusals: f32::NAN,
        retries: f32::NAN,
        broken: f32::NAN,
        in_flight: None,
        queued: None,
        ttft: None,
        tpot: None,
    };

    /// Rates between two moments, and the times of requests that ended since an earlier one.
    fn between(before: &Totals, now: &Totals, passed: Duration, earlier: &Buckets) -> Self {
        let seconds = passed.as_secs_f32().max(1e-3);
        let rate = |count: fn(&Totals) -> u64| {
            approximate(count(now).saturating_sub(count(before))) / seconds
        };
        let [ttft, tpot] = now.buckets.since(earlier);
        Self {
            requests: rate(|totals| totals.requests),
            prompt_tokens: rate(|totals| totals.prompt_tokens),
            completion_tokens: rate(|totals| totals.completion_tokens),
            refusals: rate(|totals| totals.refusals),
            retries: rate(|totals| totals.retries),
            broken: rate(|totals| totals.broken),
            in_flight: now.in_flight,
            queued: now.queued,
            ttft,
            tpot,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no more than three digits are shown")]
fn approximate(count: u64) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests;
