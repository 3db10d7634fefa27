//! Reads Gateway, DestinationRule and WorkloadEntry.

use std::{net::IpAddr, sync::Arc};

use scheduling::Policy;

use super::{BackendTarget, DestinationRule, Gateway, Server, ServerHost, WorkloadEntry, strings};
use crate::{
    fields::{Fields, Item},
    spelling,
};

pub(super) fn gateway(spec: &mut Fields<'_>, namespace: &Arc<str>) -> Option<Gateway> {
    let selector = spec.get("selector").map(|item| item.labels()).unwrap_or_default();
    let servers = spec.need("servers", "a list of servers").map(|item| item.list());
    let servers = servers?;
    let servers = servers
        .iter()
        .filter_map(|item| item.fields(|fields| server(fields, namespace)).flatten())
        .collect();
    Some(Gateway { selector, servers })
}

/// Nothing comes back for a server we cannot serve.
fn server(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Option<Server> {
    let port = fields.need("port", "a port").and_then(|item| item.fields(server_port)?);
    let hosts = fields.need("hosts", "a list of hosts").map(|item| {
        let hosts = item.list();
        if hosts.is_empty() {
            item.error("expected at least one host, found none", "write \"*\" for any");
        }
        hosts
    });
    let hosts = hosts.unwrap_or_default();
    let hosts = hosts.iter().filter_map(|item| server_host(item, namespace)).collect();
    fields.unserved(&["tls"], "the port is served without TLS or not at all");
    fields.unserved(&["bind"], "the gateway's own bind address is used");
    fields.skip(&["name", "defaultEndpoint"]);
    Some(Server { port: port?, hosts })
}

fn server_port(fields: &mut Fields<'_>) -> Option<u16> {
    fields.skip(&["name", "targetPort"]);
    let number = fields.need("number", "a port number 1-65535").and_then(|item| item.port());
    let protocol = fields.need("protocol", "a protocol such as HTTP")?;
    let name = protocol.word()?;
    match name.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => number,
        "HTTPS" | "TLS" | "TCP" | "MONGO" | "MYSQL" | "REDIS" | "UDP" => {
            protocol.warn(format_args!("{name} is not served yet"), "use HTTP");
            None
        }
        _ => {
            let known = ["HTTP", "HTTP2", "GRPC"];
            let hint = spelling::closest(&name, known, 2)
                .map_or_else(String::new, |meant| format!("did you mean {meant}?"));
            protocol.expected("HTTP, HTTP2 or GRPC", &hint);
            None
        }
    }
}

/// `host` or `namespace/host`.
fn server_host(item: &Item<'_>, own: &Arc<str>) -> Option<ServerHost> {
    let text = item.word()?;
    let (namespace, host) = match text.split_once('/') {
        Some(("*", host)) => (None, host),
        Some((".", host)) => (Some(Arc::clone(own)), host),
        Some((namespace, host)) if !namespace.contains(':') => (Some(Arc::from(namespace)), host),
        _ => (None, text.as_str()),
    };
    Some(ServerHost { namespace, host: strings::host(item, host)? })
}

pub(super) fn destination_rule(
    spec: &mut Fields<'_>,
    namespace: &Arc<str>,
) -> Option<DestinationRule> {
    let host = spec.need("host", "a Service's name").and_then(|item| item.word());
    let policy = spec.get("trafficPolicy").and_then(|item| {
        item.fields(|fields| {
            fields.unserved(
                &["connectionPool", "outlierDetection", "tls", "portLevelSettings", "tunnel"],
                "",
            );
            fields.unserved(&["proxyProtocol", "retryBudget"], "");
            fields.get("loadBalancer").and_then(|item| item.fields(load_balancer)?)
        })?
    });
    spec.unserved(&["subsets", "workloadSelector"], "");
    spec.skip(&["exportTo"]);
    let host: BackendTarget = strings::destination(&host?, None, namespace);
    Some(DestinationRule { host, policy })
}

fn load_balancer(fields: &mut Fields<'_>) -> Option<Policy> {
    fields.unserved(&["consistentHash", "localityLbSetting", "warmup", "warmupDurationSecs"], "");
    let simple = fields.get("simple")?;
    let names =
        ["ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "UNSPECIFIED"];
    match simple.one_of(&names)? {
        "ROUND_ROBIN" => Some(Policy::RoundRobin),
        "LEAST_REQUEST" | "LEAST_CONN" => Some(Policy::LeastRequest),
        "RANDOM" => Some(Policy::Random),
        "PASSTHROUGH" => {
            simple.warn("PASSTHROUGH is not served", "ROUND_ROBIN is used");
            None
        }
        _ => None,
    }
}

pub(super) fn workload_entry(spec: &mut Fields<'_>) -> Option<WorkloadEntry> {
    let address = spec.need("address", "an IP address or a DNS name");
    let address = address.and_then(|item| workload_address(&item));
    let labels = spec.get("labels").map(|item| item.labels()).unwrap_or_default();
    let ports = spec.get("ports").map(|item| item.entries()).unwrap_or_default();
    let ports = ports
        .into_iter()
        .filter_map(|(name, item)| Some((name.to_owned(), item.port()?)))
        .collect();
    spec.unserved(&["weight"], "endpoints are weighed by their load");
    spec.skip(&["serviceAccount", "network", "locality"]);
    Some(WorkloadEntry { address: address?, labels, ports })
}

fn workload_address(item: &Item<'_>) -> Option<String> {
    let text = item.word()?;
    if text.parse::<IpAddr>().is_ok() || strings::is_dns_name(&text) {
        return Some(text);
    }
    let hint = if text.contains("://") {
        "write the host alone, and the port below ports: as http: 8000"
    } else if text.starts_with('[') {
        "write an IPv6 address without brackets"
    } else if text.contains(':') {
        "write the port below ports: as http: 8000"
    } else {
        "write e.g. 10.0.0.1 or gpu-1.example.com"
    };
    item.expected("an IP address or a DNS name", hint);
    None
}
