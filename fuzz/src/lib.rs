//! A whole proxy on loopback, for targets whose bytes come over a connection.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    time::Duration,
};

use picker::{
    AppProtocol, Desired, EndpointPicker, EndpointSpec, HostPattern, Journal, ListenerSpec, Metrics,
    PoolKey, PoolKind, PoolSpec, PoolView, RequestRecord, RouteRule, RouteSpec, Tasks,
    WeightedPool, Workload,
};
use proxy::{Limits, Listeners, Proxy, ProxyOptions};
use scheduling::{EndpointId, OutlierDetection, Policy};
use tokio::runtime::{Builder, Runtime};

/// Longest time anything may take: what takes longer hangs.
const HANG: Duration = Duration::from_secs(20);
/// Long enough for bytes on loopback, short enough for many inputs.
const SHORT: Duration = Duration::from_millis(20);

/// A request for text.
pub const REQUEST: &str = "POST /v1/completions HTTP/1.1\r\nhost: test.com\r\nconnection: close\r\n\
    content-length: 37\r\n\r\n{\"model\":\"m\",\"stream\":true,\"x\":\"abc\"}";

/// Writes nothing.
#[derive(Debug)]
struct Silence;

impl Journal for Silence {
    fn write(&self, record: &RequestRecord) {
        assert!(record.finish.is_some(), "a request ended as nothing");
    }
}

/// A proxy with one endpoint, which answers with whatever bytes it was last told.
pub struct Gateway {
    addr: SocketAddr,
    answers: mpsc::Sender<(Vec<u8>, usize)>,
    metrics: Arc<Metrics>,
    view: PoolView,
    _listeners: Listeners,
    _runtime: Runtime,
}

impl Gateway {
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (answers, next) = mpsc::channel();
        let endpoint = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let endpoint_addr = endpoint.local_addr().expect("an address");
        std::thread::spawn(move || serve(&endpoint, &next));
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = free.local_addr().expect("an address");
        drop(free);
        let workload = Workload { name: "fuzz".into(), namespace: "default".into() };
        let metrics = Arc::new(Metrics::new(workload).expect("metrics"));
        let picker = EndpointPicker::new(Arc::clone(&metrics), Arc::new(Silence), 1);
        let (writer, view) = (picker.writer(), picker.view());
        let _within = runtime.enter();
        writer.apply(desired(addr.port(), endpoint_addr));
        let (connections, background) =
            (Tasks::new(metrics.panics.clone()), Tasks::new(metrics.panics.clone()));
        let limits = Limits {
            header_read_timeout: SHORT,
            body_read_timeout: SHORT,
            connection_idle_timeout: SHORT,
            ..Limits::default()
        };
        let options = ProxyOptions { limits, ..ProxyOptions::default() };
        let proxy = Proxy::new(picker, options, connections, &background);
        let mut listeners = Listeners::new(proxy, Ipv4Addr::LOCALHOST.into());
        let errors = listeners.apply(&[listener(addr.port())]);
        assert!(errors.is_empty(), "{errors:?}");
        drop(_within);
        Self { addr, answers, metrics, view, _listeners: listeners, _runtime: runtime }
    }

    /// Sends these bytes in pieces of this size, and reads until the proxy closes, which it must.
    pub fn ask(&self, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_read_timeout(Some(HANG)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        for piece in bytes.chunks(size.max(1)) {
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it hangs"),
            // A reset is an end, too.
            Ok(_) | Err(_) => {}
        }
        assert_eq!(self.metrics.panics.get(), 0, "a panic in the proxy");
        answer
    }

    /// What a client gets if an endpoint answers with these bytes, in pieces of this size.
    pub fn relay(&self, bytes: &[u8], size: usize) -> Vec<u8> {
        self.answers.send((bytes.to_vec(), size)).expect("an endpoint");
        let answer = self.ask(REQUEST.as_bytes(), REQUEST.len());
        let charged =
            || self.view.members().iter().map(|one| one.endpoint.in_flight()).sum::<u32>();
        for _ in 0..HANG.as_millis() {
            if charged() == 0 {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("a claim is never given back");
    }
}

/// Answers the first request of each connection, whatever it is.
fn serve(endpoint: &TcpListener, next: &mpsc::Receiver<(Vec<u8>, usize)>) {
    let mut last = (Vec::new(), 1);
    for stream in endpoint.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        // The whole request, so that its end is no reset.
        while !request.ends_with(b"}") {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
                Ok(_) | Err(_) => break,
            }
        }
        if let Some(answer) = next.try_iter().last() {
            last = answer;
        }
        for piece in last.0.chunks(last.1.max(1)) {
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn listener(port: u16) -> ListenerSpec {
    ListenerSpec { port, gateways: vec!["default/gateway".into()] }
}

fn desired(port: u16, endpoint: SocketAddr) -> Desired {
    let key = PoolKey {
        kind: PoolKind::InferencePool,
        namespace: "default".into(),
        name: "pool".into(),
        port: 0,
    };
    let endpoint = EndpointSpec {
        id: EndpointId::new(endpoint.to_string()),
        workload: "vllm".into(),
        host: endpoint.ip().to_string().into(),
        port: endpoint.port(),
        protocol: AppProtocol::Http1,
    };
    let rule = RouteRule {
        name: None,
        matches: Vec::new(),
        pools: vec![WeightedPool { pool: key.clone(), weight: 1 }],
        timeout: None,
    };
    let route = RouteSpec {
        name: "default/route".into(),
        port,
        hosts: vec![HostPattern::Exact("test.com".into())],
        rules: vec![rule],
    };
    // Whatever it answers, it is asked again.
    let outlier_detection = OutlierDetection {
        base_ejection: Duration::ZERO,
        max_ejection: Duration::ZERO,
        ..OutlierDetection::default()
    };
    let mut pool = PoolSpec::new(key, Policy::RoundRobin);
    pool.endpoints = vec![endpoint];
    pool.outlier_detection = outlier_detection;
    pool.delivery.idle_timeout = SHORT;
    Desired { listeners: vec![listener(port)], pools: vec![pool], routes: vec![route] }
}
