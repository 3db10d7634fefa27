//! What the system may run out of or block, and a gateway that goes on all the same.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Stdio,
};

use rustix::process::Signal;
use sim::{Fault, SimConfig};

use crate::gateway::{Endpoint, Gateway, Start, ask, completion, connect, is_whole, post, until};

/// Requests sent at once.
const BATCH: usize = 500;

fn endpoint() -> Endpoint {
    Endpoint::start(SimConfig::fast())
}

/// Sends many requests that are refused at once, and takes their answers.
fn refuse_many(gateway: &Gateway) {
    let mut stream = connect(gateway.port);
    // The log's lines are as long as they may be.
    let long = "x".repeat(1000);
    let headers = format!("user-agent: {long}\r\nx-forwarded-for: {long}\r\n");
    let request = post("no JSON", &headers).replace(" HTTP/1.1", &format!("?{long} HTTP/1.1"));
    let mut writer = stream.try_clone().expect("a socket");
    let sender = std::thread::spawn(move || {
        let all = request.repeat(BATCH - 1) + &post("no JSON", "connection: close\r\n");
        writer.write_all(all.as_bytes()).expect("it reads");
    });
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("it answers");
    sender.join().expect("all sent");
    assert_eq!(answers.matches("HTTP/1.1 400 Bad Request\r\n").count(), BATCH);
}

fn dropped(gateway: &Gateway) -> u64 {
    gateway.metric("tokenweir_access_log_dropped_total", "")
}

fn check_stops(mut gateway: Gateway) {
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_no_request() {
    let endpoint = endpoint();
    let start = Start { stdout: Stdio::piped(), ..Start::default() };
    let mut gateway = Gateway::before(&endpoint, start, &[]);
    while dropped(&gateway) == 0 {
        refuse_many(&gateway);
    }
    assert!(is_whole(&gateway.completion()));

    // Whoever reads again gets what waits, and what comes from then on.
    let mut stdout = gateway.child.stdout.take().expect("a pipe");
    let (told, lines) = std::sync::mpsc::sync_channel(1 << 16);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        let mut last = Vec::new();
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            last.extend_from_slice(&buffer[..count]);
            if let Some(end) = last.iter().rposition(|byte| *byte == b'\n') {
                let rest = last.split_off(end + 1);
                let _ = told.send(String::from_utf8_lossy(&last).into_owned());
                last = rest;
            }
        }
    });
    until("a line of a new request", || {
        assert!(is_whole(&ask(
            gateway.port,
            &completion(1).replace("host", "x-request-id: here-again\r\nhost")
        )));
        let lines: String = lines.try_iter().collect();
        for line in lines.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("no torn line");
        }
        lines.contains("here-again")
    });
    check_stops(gateway);
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_the_end_up() {
    let endpoint = endpoint();
    let start = Start { stdout: Stdio::piped(), ..Start::default() };
    let gateway = Gateway::before(&endpoint, start, &[]);
    while dropped(&gateway) == 0 {
        refuse_many(&gateway);
    }
    check_stops(gateway);
}

/// The access log cannot be written: requests go on, lines are counted, and it is said once.
fn check_unwritable(stdout: Stdio) -> Gateway {
    let endpoint = endpoint();
    let mut gateway = Gateway::before(&endpoint, Start { stdout, ..Start::default() }, &[]);
    drop(gateway.child.stdout.take());
    until("dropped lines", || {
        assert!(is_whole(&gateway.completion()));
        dropped(&gateway) > 2
    });
    refuse_many(&gateway);
    until("more of them", || dropped(&gateway) >= BATCH as u64);
    until("a word of it", || gateway.times_said("access log cannot be written") > 0);
    assert_eq!(gateway.times_said("access log cannot be written"), 1, "{}", gateway.said());
    gateway
}

#[test]
fn a_full_disk_costs_lines_of_the_log_and_no_request() {
    let full = File::options().write(true).open("/dev/full").expect("a full device");
    check_stops(check_unwritable(full.into()));
}

#[test]
fn a_reader_of_the_log_that_has_gone_costs_lines_and_no_request() {
    check_stops(check_unwritable(Stdio::piped()));
}

#[test]
fn messages_that_nobody_reads_hold_nobody_up() {
    let endpoint = endpoint();
    let start = Start { reads_stderr: false, log: "trace", ..Start::default() };
    let gateway = Gateway::before(&endpoint, start, &[]);
    for _ in 0..20 {
        assert!(is_whole(&gateway.completion()));
    }
    refuse_many(&gateway);
    check_stops(gateway);
}

#[test]
fn clients_are_held_to_the_files_there_are() {
    let endpoint = endpoint();
    let gateway = Gateway::before(&endpoint, Start { files: Some(100), ..Start::default() }, &[]);
    until("it is said", || gateway.times_said("open files limit the client connections") == 1);
    assert_eq!(gateway.times_said("WARN"), 0, "nobody asked for more: {}", gateway.said());
    // Of 100 files half are the gateway's own, and each client needs two of the others.
    let idle: Vec<_> = (0..25).map(|_| connect(gateway.port)).collect();
    until("a connection too many", || {
        let answer = ask(gateway.port, "");
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-tokenweir-reason: overloaded\r\n")
    });
    assert!(gateway.metric("tokenweir_limits_reached_total", "\"connections\"") > 0);
    drop(idle);
    until("room again", || is_whole(&gateway.completion()));
    assert_eq!(gateway.times_said("cannot be accepted"), 0);
    check_stops(gateway);
}

#[test]
fn who_asks_for_more_clients_than_there_are_files_is_warned() {
    let settings = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("trouble-connections.yaml");
    fs::write(&settings, "limits: {connections: 1000}\n").expect("a file");
    let more = ["--config", &settings.display().to_string()];
    let (endpoint, start) = (endpoint(), || Start { files: Some(100), ..Start::default() });
    let gateway = Gateway::before(&endpoint, start(), &more);
    until("it is warned", || {
        gateway.times_said("fewer client connections than limits.connections asks for") == 1
    });
    // From when it is ready, it hears signals.
    let is_ready = |gateway: &Gateway| gateway.times_said("\"message\":\"ready\"") == 1;
    until("it is ready", || is_ready(&gateway));
    assert_eq!(gateway.times_said("WARN"), 1, "{}", gateway.said());
    check_stops(gateway);
    fs::write(&settings, "limits: {connections: 25}\n").expect("a file");
    let gateway = Gateway::before(&endpoint, start(), &more);
    until("it is ready", || is_ready(&gateway));
    assert_eq!(gateway.times_said("WARN"), 0, "{}", gateway.said());
    check_stops(gateway);
}

#[test]
fn files_that_run_out_for_the_gateways_own_ports_are_told_of_once() {
    let endpoint = endpoint();
    let start = Start { log: "info,admin=debug", ..Start::default() };
    let gateway = Gateway::before(&endpoint, start, &[]);
    let _clients = exhaust(&gateway);
    let waiting = connect(gateway.health);
    until("it is tried again", || gateway.times_said("still not accepting") > 2);
    gateway.may_open_files(true);
    // The first may have been taken with the last file there was: only the next shows that it is over.
    let next = connect(gateway.health);
    let begun = || gateway.times_said("cannot accept on a port");
    let over = || gateway.times_said("on a port of the gateway's own again");
    until("it is over", || begun() >= 1 && begun() == over());
    assert!(begun() < gateway.times_said("still not accepting"), "{}", gateway.said());
    drop((waiting, next));
    assert_eq!(gateway.metric("tokenweir_panics_total", ""), 0);
    check_stops(gateway);
}

/// Takes every file the gateway may have: connections wait to be accepted from then on.
fn exhaust(gateway: &Gateway) -> Vec<TcpStream> {
    gateway.may_open_files(false);
    let waiting = (0..40).map(|_| connect(gateway.port)).collect();
    let told = || gateway.times_said("connections cannot be accepted") > 0;
    until("no file is left", told);
    waiting
}

fn reached(gateway: &Gateway) -> u64 {
    gateway.metric("tokenweir_limits_reached_total", "\"open-files\"")
}

#[test]
fn files_that_run_out_are_told_of_once_and_everything_comes_back() {
    let endpoint = endpoint();
    let gateway = Gateway::before(&endpoint, Start::default(), &[]);
    assert!(is_whole(&gateway.completion()));
    let clients = exhaust(&gateway);
    gateway.may_open_files(true);
    assert!(is_whole(&gateway.completion()));
    // Each time once: a file may have become free meanwhile, and been taken.
    let begun = || gateway.times_said("connections cannot be accepted");
    let over = || gateway.times_said("connections are accepted again");
    until("it is said", || over() >= 1 && over() == begun());
    for mut client in clients {
        client.write_all(completion(2).as_bytes()).expect("it was taken");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("it is answered");
        assert!(is_whole(&answer), "{answer}");
    }
    assert!(reached(&gateway) > 0);
    check_stops(gateway);
}

#[test]
fn an_endpoint_is_not_blamed_for_files_that_ran_out() {
    let endpoint = endpoint();
    let gateway = Gateway::before(&endpoint, Start::default(), &[]);
    // Connected before: what these lack is a connection to the endpoint.
    let clients: Vec<_> = (0..10).map(|_| connect(gateway.port)).collect();
    until("all accepted", || gateway.metric("tokenweir_connections_total", "accepted") == 10);
    let _waiting = exhaust(&gateway);
    // Nothing is answered meanwhile: who gets a file after all, since one has just become free, leaves none to the others.
    endpoint.server.handle().set_fault(Fault::Freeze);
    for mut client in &clients {
        client.write_all(completion(2).as_bytes()).expect("it was taken");
        client.set_nonblocking(true).expect("a socket");
    }
    let mut answers = vec![String::new(); clients.len()];
    let refused = |answers: &[String]| {
        let overloaded = |answer: &&String| answer.contains("x-tokenweir-reason: overloaded\r\n");
        answers.iter().filter(overloaded).count()
    };
    until("most are refused", || {
        for (mut client, answer) in clients.iter().zip(&mut answers) {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = client.read(&mut buffer) {
                answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
        refused(&answers) >= clients.len() / 2
    });
    endpoint.server.handle().set_fault(Fault::None);
    gateway.may_open_files(true);
    assert!(is_whole(&gateway.completion()));
    assert_eq!(gateway.times_said("endpoint is ejected"), 0, "{}", gateway.said());
    check_stops(gateway);
}
