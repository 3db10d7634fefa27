//! How far a run is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sim::driver::Progress;

use crate::outcome::say_error;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on stderr.
pub(crate) struct Meter {
    bar: Option<ProgressBar>,
    /// Milliseconds after the start at which the next line is due.
    next_line: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Meter {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.set_style(style("{bar:30} {msg}"));
            bar
        });
        Meter { bar, next_line: AtomicU64::new(millis(LINE_EVERY)) }
    }

    pub(crate) fn show(&self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            // A thousand steps, of requests or of time, whichever is further.
            let share = share(progress);
            bar.set_length(1000);
            bar.set_position(share);
            bar.set_message(line(progress));
            return;
        }
        let now = millis(progress.elapsed);
        if now >= self.next_line.load(Ordering::Relaxed) {
            self.next_line.store(now + millis(LINE_EVERY), Ordering::Relaxed);
            say_error(&line(progress));
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How much is done, in thousandths.
fn share(progress: &Progress) -> u64 {
    let ended = progress.completed + progress.failed;
    let requests = progress.total.filter(|total| *total > 0).map(|total| ended * 1000 / total);
    let time = progress.duration.map(|duration| {
        (millis(progress.elapsed) * 1000).checked_div(millis(duration)).unwrap_or(1000)
    });
    requests.max(time).unwrap_or(0).min(1000)
}

fn line(progress: &Progress) -> String {
    let Progress { started, completed, failed, in_flight, total, elapsed, .. } = progress;
    let seconds = elapsed.as_secs_f64();
    let of = total.map_or_else(String::new, |total| format!("/{total}"));
    let failures = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
    let rate = progress.output_tokens_per_s();
    format!(
        "{seconds:.0}s: {started}{of} sent, {completed} answered{failures}, {in_flight} under way, {rate:.0} tokens/s"
    )
}
