//! Reads Service.

use picker::AppProtocol;

use super::{Service, ServicePort, TargetPort};
use crate::fields::{Fields, Item};

pub(super) fn read(spec: &mut Fields<'_>) -> Service {
    let selector = spec.get("selector").map(|item| item.labels()).unwrap_or_default();
    let ports = spec.get("ports").map(|item| item.list()).unwrap_or_default();
    // What else a Service says is for Kubernetes to do.
    spec.skip(&[
        "type",
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "internalTrafficPolicy",
        "externalTrafficPolicy",
        "publishNotReadyAddresses",
        "healthCheckNodePort",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "allocateLoadBalancerNodePorts",
        "externalIPs",
        "trafficDistribution",
    ]);
    spec.unserved(&["sessionAffinity", "sessionAffinityConfig", "externalName"], "");
    Service {
        selector,
        ports: ports.iter().filter_map(|item| item.fields(port).flatten()).collect(),
    }
}

fn port(fields: &mut Fields<'_>) -> Option<ServicePort> {
    let name = fields.get("name").and_then(|item| item.word());
    let port = fields.need("port", "a port number 1-65535").and_then(|item| item.port());
    let target = fields.get("targetPort").and_then(|item| target_port(&item));
    let protocol = fields.get("appProtocol").and_then(|item| item.text());
    fields.skip(&["protocol", "nodePort"]);
    let port = port?;
    let protocol = match protocol.as_deref() {
        Some("kubernetes.io/h2c" | "http2" | "grpc") => AppProtocol::H2c,
        _ => AppProtocol::Http1,
    };
    Some(ServicePort { name, port, target: target.unwrap_or(TargetPort::Number(port)), protocol })
}

fn target_port(item: &Item<'_>) -> Option<TargetPort> {
    match item.as_text() {
        Some("") => None,
        Some(name) => Some(TargetPort::Name(name.to_owned())),
        None => item.port().map(TargetPort::Number),
    }
}
