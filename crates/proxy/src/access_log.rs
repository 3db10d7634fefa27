//! The access log: one line a request, Istio's keys and ours.
//!
//! A line is made where its request ends, in a buffer that is used again, and put behind those that wait. A thread of its
//! own writes them, many at once: a slow reader of the log slows no request, and a request wakes nobody.

use std::{cell::RefCell, io::Write, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use picker::{Journal, RequestRecord};
use prometheus::IntCounter;

mod line;

pub(crate) use line::{ip, millis};

/// What lines that wait for the writer may take; a full buffer drops lines and counts them.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// When so much waits it is written.
const WRITE_AT_BYTES: usize = 64 * 1024;
/// Longest time a line waits while the writer has nothing to do.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// How lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Writes [`RequestRecord`]s as lines.
#[derive(Debug)]
pub struct AccessLog {
    desk: Arc<Desk>,
    format: LogFormat,
    dropped: IntCounter,
}

/// Where lines are handed over.
#[derive(Debug, Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    /// For the writer.
    more: Condvar,
    /// For those who asked for a flush.
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Flushes asked for, and how many of them are done.
    flushes: u64,
    flushed: u64,
    ended: bool,
}

impl Waiting {
    fn is_urgent(&self) -> bool {
        self.ended || self.flushes > self.flushed || self.lines.len() >= WRITE_AT_BYTES
    }
}

thread_local! {
    /// The line that is being made.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    /// Starts the writer thread, which ends when the log is dropped and its lines are written. `dropped` counts lines that
    /// found the buffer full or could not be written.
    pub fn new(
        sink: impl Write + Send + 'static,
        format: LogFormat,
        dropped: IntCounter,
    ) -> std::io::Result<Self> {
        let desk = Arc::<Desk>::default();
        let writer = Writer { sink, dropped: dropped.clone(), torn: false, failing: false };
        let at = Arc::clone(&desk);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&at))?;
        Ok(Self { desk, format, dropped })
    }

    /// Blocks until every line so far is written, or the time is over.
    pub fn flush(&self, wait_max: Duration) {
        let mut waiting = self.desk.waiting.lock();
        waiting.flushes += 1;
        let mine = waiting.flushes;
        self.desk.more.notify_one();
        let not_yet = |waiting: &mut Waiting| waiting.flushed < mine;
        if self.desk.flushed.wait_while_for(&mut waiting, not_yet, wait_max).timed_out() {
            tracing::warn!("the end of the access log may be missing");
        }
    }
}

impl Journal for AccessLog {
    fn write(&self, record: &RequestRecord) {
        let taken = LINE.with_borrow_mut(|line| {
            line.clear();
            match self.format {
                LogFormat::Json => line::json(record, line),
                LogFormat::Text => line::text(record, line),
            }
            line.push(b'\n');
            self.desk.put(line)
        });
        if !taken {
            self.dropped.inc();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.desk.waiting.lock().ended = true;
        self.desk.more.notify_one();
    }
}

impl Desk {
    /// False if there is no room for the line.
    fn put(&self, line: &[u8]) -> bool {
        let mut waiting = self.waiting.lock();
        let before = waiting.lines.len();
        if before + line.len() > WAITING_BYTES_MAX {
            return false;
        }
        waiting.lines.extend_from_slice(line);
        let after = waiting.lines.len();
        drop(waiting);
        // Between these the writer is awake, or looks again soon.
        if before == 0 || (before < WRITE_AT_BYTES && after >= WRITE_AT_BYTES) {
            self.more.notify_one();
        }
        true
    }

    /// Waits until there is something to do, and a little longer for more; swaps what waits for an empty buffer. The number
    /// of flushes that are done once it is written; nothing at the end.
    fn take(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        let nothing = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.is_urgent();
        self.more.wait_while(&mut waiting, nothing);
        let few = |waiting: &mut Waiting| !waiting.is_urgent();
        self.more.wait_while_for(&mut waiting, few, FLUSH_INTERVAL);
        if waiting.ended && waiting.lines.is_empty() {
            return None;
        }
        std::mem::swap(lines, &mut waiting.lines);
        Some(waiting.flushes)
    }

    fn written(&self, flushes: u64) {
        let mut waiting = self.waiting.lock();
        if waiting.flushed != flushes {
            waiting.flushed = flushes;
            self.flushed.notify_all();
        }
    }
}

struct Writer<W> {
    sink: W,
    dropped: IntCounter,
    /// The last line was written in part.
    torn: bool,
    failing: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self, desk: &Desk) {
        let mut lines = Vec::new();
        while let Some(flushes) = desk.take(&mut lines) {
            self.write(&lines);
            lines.clear();
            // A crowd that has been written takes no memory any more.
            lines.shrink_to(2 * WRITE_AT_BYTES);
            desk.written(flushes);
        }
    }

    /// Lines that cannot be written are dropped and counted: the disk may have room for later ones.
    fn write(&mut self, lines: &[u8]) {
        let mut at = 0;
        match self.write_from(&mut at, lines) {
            Ok(()) if self.failing => tracing::info!("access log can be written again"),
            Ok(()) => {}
            Err(error) => {
                let lost = lines[at..].split_inclusive(|byte| *byte == b'\n').count();
                self.dropped.inc_by(lost as u64);
                if !self.failing {
                    tracing::error!(%error, "access log cannot be written; its lines are dropped until it can");
                }
                self.failing = true;
                return;
            }
        }
        self.failing = false;
    }

    fn write_from(&mut self, at: &mut usize, lines: &[u8]) -> std::io::Result<()> {
        if self.torn {
            self.sink.write_all(b"\n")?;
            self.torn = false;
        }
        while *at < lines.len() {
            match self.sink.write(&lines[*at..]) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => *at += written,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.torn = lines.get(*at - 1) != Some(&b'\n');
        }
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests;
