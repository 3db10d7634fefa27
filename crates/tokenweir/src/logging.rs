//! The log, on stderr; stdout is the access log's.
//!
//! A thread of its own writes it, so that a reader that has stopped reading stops no request.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic::PanicHookInfo,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use parking_lot::Mutex;
use picker::Panic;
use proxy::LogFormat;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, reload};

mod levels;

use levels::Levels;

/// Level directives, e.g. `info,proxy=debug`.
const VARIABLE: &str = "TOKENWEIR_LOG";
/// Lines waiting for the writer; more are dropped, and their number is told later.
const LINES_MAX: usize = 4096;
/// Longest wait for lines to be written at the end of the process.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The way to the writer's thread.
static LINES: OnceLock<SyncSender<Message>> = OnceLock::new();
/// Lines that found no room, and have not been told of.
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// Answered once everything before it is out.
    Flush(SyncSender<()>),
}

/// The levels in force, and how to change them. Empty before the start.
static FILTER: OnceLock<Filter> = OnceLock::new();

struct Filter {
    levels: Mutex<Levels>,
    reload: Reload,
}

type Reload = Box<dyn Fn(&Levels) -> Result<(), String> + Send + Sync>;

/// Starts logging. Called once, before anything is logged.
#[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
pub(crate) fn start(format: LogFormat) {
    let wanted = std::env::var(VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let (levels, wrong) = match Levels::parse(&wanted) {
        Ok(levels) => (levels, None),
        Err(error) => (Levels::default(), Some(error)),
    };
    let (lines, waiting) = sync_channel(LINES_MAX);
    let thread = std::thread::Builder::new().name("log".to_owned());
    if let Err(error) = thread.spawn(move || write_lines(&waiting)) {
        return crate::outcome::say_error(&format!("no log: {error}"));
    }
    let _ = LINES.set(lines);
    let builder = tracing_subscriber::fmt()
        // A reader of the log that has gone costs log lines, not the process.
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::new(levels.directives()))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Writer);
    let started = match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| keep(levels, handle))
        }
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| keep(levels, handle))
        }
    };
    match started {
        Ok(()) => std::panic::set_hook(Box::new(tell_panic)),
        Err(error) => crate::outcome::say_error(&format!("no log: {error}")),
    }
    if let Some(error) = wrong {
        tracing::warn!("{VARIABLE}={wanted:?} is not understood ({error}); logging at info");
    }
}

/// Where a panic was, and what it said if that quotes nothing; what it ended is told by whoever contains it.
fn tell_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, panic = %Panic::of(info.payload()), backtrace, "panicked: a bug");
    if std::thread::current().name() == Some("main") {
        flush();
    }
}

/// Remembers how to change the levels.
fn keep<S: 'static>(levels: Levels, handle: reload::Handle<EnvFilter, S>) {
    let reload = Box::new(move |levels: &Levels| {
        handle.reload(EnvFilter::new(levels.directives())).map_err(|error| error.to_string())
    });
    let _once = FILTER.set(Filter { levels: Mutex::new(levels), reload });
}

/// The levels in force.
pub(crate) fn levels() -> serde_json::Value {
    FILTER.get().map(|filter| filter.levels.lock().clone()).unwrap_or_default().shown()
}

/// Changes levels, all that are named or none; says what is wrong with them.
pub(crate) fn set_levels(pairs: &[(String, String)]) -> Result<(), String> {
    let filter = FILTER.get().ok_or("logging has not begun")?;
    let mut levels = filter.levels.lock();
    let changed = levels.change(pairs)?;
    (filter.reload)(&changed)?;
    *levels = changed;
    let now = levels.directives();
    drop(levels);
    tracing::info!(levels = now, "log levels changed");
    Ok(())
}

/// Blocks until every line so far is written, or the time is over. Called before the process ends.
pub(crate) fn flush() {
    let Some(lines) = LINES.get() else { return };
    let (done, flushed) = sync_channel(1);
    if lines.try_send(Message::Flush(done)).is_ok() {
        let _late = flushed.recv_timeout(FLUSH_MAX);
    }
}

/// Takes lines for the writer's thread.
struct Writer;

/// One line, handed over when it is whole.
struct Line(Vec<u8>);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = Message::Line(std::mem::take(&mut self.0));
        let sent = LINES.get().map(|lines| lines.try_send(line));
        if let Some(Err(TrySendError::Full(_))) = sent {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes what comes. What cannot be written is lost: there is no other place to say so.
fn write_lines(waiting: &Receiver<Message>) {
    while let Ok(message) = waiting.recv() {
        match message {
            Message::Line(line) => drop(io::stderr().lock().write_all(&line)),
            Message::Flush(done) => drop(done.try_send(())),
        }
        // Room for more, and for this: it goes the same way.
        let lost = DROPPED.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "log lines were dropped: their reader was too slow");
        }
    }
}

#[cfg(test)]
mod tests;
