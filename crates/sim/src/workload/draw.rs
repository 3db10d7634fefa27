//! Requests drawn from a source.

use std::sync::Arc;

use super::{Popularity, Segment, Shape, Trace};
use crate::tokens::mix;

/// Where lengths and shared parts come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// (mean, standard deviation) in tokens, as llmperf draws them: again until positive.
    Normal {
        prompt: (f64, f64),
        output: (f64, f64),
    },
    SharedPrefix {
        groups: u32,
        prompts: u32,
        shared: u32,
        own: u32,
        output: u32,
    },
    Trace(Arc<Trace>),
}

/// Requests without end. Those of a trace come in its order, again from the start when it is over, or, from
/// [`Shapes::shuffled`], each drawn at random.
#[derive(Debug)]
pub struct Shapes {
    source: Source,
    popularity: Option<Popularity>,
    rng: fastrand::Rng,
    shuffled: bool,
    next: usize,
    laps: u64,
}

impl Shapes {
    pub(super) fn new(source: Source, popularity: Option<Popularity>, seed: u64) -> Shapes {
        let rng = fastrand::Rng::with_seed(mix(seed, 0x5AAE));
        Shapes { source, popularity, rng, shuffled: false, next: 0, laps: 0 }
    }

    /// Draws rows of a trace at random instead of one after the other, unless its prompts share prefixes: reuse hangs on
    /// the order.
    #[must_use]
    pub fn shuffled(mut self) -> Shapes {
        self.shuffled = matches!(&self.source, Source::Trace(trace) if !trace.shares_prefixes());
        self
    }

    /// The next request.
    pub fn draw(&mut self) -> Shape {
        let mut shape = match &self.source {
            Source::Normal { prompt, output } => {
                let (prompt, output) = (*prompt, *output);
                Shape {
                    prompt_tokens: positive(&mut self.rng, prompt),
                    output_tokens: positive(&mut self.rng, output),
                    ..Shape::default()
                }
            }
            Source::SharedPrefix { groups, prompts, shared, own, output } => {
                let group = self.rng.u32(0..*groups);
                let prompt = self.rng.u32(0..*prompts);
                let own_id = mix(mix(1, group.into()), prompt.into());
                Shape {
                    prompt_tokens: shared + own,
                    output_tokens: *output,
                    adapter: None,
                    segments: vec![
                        Segment { id: mix(0, group.into()), tokens: *shared },
                        Segment { id: own_id, tokens: *own },
                    ],
                }
            }
            Source::Trace(trace) => {
                let trace = Arc::clone(trace);
                self.row(&trace)
            }
        };
        shape.adapter = self.popularity.as_ref().map(|p| p.draw(&mut self.rng));
        shape
    }

    /// Rounds through the trace so far.
    pub(super) fn laps(&self) -> u64 {
        self.laps
    }

    fn row(&mut self, trace: &Trace) -> Shape {
        if self.shuffled {
            return trace.shape(self.rng.usize(0..trace.rows.len()));
        }
        let mut shape = trace.shape(self.next);
        // A second round is other people asking: it shares nothing with the first.
        for segment in shape.segments.iter_mut().filter(|_| self.laps > 0) {
            segment.id = mix(segment.id, self.laps);
        }
        self.next += 1;
        if self.next == trace.rows.len() {
            self.next = 0;
            self.laps += 1;
        }
        shape
    }
}

/// A length, normally distributed (Box and Muller), again until it is at least one.
fn positive(rng: &mut fastrand::Rng, (mean, deviation): (f64, f64)) -> u32 {
    loop {
        let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
        let drawn = (mean + deviation * normal).round();
        if (1.0..=f64::from(u32::MAX)).contains(&drawn) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked above"
            )]
            return drawn as u32;
        }
    }
}
