//! When requests come.

use std::time::Duration;

use super::{Shape, Shapes, Workload, seconds};
use crate::tokens::mix;

/// A while at one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests a second.
    pub rate: f64,
    /// How long.
    pub seconds: f64,
}

/// When requests come.
#[derive(Clone, Debug, PartialEq)]
pub enum Pace {
    /// At random, independently, this many a second; rows of a trace in random order.
    Poisson(f64),
    /// At even distances, this many a second.
    Constant(f64),
    /// At the trace's own times, this many times faster.
    Recorded(f64),
    /// Poisson at one rate after the other; each stage begins when all requests of the one before are answered, as
    /// inference-perf does it. Over with the last.
    Stages(Vec<Stage>),
    /// Whenever one of so many users has its answer: closed loop.
    Closed(u32),
}

impl Pace {
    /// Requests a second, where that is known beforehand.
    pub fn rate(&self, workload: &Workload) -> Option<f64> {
        match self {
            Pace::Poisson(rate) | Pace::Constant(rate) => Some(*rate),
            Pace::Recorded(faster) => Some(workload.recorded()?.rate()? * faster),
            Pace::Stages(stages) => {
                let total: f64 = stages.iter().map(|stage| stage.seconds).sum();
                Some(stages.iter().map(|stage| stage.rate * stage.seconds).sum::<f64>() / total)
            }
            Pace::Closed(_) => None,
        }
    }
}

/// A request and when it comes.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// When, since the beginning of its stage.
    pub at: Duration,
    /// Which stage, from 0; only [`Pace::Stages`] has more than one.
    pub stage: usize,
    /// What.
    pub shape: Shape,
}

/// Requests in the order of their times. In a closed loop all times are zero: who drives it takes the next when a user
/// is free.
#[derive(Debug)]
pub struct Arrivals {
    shapes: Shapes,
    pace: Pace,
    rng: fastrand::Rng,
    /// Seconds.
    now: f64,
    /// Times of the trace, and how long one round of it takes.
    recorded: Vec<f64>,
    lap: f64,
    taken: usize,
    stage: usize,
}

impl Arrivals {
    pub(super) fn new(workload: &Workload, pace: &Pace, seed: u64) -> Arrivals {
        let in_order = matches!(pace, Pace::Recorded(_));
        let shapes = workload.shapes(seed);
        let trace = workload.recorded().filter(|_| in_order);
        let recorded: Vec<f64> = trace
            .map(|trace| trace.rows.iter().map(|row| row.at.as_secs_f64()).collect())
            .unwrap_or_default();
        let last = recorded.last().copied().unwrap_or(0.0);
        // The pause before a second round is a mean one.
        let lap = last + trace.and_then(super::Trace::rate).map_or(1.0, |rate| 1.0 / rate);
        Arrivals {
            shapes: if in_order { shapes } else { shapes.shuffled() },
            pace: pace.clone(),
            rng: fastrand::Rng::with_seed(mix(seed, 0x9ACE)),
            now: 0.0,
            recorded,
            lap,
            taken: 0,
            stage: 0,
        }
    }

    /// The next time, unless the pace is over.
    fn next_time(&mut self) -> Option<f64> {
        match &self.pace {
            Pace::Poisson(rate) => self.now += exponential(&mut self.rng) / rate,
            Pace::Constant(rate) => {
                if self.taken > 0 {
                    self.now += 1.0 / rate;
                }
            }
            Pace::Recorded(faster) => {
                if self.recorded.is_empty() {
                    return None;
                }
                #[expect(clippy::cast_precision_loss, reason = "rounds are few")]
                let before = self.shapes.laps() as f64 * self.lap;
                let at = self.recorded[self.taken % self.recorded.len()];
                self.now = (before + at) / faster;
            }
            Pace::Stages(stages) => loop {
                let Stage { rate, seconds } = *stages.get(self.stage)?;
                self.now += exponential(&mut self.rng) / rate;
                if self.now < seconds {
                    break;
                }
                (self.stage, self.now) = (self.stage + 1, 0.0);
            },
            Pace::Closed(_) => {}
        }
        self.taken += 1;
        Some(self.now)
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let at = self.next_time()?;
        Some(Arrival { at: seconds(at), stage: self.stage, shape: self.shapes.draw() })
    }
}

/// An exponentially distributed number of mean 1.
fn exponential(rng: &mut fastrand::Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}
