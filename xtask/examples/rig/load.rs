//! Sends requests over many connections, each at once when the one before is answered or at a fixed rate, and tells what
//! one costs the process under test.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
    time::{sleep, sleep_until},
};

use crate::meter::{cpu, resident_kib};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the process under test listens
    port: u16,
    /// Process under test
    #[arg(long)]
    pid: u32,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Bytes of each prompt
    #[arg(long, default_value_t = 300)]
    prompt: usize,
    /// Ask for streams of so many events
    #[arg(long)]
    events: Option<u32>,
    /// Requests a second, of all connections together; as many as they can without it
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 1.0)]
    warm_seconds: f64,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only wait until each connection has its first event, and tell what memory that takes
    #[arg(long)]
    hold: bool,
}

#[derive(Debug, Default)]
struct Figures {
    counts: bool,
    requests: u64,
    events: u64,
    failures: u64,
    begun: u32,
    whole_micros: Vec<u64>,
    first_micros: Vec<u64>,
}

pub(crate) async fn run(arguments: Arguments) -> io::Result<()> {
    let before = resident_kib(arguments.pid);
    let figures = Rc::<RefCell<Figures>>::default();
    let local = LocalSet::new();
    for index in 0..arguments.connections {
        let (arguments, figures) = (arguments.clone(), Rc::clone(&figures));
        local.spawn_local(async move {
            if connection(&arguments, index, &figures).await.is_err() {
                figures.borrow_mut().failures += 1;
            }
        });
    }
    local.run_until(measure(arguments, before, figures)).await;
    Ok(())
}

async fn measure(arguments: Arguments, before: u64, figures: Rc<RefCell<Figures>>) {
    if arguments.hold {
        while figures.borrow().begun < arguments.connections && figures.borrow().failures == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        let after = resident_kib(arguments.pid);
        let per_stream = after.saturating_sub(before) as f64 / f64::from(arguments.connections);
        let Figures { begun, failures, .. } = *figures.borrow();
        println!(
            "streams {begun} failures {failures} idle_kib {before} resident_kib {after} kib_per_stream {per_stream:.2}"
        );
        return;
    }
    sleep(Duration::from_secs_f64(arguments.warm_seconds)).await;
    *figures.borrow_mut() = Figures { counts: true, ..Figures::default() };
    let (began, cpu_before) = (Instant::now(), cpu(arguments.pid));
    sleep(Duration::from_secs_f64(arguments.seconds)).await;
    let used = cpu(arguments.pid).saturating_sub(cpu_before);
    let took = began.elapsed();
    let mut figures = figures.borrow_mut();
    let [whole, first] = {
        let Figures { whole_micros, first_micros, .. } = &mut *figures;
        [whole_micros, first_micros].map(|micros| [0.5, 0.99].map(|share| quantile(micros, share)))
    };
    let micros = used.as_secs_f64() * 1e6;
    let told = [
        ("requests", figures.requests as f64),
        ("events", figures.events as f64),
        ("failures", figures.failures as f64),
        ("per_second", figures.requests as f64 / took.as_secs_f64()),
        ("core_percent", 100.0 * used.as_secs_f64() / took.as_secs_f64()),
        ("cpu_us_per_request", micros / figures.requests.max(1) as f64),
        ("cpu_us_per_event", micros / figures.events.max(1) as f64),
        ("p50_us", whole[0]),
        ("p99_us", whole[1]),
        ("first_p50_us", first[0]),
        ("first_p99_us", first[1]),
        ("resident_kib", resident_kib(arguments.pid) as f64),
    ];
    let told: Vec<String> = told.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
    println!("{}", told.join(" "));
}

fn quantile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).map_or(0.0, |value| *value as f64)
}

async fn connection(
    arguments: &Arguments,
    index: u32,
    figures: &RefCell<Figures>,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", arguments.port)).await?;
    stream.set_nodelay(true)?;
    let mut received = BytesMut::with_capacity(64 * 1024);
    let spacing = arguments.rate.map(|rate| f64::from(arguments.connections) / rate);
    let mut turn = 0;
    let mut next = tokio::time::Instant::now();
    if let Some(spacing) = spacing {
        next +=
            Duration::from_secs_f64(spacing * f64::from(index) / f64::from(arguments.connections));
    }
    loop {
        if let Some(spacing) = spacing {
            sleep_until(next).await;
            next += Duration::from_secs_f64(spacing);
        }
        let request = request(arguments, index, turn);
        turn += 1;
        let sent = Instant::now();
        stream.write_all(&request).await?;
        let (events, first) = answer(&mut stream, &mut received, figures).await?;
        let mut figures = figures.borrow_mut();
        if figures.counts {
            figures.requests += 1;
            figures.events += events;
            figures.whole_micros.push(micros(sent.elapsed()));
            figures.first_micros.push(micros(first - sent));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Half of each prompt is like all others.
fn request(arguments: &Arguments, index: u32, turn: u32) -> Vec<u8> {
    let half =
        "the quick brown fox ".chars().cycle().take(arguments.prompt / 2).collect::<String>();
    let stream = match arguments.events {
        Some(events) => format!(r#","stream":true,"max_tokens":{events}"#),
        None => String::new(),
    };
    let body = format!(
        r#"{{"model":"mock","messages":[{{"role":"user","content":"{half}{index:05}{:03}{half}"}}]{stream}}}"#,
        turn % 256
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nuser-agent: rig\r\naccept: */*\r\nauthorization: Bearer sk-rig\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads one answer: how many events it had, and when its first byte came.
async fn answer(
    stream: &mut TcpStream,
    received: &mut BytesMut,
    figures: &RefCell<Figures>,
) -> io::Result<(u64, Instant)> {
    more(stream, received).await?;
    let first = Instant::now();
    let head = loop {
        match memmem::find(received, b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => more(stream, received).await?,
        }
    };
    if !received.starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::other("not answered with 200"));
    }
    let length = memmem::find(&received[..head], b"content-length: ").map(|at| {
        let digits = received[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
    });
    received.advance(head);
    if let Some(length) = length {
        while received.len() < length {
            more(stream, received).await?;
        }
        received.advance(length);
        return Ok((1, first));
    }
    let (mut events, mut begun) = (0, false);
    loop {
        events += memmem::find_iter(received, b"data: ").count() as u64;
        if events > 0 && received.ends_with(b"\r\n0\r\n\r\n") {
            received.clear();
            return Ok((events, first));
        }
        if events > 0 && !begun {
            begun = true;
            figures.borrow_mut().begun += 1;
        }
        // An event's first bytes and the last chunk come in one piece: each is written at once.
        let tail = received.len().saturating_sub(b"\r\n0\r\n\r".len());
        received.advance(tail);
        more(stream, received).await?;
    }
}

async fn more(stream: &mut TcpStream, received: &mut BytesMut) -> io::Result<()> {
    if stream.read_buf(received).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
