//! What a change of one Pod costs in a large cluster, from the fold to the picker, and what one scrape.
//!
//! `cargo bench -p controller`

use std::{fmt::Write, sync::Arc};

use controller::{FoldOptions, Object, fold, read_text};
use divan::{Bencher, black_box};
use picker::{Desired, EndpointPicker, Health, Journal, Metrics, RequestRecord, Workload};
use scheduling::Signals;

const PODS: usize = 5_000;
const POOLS: usize = 200;

fn main() {
    divan::main();
}

/// Pods in one namespace, each of one pool, all with some labels in common as a chart gives them.
fn cluster() -> Vec<Object> {
    let mut text = String::new();
    for pool in 0..POOLS {
        write!(
            text,
            "---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: pool-{pool}}}
spec: {{targetPorts: [{{number: 8000}}], selector: {{matchLabels: {{part-of: llm, app: vllm-{pool}}}}}}}
---
apiVersion: istio.alibabacloud.com/v1
kind: LLMRoute
metadata: {{name: route-{pool}}}
spec: {{host: host-{pool}.example.com, gateways: [gateway], rules: [{{backendRefs: [{{backendRef: {{name: pool-{pool}}}}}]}}]}}
"
        )
        .expect("room");
    }
    for pod in 0..PODS {
        let (pool, high, low) = (pod % POOLS, pod / 250, pod % 250);
        write!(
            text,
            "---
apiVersion: v1
kind: Pod
metadata: {{name: pod-{pod}, labels: {{part-of: llm, app: vllm-{pool}, pod-template-hash: h{pool}}}}}
status: {{podIP: 10.0.{high}.{low}, conditions: [{{type: Ready, status: 'True'}}]}}
"
        )
        .expect("room");
    }
    text += "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gateway}
spec: {servers: [{hosts: ['*'], port: {number: 80, protocol: HTTP}}]}
";
    let manifests = read_text("cluster.yaml", &text);
    assert!(!manifests.has_errors(), "{:?}", manifests.problems.first());
    manifests.objects
}

#[divan::bench]
fn five_thousand_pods_in_two_hundred_pools(bencher: Bencher<'_, '_>) {
    let objects = cluster();
    let options = FoldOptions { kubernetes: true, ..FoldOptions::default() };
    let folded = fold(&objects, &options);
    let endpoints: usize = folded.desired.pools.iter().map(|pool| pool.endpoints.len()).sum();
    assert_eq!(endpoints, PODS);
    bencher.bench_local(|| fold(black_box(&objects), &options));
}

#[derive(Debug)]
struct Nowhere;

impl Journal for Nowhere {
    fn write(&self, _: &RequestRecord) {}
}

fn desired() -> Desired {
    let options = FoldOptions { kubernetes: true, ..FoldOptions::default() };
    fold(&cluster(), &options).desired
}

fn picker(desired: Desired) -> EndpointPicker {
    let workload = Workload { name: "tokenweir".to_owned(), namespace: "default".to_owned() };
    let metrics = Arc::new(Metrics::new(workload).expect("metrics"));
    let picker = EndpointPicker::new(metrics, Arc::new(Nowhere), 1);
    picker.writer().apply(desired);
    picker
}

#[divan::bench]
fn what_five_thousand_pods_come_to_is_applied(bencher: Bencher<'_, '_>) {
    let desired = desired();
    let writer = picker(desired.clone()).writer();
    bencher.with_inputs(|| desired.clone()).bench_local_values(|desired| writer.apply(desired));
}

#[divan::bench]
fn one_of_five_thousand_is_scraped(bencher: Bencher<'_, '_>) {
    let picker = picker(desired());
    let (writer, members) = (picker.writer(), picker.view().members());
    let mut next = members.iter().cycle();
    bencher.bench_local(|| {
        let endpoint = &next.next().expect("a cycle").endpoint;
        writer.signals(&endpoint.spec.id, Signals::default(), endpoint.mark());
    });
}

#[divan::bench]
fn one_of_five_thousand_fails_and_returns(bencher: Bencher<'_, '_>) {
    let picker = picker(desired());
    let (writer, members) = (picker.writer(), picker.view().members());
    let mut next = members.iter().cycle();
    bencher.bench_local(|| {
        let id = &next.next().expect("a cycle").endpoint.spec.id;
        writer.health(id, Health::Unready);
        writer.health(id, Health::Ready);
    });
}
