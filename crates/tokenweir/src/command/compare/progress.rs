//! How far a comparison is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outcome::say_error;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on stderr.
pub(super) struct Meter {
    bar: Option<ProgressBar>,
    total: u64,
    began: Instant,
    line_due: Duration,
}

impl Meter {
    #[expect(clippy::disallowed_methods, reason = "people wait in real time; nothing hangs on it")]
    pub(super) fn new(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, total, began: Instant::now(), line_due: LINE_EVERY }
    }

    pub(super) fn at(&mut self, ended: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(ended);
        } else if self.began.elapsed() >= self.line_due {
            self.line_due = self.began.elapsed() + LINE_EVERY;
            say_error(&format!("{ended} of {} requests", self.total));
        }
    }

    pub(super) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
