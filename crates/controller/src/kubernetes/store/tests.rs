//! What of the objects is folded, and when.

use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::kubernetes::{
    entry::{Labels, Sent, WatchedPod},
    tests::{PODS, POOLS},
};

fn pod(name: &str, app: &str, ready: bool) -> (Path, Entry) {
    let ready = if ready { "True" } else { "False" };
    let pod: WatchedPod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": app, "x": "y" } },
        "spec": { "containers": [] },
        "status": { "podIP": "10.0.0.1", "conditions": [{ "type": "Ready", "status": ready }] },
    }))
    .unwrap();
    (pod.path(), pod.into_entry(PODS, &Labels::new()))
}

fn pool(app: &str) -> (Path, Entry) {
    let pool: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": { "name": "pool", "namespace": "default" },
        "spec": { "targetPorts": [{ "number": 8000 }], "selector": { "matchLabels": { "app": app } } },
    }))
    .unwrap();
    (pool.path(), pool.into_entry(POOLS, &Labels::new()))
}

/// Names of the Pods that are folded.
fn folded(store: &Store) -> Vec<String> {
    let watched = store.watched().unwrap();
    let pods = watched.objects.iter().filter(|object| object.kind == Kind::Pod);
    pods.map(|object| object.name.to_string()).collect()
}

/// Whether there is something to fold.
async fn is_told(store: &Store) -> bool {
    timeout(Duration::from_secs(1), store.changed()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn pods_that_nobody_selects_are_not_folded_and_cause_no_fold() {
    let store = Store::default();
    store.discovered(&[PODS, POOLS]);
    store.replace(PODS, [pod("a", "vllm", true), pod("b", "other", true)].into());
    store.replace(POOLS, [pool("vllm")].into());
    assert!(is_told(&store).await);
    assert_eq!(folded(&store), ["a"]);

    let apply = |(path, entry)| store.apply(PODS, path, entry);
    apply(pod("b", "other", false));
    apply(pod("c", "third", true));
    store.delete(PODS, &pod("c", "third", true).0);
    assert!(!is_told(&store).await);

    apply(pod("a", "vllm", false));
    assert!(is_told(&store).await, "its own change");
    apply(pod("b", "vllm", true));
    assert!(is_told(&store).await, "it is selected now");
    assert_eq!(folded(&store), ["a", "b"]);
    apply(pod("b", "other", true));
    assert!(is_told(&store).await, "it was selected");
    assert_eq!(folded(&store), ["a"]);

    let (path, entry) = pool("other");
    store.apply(POOLS, path.clone(), entry);
    assert!(is_told(&store).await);
    assert_eq!(folded(&store), ["b"], "known from before");
    store.delete(POOLS, &path);
    assert!(is_told(&store).await);
    assert!(folded(&store).is_empty());
}
