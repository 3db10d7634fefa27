//! Which objects are ours although they cannot be read.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::Gateways;
use crate::{
    FoldOptions, fold,
    kubernetes::entry::{Labels, Read, Sent, Source},
    object::{GATEWAY_API_GROUP, ISTIO_GROUP, Kind},
    read_text,
    status::{ConditionStatus, ObjectStatus, StatusShape},
};

const HTTP_ROUTES: Source =
    Source { kind: Kind::HTTPRoute, group: GATEWAY_API_GROUP, version: "v1" };
const VIRTUAL_SERVICES: Source =
    Source { kind: Kind::VirtualService, group: ISTIO_GROUP, version: "v1" };

/// Gateways `ours` of both groups, and `theirs`.
fn gateways() -> Gateways {
    let objects = read_text(
        "x.yaml",
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ours}
spec: {gatewayClassName: tokenweir, listeners: [{name: a, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: theirs}
spec: {gatewayClassName: other, listeners: [{name: a, port: 80, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: ours}
spec: {servers: [{hosts: ['*'], port: {number: 80, protocol: HTTP}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: theirs}
spec: {selector: {istio: other}, servers: [{hosts: ['*'], port: {number: 80, protocol: HTTP}}]}
",
    );
    assert!(!objects.has_errors(), "{:?}", objects.problems);
    Gateways::served(&fold(&objects.objects, &FoldOptions::default()).statuses)
}

/// What is said of an object with this specification, which cannot be read.
fn said(source: Source, spec: &Value) -> ObjectStatus {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": format!("{}/{}", source.group, source.version),
        "kind": source.kind.name(),
        "metadata": { "name": "r", "namespace": "default", "generation": 7 },
        "spec": spec,
    }))
    .unwrap();
    match object.into_entry(source, &Labels::new()).read {
        Read::Unreadable(object) => object.status(&gateways()),
        read => panic!("{read:?}"),
    }
}

#[test]
fn an_http_route_that_cannot_be_read_says_so_for_each_gateway_of_ours() {
    let lookahead = json!([{ "matches": [{ "path": { "type": "RegularExpression", "value": "/(?=x)" } }],
        "backendRefs": [{ "name": "s", "port": 80 }] }]);
    let parents = json!([{ "name": "theirs" }, { "name": "ours", "sectionName": "a" }]);
    let status = said(HTTP_ROUTES, &json!({ "parentRefs": parents, "rules": lookahead }));
    assert!(!status.foreign);
    let accepted = status.condition("Accepted").unwrap();
    assert_eq!((accepted.status, accepted.reason), (ConditionStatus::False, "UnsupportedValue"));
    assert!(accepted.message.contains("spec.rules[0].matches[0].path"), "{}", accepted.message);
    let resolved = status.condition("ResolvedRefs").unwrap();
    assert_eq!(resolved.status, ConditionStatus::Unknown);
    assert_eq!((accepted.observed_generation, resolved.observed_generation), (7, 7));
    let StatusShape::RouteParents(parents) = &status.shape else { panic!("{status:?}") };
    let named: Vec<&Value> = parents.iter().map(|parent| &parent.reference).collect();
    assert_eq!(named, [&json!({ "name": "ours", "sectionName": "a" })]);

    for parents in [json!([{ "name": "theirs" }]), json!([])] {
        let status = said(HTTP_ROUTES, &json!({ "parentRefs": parents, "rules": lookahead }));
        assert!(status.foreign);
        assert_eq!(status.shape, StatusShape::RouteParents(Vec::new()));
    }
}

#[test]
fn a_virtual_service_that_cannot_be_read_is_ours_with_a_gateway_of_ours() {
    let http = json!([{ "match": [{ "uri": { "regex": "/(?=x)" } }],
        "route": [{ "destination": { "host": "s" } }] }]);
    let of = |gateways: Value| {
        let spec = json!({ "hosts": ["*"], "gateways": gateways, "http": http });
        said(VIRTUAL_SERVICES, &spec)
    };
    let status = of(json!(["mesh", "ours"]));
    assert!(!status.foreign);
    assert_eq!(status.condition("Accepted").unwrap().reason, "Invalid");
    for gateways in [json!(["theirs"]), json!(["mesh"]), json!(["nowhere"]), json!(null)] {
        assert!(of(gateways.clone()).foreign, "{gateways}");
    }
}
