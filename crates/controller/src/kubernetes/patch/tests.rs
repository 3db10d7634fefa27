//! What changes in a status, for every shape and whoever else writes there.

use serde_json::{Value, json};

use super::{Domain, Written, references};
use crate::{
    FoldOptions, fold,
    kubernetes::claims::Gateways,
    read_text,
    status::{ObjectStatus, StatusShape},
};

const NOW: &str = "2026-02-02T00:00:00Z";
const BEFORE: &str = "2026-01-01T00:00:00Z";

const GATEWAY: &str = "
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: infra}
spec: {servers: [{hosts: ['*'], port: {number: 80, protocol: HTTP}}]}
---
apiVersion: istio.alibabacloud.com/v1
kind: LLMRoute
metadata: {name: r}
spec: {host: a.com, gateways: [infra/g], rules: [{backendRefs: [{backendRef: {name: p}}]}]}
";

/// The change where all namespaces are followed and no Gateway is served.
fn patch(standing: &Value, wanted: &ObjectStatus, written: &Written, now: &str) -> Option<Value> {
    super::patch(standing, wanted, written, &Domain::default(), now)
}

/// What the fold says of a pool in this version, with a route to it or without.
fn pool(version: &str, routed: bool) -> ObjectStatus {
    let spec = match version {
        "inference.networking.k8s.io/v1" => {
            "{targetPorts: [{number: 8000}], selector: {matchLabels: {app: a}}}"
        }
        _ => "{targetPortNumber: 8000, selector: {app: a}}",
    };
    let pool = format!(
        "apiVersion: {version}\nkind: InferencePool\nmetadata: {{name: p, generation: 3}}\nspec: {spec}"
    );
    status(&(pool + if routed { GATEWAY } else { "" }))
}

/// The status of the first object.
fn status(text: &str) -> ObjectStatus {
    let manifests = read_text("x.yaml", text);
    assert!(!manifests.has_errors(), "{:?}", manifests.problems);
    let options = FoldOptions { kubernetes: true, ..FoldOptions::default() };
    let statuses = fold(&manifests.objects, &options).statuses;
    statuses.into_iter().find(|status| status.is_of(&manifests.objects[0])).expect("a status")
}

const V1ALPHA1: &str = "inference.networking.x-k8s.io/v1alpha1";
const V1ALPHA2: &str = "inference.networking.x-k8s.io/v1alpha2";
const V1: &str = "inference.networking.k8s.io/v1";

fn theirs() -> Value {
    json!({
        "parentRef": { "name": "other" },
        "controllerName": "example.com/other",
        "conditions": [{ "type": "Accepted", "status": "True", "reason": "Accepted",
            "message": "", "lastTransitionTime": BEFORE }],
    })
}

/// The change, applied; and nothing more to say after that.
fn settle(standing: &Value, wanted: &ObjectStatus, written: &Written) -> Value {
    let mut after = standing.clone();
    let change = patch(standing, wanted, written, NOW).expect("a change");
    for (key, value) in change.as_object().unwrap() {
        after[key] = value.clone();
    }
    let written = &references(wanted);
    assert_eq!(patch(&after, wanted, written, "2026-03-03T00:00:00Z"), None, "{after:#}");
    after
}

#[test]
fn what_is_said_already_is_not_said_again_in_any_version() {
    for version in [V1ALPHA1, V1ALPHA2, V1] {
        for standing in [Value::Null, json!({})] {
            settle(&standing, &pool(version, true), &Written::new());
        }
    }
    assert_eq!(patch(&Value::Null, &pool(V1, false), &Written::new(), NOW), None);
}

#[test]
fn what_the_definition_put_there_gives_way() {
    let pending = json!([{ "type": "Ready", "status": "Unknown", "reason": "Pending",
        "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z" }]);
    let flat = settle(&json!({ "conditions": pending }), &pool(V1ALPHA1, false), &Written::new());
    let types = |list: &Value| -> Vec<String> {
        let types = list.as_array().unwrap().iter();
        types.map(|condition| condition["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&flat["conditions"]), ["Accepted", "ResolvedRefs"]);
    let default = json!({ "parent": [{ "parentRef": { "kind": "Status", "name": "default" },
        "conditions": pending }] });
    let alone = settle(&default, &pool(V1ALPHA2, false), &Written::new());
    assert_eq!(alone["parent"][0]["parentRef"], json!({ "kind": "Status", "name": "default" }));
    assert_eq!(types(&alone["parent"][0]["conditions"]), ["Accepted", "ResolvedRefs"]);
    let routed = settle(&alone, &pool(V1ALPHA2, true), &Written::new());
    assert_eq!(routed["parent"].as_array().unwrap().len(), 1);
    assert_eq!(routed["parent"][0]["parentRef"]["name"], "g");
}

#[test]
fn entries_of_others_stay_and_ours_go_when_nothing_refers_to_them() {
    let standing = json!({ "parents": [theirs()] });
    let both = settle(&standing, &pool(V1, true), &Written::new());
    assert_eq!(both["parents"][0], theirs());
    assert_eq!(both["parents"][1]["controllerName"], "tokenweir.dev/gateway-controller");
    let left = settle(&both, &pool(V1, false), &Written::new());
    assert_eq!(left["parents"], json!([theirs()]));
}

/// Definitions of before v1.1 know no controllerName and drop it.
#[test]
fn entries_without_a_controller_are_ours_when_we_wrote_them() {
    let mut standing = settle(&json!({}), &pool(V1, true), &Written::new());
    standing["parents"][0].as_object_mut().unwrap().remove("controllerName");
    assert_eq!(patch(&standing, &pool(V1, true), &Written::new(), NOW), None);
    let change = patch(&standing, &pool(V1, false), &Written::new(), NOW);
    assert_eq!(change, None, "it may be anybody's");
    let written = references(&pool(V1, true));
    let change = patch(&standing, &pool(V1, false), &written, NOW);
    assert_eq!(change, Some(json!({ "parents": [] })));
}

#[test]
fn entries_without_a_controller_are_ours_when_they_name_a_gateway_of_ours() {
    for (version, key) in [(V1, "parents"), (V1ALPHA2, "parent")] {
        let mut standing = settle(&json!({}), &pool(version, true), &Written::new());
        standing[key][0].as_object_mut().unwrap().remove("controllerName");
        let mut theirs = standing[key][0].clone();
        theirs["parentRef"]["name"] = json!("theirs");
        standing[key].as_array_mut().unwrap().push(theirs.clone());
        let all = read_text("x.yaml", GATEWAY).objects;
        let gateways = Gateways::served(&fold(&all, &FoldOptions::default()).statuses);
        let domain = Domain { gateways, namespace: None };
        let wanted = pool(version, false);
        let change = super::patch(&standing, &wanted, &Written::new(), &domain, NOW).unwrap();
        let left: Vec<&Value> = change[key].as_array().unwrap().iter().collect();
        assert_eq!(left[0], &theirs, "{version}");
        assert!(left[1..].iter().all(|entry| entry["parentRef"]["kind"] == "Status"), "{left:?}");
    }
}

/// Another installation that follows more may serve that Gateway.
#[test]
fn entries_for_gateways_that_cannot_be_seen_from_here_stay() {
    let standing = settle(&json!({}), &pool(V1, true), &Written::new());
    let mut domain = Domain { namespace: Some("default".to_owned()), ..Domain::default() };
    let wanted = pool(V1, false);
    assert_eq!(super::patch(&standing, &wanted, &Written::new(), &domain, NOW), None);
    domain.namespace = Some("infra".to_owned());
    let change = super::patch(&standing, &wanted, &Written::new(), &domain, NOW);
    assert_eq!(change, Some(json!({ "parents": [] })));
}

#[test]
fn an_http_route_loses_our_entries_with_the_last_gateway_of_ours() {
    let theirs = theirs();
    let ours = json!({
        "parentRef": { "name": "gone" },
        "controllerName": "tokenweir.dev/gateway-controller",
        "conditions": [],
    });
    let wanted = status(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{name: gone}, {name: other}], rules: [{backendRefs: [{name: s, port: 80}]}]}
",
    );
    assert!(wanted.foreign);
    let left = settle(&json!({ "parents": [ours, theirs] }), &wanted, &Written::new());
    assert_eq!(left, json!({ "parents": [theirs] }));
    for standing in [Value::Null, json!({ "parents": [theirs] })] {
        assert_eq!(patch(&standing, &wanted, &Written::new(), NOW), None, "{standing}");
    }
}

#[test]
fn there_are_as_many_entries_as_the_definition_of_their_list_takes() {
    let mut wanted = pool(V1, true);
    if let StatusShape::Parents(parents) = &mut wanted.shape {
        let numbered = |number: u32| {
            let name = format!("g{number}").into();
            crate::status::ParentRef { name, ..parents[0].clone() }
        };
        *parents = (0..40).map(numbered).collect();
    }
    let theirs = vec![theirs(); 3];
    let standing = json!({ "parents": theirs });
    let change = patch(&standing, &wanted, &Written::new(), NOW).unwrap();
    assert_eq!(change["parents"].as_array().unwrap().len(), 32);
    assert_eq!(change["parents"].as_array().unwrap()[..3], theirs);
    let policy = status(
        "
apiVersion: tokenweir.dev/v1alpha1
kind: InferencePolicy
metadata: {name: o}
spec: {targetRef: {name: p}, loadBalancing: {policy: random}}
",
    );
    let full = |count: usize| {
        let theirs = json!({ "ancestorRef": { "name": "x" }, "controllerName": "example.com/x" });
        json!({ "ancestors": vec![theirs; count] })
    };
    let change = patch(&full(15), &policy, &Written::new(), NOW).unwrap();
    assert_eq!(change["ancestors"].as_array().unwrap().len(), 16);
    assert_eq!(patch(&full(16), &policy, &Written::new(), NOW), None);
}

/// Of v1alpha2 the earlier definitions know no group of a reference and drop it.
#[test]
fn references_without_a_group_are_the_same_in_v1alpha2() {
    let mut standing = settle(&json!({}), &pool(V1ALPHA2, true), &Written::new());
    let entry = standing["parent"][0].as_object_mut().unwrap();
    entry.remove("controllerName");
    entry["parentRef"].as_object_mut().unwrap().remove("group");
    assert_eq!(patch(&standing, &pool(V1ALPHA2, true), &Written::new(), NOW), None);
}

#[test]
fn a_condition_keeps_its_date_as_long_as_its_status_is_the_same() {
    let mut standing = settle(&json!({}), &pool(V1ALPHA1, false), &Written::new());
    for condition in standing["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!(BEFORE);
        condition["observedGeneration"] = json!(2);
    }
    standing["conditions"][1]["status"] = json!("False");
    let after = settle(&standing, &pool(V1ALPHA1, false), &Written::new());
    assert_eq!(after["conditions"][0]["lastTransitionTime"], BEFORE);
    assert_eq!(after["conditions"][0]["observedGeneration"], 3);
    assert_eq!(after["conditions"][1]["lastTransitionTime"], NOW);
}

#[test]
fn conditions_of_other_types_and_fields_of_other_names_are_left_alone() {
    let gateway = GATEWAY.trim_start_matches("\n---\n");
    let reconciled = json!({ "type": "Reconciled", "status": "True" });
    let standing = json!({
        "conditions": [reconciled, { "type": "Accepted", "status": "True", "reason": "Accepted",
            "message": "listens on port 80", "observedGeneration": "1",
            "lastTransitionTime": BEFORE }],
        "validationMessages": [],
    });
    let after = settle(&standing, &status(gateway), &Written::new());
    assert_eq!(after["conditions"][0], reconciled);
    assert_eq!(after["conditions"][1], standing["conditions"][1], "a generation may be a string");
    assert_eq!(after["conditions"][2]["type"], "ResolvedRefs");
}

#[test]
fn a_gateway_has_its_listeners_and_a_route_the_parents_it_named() {
    let text = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec: {gatewayClassName: tokenweir, listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 443, protocol: HTTPS}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{name: g, sectionName: a}, {name: g, sectionName: c}, {name: other}], rules: [{backendRefs: [{name: s, port: 80}]}]}
";
    let pending = json!({ "type": "Programmed", "status": "Unknown", "reason": "Pending",
        "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z" });
    let gateway = settle(&json!({ "conditions": [pending] }), &status(text), &Written::new());
    assert_eq!(gateway["conditions"][0]["type"], "Programmed");
    assert_eq!(gateway["conditions"][0]["status"], "True");
    assert_eq!(gateway["listeners"][0]["attachedRoutes"], 1);
    assert_eq!(gateway["listeners"][1]["conditions"][0]["reason"], "UnsupportedProtocol");
    let (first, second) = text.split_once("---\n").unwrap();
    let route = settle(&json!({}), &status(&format!("{second}---{first}")), &Written::new());
    let parents = route["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 2, "another controller's Gateway is not for us to speak of");
    assert_eq!(parents[0]["parentRef"], json!({ "name": "g", "sectionName": "a" }));
    assert_eq!(parents[0]["conditions"][0]["status"], "True");
    assert_eq!(parents[1]["conditions"][0]["reason"], "NoMatchingParent");
    assert_eq!(parents[1]["conditions"][1]["reason"], "BackendNotFound");
}

#[test]
fn flat_conditions_that_a_definition_drops_are_not_sent_again() {
    let wanted = pool(V1ALPHA2, true);
    let mut after = settle(&Value::Null, &wanted, &Written::new());
    assert_eq!(after["conditions"], after["parent"][0]["conditions"]);
    let written = references(&wanted);
    after["conditions"][0]["observedGeneration"] = json!(1);
    let change = patch(&after, &wanted, &written, NOW).expect("kept, and of another generation");
    assert_eq!(change.as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions"]);
    after.as_object_mut().unwrap().remove("conditions");
    assert_eq!(patch(&after, &wanted, &written, NOW), None);
}
