//! Policies side by side: the same requests, several seeds, the oracle among them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::distribution::{Distribution, number, precise};
use crate::limits::Demand;
use crate::scenario::Scenario;
use crate::workload::Pace;
use crate::world::{Figures, Floor, Placement, Series, WorldConfig, run};

/// The share of requests that come first and are not counted: the pool is still filling.
pub const WARMUP_SHARE: u64 = 10;
/// Seeds at most.
pub const SEEDS_MAX: u32 = 1_000;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Pool and load.
    pub scenario: Scenario,
    /// Who chooses.
    pub placements: Vec<Placement>,
    /// Each is run with as many seeds: 1, 2, and so on.
    pub seeds: u32,
    /// Runs at once.
    pub threads: usize,
}

/// One policy over all seeds.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub placement: Placement,
    /// All seeds together.
    pub ttft: Distribution,
    /// See above.
    pub tpot: Distribution,
    /// See above.
    pub e2e: Distribution,
    /// A number for each seed, from which means and intervals are made.
    runs: Vec<Run>,
    /// Endpoints over time, in the first seed.
    pub series: Series,
    /// Some run was stopped because requests only piled up.
    pub stopped: bool,
}

/// What of one run is not merged.
#[derive(Clone, Copy, Debug)]
struct Run {
    ttft_mean: f64,
    requests_per_s: f64,
    output_tokens_per_s: f64,
    prefix_hit_ratio: f64,
    kv_cov: f64,
    imbalance: f64,
    preemptions: u64,
    adapter_swaps: u64,
    refused: u64,
    cut: u64,
    retries: u64,
    floor: f64,
    backlog: u64,
    faulty_share: f64,
}

impl Outcome {
    /// Of a policy's runs.
    pub fn new(placement: Placement, mut figures: Vec<Figures>) -> Outcome {
        let merge = |of: fn(&Figures) -> &Distribution| {
            let mut all = Distribution::of_seconds();
            for figures in &figures {
                all.merge(of(figures));
            }
            all
        };
        Outcome {
            placement,
            ttft: merge(|figures| &figures.ttft),
            tpot: merge(|figures| &figures.tpot),
            e2e: merge(|figures| &figures.e2e),
            runs: figures.iter().map(Run::of).collect(),
            stopped: figures.iter().any(|figures| figures.stopped),
            series: figures
                .first_mut()
                .map(|first| std::mem::take(&mut first.series))
                .unwrap_or_default(),
        }
    }

    fn mean(&self, of: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(of).sum::<f64>() / number(self.runs.len().max(1))
    }

    fn sum(&self, of: impl Fn(&Run) -> u64) -> u64 {
        self.runs.iter().map(of).sum()
    }

    /// Requests answered a second.
    pub fn requests_per_s(&self) -> f64 {
        self.mean(|run| run.requests_per_s)
    }

    /// Tokens of answers a second.
    pub fn output_tokens_per_s(&self) -> f64 {
        self.mean(|run| run.output_tokens_per_s)
    }

    /// Share of prompt tokens found in prefix caches.
    pub fn prefix_hit_ratio(&self) -> f64 {
        self.mean(|run| run.prefix_hit_ratio)
    }

    /// Mean over time of the spread of KV use over endpoints: deviation over mean.
    pub fn kv_cov(&self) -> f64 {
        self.mean(|run| run.kv_cov)
    }

    /// Prompt tokens computed by the busiest endpoint over the mean.
    pub fn imbalance(&self) -> f64 {
        self.mean(|run| run.imbalance)
    }

    /// Of all seeds together.
    pub fn preemptions(&self) -> u64 {
        self.sum(|run| run.preemptions)
    }

    /// Of all seeds together.
    pub fn adapter_swaps(&self) -> u64 {
        self.sum(|run| run.adapter_swaps)
    }

    /// Of all seeds together.
    pub fn refused(&self) -> u64 {
        self.sum(|run| run.refused)
    }

    /// Answers that broke off, of all seeds together.
    pub fn cut(&self) -> u64 {
        self.sum(|run| run.cut)
    }

    /// Of all seeds together.
    pub fn retries(&self) -> u64 {
        self.sum(|run| run.retries)
    }

    /// The idle floor of TTFT, L1: the mean of the same requests, each alone.
    pub fn floor(&self) -> f64 {
        self.mean(|run| run.floor)
    }

    /// Requests in the system when the last one came.
    pub fn backlog(&self) -> f64 {
        self.mean(|run| precise(run.backlog))
    }

    /// Of the requests that came while some endpoint was faulty, the share sent to one that was; with a share of 1 / N
    /// being its fair one.
    pub fn faulty_share(&self) -> f64 {
        self.mean(|run| run.faulty_share)
    }

    /// Half the width of the 95 % confidence interval of the mean TTFT, from the spread over seeds; `None` of one seed.
    pub fn ci95_ttft_mean(&self) -> Option<f64> {
        let n = self.runs.len();
        let mean = self.mean(|run| run.ttft_mean);
        let squares: f64 = self.runs.iter().map(|run| (run.ttft_mean - mean).powi(2)).sum();
        (n > 1).then(|| student_t95(n - 1) * (squares / number(n - 1) / number(n)).sqrt())
    }
}

impl Run {
    fn of(figures: &Figures) -> Run {
        let faulty: u64 = figures.sent_while_faulty.iter().sum();
        let during = precise(figures.sent_during_faults.max(1));
        Run {
            ttft_mean: figures.ttft.mean().unwrap_or(0.0),
            requests_per_s: figures.requests_per_s(),
            output_tokens_per_s: figures.output_tokens_per_s(),
            prefix_hit_ratio: figures.prefix_hit_ratio(),
            kv_cov: figures.kv_cov,
            imbalance: figures.imbalance,
            preemptions: figures.preemptions,
            adapter_swaps: figures.adapter_swaps,
            refused: figures.refused,
            cut: figures.cut,
            retries: figures.retries,
            floor: figures.floor,
            backlog: figures.backlog,
            faulty_share: precise(faulty) / during,
        }
    }
}

/// Two-sided 95 % quantile of Student's t; beyond thirty degrees the normal one is near enough.
fn student_t95(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    TABLE.get(freedom.saturating_sub(1)).copied().unwrap_or(1.96)
}

impl Plan {
    /// λ*, which no policy can exceed.
    pub fn capacity(&self) -> f64 {
        Demand::of(&self.scenario.workload, 1).capacity(&self.scenario.endpoints)
    }

    /// Requests a second, where they do not wait for answers.
    pub fn rate(&self) -> Option<f64> {
        self.scenario.pace.rate(&self.scenario.workload)
    }

    /// Requests each run takes in; fewer if the pace ends before.
    pub fn requests(&self) -> u64 {
        match &self.scenario.pace {
            Pace::Stages(stages) => {
                let expected: f64 = stages.iter().map(|stage| stage.rate * stage.seconds).sum();
                self.scenario.requests.min(whole(expected))
            }
            _ => self.scenario.requests,
        }
    }

    /// The idle floor of TTFT, L1, of the requests of this seed: their mean, each alone.
    pub fn floor(&self, seed: u64) -> f64 {
        let mut floor = Floor::new(&self.scenario.endpoints);
        let mut arrivals = self.scenario.workload.arrivals(&self.scenario.pace, seed);
        let requests = self.requests().max(1);
        let seconds = (0..requests).map_while(|_| Some(floor.seconds(&arrivals.next()?.shape)));
        seconds.sum::<f64>() / precise(requests)
    }

    fn world(&self) -> WorldConfig {
        let scenario = &self.scenario;
        WorldConfig {
            endpoints: scenario.endpoints.clone(),
            gateways: scenario.gateways,
            scrape_interval: scenario.scrape_interval,
            scrapes_in_step: scenario.scrapes_in_step,
            network_delay: scenario.network_delay,
            faults: scenario.faults.clone(),
            flow_control: scenario.flow_control,
            classes: scenario.classes.clone(),
            workload: scenario.workload.clone(),
            pace: scenario.pace.clone(),
            requests: scenario.requests,
            warmup: self.requests() / WARMUP_SHARE,
        }
    }

    /// Runs everything. `progress` is told of every so many requests that ended; false stops early, with what there is.
    pub fn run(&self, progress: &(dyn Fn(u64) -> bool + Sync)) -> Vec<Outcome> {
        let world = self.world();
        let seeds = self.seeds as usize;
        let jobs = self.placements.len() * seeds;
        let (next, ended, going) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(true));
        let done: Vec<Mutex<Option<Figures>>> = (0..jobs).map(|_| Mutex::new(None)).collect();
        let work = || {
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                let Some(cell) = done.get(job) else { return };
                let (placement, seed) = (self.placements[job / seeds], (job % seeds) as u64 + 1);
                let mut told = 0;
                let figures = run(&world, placement, seed, &mut |count| {
                    let all = ended.fetch_add(count - told, Ordering::Relaxed) + count - told;
                    told = count;
                    going.fetch_and(progress(all), Ordering::Relaxed);
                    going.load(Ordering::Relaxed)
                });
                if let Ok(mut cell) = cell.lock() {
                    *cell = Some(figures);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(jobs) {
                scope.spawn(work);
            }
            work();
        });
        let mut figures = done.into_iter().filter_map(|cell| cell.into_inner().ok().flatten());
        let each = |placement: &Placement| {
            Outcome::new(*placement, figures.by_ref().take(seeds).collect())
        };
        self.placements.iter().map(each).collect()
    }
}

/// Spread of some values: their standard deviation over their mean; `None` if all are zero.
pub fn variation(values: &[f64]) -> Option<f64> {
    let n = number(values.len().max(1));
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    (mean > 0.0).then(|| variance.sqrt() / mean)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests;
