//! The log itself.

use std::{
    io,
    sync::{Condvar, Mutex, mpsc::sync_channel},
};

use super::*;
use line::tests::full;

const SOON: Duration = Duration::from_secs(20);

/// A place to write to that can be held up.
#[derive(Clone, Default)]
struct Paper(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    held: bool,
    broken: bool,
    /// Bytes that still find room; any number if absent.
    room: Option<usize>,
    /// Somebody waits to write.
    waiting: bool,
}

impl Written {
    fn lines(&self) -> usize {
        std::str::from_utf8(&self.bytes).unwrap().lines().count()
    }
}

impl Paper {
    fn change(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn until(&self, what: &str, condition: impl Fn(&Written) -> bool) {
        let written = self.0.0.lock().unwrap();
        let (_written, timeout) =
            self.0.1.wait_timeout_while(written, SOON, |written| !condition(written)).unwrap();
        assert!(!timeout.timed_out(), "not in time: {what}");
    }

    fn lines(&self) -> usize {
        self.0.0.lock().unwrap().lines()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.0.lock().unwrap();
        written.waiting = true;
        self.0.1.notify_all();
        written = self.0.1.wait_while(written, |written| written.held).unwrap();
        written.waiting = false;
        if written.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = written.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if let Some(room) = &mut written.room {
            *room -= taken;
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        written.bytes.extend_from_slice(&bytes[..taken]);
        self.0.1.notify_all();
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(paper: &Paper) -> (AccessLog, IntCounter) {
    let dropped = IntCounter::new("dropped", "lines").unwrap();
    let log = AccessLog::new(paper.clone(), LogFormat::Json, dropped.clone()).unwrap();
    (log, dropped)
}

#[test]
fn a_line_is_written_soon_without_being_asked_for() {
    let paper = Paper::default();
    let (log, dropped) = log(&paper);
    log.write(&full());
    paper.until("the line", |written| written.bytes.ends_with(b"\"finish\":\"stop\"}\n"));
    assert_eq!(dropped.get(), 0);
}

#[test]
fn after_a_flush_every_line_is_there() {
    let paper = Paper::default();
    let (log, dropped) = log(&paper);
    for _ in 0..1000 {
        log.write(&full());
    }
    log.flush(SOON);
    assert_eq!((paper.lines(), dropped.get()), (1000, 0));
}

#[test]
fn after_the_logs_end_every_line_is_there() {
    let paper = Paper::default();
    let (log, _) = log(&paper);
    for _ in 0..10 {
        log.write(&full());
    }
    drop(log);
    paper.until("ten lines", |written| written.lines() == 10);
}

/// A log whose paper takes nothing and whose buffer is full; the lines it has taken.
fn full_log(paper: &Paper) -> (AccessLog, IntCounter, usize) {
    paper.change(|written| written.held = true);
    let (log, dropped) = log(paper);
    log.write(&full());
    paper.until("the writer held up", |written| written.waiting);
    let record = full();
    let mut taken = 1;
    while dropped.get() < 10 {
        log.write(&record);
        taken += 1;
        // No line has less than a hundred bytes.
        assert!(taken <= WAITING_BYTES_MAX / 100, "the buffer has no end");
    }
    (log, dropped, taken - 10)
}

#[test]
fn a_full_buffer_drops_lines_and_counts_them() {
    let paper = Paper::default();
    let (log, dropped, taken) = full_log(&paper);
    assert!(taken > WAITING_BYTES_MAX / 1024, "{taken}");
    paper.change(|written| written.held = false);
    log.flush(SOON);
    assert_eq!((paper.lines(), dropped.get()), (taken, 10));
    log.write(&full());
    log.flush(SOON);
    assert_eq!(paper.lines(), taken + 1, "it goes on");
}

#[test]
fn a_flush_gives_up_in_time_even_if_the_buffer_is_full() {
    let paper = Paper::default();
    let (log, _, _) = full_log(&paper);
    let (done, ended) = sync_channel(1);
    let flusher = std::thread::spawn(move || {
        log.flush(Duration::from_millis(50));
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(SOON);
    paper.change(|written| written.held = false);
    flusher.join().unwrap();
    assert!(ended.is_ok(), "the flush waited for a paper that takes nothing");
}

#[test]
fn a_log_that_cannot_be_written_counts_its_lines_and_goes_on() {
    let paper = Paper::default();
    paper.change(|written| written.broken = true);
    let (log, dropped) = log(&paper);
    log.write(&full());
    log.write(&full());
    log.flush(SOON);
    assert_eq!((paper.lines(), dropped.get()), (0, 2));
    paper.change(|written| written.broken = false);
    log.write(&full());
    log.flush(SOON);
    assert_eq!((paper.lines(), dropped.get()), (1, 2));
}

#[test]
fn a_line_that_was_cut_by_a_full_disk_spoils_no_other() {
    let paper = Paper::default();
    let (log, dropped) = log(&paper);
    paper.change(|written| written.room = Some(100));
    for _ in 0..3 {
        log.write(&full());
    }
    log.flush(SOON);
    assert_eq!(dropped.get(), 3);
    paper.change(|written| written.room = None);
    log.write(&full());
    log.flush(SOON);
    let written = paper.0.0.lock().unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&written.bytes).unwrap().lines().collect();
    assert_eq!((lines.len(), lines[0].len()), (2, 100));
    assert!(lines[1].starts_with('{') && lines[1].ends_with('}'), "{}", lines[1]);
}
