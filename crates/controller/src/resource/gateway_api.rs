//! Reads the Gateway API's GatewayClass, Gateway, HTTPRoute and ReferenceGrant.

use std::{sync::Arc, time::Duration};

use picker::{HostPattern, StringMatch};

use super::{
    AllowedFrom, ApiGateway, ApiListener, BackendTarget, Granted, HttpBackend, HttpMatch,
    HttpParent, HttpPath, HttpRoute, HttpRule, HttpTarget, ReferenceGrant, strings,
};
use crate::{
    fields::{Fields, Item},
    object::{GATEWAY_API_GROUP, POOL_GROUP, POOL_GROUP_X, Path},
};

/// The controller's name.
pub(super) fn class(spec: &mut Fields<'_>) -> Option<String> {
    spec.skip(&["description", "parametersRef"]);
    spec.need("controllerName", "the name of a controller")?.word()
}

pub(super) fn gateway(spec: &mut Fields<'_>) -> Option<ApiGateway> {
    let class = spec.need("gatewayClassName", "the name of a GatewayClass");
    let class = class.and_then(|item| item.word());
    let listeners = spec.need("listeners", "a list of listeners").map(|item| item.list());
    let listeners = listeners.unwrap_or_default();
    let listeners = listeners.iter().filter_map(|item| item.fields(listener)?).collect();
    spec.unserved(&["addresses", "infrastructure"], "the gateway's own bind address is used");
    spec.unserved(&["allowedListeners", "tls", "defaultScope"], "");
    Some(ApiGateway { class: class?, listeners })
}

fn listener(fields: &mut Fields<'_>) -> Option<ApiListener> {
    let name = fields.need("name", "the listener's name").and_then(|item| item.word());
    let port = fields.need("port", "a port number 1-65535").and_then(|item| item.port());
    let protocol = fields.need("protocol", "a protocol such as HTTP").and_then(|item| item.word());
    let host = match fields.get("hostname").filter(|item| item.as_text() != Some("")) {
        Some(item) => strings::host(&item, &item.word()?)?,
        None => HostPattern::Any,
    };
    fields.skip(&["tls"]);
    let (mut from, mut takes_http) = (AllowedFrom::default(), true);
    if let Some(item) = fields.get("allowedRoutes") {
        item.fields(|fields| {
            (from, takes_http) = (allowed_from(fields), takes_http_routes(fields));
        });
    }
    let protocol = protocol?;
    let unserved = (protocol != "HTTP").then_some(protocol);
    Some(ApiListener { name: name?, port: port?, host, unserved, from, takes_http })
}

fn allowed_from(fields: &mut Fields<'_>) -> AllowedFrom {
    let from = fields.get("namespaces").and_then(|item| {
        item.fields(|fields| {
            let from = fields.get("from")?;
            let known = from.one_of(&["Same", "All", "Selector", "None"])?;
            fields.skip(&["selector"]);
            if known == "Selector" {
                from.warn(
                    "labels of namespaces are not looked at yet: routes of the Gateway's own \
                     namespace alone are taken",
                    "use All or Same",
                );
            }
            Some(known)
        })?
    });
    match from {
        Some("All") => AllowedFrom::All,
        Some("Selector") => AllowedFrom::Selector,
        Some("None") => AllowedFrom::None,
        _ => AllowedFrom::Same,
    }
}

fn takes_http_routes(fields: &mut Fields<'_>) -> bool {
    let kinds = fields.get("kinds").map(|item| item.list()).unwrap_or_default();
    let is_http = |item: &Item<'_>| {
        let kind = item.fields(|fields| {
            fields.skip(&["group"]);
            fields.get("kind").and_then(|item| item.word())
        });
        kind.flatten().as_deref() == Some("HTTPRoute")
    };
    kinds.is_empty() || kinds.iter().any(is_http)
}

pub(super) fn http_route(spec: &mut Fields<'_>, namespace: &Arc<str>) -> HttpRoute {
    let hosts = spec.get("hostnames").map(|item| item.list()).unwrap_or_default();
    let hosts = hosts.iter().filter_map(|item| strings::host(item, &item.word()?)).collect();
    let parents = spec.get("parentRefs").map(|item| item.list()).unwrap_or_default();
    let parents = parents
        .iter()
        .filter_map(|item| item.fields(|fields| parent(fields, namespace))?)
        .collect();
    let rules = match spec.get("rules") {
        Some(item) => {
            let rules = item.list();
            rules.iter().filter_map(|item| item.fields(|fields| rule(fields, namespace))).collect()
        }
        None => Vec::new(),
    };
    spec.unserved(&["useDefaultGateways"], "");
    HttpRoute { hosts, parents, rules }
}

/// Nothing comes back for what is no Gateway.
fn parent(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Option<HttpParent> {
    let reference = fields.item.to_json();
    let is = |item: Option<Item<'_>>, wanted: &str| {
        item.is_none_or(|item| item.as_text().is_none_or(|text| text == wanted))
    };
    let is_gateway =
        is(fields.get("group"), GATEWAY_API_GROUP) && is(fields.get("kind"), "Gateway");
    let own = fields.get("namespace").and_then(|item| item.word());
    let name = fields.need("name", "the name of a Gateway").and_then(|item| item.word());
    let section = fields.get("sectionName").and_then(|item| item.word());
    let port = fields.get("port").and_then(|item| item.port());
    let gateway = Path::new(own.map_or_else(|| Arc::clone(namespace), Arc::from), name?);
    is_gateway.then_some(HttpParent { gateway, section, port, reference })
}

fn rule(fields: &mut Fields<'_>, namespace: &Arc<str>) -> HttpRule {
    let name = fields.get("name").and_then(|item| item.word());
    let matches = fields.get("matches").map(|item| item.list()).unwrap_or_default();
    let matches = if matches.is_empty() {
        vec![HttpMatch { path: HttpPath::Prefix("/".to_owned()), headers: Vec::new() }]
    } else {
        matches.iter().filter_map(|item| item.fields(request_match)?).collect()
    };
    fields.unserved(&["retry", "sessionPersistence"], "");
    let filtered = has_filters(fields);
    let backends = fields.get("backendRefs").map(|item| item.list()).unwrap_or_default();
    let backends = backends
        .iter()
        .filter_map(|item| item.fields(|fields| backend(fields, namespace))?)
        .collect();
    let timeout = fields.get("timeouts").and_then(|item| {
        item.fields(|fields| {
            fields.unserved(&["backendRequest"], "request is the time for the whole answer");
            fields.get("request").and_then(|item| item.time(true))
        })?
    });
    let timeout = timeout.filter(|timeout: &Duration| !timeout.is_zero());
    HttpRule { name, matches, backends, filtered, timeout }
}

/// What is to be done to a request must not be left out: it is refused instead.
fn has_filters(fields: &mut Fields<'_>) -> bool {
    let Some(item) = fields.get("filters").filter(|item| !item.list().is_empty()) else {
        return false;
    };
    item.warn("not applied: the requests are refused", "leave filters out");
    true
}

/// Nothing comes back for conditions that cannot be looked at: what they would let through is not
/// known.
fn request_match(fields: &mut Fields<'_>) -> Option<HttpMatch> {
    let path = fields.get("path").map(|item| item.fields(path)?);
    let headers = fields.get("headers").map(|item| item.list()).unwrap_or_default();
    let headers = headers.iter().map(|item| item.fields(header)?).collect::<Option<Vec<_>>>();
    for field in ["method", "queryParams"] {
        if let Some(item) = fields.get(field) {
            item.warn(
                "not evaluated: this match takes no requests",
                "match path or headers instead",
            );
            return None;
        }
    }
    let path = match path {
        Some(path) => path?,
        None => HttpPath::Prefix("/".to_owned()),
    };
    Some(HttpMatch { path, headers: headers? })
}

fn path(fields: &mut Fields<'_>) -> Option<HttpPath> {
    let kind = match fields.get("type") {
        Some(item) => item.one_of(&["Exact", "PathPrefix", "RegularExpression"])?,
        None => "PathPrefix",
    };
    let item = fields.get("value");
    let value = item.as_ref().map_or(Some("/".to_owned()), Item::text)?;
    Some(match (kind, &item) {
        ("Exact", _) => HttpPath::Exact(value),
        ("RegularExpression", Some(item)) => HttpPath::Regex(strings::regex_match(item)?),
        _ => HttpPath::Prefix(value),
    })
}

fn header(fields: &mut Fields<'_>) -> Option<(String, StringMatch)> {
    let kind = match fields.get("type") {
        Some(item) => item.one_of(&["Exact", "RegularExpression"])?,
        None => "Exact",
    };
    let name = fields.need("name", "a header's name")?.word()?.to_ascii_lowercase();
    let value = fields.need("value", "the header's value")?;
    let wanted = match kind {
        "RegularExpression" => strings::regex_match(&value)?,
        _ => StringMatch::Exact(value.text()?),
    };
    Some((name, wanted))
}

fn backend(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Option<HttpBackend> {
    let weight = fields.get("weight").and_then(|item| item.weight()).unwrap_or(1);
    let group = fields.get("group").and_then(|item| item.text()).unwrap_or_default();
    let kind = fields.get("kind").and_then(|item| item.word());
    let kind = kind.unwrap_or_else(|| "Service".to_owned());
    let name = fields.need("name", "the name of an InferencePool or a Service");
    let name = name.and_then(|item| item.word());
    let own = fields.get("namespace").and_then(|item| item.word());
    let port = fields.get("port").and_then(|item| item.port());
    let filtered = has_filters(fields);
    let path = Path::new(own.map_or_else(|| Arc::clone(namespace), Arc::from), name?);
    let target = match (group.as_str(), kind.as_str()) {
        // A pool knows its ports.
        (POOL_GROUP | POOL_GROUP_X, "InferencePool") => {
            HttpTarget::Known(BackendTarget::Pool(path))
        }
        ("", "Service") => HttpTarget::Known(BackendTarget::Service(path, port)),
        ("", kind) => HttpTarget::Unknown(kind.to_owned()),
        (group, kind) => HttpTarget::Unknown(format!("{kind} of group {group}")),
    };
    Some(HttpBackend { target, group, filtered, weight })
}

/// Grants to and from other kinds are somebody else's.
pub(super) fn reference_grant(spec: &mut Fields<'_>) -> ReferenceGrant {
    let from = spec.need("from", "a list of kinds and namespaces").map(|item| item.list());
    let from = from.unwrap_or_default().iter().filter_map(granted_from).collect();
    let to = spec.need("to", "a list of kinds").map(|item| item.list());
    let to = to.unwrap_or_default().iter().filter_map(granted_to).collect();
    ReferenceGrant { from, to }
}

fn granted_from(item: &Item<'_>) -> Option<String> {
    item.fields(|fields| {
        let group = fields.need("group", "a group such as gateway.networking.k8s.io")?.text()?;
        let kind = fields.need("kind", "a kind such as HTTPRoute")?.word()?;
        let namespace = fields.need("namespace", "a namespace")?.word()?;
        let routes = group == GATEWAY_API_GROUP && kind == "HTTPRoute";
        routes.then_some(namespace)
    })?
}

fn granted_to(item: &Item<'_>) -> Option<Granted> {
    item.fields(|fields| {
        let group = fields.need("group", "a group, empty for Services")?.text()?;
        let kind = fields.need("kind", "a kind such as InferencePool or Service")?.word()?;
        let name = fields.get("name").filter(|item| item.as_text() != Some(""));
        let name = name.and_then(|item| item.word());
        match (group.as_str(), kind.as_str()) {
            (POOL_GROUP | POOL_GROUP_X, "InferencePool") => Some(Granted { pool: true, name }),
            ("", "Service") => Some(Granted { pool: false, name }),
            _ => None,
        }
    })?
}
