//! Processes of a measurement, and where they listen.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Longest wait for a process to be ready.
const READY_MAX: Duration = Duration::from_secs(20);

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

/// A port that nobody listens on at the moment.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until this path is answered with 200: so many milliseconds.
pub(super) fn until_ready(port: u16, path: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    while began.elapsed() < READY_MAX {
        if asked(port, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("nothing answers at port {port} after {READY_MAX:?}")
}

fn asked(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: rig\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
