//! Reads VirtualService.

use std::sync::Arc;

use picker::RouteMatch;

use super::{Backend, BackendTarget, Match, Route, Rule, gateway_refs, strings};
use crate::fields::{Fields, Item};

pub(super) fn read(spec: &mut Fields<'_>, namespace: &Arc<str>) -> Route {
    let hosts = spec.need("hosts", "a list of hosts").map(|item| {
        let hosts = item.list();
        if hosts.is_empty() {
            item.error("expected at least one host, found none", "write \"*\" for any");
        }
        hosts
    });
    let hosts = hosts.unwrap_or_default();
    let hosts = hosts.iter().filter_map(|item| strings::host(item, &item.word()?)).collect();
    let gateways = spec.get("gateways").map(|item| gateway_refs(&item, namespace));
    let rules = spec.get("http").map(|item| item.list()).unwrap_or_default();
    let rules =
        rules.iter().filter_map(|item| item.fields(|fields| rule(fields, namespace))).collect();
    spec.unserved(&["tcp", "tls"], "only http is served");
    spec.skip(&["exportTo"]);
    Route { hosts, gateways: gateways.unwrap_or_default(), rules }
}

fn rule(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Rule {
    let name = fields.get("name").and_then(|item| item.word());
    let matches = fields.get("match").map(|item| item.list()).unwrap_or_default();
    let matches = matches
        .iter()
        .filter_map(|item| item.fields(|fields| request_match(fields, namespace)))
        .collect();
    fields.unserved(&["redirect", "directResponse", "delegate"], "requests go to route");
    fields.unserved(
        &["rewrite", "retries", "fault", "mirror", "mirrors", "mirrorPercent", "mirrorPercentage"],
        "",
    );
    fields.unserved(&["corsPolicy", "headers"], "");
    let routes = fields.need("route", "a list of destinations").map(|item| {
        let routes = item.list();
        if routes.is_empty() {
            item.error("expected at least one destination, found none", "");
        }
        routes
    });
    let routes = routes.unwrap_or_default();
    // One destination takes everything; of several, one without a weight takes nothing.
    let unset = u32::from(routes.len() == 1);
    let backends: Vec<Backend> = routes
        .iter()
        .filter_map(|item| item.fields(|fields| backend(fields, namespace, unset))?)
        .collect();
    if let Some(item) = routes.first()
        && backends.len() == routes.len()
        && backends.iter().all(|backend| backend.weight == 0)
    {
        item.error("the weights of a route add up to 0", "write weights, e.g. 50 and 50");
    }
    let timeout = fields.get("timeout").and_then(|item| item.duration());
    Rule { name, matches, backends, timeout: timeout.filter(|timeout| !timeout.is_zero()) }
}

fn request_match(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Match {
    fields.skip(&["name", "statPrefix"]);
    let path = fields.get("uri").and_then(|item| strings::string_match(&item));
    let headers = fields.get("headers").map(|item| strings::headers(&item)).unwrap_or_default();
    let gateways = fields.get("gateways").map(|item| gateway_refs(&item, namespace));
    for field in [
        "scheme",
        "method",
        "authority",
        "port",
        "queryParams",
        "ignoreUriCase",
        "withoutHeaders",
        "sourceLabels",
        "sourceNamespace",
    ] {
        if let Some(item) = fields.get(field) {
            item.warn(
                "not evaluated: the match holds whatever it is",
                "match uri or headers instead",
            );
        }
    }
    let condition = RouteMatch { path, headers };
    Match { gateways: gateways.unwrap_or_default(), condition }
}

fn backend(fields: &mut Fields<'_>, namespace: &Arc<str>, unset: u32) -> Option<Backend> {
    let weight = fields.get("weight").and_then(|item| item.weight());
    let weight = weight.map_or(unset, |weight| weight.max(unset));
    fields.unserved(&["headers"], "");
    let target = fields.need("destination", "a destination").and_then(|item| {
        item.fields(|fields| {
            let host = fields.need("host", "a Service's name").and_then(|item| item.word());
            let port = fields.get("port").and_then(|item| port(&item));
            fields.unserved(&["subset"], "requests go to all endpoints of the Service");
            Some(strings::destination(&host?, port, namespace))
        })?
    });
    let target: BackendTarget = target?;
    Some(Backend { target, weight })
}

fn port(item: &Item<'_>) -> Option<u16> {
    item.fields(|fields| fields.need("number", "a port number 1-65535")?.port())?
}
