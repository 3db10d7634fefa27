//! A request's place in a distributed trace: W3C Trace Context, in and out.

use std::fmt::Write as _;

use tokio::time::Instant;

/// Bit of `trace-flags`: the caller has kept its own span.
const SAMPLED: u8 = 1;
/// Longest `tracestate` that is taken over, in bytes; what a longer one says is passed on, not exported.
const STATE_BYTES_MAX: usize = 512;

/// Which requests become spans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// A caller that has traced its part, or has not, decides for ours.
    pub parent_based: bool,
    /// Share of the traces that are kept where no caller decides, 0 to 1.
    pub ratio: f64,
}

impl Sampling {
    /// Equal traces are decided equally everywhere: by their id's last seven bytes, which are random.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of 56 bits; the error is of the order of 1e-16"
    )]
    fn keeps(self, trace_id: u128, parent: Option<u8>) -> bool {
        match parent {
            Some(flags) if self.parent_based => flags & SAMPLED != 0,
            Some(_) | None => {
                let all = 1_u64 << 56;
                let kept = (self.ratio.clamp(0.0, 1.0) * all as f64) as u64;
                (trace_id as u64) & (all - 1) < kept
            }
        }
    }
}

/// The span of one request, before anything of it is known but its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceContext {
    pub trace_id: u128,
    /// The caller's span, if it has told one.
    pub parent_id: Option<u64>,
    /// This request's own.
    pub span_id: u64,
    pub flags: u8,
    /// The caller's `tracestate`, if it is short.
    pub state: Option<String>,
}

impl TraceContext {
    /// Continues the caller's trace, or begins one if it told none, or none that can be read. `random` are two numbers
    /// nobody has had before.
    pub fn begin(
        traceparent: Option<&str>,
        tracestate: Option<&str>,
        sampling: Sampling,
        random: (u128, u64),
    ) -> Self {
        let parent = traceparent.and_then(parse);
        let trace_id = parent.map_or(random.0.max(1), |(trace_id, _, _)| trace_id);
        let kept = sampling.keeps(trace_id, parent.map(|(_, _, flags)| flags));
        // Flags other than this one say what the caller knows of its trace id, and stay true.
        let flags = parent.map_or(0, |(_, _, flags)| flags & !SAMPLED) | u8::from(kept);
        let state = tracestate.filter(|state| parent.is_some() && state.len() <= STATE_BYTES_MAX);
        Self {
            trace_id,
            parent_id: parent.map(|(_, parent_id, _)| parent_id),
            span_id: random.1.max(1),
            flags,
            state: state.map(str::to_owned),
        }
    }

    /// Whether the request's span is to be exported.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What the endpoint is told: this request's span is its parent.
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(55);
        // Writing to a string cannot fail.
        let _ = write!(text, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags);
        text
    }
}

/// Trace, span and flags of a `traceparent`. Of later versions the beginning is read, as the standard wants.
fn parse(header: &str) -> Option<(u128, u64, u8)> {
    let mut parts = header.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        part.bytes().all(lower).then(|| u128::from_str_radix(part, 16).ok()).flatten()
    };
    let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let rest = parts.next();
    let fits = version != 0xff && (version != 0 || rest.is_none()) && trace_id != 0 && span_id != 0;
    fits.then_some((trace_id, u64::try_from(span_id).ok()?, u8::try_from(flags).ok()?))
}

/// What is noted of a request only if it is traced.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    pub context: TraceContext,
    /// Its body was read, and an endpoint asked for.
    pub queued: Option<Instant>,
    /// A connection to the endpoint tried last was ready.
    pub connected: Option<Instant>,
}

#[cfg(test)]
mod tests;
