//! The log, on stderr; stdout is the access log's.
//!
//! A thread of its own writes it, so that a reader that has stopped reading stops no request.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use proxy::LogFormat;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

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

/// Before all others, so that they can take it back: the client of the Kubernetes API logs every
/// failure of every request, and what is wrong is told once, by whoever asked.
const ALWAYS: &str = "kube_client=off";

/// Starts logging. Called once, before anything is logged.
#[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
pub(crate) fn start(format: LogFormat) {
    let wanted = std::env::var(VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(format!("{ALWAYS},{wanted}"));
    let wrong = filter.as_ref().err().map(ToString::to_string);
    let (lines, waiting) = sync_channel(LINES_MAX);
    let thread = std::thread::Builder::new().name("log".to_owned());
    if let Err(error) = thread.spawn(move || write_lines(&waiting)) {
        return crate::outcome::say_error(&format!("no log: {error}"));
    }
    let _ = LINES.set(lines);
    let builder = tracing_subscriber::fmt()
        // A reader of the log that has gone costs log lines, not the process.
        .log_internal_errors(false)
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Writer);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    if let Err(error) = started {
        crate::outcome::say_error(&format!("no log: {error}"));
    }
    if let Some(error) = wrong {
        tracing::warn!("{VARIABLE}={wanted:?} is not understood ({error}); logging at info");
    }
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
