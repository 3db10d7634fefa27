//! What a run comes to: latencies, rates, evenness.

use super::Series;
use crate::distribution::{Distribution, precise};

/// What one run came to. Requests of the warm-up count for nothing here.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Seconds from the arrival at the gateway to the first token there.
    pub ttft: Distribution,
    /// Seconds between tokens after the first, one mean a request.
    pub tpot: Distribution,
    /// Seconds from the arrival to the last token.
    pub e2e: Distribution,
    /// Requests answered whole.
    pub completed: u64,
    /// Requests refused, by gateway or endpoint.
    pub refused: u64,
    /// Answers that broke off after their first token.
    pub cut: u64,
    /// Requests sent again because an endpoint died or refused.
    pub retries: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Seconds over which these were given.
    pub seconds: f64,
    /// Prompt tokens looked up in prefix caches, and found.
    pub prefix_queries: u64,
    /// See above.
    pub prefix_hits: u64,
    /// Requests that lost their KV blocks and were computed again.
    pub preemptions: u64,
    /// Times an adapter was brought into a slot.
    pub adapter_swaps: u64,
    /// Mean over time of the spread of KV use over endpoints: deviation over mean.
    pub kv_cov: f64,
    /// Prompt tokens that had to be computed: the most of one endpoint over the mean.
    pub imbalance: f64,
    /// Requests sent to each endpoint, and of these while one of its faults held.
    pub sent: Vec<u64>,
    /// See above.
    pub sent_while_faulty: Vec<u64>,
    /// Requests sent anywhere while some fault held.
    pub sent_during_faults: u64,
    /// Mean of the first-token times of the same requests alone on an idle endpoint that has all that was ever sent.
    pub floor: f64,
    /// Requests that were in the system when the last one came, warm-up included.
    pub backlog: u64,
    /// Endpoints over time.
    pub series: Series,
    /// It was stopped before its end.
    pub stopped: bool,
}

impl Figures {
    /// Of nothing yet, on so many endpoints.
    pub fn new(endpoints: usize) -> Figures {
        Figures {
            ttft: Distribution::of_seconds(),
            tpot: Distribution::of_seconds(),
            e2e: Distribution::of_seconds(),
            completed: 0,
            refused: 0,
            cut: 0,
            retries: 0,
            output_tokens: 0,
            seconds: 0.0,
            prefix_queries: 0,
            prefix_hits: 0,
            preemptions: 0,
            adapter_swaps: 0,
            kv_cov: 0.0,
            imbalance: 1.0,
            sent: vec![0; endpoints],
            sent_while_faulty: vec![0; endpoints],
            sent_during_faults: 0,
            floor: 0.0,
            backlog: 0,
            series: Series::new(endpoints),
            stopped: false,
        }
    }

    /// Requests answered a second.
    pub fn requests_per_s(&self) -> f64 {
        rate(self.completed, self.seconds)
    }

    /// Tokens of answers a second.
    pub fn output_tokens_per_s(&self) -> f64 {
        rate(self.output_tokens, self.seconds)
    }

    /// Share of prompt tokens found in prefix caches.
    pub fn prefix_hit_ratio(&self) -> f64 {
        rate(self.prefix_hits, precise(self.prefix_queries))
    }
}

fn rate(of: u64, over: f64) -> f64 {
    if over > 0.0 { precise(of) / over } else { 0.0 }
}
