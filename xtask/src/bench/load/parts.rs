//! Processes of a measurement, and where they listen.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Longest wait for a process to be ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// Longest silence of an answer; a dashboard hears something each second.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A process that is ended when this is dropped.
pub(super) struct Running(Child);

impl Running {
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self(child))
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already cannot be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two for each stream held, and some more; what the system lets it have will do for all but that.
const OPEN_FILES: &str =
    r#"ulimit -n 32768 2>/dev/null || ulimit -n "$(ulimit -H -n)"; exec taskset -c "$@""#;

/// A program on one processor.
pub(super) fn pinned(processor: &str, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", OPEN_FILES, "sh", processor]);
    command.arg(program);
    command
}

/// How many files a process may be allowed to have open.
pub(super) fn open_files_max() -> anyhow::Result<usize> {
    let limit = Command::new("sh").args(["-c", "ulimit -H -n"]).output()?;
    let limit = String::from_utf8(limit.stdout)?;
    Ok(limit.trim().parse().unwrap_or(usize::MAX))
}

/// So many ports that nobody listens on at the moment.
pub(super) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // Held together: none is found twice.
    let held = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)));
    let held = held.collect::<Result<Vec<_>, _>>()?;
    Ok(held
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect::<Result<_, io::Error>>()?)
}

/// Waits until this path is answered with 200: so many milliseconds.
pub(super) fn until_ready(port: u16, path: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    while began.elapsed() < READY_MAX {
        if asked(port, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("nothing answers at port {port} after {READY_MAX:?}")
}

/// Whoever asks for pages while a measurement runs, until it is dropped.
pub(super) struct Asking {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Asking {
    /// Asks for a page again and again, with this pause in between.
    pub(super) fn again(port: u16, path: &'static str, pause: Duration) -> Self {
        Self::start(move |over| {
            while !over.load(Relaxed) {
                // A measurement whose load succeeds has a gateway that answers.
                let _ = ask(port, path).and_then(|mut page| page.read_to_end(&mut Vec::new()));
                thread::sleep(pause);
            }
        })
    }

    /// Reads a page that does not end.
    pub(super) fn hold(port: u16, path: &'static str) -> Self {
        Self::start(move |over| {
            let Ok(mut page) = ask(port, path) else { return };
            let mut bytes = vec![0; 64 * 1024];
            while !over.load(Relaxed) && page.read(&mut bytes).is_ok_and(|length| length > 0) {}
        })
    }

    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        Self { over, thread: Some(thread::spawn(move || work(&seen))) }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // One that has panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn ask(port: u16, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: rig\r\nconnection: close\r\n\r\n")?;
    Ok(stream)
}

fn asked(port: u16, path: &str) -> io::Result<String> {
    let mut stream = ask(port, path)?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
