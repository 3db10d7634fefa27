//! The ways to break a server, and how they are written: the one place that reads and writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;

/// How long a crashed server is away if nobody says.
const CRASH_DEFAULT: Duration = Duration::from_secs(5);
/// Seconds a fault may last or delay. A day is longer than any test, and an instant so far ahead can still be told.
const SECONDS_MAX: f64 = 86_400.0;
/// Parts a [`Share`] is counted in.
const SHARE_PARTS: u32 = 1_000_000;

/// Every form of a fault, for those who wrote another.
pub const FAULT_FORMS: [&str; 18] = [
    "none",
    "refuse",
    "hang",
    "reset:TOKENS",
    "die:TOKENS",
    "stall",
    "stall:SECONDS",
    "status:CODE",
    "status:CODE@SHARE",
    "unhealthy",
    "metrics-slow:SECONDS",
    "metrics-hang",
    "metrics-garbage",
    "metrics-status:CODE",
    "metrics-frozen",
    "metrics-old",
    "crash",
    "crash:SECONDS",
];

/// What is wrong with a server. One thing at a time.
///
/// It is read from and written as text, one of [`FAULT_FORMS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Nothing listens: connections are cut and new ones refused. Engine and caches stay as they are.
    Refuse,
    /// Requests for text get this status at once, as from a draining server (500) or a full one (503).
    Status(StatusCode),
    /// This share of the requests for text gets this status; which ones follows from the seed and their number.
    StatusShare(StatusCode, Share),
    /// Requests for text get no byte, ever; health and metrics are fine.
    Hang,
    /// The connection of a request for text is cut after so many tokens; a plain answer is cut before its first byte.
    CutAfter(u32),
    /// The engine dies after so many tokens: streams end politely with an error event, plain answers are 500.
    DieAfter(u32),
    /// The engine stands still. Streams stop, metrics freeze, health stays 200.
    Freeze,
    /// The same for so long.
    FreezeFor(Duration),
    /// `/health` is 503, everything else works.
    Unhealthy,
    /// `/metrics` takes so long.
    MetricsSlow(Duration),
    /// `/metrics` gives no byte.
    MetricsHang,
    /// `/metrics` gives text that is no exposition.
    MetricsGarbage,
    /// `/metrics` gives this status.
    MetricsStatus(StatusCode),
    /// `/metrics` repeats what it said when the fault began; the engine goes on.
    MetricsFrozen,
    /// `/metrics` has the names of vLLM's V0 engine.
    MetricsOld,
    /// Every connection and request is lost, and nothing listens for so long; then a server comes back whose caches
    /// are empty, whose counters are zero, and which has the adapters of its configuration only.
    Crash(Duration),
}

impl Fault {
    /// Nothing listens while it lasts.
    pub(crate) fn closes_port(self) -> bool {
        matches!(self, Fault::Refuse | Fault::Crash(_))
    }

    /// The engine stands still while it lasts.
    pub(super) fn freezes(self) -> bool {
        matches!(self, Fault::Freeze | Fault::FreezeFor(_))
    }

    /// When it ends by itself; `None` if it does not.
    pub(super) fn lasts(self) -> Option<Duration> {
        match self {
            Fault::FreezeFor(time) | Fault::Crash(time) => Some(time),
            _ => None,
        }
    }
}

/// A part of a whole, exact to a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// From a number between 0 and 1; `None` for any other.
    pub fn new(share: f64) -> Option<Share> {
        // No number that is none is in the range.
        (0.0..=1.0).contains(&share).then(|| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and a million"
            )]
            let parts = (share * f64::from(SHARE_PARTS)).round() as u32;
            Share(parts)
        })
    }

    /// Whether event `number` belongs to the share: always the same for equal seeds, and no pattern to the eye.
    pub(super) fn has(self, seed: u64, number: u64) -> bool {
        // Spread, because generators whose seeds are neighbours begin alike.
        let seed = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        fastrand::Rng::with_seed(seed).u32(..SHARE_PARTS) < self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(SHARE_PARTS))
    }
}

/// Why a text is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; a fault is one of {}", FAULT_FORMS.join(", "))]
pub struct FaultError {
    problem: String,
}

impl FaultError {
    pub(super) fn new(problem: impl Into<String>) -> FaultError {
        FaultError { problem: problem.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::None => f.write_str("none"),
            Fault::Refuse => f.write_str("refuse"),
            Fault::Status(status) => write!(f, "status:{}", status.as_u16()),
            Fault::StatusShare(status, share) => write!(f, "status:{}@{share}", status.as_u16()),
            Fault::Hang => f.write_str("hang"),
            Fault::CutAfter(tokens) => write!(f, "reset:{tokens}"),
            Fault::DieAfter(tokens) => write!(f, "die:{tokens}"),
            Fault::Freeze => f.write_str("stall"),
            Fault::FreezeFor(time) => write!(f, "stall:{}", time.as_secs_f64()),
            Fault::Unhealthy => f.write_str("unhealthy"),
            Fault::MetricsSlow(time) => write!(f, "metrics-slow:{}", time.as_secs_f64()),
            Fault::MetricsHang => f.write_str("metrics-hang"),
            Fault::MetricsGarbage => f.write_str("metrics-garbage"),
            Fault::MetricsStatus(status) => write!(f, "metrics-status:{}", status.as_u16()),
            Fault::MetricsFrozen => f.write_str("metrics-frozen"),
            Fault::MetricsOld => f.write_str("metrics-old"),
            Fault::Crash(time) => write!(f, "crash:{}", time.as_secs_f64()),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Fault, FaultError> {
        let text = text.trim();
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        match (name, argument) {
            ("none", None) => Ok(Fault::None),
            ("refuse", None) => Ok(Fault::Refuse),
            ("hang", None) => Ok(Fault::Hang),
            ("reset", Some(tokens)) => Ok(Fault::CutAfter(count(tokens)?)),
            ("die", Some(tokens)) => Ok(Fault::DieAfter(count(tokens)?)),
            ("stall", None) => Ok(Fault::Freeze),
            ("stall", Some(time)) => Ok(Fault::FreezeFor(seconds(time)?)),
            ("status", Some(argument)) => match argument.split_once('@') {
                Some((code, of)) => Ok(Fault::StatusShare(status(code)?, share(of)?)),
                None => Ok(Fault::Status(status(argument)?)),
            },
            ("unhealthy", None) => Ok(Fault::Unhealthy),
            ("metrics-slow", Some(time)) => Ok(Fault::MetricsSlow(seconds(time)?)),
            ("metrics-hang", None) => Ok(Fault::MetricsHang),
            ("metrics-garbage", None) => Ok(Fault::MetricsGarbage),
            ("metrics-status", Some(code)) => Ok(Fault::MetricsStatus(status(code)?)),
            ("metrics-frozen", None) => Ok(Fault::MetricsFrozen),
            ("metrics-old", None) => Ok(Fault::MetricsOld),
            ("crash", None) => Ok(Fault::Crash(CRASH_DEFAULT)),
            ("crash", Some(time)) => Ok(Fault::Crash(seconds(time)?)),
            _ => Err(FaultError::new(format!("{text:?} is no fault"))),
        }
    }
}

fn count(text: &str) -> Result<u32, FaultError> {
    text.parse().map_err(|_| FaultError::new(format!("{text:?} is no number of tokens")))
}

fn seconds(text: &str) -> Result<Duration, FaultError> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        FaultError::new(format!("{text:?} is no number of seconds from 0 to {SECONDS_MAX}"))
    })
}

/// A status that says something went wrong; with others answers would not be answers.
fn status(text: &str) -> Result<StatusCode, FaultError> {
    let status = text.parse::<StatusCode>().ok();
    status
        .filter(|status| status.is_client_error() || status.is_server_error())
        .ok_or_else(|| FaultError::new(format!("{text:?} is no status from 400 to 599")))
}

fn share(text: &str) -> Result<Share, FaultError> {
    let share = text.parse().ok().and_then(Share::new);
    share.ok_or_else(|| FaultError::new(format!("{text:?} is no share from 0 to 1")))
}

#[cfg(test)]
mod tests;
