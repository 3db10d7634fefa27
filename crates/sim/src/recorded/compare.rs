//! What is compared: means and tails of TTFT, TPOT and whole requests.

use super::{RecordedRequest, Recording, Replayed, Served};

/// How long one request took, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// From its arrival to its first token.
    pub ttft_s: f64,
    /// A token after the first, on average; none if there is only one.
    pub tpot_s: Option<f64>,
    /// From its arrival to its last token.
    pub e2e_s: f64,
}

impl Latency {
    /// Of a request that was answered at these times.
    pub fn of(request: &RecordedRequest, served: Served) -> Latency {
        let since = |end: std::time::Duration, start| end.saturating_sub(start).as_secs_f64();
        let gaps = request.output_tokens.saturating_sub(1);
        let answering = since(served.last_token, served.first_token);
        Latency {
            ttft_s: since(served.first_token, request.arrival),
            tpot_s: (gaps > 0).then(|| answering / f64::from(gaps)),
            e2e_s: since(served.last_token, request.arrival),
        }
    }
}

/// Figures of a run; those taken of nothing are no numbers. 99th percentiles are [`percentile`]'s. Requests with one
/// token have no part in TPOT.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Figures {
    pub ttft_mean_s: f64,
    pub ttft_p99_s: f64,
    pub tpot_mean_s: f64,
    pub tpot_p99_s: f64,
    pub e2e_mean_s: f64,
    pub e2e_p99_s: f64,
    /// How often requests lost their blocks, where that is known.
    pub preemptions: Option<u64>,
}

impl Figures {
    /// Of these requests.
    pub fn of(latencies: &[Latency], preemptions: Option<u64>) -> Figures {
        let ttft: Vec<f64> = latencies.iter().map(|latency| latency.ttft_s).collect();
        let tpot: Vec<f64> = latencies.iter().filter_map(|latency| latency.tpot_s).collect();
        let e2e: Vec<f64> = latencies.iter().map(|latency| latency.e2e_s).collect();
        Figures {
            ttft_mean_s: mean(&ttft),
            ttft_p99_s: percentile(&ttft, 0.99),
            tpot_mean_s: mean(&tpot),
            tpot_p99_s: percentile(&tpot, 0.99),
            e2e_mean_s: mean(&e2e),
            e2e_p99_s: percentile(&e2e, 0.99),
            preemptions,
        }
    }

    /// The times with their names.
    pub fn times(&self) -> [(&'static str, f64); 6] {
        [
            ("ttft_mean_s", self.ttft_mean_s),
            ("ttft_p99_s", self.ttft_p99_s),
            ("tpot_mean_s", self.tpot_mean_s),
            ("tpot_p99_s", self.tpot_p99_s),
            ("e2e_mean_s", self.e2e_mean_s),
            ("e2e_p99_s", self.e2e_p99_s),
        ]
    }
}

/// A recorded run beside a simulated one, both over the requests that the model took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// What was measured.
    pub recorded: Figures,
    /// What the model gives.
    pub simulated: Figures,
    /// Requests the model did not take, because they do not fit its context or its KV cache.
    pub refused: u32,
}

impl Comparison {
    pub(super) fn of(recording: &Recording, replayed: &Replayed) -> Comparison {
        let requests = recording.requests.iter().zip(&replayed.served);
        let (recorded, simulated): (Vec<Latency>, Vec<Latency>) = requests
            .filter_map(|(request, served)| {
                Some((Latency::of(request, request.served), Latency::of(request, (*served)?)))
            })
            .unzip();
        let refused = recording.requests.len() - recorded.len();
        Comparison {
            recorded: Figures::of(&recorded, recording.preemptions),
            simulated: Figures::of(&simulated, Some(replayed.preemptions)),
            refused: u32::try_from(refused).unwrap_or(u32::MAX),
        }
    }

    /// How much more the model gives, as a share of what was measured, with the figures' names.
    pub fn errors(&self) -> [(&'static str, f64); 6] {
        let mut errors = self.simulated.times();
        for (error, (_, recorded)) in errors.iter_mut().zip(self.recorded.times()) {
            error.1 = error.1 / recorded - 1.0;
        }
        errors
    }
}

#[expect(clippy::cast_precision_loss, reason = "requests of one run")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The value below which this share of all values lies, by linear interpolation between the two nearest, as NumPy and
/// with it vLLM's benchmarks have it. No number if there are no values.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(clippy::cast_precision_loss, reason = "requests of one run")]
    let place = last as f64 * share.clamp(0.0, 1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let low = place as usize;
    let (below, above) = (sorted[low], sorted[last.min(low + 1)]);
    below + (above - below) * place.fract()
}
