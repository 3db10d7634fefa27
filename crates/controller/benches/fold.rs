//! What a change of one Pod costs: the fold over a large cluster.
//!
//! `cargo bench -p controller`

use std::fmt::Write;

use controller::{FoldOptions, Object, fold, read_text};
use divan::{Bencher, black_box};

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
