//! `/config_dump`: the desired state, spelled as its users would.

use picker::{
    AppProtocol, Delivery, Desired, EndpointSpec, HostPattern, ListenerSpec, ModelSpec,
    ObjectiveSpec, PoolSpec, RouteMatch, RouteRule, RouteSpec, StringMatch,
};
use scheduling::{FlowControl, OutlierDetection};
use serde_json::{Map, Value, json};

use crate::endpoints::PoolName;

pub(crate) fn desired(desired: &Desired) -> Value {
    json!({
        "listeners": list(&desired.listeners, listener),
        "pools": list(&desired.pools, pool),
        "routes": list(&desired.routes, route),
    })
}

fn list<T>(items: &[T], show: impl Fn(&T) -> Value) -> Value {
    items.iter().map(show).collect()
}

fn listener(listener: &ListenerSpec) -> Value {
    json!({ "port": listener.port, "gateways": listener.gateways })
}

fn pool(spec: &PoolSpec) -> Value {
    json!({
        "pool": PoolName::of(&spec.key),
        "policy": spec.policy.name(),
        "endpoints": list(&spec.endpoints, endpoint),
        "models": list(&spec.models, model),
        "objectives": list(&spec.objectives, objective),
        "flow_control": flow_control(&spec.flow_control),
        "outlier_detection": outlier_detection(&spec.outlier_detection),
        "delivery": delivery(&spec.delivery),
    })
}

fn objective(spec: &ObjectiveSpec) -> Value {
    json!({ "name": &*spec.name, "priority": spec.priority })
}

fn flow_control(flow: &FlowControl) -> Value {
    let FlowControl { late_binding, requests_max, bytes_max, wait_max } = flow;
    json!({
        "late_binding": late_binding,
        "requests_max": requests_max,
        "bytes_max": bytes_max,
        "wait_max_seconds": wait_max.as_secs_f64(),
    })
}

fn outlier_detection(outliers: &OutlierDetection) -> Value {
    let OutlierDetection { consecutive_failures, base_ejection, .. } = outliers;
    json!({
        "consecutive_failures": consecutive_failures,
        "base_ejection_seconds": base_ejection.as_secs_f64(),
        "max_ejection_seconds": outliers.max_ejection.as_secs_f64(),
        "max_ejection_percent": outliers.max_ejection_percent,
    })
}

/// Limits that are none are left out.
fn delivery(delivery: &Delivery) -> Value {
    let mut shown = Map::new();
    shown.insert("attempts_max".into(), json!(delivery.attempts_max));
    shown.insert("body_bytes_max".into(), json!(delivery.body_bytes_max));
    shown.insert("idle_timeout_seconds".into(), json!(delivery.idle_timeout.as_secs_f64()));
    let optional = [
        ("timeout_seconds", delivery.timeout),
        ("first_token_timeout_seconds", delivery.first_token_timeout),
    ];
    for (key, time) in optional {
        if let Some(time) = time {
            shown.insert(key.into(), json!(time.as_secs_f64()));
        }
    }
    Value::Object(shown)
}

fn endpoint(spec: &EndpointSpec) -> Value {
    let protocol = match spec.protocol {
        AppProtocol::Http1 => "http",
        AppProtocol::H2c => "h2c",
    };
    json!({
        "endpoint": spec.id.as_str(),
        "workload": &*spec.workload,
        "host": &*spec.host,
        "port": spec.port,
        "protocol": protocol,
    })
}

fn model(spec: &ModelSpec) -> Value {
    let targets = spec.targets.iter();
    let targets = targets.map(|target| json!({ "name": &*target.name, "weight": target.weight }));
    let mut shown = Map::new();
    if let Some(model) = &spec.model {
        shown.insert("model".into(), json!(model));
    }
    shown.insert("priority".into(), json!(spec.priority));
    shown.insert("targets".into(), targets.collect());
    Value::Object(shown)
}

fn route(spec: &RouteSpec) -> Value {
    json!({
        "name": &*spec.name,
        "port": spec.port,
        "hosts": list(&spec.hosts, host),
        "rules": list(&spec.rules, rule),
    })
}

fn host(pattern: &HostPattern) -> Value {
    match pattern {
        HostPattern::Exact(host) => json!(host),
        HostPattern::Suffix(suffix) => json!(format!("*{suffix}")),
        HostPattern::Any => json!("*"),
    }
}

fn rule(rule: &RouteRule) -> Value {
    let pools = rule
        .pools
        .iter()
        .map(|one| json!({ "pool": PoolName::of(&one.pool), "weight": one.weight }));
    let mut shown = Map::new();
    if let Some(name) = &rule.name {
        shown.insert("name".into(), json!(&**name));
    }
    shown.insert("matches".into(), list(&rule.matches, one_match));
    shown.insert("pools".into(), pools.collect());
    if let Some(timeout) = rule.timeout {
        shown.insert("timeout_seconds".into(), json!(timeout.as_secs_f64()));
    }
    Value::Object(shown)
}

fn one_match(one: &RouteMatch) -> Value {
    let mut shown = Map::new();
    if let Some(path) = &one.path {
        shown.insert("path".into(), string_match(path));
    }
    if !one.headers.is_empty() {
        let headers = one.headers.iter().map(|(name, value)| {
            let value = value.as_ref().map_or_else(|| json!({ "present": true }), string_match);
            (name.clone(), value)
        });
        shown.insert("headers".into(), Value::Object(headers.collect()));
    }
    Value::Object(shown)
}

fn string_match(one: &StringMatch) -> Value {
    match one {
        StringMatch::Exact(text) => json!({ "exact": text }),
        StringMatch::Prefix(text) => json!({ "prefix": text }),
        StringMatch::Regex(regex) => {
            // As written: `StringMatch::regex` put it between anchors.
            let whole = regex.as_str();
            let inner = whole.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
            json!({ "regex": inner.unwrap_or(whole) })
        }
    }
}

#[cfg(test)]
mod tests;
