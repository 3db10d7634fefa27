//! The gateway under load, beside a bare relay that stands at the same place.
//!
//! Both are pinned to one processor, mock servers and load generator to another. The policy, the counting of tokens, metrics
//! and access log are on, as they are without any setting.

mod parts;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::example;
use crate::Places;
use parts::{Asking, Running, free_ports, open_files_max, pinned, until_ready};

/// The processor of the process under test, and that of everything else.
const TESTED: &str = "0";
const OTHERS: &str = "1";
/// Mock servers.
const ENDPOINTS: usize = 3;

/// One kind of load.
struct Case {
    name: &'static str,
    /// Milliseconds between two events of a stream.
    pause_ms: u32,
    load: &'static [&'static str],
    /// What is told of it, with a name for people.
    figure: (&'static str, &'static str),
    /// The figure of the mock without anything before it is taken off.
    added: bool,
}

const CPU: (&str, &str) = ("cpu_us_per_request", "CPU us a request");

const CASES: &[Case] = &[
    Case { name: "JSON, 300 B", pause_ms: 0, load: &["--prompt=300"], figure: CPU, added: false },
    Case { name: "JSON, 8 KB", pause_ms: 0, load: &["--prompt=8192"], figure: CPU, added: false },
    Case {
        name: "JSON, 100 KB",
        pause_ms: 0,
        load: &["--prompt=102400"],
        figure: CPU,
        added: false,
    },
    Case {
        name: "400 streams, 25 ms an event",
        pause_ms: 25,
        load: &["--connections=400", "--events=64", "--warm-seconds=2.5"],
        figure: ("cpu_us_per_event", "CPU us an event"),
        added: false,
    },
    Case {
        name: "200 requests a second",
        pause_ms: 0,
        load: &["--rate=200", "--connections=16", "--seconds=5"],
        figure: ("p50_us", "added us, median"),
        added: true,
    },
    Case {
        name: "220 KB, 20 at once, 10 a second",
        pause_ms: 10,
        load: &["--prompt=225280", "--connections=20", "--events=8", "--rate=10", "--seconds=5"],
        figure: ("first_p50_us", "added us to first byte, median"),
        added: true,
    },
];

/// How many endpoints a gateway has whose pages are asked for under load, and how often that is.
const PAGES_ENDPOINTS: usize = 300;
const SCRAPE_PAUSE: Duration = Duration::from_millis(500);
const PAGES_LOAD: &[&str] = &["--rate=500", "--connections=32", "--seconds=10"];

/// Streams held at once to see what memory one takes, if as many files may be open as it takes.
const HELD_MAX: usize = 10_000;
/// Files of the gateway that are not those of streams, which have two each.
const OTHER_FILES: usize = 500;
const HELD_PAUSE_MS: u32 = 600_000;

type Figures = BTreeMap<String, f64>;

pub(super) fn run(places: &Places, rounds: usize) -> anyhow::Result<()> {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("two processors are needed: one for the gateway and one for what loads it");
    }
    println!("\n{:<34} {:<32} {:>9} {:>9} {:>7}", "load", "figure", "relay", "gateway", "ratio");
    for case in CASES {
        let (mut relay, mut gateway) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let rig = Rig::start(places, ENDPOINTS, case.pause_ms)?;
            let direct = if case.added { rig.direct(places, case)? } else { 0.0 };
            relay.push(rig.through(places, case, Rig::relay)? - direct);
            gateway.push(rig.through(places, case, Rig::gateway)? - direct);
        }
        let (relay, gateway) = (median(&mut relay), median(&mut gateway));
        println!(
            "{:<34} {:<32} {relay:>9.1} {gateway:>9.1} {:>7.2}",
            case.name,
            case.figure.1,
            gateway / relay
        );
    }
    pages(places, rounds)?;
    let rig = Rig::start(places, ENDPOINTS, HELD_PAUSE_MS)?;
    let tested = rig.gateway(places)?;
    println!("\nstart to ready: {:.0} ms", tested.ready_ms);
    let streams = HELD_MAX.min((open_files_max()?.saturating_sub(OTHER_FILES)) / 2);
    let arguments = ["--hold", "--connections", &streams.to_string(), "--events=2"];
    let held = load(places, tested.port, tested.process.id(), &arguments)?;
    println!("memory, idle: {:.1} MB", held["idle_kib"] / 1024.0);
    println!("memory of a stream, with {streams} at once: {:.1} KB", held["kib_per_stream"]);
    Ok(())
}

/// What scrapes and an open dashboard do to requests: a gateway with many endpoints without and with them, in turns.
fn pages(places: &Places, rounds: usize) -> anyhow::Result<()> {
    let (mut alone, mut asked) = (Vec::new(), Vec::new());
    let rig = Rig::start(places, PAGES_ENDPOINTS, 0)?;
    for _ in 0..rounds {
        for with_pages in [false, true] {
            let tested = rig.gateway(places)?;
            let _asking = with_pages.then(|| {
                let dashboard = Asking::hold(tested.admin, "/events");
                (Asking::again(tested.stats, "/metrics", SCRAPE_PAUSE), dashboard)
            });
            let figures = load(places, tested.port, tested.process.id(), PAGES_LOAD)?;
            if with_pages { &mut asked } else { &mut alone }.push(figures["p99_us"]);
        }
    }
    let (alone, asked) = (median(&mut alone), median(&mut asked));
    println!(
        "\n500 requests a second, {PAGES_ENDPOINTS} endpoints: 99 % within {alone:.0} us alone, {asked:.0} us with a scrape \
         each {SCRAPE_PAUSE:?} and a dashboard"
    );
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The mock servers, which run until it is dropped.
struct Rig {
    ports: Vec<u16>,
    _mock: Running,
}

/// A process under test.
struct Tested {
    process: Running,
    port: u16,
    /// Zero if it has none.
    stats: u16,
    admin: u16,
    ready_ms: f64,
}

impl Rig {
    fn start(places: &Places, endpoints: usize, pause_ms: u32) -> anyhow::Result<Self> {
        let ports = free_ports(endpoints)?;
        let mut mock = pinned(OTHERS, &example(places, "rig"));
        mock.arg("mock").arg(format!("--pause-ms={pause_ms}"));
        mock.args(ports.iter().map(u16::to_string));
        let mock = Running::start(&mut mock)?;
        for port in &ports {
            until_ready(*port, "/health")?;
        }
        Ok(Self { ports, _mock: mock })
    }

    fn relay(&self, places: &Places) -> anyhow::Result<Tested> {
        let port = free_ports(1)?[0];
        let mut relay = pinned(TESTED, &example(places, "rig"));
        relay.arg("relay").arg(port.to_string()).args(self.ports.iter().map(u16::to_string));
        let process = Running::start(&mut relay)?;
        let ready_ms = until_ready(port, "/health")?;
        Ok(Tested { process, port, stats: 0, admin: 0, ready_ms })
    }

    fn gateway(&self, places: &Places) -> anyhow::Result<Tested> {
        let ports = free_ports(4)?;
        let (port, health, stats, admin) = (ports[0], ports[1], ports[2], ports[3]);
        let mut gateway = pinned(TESTED, &places.binary());
        gateway.args(["serve", "--bind=127.0.0.1", &format!("--port={port}")]);
        for (flag, port) in [("health", health), ("stats", stats), ("admin", admin)] {
            gateway.arg(format!("--{flag}=127.0.0.1:{port}"));
        }
        let endpoints = self.ports.iter().map(|port| format!("--endpoint=http://127.0.0.1:{port}"));
        let process = Running::start(gateway.args(endpoints))?;
        let ready_ms = until_ready(health, "/healthz/ready")?;
        Ok(Tested { process, port, stats, admin, ready_ms })
    }

    fn direct(&self, places: &Places, case: &Case) -> anyhow::Result<f64> {
        // Nobody's processor time is asked for: any process will do to meter.
        let figures = load(places, self.ports[0], std::process::id(), case.load)?;
        Ok(figures[case.figure.0])
    }

    fn through(
        &self,
        places: &Places,
        case: &Case,
        start: fn(&Self, &Places) -> anyhow::Result<Tested>,
    ) -> anyhow::Result<f64> {
        let tested = start(self, places)?;
        let figures = load(places, tested.port, tested.process.id(), case.load)?;
        Ok(figures[case.figure.0])
    }
}

/// Puts load on a port; the figures, and those of the process that listens there.
fn load(places: &Places, port: u16, pid: u32, arguments: &[&str]) -> anyhow::Result<Figures> {
    let mut load = pinned(OTHERS, &example(places, "rig"));
    load.args(["load", &port.to_string(), "--pid", &pid.to_string()]).args(arguments);
    let figures = read(&mut load)?;
    if figures["failures"] > 0.0 {
        bail!("{} connections failed under load", figures["failures"]);
    }
    Ok(figures)
}

/// Names and numbers in turn.
fn read(load: &mut Command) -> anyhow::Result<Figures> {
    let output = load.output().context("cannot run the load generator")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    let pairs = words.chunks_exact(2).map(|pair| Ok((pair[0].to_owned(), pair[1].parse()?)));
    let figures: Figures = pairs.collect::<anyhow::Result<_>>()?;
    if figures.is_empty() {
        bail!("the load generator failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(figures)
}
