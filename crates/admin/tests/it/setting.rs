//! The three servers on a picker with something to show, and a client that takes no shortcuts.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use admin::{Views, serve_admin, serve_health, serve_stats};
use picker::{
    AppProtocol, Asked, Desired, EndpointPicker, EndpointSpec, Journal, Metrics, PoolKey, PoolKind,
    PoolSpec, RequestRecord, Tasks, Workload,
};
use scheduling::{EndpointId, Policy};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Until an answer must have come.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct NoJournal;

impl Journal for NoJournal {
    fn write(&self, _: &RequestRecord) {}
}

pub(crate) struct Setting {
    pub(crate) picker: EndpointPicker,
    pub(crate) health: SocketAddr,
    pub(crate) stats: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Why the gateway is not ready.
    pub(crate) unready: Arc<Mutex<Option<String>>>,
    pub(crate) drains: Arc<AtomicU32>,
    pub(crate) tasks: Tasks,
    metrics: Arc<Metrics>,
}

pub(crate) fn pool() -> PoolKey {
    let kind = PoolKind::InferencePool;
    PoolKey { kind, namespace: "default".into(), name: "llama".into(), port: 0 }
}

fn desired() -> Desired {
    let endpoint = |name: &str, host: &str| EndpointSpec {
        id: EndpointId::new(format!("{host}:8000")),
        workload: name.into(),
        host: host.into(),
        port: 8000,
        protocol: AppProtocol::Http1,
    };
    let llama = PoolSpec {
        endpoints: vec![endpoint("vllm-0", "10.0.0.1"), endpoint("vllm-1", "10.0.0.2")],
        ..PoolSpec::new(pool(), Policy::LeastRequest)
    };
    let key = PoolKey { kind: PoolKind::Service, port: 8000, ..pool() };
    let service = PoolSpec { key, endpoints: Vec::new(), ..llama.clone() };
    Desired { pools: vec![llama, service], ..Desired::default() }
}

impl Setting {
    pub(crate) async fn start() -> Self {
        let workload = Workload { name: "tokenweir".into(), namespace: "default".into() };
        let metrics = Arc::new(Metrics::new(workload).expect("metrics"));
        let picker = EndpointPicker::new(Arc::clone(&metrics), Arc::new(NoJournal), 1);
        picker.writer().apply(desired());
        let (unready, drains) = (Arc::<Mutex<Option<String>>>::default(), Arc::default());
        let tasks = Tasks::new(metrics.panics.clone());
        let views = views(&picker, &unready, &drains);
        let (listener, health) = bind().await;
        tasks.spawn("health", serve_health(listener, Arc::clone(&views), tasks.clone()));
        let (listener, stats) = bind().await;
        tasks.spawn("stats", serve_stats(listener, Arc::clone(&views), tasks.clone()));
        let (listener, admin) = bind().await;
        tasks.spawn("admin", serve_admin(listener, views, tasks.clone()));
        Self { picker, health, stats, admin, unready, drains, tasks, metrics }
    }

    /// Places a request, which lasts until the assignment is dropped.
    pub(crate) fn pick(&self, request_id: &str) -> picker::Assignment {
        let routed = self.picker.straight_to(&pool());
        let mut open = self.picker.open(record(request_id));
        at_once(self.picker.pick(&routed, Asked::default(), &mut open)).expect("an assignment")
    }

    /// Stops everything and sees that nothing stays and nothing panicked.
    pub(crate) async fn end(self) {
        self.tasks.stop();
        timeout(DEADLINE, self.tasks.ended()).await.expect("every task ends");
        assert_eq!(self.metrics.panics.get(), 0, "no task panicked");
    }
}

fn views(
    picker: &EndpointPicker,
    unready: &Arc<Mutex<Option<String>>>,
    drains: &Arc<AtomicU32>,
) -> Arc<Views> {
    let (unready, drains) = (Arc::clone(unready), Arc::clone(drains));
    let asked = Arc::new(Mutex::new(Vec::<(String, String)>::new()));
    let shown = Arc::clone(&asked);
    Arc::new(Views {
        view: picker.view(),
        objects: Arc::new(|| {
            json!([
                { "kind": "InferencePool", "metadata": { "name": "llama", "namespace": "default" } },
                { "kind": "Gateway", "metadata": { "name": "gw", "namespace": "default" } },
            ])
        }),
        config: Arc::new(|| json!({ "generation": 3 })),
        ready: Arc::new(move || unready.lock().expect("unready").clone().map_or(Ok(()), Err)),
        drain: Arc::new(move || {
            drains.fetch_add(1, Ordering::Relaxed);
        }),
        levels: Arc::new(move || json!({ "asked": *shown.lock().expect("levels") })),
        set_levels: Arc::new(move |pairs| {
            if pairs.iter().any(|(_, level)| level == "loud") {
                return Err("expected info".to_owned());
            }
            asked.lock().expect("levels").extend(pairs.iter().cloned());
            Ok(())
        }),
    })
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

fn record(request_id: &str) -> RequestRecord {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    RequestRecord {
        method: "POST".into(),
        path: "/v1/completions".into(),
        authority: "test".into(),
        request_id: request_id.into(),
        request_model: Some("llama2".into()),
        response_code: 200,
        ..RequestRecord::new(address, address)
    }
}

/// An answer, in parts.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends these bytes and reads until the server closes.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> Reply {
    let all = async {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("read");
        String::from_utf8(bytes).expect("text")
    };
    let text = timeout(DEADLINE, all).await.expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) async fn ask(address: SocketAddr, method: &str, target: &str) -> Reply {
    ask_with(address, method, target, &format!("Host: {address}\r\n")).await
}

pub(crate) async fn ask_with(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
) -> Reply {
    exchange(address, &format!("{method} {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"))
        .await
}

pub(crate) async fn get(address: SocketAddr, target: &str) -> Reply {
    ask(address, "GET", target).await
}

/// What a future comes to that has nothing to wait for.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}
