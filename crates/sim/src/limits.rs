//! What no routing can exceed: the fluid capacity of a pool.
//!
//! An endpoint that is always busy decodes a batch as large as its KV cache holds, and computes each request's prompt
//! once. Time per request is then E\[output\] · T_dec / B + T_pf, and λ* is the pool's requests a second at that time. It
//! ignores all variance, so pools become unstable at 85 to 95 % of it.

use std::collections::BTreeSet;

use crate::distribution::number;
use crate::engine::EngineConfig;
use crate::profile::StepCost;
use crate::workload::{Shape, Workload};

/// Requests drawn to know a workload's means.
const SHAPES: usize = 20_000;

/// Means of a workload, as its time on a machine needs them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// E\[output\].
    pub output: f64,
    /// KV tokens of its own that a request holds while it decodes, averaged over that time.
    pub held: f64,
    /// Context of a decoding request, averaged likewise.
    pub context: f64,
    /// E\[uncached\], and E\[uncached · (prompt − uncached / 2)\], the pairs of prefill.
    pub uncached: f64,
    /// See above.
    pub pairs: f64,
    /// Tokens that prompts share, all of them together.
    pub shared: f64,
}

impl Demand {
    /// The means of this workload if whatever was sent before is cached somewhere, and the request goes there.
    pub fn of(workload: &Workload, seed: u64) -> Demand {
        let mut shapes = workload.shapes(seed);
        let shapes: Vec<Shape> = (0..SHAPES).map(|_| shapes.draw()).collect();
        let recurring = recurring(&shapes);
        let n = number(SHAPES);
        let mut demand =
            Demand { output: 0.0, held: 0.0, context: 0.0, uncached: 0.0, pairs: 0.0, shared: 0.0 };
        for shape in &shapes {
            let (prompt, output) = (f64::from(shape.prompt_tokens), f64::from(shape.output_tokens));
            let cached: u32 = shape
                .segments
                .iter()
                .take_while(|segment| recurring.contains(&(segment.id, segment.tokens)))
                .map(|segment| segment.tokens)
                .sum();
            // One token at the least is computed, for its output.
            let uncached = (prompt - f64::from(cached)).max(1.0);
            demand.output += output / n;
            demand.held += output * (uncached + output / 2.0 + HALF_A_BLOCK) / n;
            demand.context += output * (prompt + output / 2.0) / n;
            demand.uncached += uncached / n;
            demand.pairs += uncached * (prompt - uncached / 2.0) / n;
        }
        demand.held /= demand.output;
        demand.context /= demand.output;
        demand.shared = recurring.iter().map(|(_, tokens)| f64::from(*tokens)).sum();
        demand
    }

    /// Requests in a batch when KV is full, of which `shared` tokens are no request's own.
    fn batch(&self, machine: &EngineConfig, shared: f64) -> f64 {
        let profile = &machine.profile;
        let capacity = f64::from(profile.usable_blocks()) * f64::from(profile.block_tokens);
        // What does not even half fit is not kept.
        let shared = if shared < capacity / 2.0 { shared } else { 0.0 };
        f64::from(profile.max_num_seqs).min((capacity - shared) / self.held).max(1.0)
    }

    /// Seconds of one machine's time a request takes.
    fn seconds(&self, machine: &EngineConfig, shared: f64) -> f64 {
        let StepCost { base, s, a, b, q, k, p, h } = machine.profile.cost;
        let batch = self.batch(machine, shared);
        let decode =
            (base + s * batch).max(a + b * batch) + q * batch + k * batch * self.context + h;
        let prefill = b * self.uncached + p * self.pairs;
        (self.output * decode / batch + prefill) / 1e3 / machine.speedup
    }

    /// λ*: requests a second that these endpoints together cannot exceed.
    pub fn capacity(&self, endpoints: &[EngineConfig]) -> f64 {
        let shared = self.shared / number(endpoints.len().max(1));
        endpoints.iter().map(|machine| 1.0 / self.seconds(machine, shared)).sum()
    }
}

/// The last block of a request is half empty on average.
const HALF_A_BLOCK: f64 = 8.0;

/// Segments that come more than once.
fn recurring(shapes: &[Shape]) -> BTreeSet<(u64, u32)> {
    let (mut once, mut again) = (BTreeSet::new(), BTreeSet::new());
    for segment in shapes.iter().flat_map(|shape| &shape.segments) {
        let key = (segment.id, segment.tokens);
        if !once.insert(key) {
            again.insert(key);
        }
    }
    again
}

#[cfg(test)]
mod tests;
