//! The two clocks of the process.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// Time since the first call, on tokio's clock, which tests pause. `scheduling` reckons in it.
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The calendar: for logs and for what users see, never for deciding.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the calendar")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}
