//! A picker, a datalayer at work on it, and how to wait for things.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use datalayer::{Datalayer, Options};
use picker::{
    AppProtocol, Desired, EndpointPicker, EndpointSpec, Health, Journal, Member, Metrics, PoolKey,
    PoolKind, PoolSpec, PoolView, PoolWriter, RequestRecord, Tasks, Workload,
};
use scheduling::{EndpointId, Policy};
use tokio::time::{Instant, sleep};

/// Until something must have happened.
const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct NoJournal;

impl Journal for NoJournal {
    fn write(&self, _: &RequestRecord) {}
}

pub(crate) fn metrics() -> Arc<Metrics> {
    let workload = Workload { name: "tokenweir".into(), namespace: "default".into() };
    Arc::new(Metrics::new(workload).expect("metrics"))
}

pub(crate) fn tasks() -> Tasks {
    Tasks::new(metrics().panics.clone())
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

pub(crate) struct Setting {
    pub(crate) picker: EndpointPicker,
    pub(crate) writer: PoolWriter,
    pub(crate) view: PoolView,
    pub(crate) tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Setting {
    /// A datalayer at work on these pools and their endpoints.
    pub(crate) fn start(interval: Duration, pools: &[(&str, &[EndpointSpec])]) -> Self {
        let metrics = metrics();
        let picker = EndpointPicker::new(Arc::clone(&metrics), Arc::new(NoJournal), 1);
        let (writer, view) = (picker.writer(), picker.view());
        let tasks = Tasks::new(metrics.panics.clone());
        let setting = Self { picker, writer, view, tasks, metrics };
        setting.apply(pools);
        let datalayer = Datalayer::new(
            setting.writer.clone(),
            setting.view.clone(),
            Arc::clone(&setting.metrics),
            Options { interval },
        );
        setting.tasks.spawn("datalayer", datalayer.run(setting.tasks.clone()));
        setting
    }

    pub(crate) fn apply(&self, pools: &[(&str, &[EndpointSpec])]) {
        let pools = pools.iter().map(|(name, endpoints)| PoolSpec {
            endpoints: endpoints.to_vec(),
            ..PoolSpec::new(pool_key(name), Policy::RoundRobin)
        });
        let pools = pools.collect();
        self.writer.apply(Desired { pools, ..Desired::default() });
    }

    pub(crate) fn member(&self) -> Member {
        self.view.members().pop().expect("an endpoint")
    }

    pub(crate) fn waiting(&self) -> Option<u32> {
        self.member().signals.waiting.map(|reading| reading.value)
    }

    pub(crate) fn health(&self) -> Health {
        self.member().health
    }

    /// Scrapes counted, as the metrics page tells.
    pub(crate) fn scrapes(&self, pool: &str, outcome: &str) -> u64 {
        let line = format!("tokenweir_scrapes_total{{outcome=\"{outcome}\",pool=\"{pool}\"}} ");
        let page = self.view.metrics_text();
        let count = page.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or("0");
        count.parse().expect("a count")
    }

    /// Stops everything and sees that nothing stays and nothing panicked.
    pub(crate) async fn end(self) {
        self.tasks.stop();
        let tasks = self.tasks.clone();
        until("every task has ended", || tasks.running() == 0).await;
        self.tasks.ended().await;
        assert_eq!(self.metrics.panics.get(), 0, "no task panicked");
    }
}

pub(crate) fn pool_key(name: &str) -> PoolKey {
    let kind = PoolKind::InferencePool;
    PoolKey { kind, namespace: "default".into(), name: name.into(), port: 0 }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "in {DEADLINE:?} not: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// A request's record, for one that is only picked.
pub(crate) fn record() -> RequestRecord {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    RequestRecord {
        method: "POST".into(),
        path: "/v1/completions".into(),
        authority: "test".into(),
        request_id: "r1".into(),
        response_code: 200,
        ..RequestRecord::new(address, address)
    }
}
