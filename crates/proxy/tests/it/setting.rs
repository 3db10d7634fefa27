//! A proxy on a port of its own, the endpoints behind it, and how to wait for things.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use picker::{
    AppProtocol, Desired, EndpointPicker, EndpointSpec, Finish, HostPattern, Journal, ListenerSpec,
    Metrics, ModelSpec, PoolKey, PoolKind, PoolSpec, PoolView, PoolWriter, RequestRecord,
    RouteRule, RouteSpec, Tasks, WeightedPool, Workload,
};
use proxy::{Limits, Listeners, Proxy, ProxyOptions};
use scheduling::{EndpointId, OutlierDetection, Policy, Trouble};
use sim::{Running, Server, SimConfig};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{Instant, sleep, timeout};

use crate::wire::{Reply, Wire};

/// Until something must have happened.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
pub(crate) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const MODEL: &str = "/model/llama2";

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(LOOK_AGAIN).await;
    }
}

/// The future's output, which must come in time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A port nobody else is given, and nobody listens on unless by this name.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) addr: SocketAddr,
    _held: Socket,
}

impl Port {
    pub(crate) fn free() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("socket");
        socket.set_reuse_address(true).expect("reuse");
        socket.bind(&SocketAddr::new(LOCALHOST, 0).into()).expect("a free port");
        let addr = socket.local_addr().expect("address").as_socket().expect("IP address");
        Self { addr, _held: socket }
    }

    pub(crate) fn listener(&self) -> ListenerSpec {
        ListenerSpec { port: self.addr.port(), gateways: vec!["default/gateway".into()] }
    }
}

/// Keeps every record.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<RequestRecord>>);

impl Journal for Notes {
    fn write(&self, record: &RequestRecord) {
        self.0.lock().push(record.clone());
    }
}

/// A proxy to be.
pub(crate) struct Setup {
    options: ProxyOptions,
    endpoints: Vec<EndpointSpec>,
    models: Vec<ModelSpec>,
    timeout: Option<Duration>,
    outlier_detection: OutlierDetection,
    changes: Vec<Change>,
}

/// What a test wants otherwise of its pool.
type Change = Box<dyn FnOnce(&mut PoolSpec)>;

impl Setup {
    /// With these endpoints, which are asked in this order, one first for each request in turn.
    pub(crate) fn new(endpoints: &[SocketAddr]) -> Self {
        let endpoints = endpoints.iter().map(|addr| endpoint(*addr, AppProtocol::Http1)).collect();
        let options = ProxyOptions::default();
        let (models, timeout) = (Vec::new(), None);
        // Longer than any test: who is ejected stays out, unless a test says otherwise.
        let outlier_detection = ejecting_for(Duration::from_hours(1));
        Self { options, endpoints, models, timeout, outlier_detection, changes: Vec::new() }
    }

    pub(crate) fn h2c(endpoint_addr: SocketAddr) -> Self {
        let endpoints = vec![endpoint(endpoint_addr, AppProtocol::H2c)];
        Self { endpoints, ..Self::new(&[]) }
    }

    pub(crate) fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.options.limits);
        self
    }

    pub(crate) fn pool(mut self, change: impl FnOnce(&mut PoolSpec) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    pub(crate) fn models(self, models: Vec<ModelSpec>) -> Self {
        Self { models, ..self }
    }

    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    pub(crate) fn ejecting_for(self, ejection: Duration) -> Self {
        Self { outlier_detection: ejecting_for(ejection), ..self }
    }

    pub(crate) fn no_endpoint_header(mut self) -> Self {
        self.options.endpoint_header = false;
        self
    }

    pub(crate) fn start(self) -> Setting {
        let port = Port::free();
        let workload = Workload { name: "tokenweir".into(), namespace: "default".into() };
        let metrics = Arc::new(Metrics::new(workload).expect("metrics"));
        let journal = Arc::new(Notes::default());
        let for_picker = Arc::clone(&journal);
        let picker = EndpointPicker::new(Arc::clone(&metrics), for_picker, 1);
        let (writer, view) = (picker.writer(), picker.view());
        let mut desired = desired(&port, self.endpoints, self.models, self.timeout);
        desired.pools[0].outlier_detection = self.outlier_detection;
        self.changes.into_iter().for_each(|change| change(&mut desired.pools[0]));
        writer.apply(desired);
        let connections = Tasks::new(metrics.panics.clone());
        let background = Tasks::new(metrics.panics.clone());
        let proxy = Proxy::new(picker, self.options, connections.clone(), &background);
        let mut listeners = Listeners::new(proxy.clone(), LOCALHOST);
        let errors = listeners.apply(&[port.listener()]);
        assert!(errors.is_empty(), "the port is free: {errors:?}");
        let addr = port.addr;
        Setting {
            addr,
            _port: port,
            proxy,
            listeners,
            connections,
            background,
            writer,
            view,
            metrics,
            journal,
        }
    }
}

fn ejecting_for(ejection: Duration) -> OutlierDetection {
    OutlierDetection {
        base_ejection: ejection,
        max_ejection: ejection,
        ..OutlierDetection::default()
    }
}

pub(crate) fn endpoint(address: SocketAddr, protocol: AppProtocol) -> EndpointSpec {
    EndpointSpec {
        id: EndpointId::new(address.to_string()),
        workload: "vllm-0".into(),
        host: address.ip().to_string().into(),
        port: address.port(),
        protocol,
    }
}

fn desired(
    port: &Port,
    endpoints: Vec<EndpointSpec>,
    models: Vec<ModelSpec>,
    timeout: Option<Duration>,
) -> Desired {
    let key = PoolKey {
        kind: PoolKind::InferencePool,
        namespace: "default".into(),
        name: "pool".into(),
        port: 0,
    };
    let rule = RouteRule {
        name: Some("rule".into()),
        matches: Vec::new(),
        pools: vec![WeightedPool { pool: key.clone(), weight: 1 }],
        timeout,
    };
    let route = RouteSpec {
        name: "default/route".into(),
        port: port.addr.port(),
        hosts: vec![HostPattern::Exact("test.com".into())],
        rules: vec![rule],
    };
    let pool = PoolSpec { endpoints, models, ..PoolSpec::new(key, Policy::RoundRobin) };
    Desired { listeners: vec![port.listener()], pools: vec![pool], routes: vec![route] }
}

/// A proxy at work. At its end nothing may have panicked.
pub(crate) struct Setting {
    pub(crate) addr: SocketAddr,
    _port: Port,
    pub(crate) proxy: Proxy,
    pub(crate) listeners: Listeners,
    /// Owner of the client connections.
    pub(crate) connections: Tasks,
    background: Tasks,
    pub(crate) writer: PoolWriter,
    pub(crate) view: PoolView,
    metrics: Arc<Metrics>,
    journal: Arc<Notes>,
}

impl Setting {
    /// One simulated server behind a proxy with the usual limits.
    pub(crate) async fn with_sim() -> (Running, Self) {
        let server = fast_sim().await;
        let setting = Setup::new(&[server.addr()]).start();
        (server, setting)
    }

    pub(crate) async fn wire(&self) -> Wire {
        Wire::open(self.addr).await
    }

    /// The answer to one request on a connection of its own.
    pub(crate) async fn ask(&self, request: &[u8]) -> Reply {
        let mut wire = self.wire().await;
        wire.send(request).await;
        wire.answer().await
    }

    /// Asks for these ports instead, all with the same routes. It takes effect once a
    /// [`Listeners`] is told.
    pub(crate) fn move_to(&self, ports: &[&Port]) -> Vec<ListenerSpec> {
        let mut desired = Desired::clone(&self.view.desired());
        let route = desired.routes[0].clone();
        let listeners: Vec<ListenerSpec> = ports.iter().map(|port| port.listener()).collect();
        desired.routes = listeners
            .iter()
            .map(|listener| RouteSpec { port: listener.port, ..route.clone() })
            .collect();
        desired.listeners.clone_from(&listeners);
        self.writer.apply(desired);
        listeners
    }

    /// Changes the pool as a new configuration does.
    pub(crate) fn change(&self, change: impl FnOnce(&mut PoolSpec)) {
        let mut desired = Desired::clone(&self.view.desired());
        change(&mut desired.pools[0]);
        self.writer.apply(desired);
    }

    /// Requests charged to endpoints at this moment.
    pub(crate) fn in_flight(&self) -> u32 {
        self.view.members().iter().map(|member| member.endpoint.in_flight()).sum()
    }

    /// What takes this endpoint out.
    pub(crate) fn trouble(&self, addr: SocketAddr) -> Option<Trouble> {
        let (members, id) = (self.view.members(), addr.to_string());
        let member = members.iter().find(|member| member.endpoint.spec.id.as_str() == id);
        member.expect("an endpoint").endpoint.trouble()
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.journal.0.lock().clone()
    }

    /// The record of the request that ended as the `nth`, counted from 1, with every claim
    /// returned.
    pub(crate) async fn record(&self, nth: usize) -> RequestRecord {
        until("the request's record", || self.journal.0.lock().len() >= nth).await;
        until("no request in flight", || self.in_flight() == 0).await;
        self.journal.0.lock()[nth - 1].clone()
    }

    /// The sum of a metric's values whose labels contain all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let page = self.view.metrics_text();
        let lines = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }

    /// A new client is served.
    pub(crate) async fn check_serves(&self) {
        let reply = self.ask(&crate::wire::get("/v1/models")).await;
        assert_eq!(reply.code, 200, "the proxy still serves: {reply:?}");
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.connections.stop();
        self.background.stop();
        if !std::thread::panicking() {
            assert_eq!(self.metrics.panics.get(), 0, "something panicked");
        }
    }
}

pub(crate) async fn fast_sim() -> Running {
    Server::start(SimConfig::fast()).await.expect("a simulated server")
}

/// A server as slow as a real one: a token takes about 30 ms.
pub(crate) async fn slow_sim() -> Running {
    Server::start(SimConfig::default()).await.expect("a simulated server")
}

/// The body of a completion.
pub(crate) fn completion(stream: bool, max_tokens: u32) -> String {
    let stream = if stream { r#","stream":true"# } else { "" };
    format!(r#"{{"model":"{MODEL}","prompt":"Say this","max_tokens":{max_tokens}{stream}}}"#)
}

/// A record of a client that left.
pub(crate) fn check_left(record: &RequestRecord) {
    assert_eq!(record.finish, Some(Finish::ClientGone));
    assert_eq!((record.response_code, record.response_flags), (499, "DC"));
}
