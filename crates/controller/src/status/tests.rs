//! Objects as users see them, in the shape of each version.

use serde_json::{Value, json};

use super::{ObjectStatus, stamp};
use crate::{FoldOptions, Object, fold, read_text};

const GATEWAY: &str = "
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: infra}
spec: {servers: [{hosts: ['*'], port: {number: 80, protocol: HTTP}}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w}
spec: {address: a, labels: {app: a}}
";

const ROUTE: &str = "
---
apiVersion: istio.alibabacloud.com/v1
kind: LLMRoute
metadata: {name: r}
spec: {host: a.com, gateways: [infra/g], rules: [{backendRefs: [{backendRef: {name: p}}]}]}
";

fn folded(text: &str) -> (Vec<Object>, Vec<ObjectStatus>) {
    let manifests = read_text("x.yaml", text);
    assert!(!manifests.has_errors(), "{:?}", manifests.problems);
    let statuses = fold(&manifests.objects, &FoldOptions::default()).statuses;
    (manifests.objects, statuses)
}

/// The first object of the text, as JSON.
fn shown(text: &str) -> Value {
    let (objects, mut statuses) = folded(text);
    stamp(&mut statuses, &[], "2026-01-01T00:00:00Z");
    let status = statuses.iter().find(|status| status.is_of(&objects[0])).expect("a status");
    status.to_json(&objects[0])
}

fn pool(version: &str, spec: &str) -> String {
    format!("apiVersion: {version}\nkind: InferencePool\nmetadata: {{name: p}}\nspec: {spec}\n")
}

/// The pool's status without and with a route.
fn check(version: &str, spec: &str, alone: &Value, routed: &Value) {
    let conditions = |message: &str| {
        let condition = |name: &str, message: &str| {
            json!({
                "type": name, "status": "True", "reason": name, "message": message,
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        json!([condition("Accepted", message), condition("ResolvedRefs", "")])
    };
    let fill = |shape: &Value, message: &str| {
        let text = shape.to_string().replace("\"CONDITIONS\"", &conditions(message).to_string());
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let text = pool(version, spec) + GATEWAY;
    let message = "1 endpoint; no route sends requests to it yet";
    assert_eq!(shown(&text)["status"], fill(alone, message), "{version}");
    let message = "1 endpoint; used by LLMRoute default/r";
    assert_eq!(shown(&(text + ROUTE))["status"], fill(routed, message), "{version}");
}

#[test]
fn each_version_of_a_pool_has_its_own_shape() {
    let old = "{targetPortNumber: 8000, selector: {app: a}}";
    let new = "{targetPorts: [{number: 8000}], selector: {matchLabels: {app: a}}}";
    let flat = json!({ "conditions": "CONDITIONS" });
    check("inference.networking.x-k8s.io/v1alpha1", old, &flat, &flat);

    let nobody = json!({ "kind": "Status", "name": "default" });
    let gateway = json!({
        "group": "networking.istio.io", "kind": "Gateway", "namespace": "infra", "name": "g",
    });
    let entry = |parent: &Value| json!({ "parentRef": parent, "conditions": "CONDITIONS" });
    let alone = json!({ "parent": [entry(&nobody)], "conditions": "CONDITIONS" });
    let routed = json!({ "parent": [entry(&gateway)], "conditions": "CONDITIONS" });
    check("inference.networking.x-k8s.io/v1alpha2", old, &alone, &routed);

    let mut own = entry(&gateway);
    own["controllerName"] = json!("tokenweir.dev/gateway-controller");
    let (alone, routed) = (json!({ "parents": [] }), json!({ "parents": [own] }));
    check("inference.networking.k8s.io/v1", new, &alone, &routed);
}

#[test]
fn a_policys_status_is_below_its_target() {
    for (group, given) in [
        ("inference.networking.k8s.io", ""),
        ("inference.networking.x-k8s.io", "group: inference.networking.x-k8s.io, "),
    ] {
        let text = format!(
            "apiVersion: tokenweir.dev/v1alpha1\nkind: InferencePolicy\nmetadata: {{name: \
             i}}\nspec: {{targetRef: {{{given}name: gone}}}}\n"
        );
        let status = &shown(&text)["status"];
        let ancestors = status["ancestors"].as_array().expect("a list");
        assert_eq!((ancestors.len(), &status["conditions"]), (1, &Value::Null));
        let target = json!({
            "group": group, "kind": "InferencePool", "namespace": "default", "name": "gone",
        });
        assert_eq!(ancestors[0]["ancestorRef"], target);
        assert_eq!(ancestors[0]["controllerName"], "tokenweir.dev/gateway-controller");
        let accepted = &ancestors[0]["conditions"][0];
        assert_eq!((&accepted["type"], &accepted["status"]), (&json!("Accepted"), &json!("False")));
        assert_eq!(accepted["reason"], "TargetNotFound");
    }
}

#[test]
fn an_object_is_shown_as_it_was_given() {
    let text = "apiVersion: networking.istio.io/v1beta1\nkind: Gateway\nmetadata:\n  name: g\n  \
                generation: 7\n  annotations: {a: '1'}\nspec:\n  servers:\n  - hosts: ['*']\n    \
                port: {number: 80, protocol: HTTP, name: web}\n  extra: [1.5, null, true]\nstatus: \
                {old: true}\n";
    let shown = shown(text);
    assert_eq!(shown["apiVersion"], "networking.istio.io/v1beta1");
    assert_eq!(
        shown["metadata"],
        json!({
            "name": "g", "namespace": "default", "generation": 7, "annotations": {"a": "1"},
        })
    );
    assert_eq!(shown["spec"]["extra"], json!([1.5, null, true]));
    assert_eq!(shown["status"]["old"], Value::Null);
    assert_eq!(shown["status"]["conditions"][0]["observedGeneration"], 7);
}

#[test]
fn a_cluster_scoped_object_has_no_namespace() {
    let text = "apiVersion: istio.alibabacloud.com/v1\nkind: ASMMeshConfig\nmetadata: {name: \
                default, namespace: ignored}\nspec: {}\n";
    assert_eq!(folded(text).1[0].namespace, "".into());
}

#[test]
fn a_condition_keeps_its_date_as_long_as_its_status() {
    let dates = |statuses: &[ObjectStatus]| -> Vec<String> {
        let status = statuses.iter().find(|status| &*status.name == "p").expect("the pool");
        let date = |name| {
            let condition = status.condition(name).expect("a condition");
            condition.last_transition.as_deref().unwrap_or("none").to_owned()
        };
        vec![date("Accepted"), date("ResolvedRefs")]
    };
    let spec = "{targetPortNumber: 8000, selector: {app: a}}";
    let alone = pool("inference.networking.x-k8s.io/v1alpha1", spec);
    let mut first = folded(&alone).1;
    assert_eq!(dates(&first), ["none", "none"]);
    stamp(&mut first, &[], "one");
    assert_eq!(dates(&first), ["one", "one"]);
    // Another message is no transition, another status is.
    let mut second = folded(&(alone + GATEWAY)).1;
    stamp(&mut second, &first, "two");
    assert_eq!(dates(&second), ["one", "two"]);
}
