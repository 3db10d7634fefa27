//! Endings and beginnings under load: SIGTERM, the drain timeout, configurations that change.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::process::Signal;
use sim::{Fault, SimConfig};

use crate::gateway::{
    Endpoint, Gateway, Start, ask, completion, connect, free_port, is_whole, until,
};

/// Clients that ask again and again until told to stop.
struct Load {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Every answer that is not whole comes back from [`Load::end`].
    fn start(port: u16, clients: usize) -> Self {
        let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients).map(|_| {
            let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
            std::thread::spawn(move || {
                let mut broken = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let answer = ask(port, &completion(8));
                    if !is_whole(&answer) {
                        broken.push(answer);
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                broken
            })
        });
        let clients = clients.collect();
        Self { over, answers, clients }
    }

    /// Waits for so many more answers.
    fn go_on(&self, answers: usize) {
        let wanted = self.answers.load(Ordering::Relaxed) + answers;
        until("answers", || self.answers.load(Ordering::Relaxed) >= wanted);
    }

    fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    }
}

#[test]
fn streams_that_run_at_a_sigterm_end_whole() {
    let endpoint = Endpoint::start(SimConfig { speedup: 5.0, ..SimConfig::default() });
    let mut gateway = Gateway::before(&endpoint, Start::default(), &[]);
    let mut streams: Vec<_> = (0..40).map(|_| connect(gateway.port)).collect();
    for stream in &mut streams {
        stream.write_all(completion(100).as_bytes()).expect("it reads");
    }
    until("all run", || endpoint.server.handle().live() == 40);
    gateway.signal(Signal::TERM);
    until("the port is closed", || {
        std::net::TcpStream::connect(("127.0.0.1", gateway.port)).is_err()
    });
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(is_whole(&answer), "{answer}");
    }
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
}

#[test]
fn what_does_not_end_in_the_drain_timeout_is_cut() {
    let endpoint = Endpoint::start(SimConfig::fast());
    let mut gateway = Gateway::before(&endpoint, Start::default(), &["--drain-timeout", "200ms"]);
    endpoint.server.handle().set_fault(Fault::Hang);
    let mut stream = connect(gateway.port);
    stream.write_all(completion(1).as_bytes()).expect("it reads");
    until("it hangs", || endpoint.server.handle().in_flight() == 1);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("draining"), "{answer}");
    assert_eq!(gateway.times_said("drain timeout over"), 1);
    until("the endpoint is told", || endpoint.server.handle().in_flight() == 0);
}

/// A gateway that listens at these ports, in front of these endpoints.
fn manifest(ports: &[u16], endpoints: &[&Endpoint]) -> String {
    let server = |port: &u16| {
        format!("  - port: {{number: {port}, name: h{port}, protocol: HTTP}}\n    hosts: ['*']\n")
    };
    let servers: Vec<String> = ports.iter().map(server).collect();
    let gateway = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gateway}}\nspec:\n  \
         selector: {{istio: ingressgateway}}\n  servers:\n{}",
        servers.concat()
    );
    let entry = |(nth, endpoint): (usize, &&Endpoint)| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: vllm-{nth}}}\n\
             spec: {{address: 127.0.0.1, labels: {{app: vllm}}, ports: {{http: {}}}}}\n",
            endpoint.server.addr().port()
        )
    };
    let mut documents = vec![gateway, ROUTE.to_owned(), SERVICE.to_owned()];
    documents.extend(endpoints.iter().enumerate().map(entry));
    documents.join("---\n")
}

const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v1}
spec:
  gateways: [gateway]
  hosts: ['*']
  http:
  - route:
    - destination: {host: vllm.default.svc.cluster.local, port: {number: 8000}}
";

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: vllm}
spec:
  selector: {app: vllm}
  ports: [{name: http, port: 8000}]
";

/// Replaces the file whole.
fn write(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("it can be written");
    fs::rename(beside, path).expect("it can be renamed");
}

#[test]
fn no_request_is_lost_while_the_configuration_changes() {
    let endpoints: Vec<_> = (0..3)
        .map(|_| Endpoint::start(SimConfig { speedup: 50.0, ..SimConfig::default() }))
        .collect();
    let all: Vec<&Endpoint> = endpoints.iter().collect();
    let (stays, comes) = (free_port(), free_port());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("endings-reload");
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("gateway.yaml");
    write(&file, &manifest(&[stays], &all[..1]));
    let mut gateway =
        Gateway::start(stays, Start::default(), &["-f", &folder.display().to_string()]);
    let load = Load::start(stays, 8);
    load.go_on(20);
    let applied = || gateway.metric("tokenweir_config_reloads_total", "\"applied\"");
    let rejected = || gateway.metric("tokenweir_config_reloads_total", "\"rejected\"");
    let steps: [(&[u16], &[&Endpoint]); 5] = [
        (&[stays, comes], &all),
        (&[stays], &all[1..]),
        (&[comes, stays], &all[2..]),
        (&[stays], &all[..2]),
        (&[stays, comes], &all[..1]),
    ];
    for (ports, endpoints) in steps {
        let before = applied();
        write(&file, &manifest(ports, endpoints));
        until("the change is applied", || applied() > before);
        let wanted = ports.contains(&comes);
        until("the other port follows", || {
            std::net::TcpStream::connect(("127.0.0.1", comes)).is_ok() == wanted
        });
        load.go_on(20);
    }
    write(&file, "kind: [");
    until("a broken file is rejected", || rejected() > 0);
    load.go_on(20);
    assert_eq!(load.end(), [""; 0], "{}", gateway.said());
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
}
