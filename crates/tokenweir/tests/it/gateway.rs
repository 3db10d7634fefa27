//! `tokenweir serve` as a process of its own, in front of a simulated server, and plain sockets to
//! ask it.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use sim::{Running, Server, SimConfig};
use tokio::{runtime::Runtime, time::Instant};

/// Until something must have happened.
const DEADLINE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// A port below those that outgoing connections take theirs from, and another one each time.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = fastrand::u16(21_000..32_000);
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free && GIVEN.lock().expect("no panic").insert(port) {
            return port;
        }
    }
}

/// A simulated server of this process.
pub(crate) struct Endpoint {
    pub(crate) server: Running,
    _runtime: Runtime,
}

impl Endpoint {
    pub(crate) fn start(config: SimConfig) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::start(config)).expect("a simulated server");
        Self { server, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.addr())
    }
}

/// A gateway that runs.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) health: u16,
    pub(crate) stats: u16,
    /// What it has said on stderr, if that is read.
    said: Arc<Mutex<String>>,
}

/// How it is started.
pub(crate) struct Start {
    pub(crate) stdout: Stdio,
    /// Whether stderr is read; else it is a pipe that nobody reads.
    pub(crate) reads_stderr: bool,
    pub(crate) log: &'static str,
    /// `ulimit -n`
    pub(crate) files: Option<u64>,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Default for Start {
    fn default() -> Self {
        let (stdout, environment) = (Stdio::null(), Vec::new());
        Self { stdout, reads_stderr: true, log: "info", files: None, environment }
    }
}

impl Gateway {
    /// In front of one endpoint.
    pub(crate) fn before(endpoint: &Endpoint, start: Start, more: &[&str]) -> Self {
        let port = free_port();
        let (url, number) = (endpoint.url(), port.to_string());
        let source = ["--endpoint", url.as_str(), "--port", number.as_str()];
        Self::start(port, start, &[&source[..], more].concat())
    }

    /// `port` is where traffic goes.
    pub(crate) fn start(port: u16, start: Start, arguments: &[&str]) -> Self {
        let (admin, health, stats) = (free_port(), free_port(), free_port());
        let mut command = match start.files {
            None => Command::new(env!("CARGO_BIN_EXE_tokenweir")),
            Some(files) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script, env!("CARGO_BIN_EXE_tokenweir")]);
                shell
            }
        };
        command.arg("serve").args(arguments).args(["--bind", "127.0.0.1"]);
        for (flag, port) in [("--admin", admin), ("--health", health), ("--stats", stats)] {
            command.args([flag, &format!("127.0.0.1:{port}")]);
        }
        command.envs(start.environment).env("TOKENWEIR_LOG", start.log).stdin(Stdio::null());
        let mut child =
            command.stdout(start.stdout).stderr(Stdio::piped()).spawn().expect("it starts");
        let said = Arc::new(Mutex::new(String::new()));
        if start.reads_stderr {
            let (stderr, said) = (child.stderr.take().expect("a pipe"), Arc::clone(&said));
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    said.lock().expect("no panic").push_str(&(line + "\n"));
                }
            });
        }
        let mut gateway = Self { child, port, health, stats, said };
        until("the gateway is ready", || {
            let ended = gateway.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}: {}", gateway.said());
            ask(gateway.health, &get("/healthz/ready")).starts_with("HTTP/1.1 200 ")
        });
        gateway
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// How often it has said this.
    pub(crate) fn times_said(&self, text: &str) -> usize {
        self.said().matches(text).count()
    }

    pub(crate) fn completion(&self) -> String {
        ask(self.port, &completion(5))
    }

    /// The sum of a metric's values whose labels contain this.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let page = ask(self.stats, &get("/stats/prometheus"));
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    fn pid(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("a process id");
        Pid::from_raw(id).expect("a process id")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the gateway's end", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("a status")
    }

    /// Lets it open no further file, or as many as ever.
    pub(crate) fn may_open_files(&self, may: bool) {
        let maximum = Some(4096);
        // New files get the lowest number that is free.
        let current = if may { maximum } else { Some(self.lowest_free_file()) };
        prlimit(Some(self.pid()), Resource::Nofile, Rlimit { current, maximum })
            .expect("a process of ours");
    }

    fn lowest_free_file(&self) -> u64 {
        let is_open = |file: &u64| {
            fs::symlink_metadata(format!("/proc/{}/fd/{file}", self.child.id())).is_ok()
        };
        (0..u64::from(u16::MAX)).find(|file| !is_open(file)).expect("a free number")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it takes of memory.
pub(crate) fn resident_kib(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.child.id());
    let status = fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test.com\r\nconnection: close\r\n\r\n")
}

pub(crate) fn post(body: &str, headers: &str) -> String {
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: test.com\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A stream on a connection that ends with it.
pub(crate) fn completion(tokens: u32) -> String {
    let body = format!(
        r#"{{"model":"/model/llama2","prompt":"Say this","max_tokens":{tokens},"stream":true}}"#
    );
    post(&body, "connection: close\r\n")
}

pub(crate) fn connect(port: u16) -> TcpStream {
    try_connect(port).expect("the gateway listens")
}

fn try_connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// All that is answered until the connection ends; nothing if there is none.
pub(crate) fn ask(port: u16, request: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = try_connect(port) {
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_end(&mut answer);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A whole streamed answer.
pub(crate) fn is_whole(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
        && answer.contains("data: [DONE]\n\n")
        && answer.ends_with("\r\n0\r\n\r\n")
        && !answer.contains(r#""error""#)
}
