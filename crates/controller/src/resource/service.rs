//! Reads Service.

use picker::AppProtocol;

use serde_json::Value;

use super::{Service, ServicePort, TargetPort};
use crate::{
    fields::{Fields, Item},
    status::Address,
};

/// As many as the status of a Gateway may hold.
const ADDRESSES_MAX: usize = 16;

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
    let ports = ports.iter().filter_map(|item| item.fields(port).flatten()).collect();
    Service { selector, ports, addresses: Vec::new() }
}

/// Where clients reach a Service: through its load balancer, at its external addresses, or else
/// inside the cluster.
pub(crate) fn addresses(spec: &Value, status: &Value) -> Vec<Address> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let balanced = list(&status["loadBalancer"]["ingress"]).into_iter().filter_map(|one| {
        let hostname = || text(&one["hostname"]).map(Address::Hostname);
        text(&one["ip"]).map(Address::Ip).or_else(hostname)
    });
    let external = list(&spec["externalIPs"]);
    let external = external.iter().filter_map(text).map(Address::Ip);
    let found: Vec<Address> = balanced.chain(external).take(ADDRESSES_MAX).collect();
    if !found.is_empty() || spec["type"] == "LoadBalancer" {
        return found;
    }
    text(&spec["clusterIP"]).filter(|ip| ip != "None").map(Address::Ip).into_iter().collect()
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
