//! Reads LLMRoute and ASMMeshConfig.

use std::sync::Arc;

use picker::RouteMatch;

use super::{
    Backend, BackendTarget, Match, Path, Route, Rule, check_pool_group, gateway_refs, strings,
};
use crate::{
    fields::{Fields, Item},
    object::{POOL_GROUP, POOL_GROUP_X},
};

pub(super) fn llm_route(spec: &mut Fields<'_>, namespace: &Arc<str>) -> Route {
    let host = spec.need("host", "a host").and_then(|item| strings::host(&item, &item.word()?));
    let gateways = spec.get("gateways").map(|item| gateway_refs(&item, namespace));
    let rules = spec.need("rules", "a list of rules").map(|item| {
        let rules = item.list();
        if rules.is_empty() {
            item.error("expected at least one rule, found none", "");
        }
        rules
    });
    let rules = rules.unwrap_or_default();
    Route {
        hosts: host.into_iter().collect(),
        gateways: gateways.unwrap_or_default(),
        rules: rules
            .iter()
            .filter_map(|item| item.fields(|fields| rule(fields, namespace)))
            .collect(),
    }
}

fn rule(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Rule {
    let name = fields.get("name").and_then(|item| item.word());
    let matches = fields.get("matches").map(|item| item.list()).unwrap_or_default();
    let matches = matches
        .iter()
        .filter_map(|item| item.fields(|fields| request_match(fields, namespace)))
        .collect();
    let backends = fields.need("backendRefs", "where to send the requests").map(|item| {
        let backends = item.list();
        if backends.is_empty() {
            item.error("expected at least one backend, found none", "");
        }
        backends
    });
    let backends = backends
        .unwrap_or_default()
        .iter()
        .filter_map(|item| item.fields(|fields| backend(fields, namespace))?)
        .collect();
    Rule { name, matches, backends, timeout: None }
}

fn request_match(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Match {
    let headers = fields.get("headers").map(|item| strings::headers(&item)).unwrap_or_default();
    let gateways = fields.get("gateways").map(|item| gateway_refs(&item, namespace));
    if let Some(item) = fields.get("sourceLabels") {
        item.warn(
            "not evaluated: the match holds whatever workload a request comes from",
            "match a header instead",
        );
    }
    let condition = RouteMatch { path: None, headers };
    Match { gateways: gateways.unwrap_or_default(), condition }
}

fn backend(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Option<Backend> {
    let weight = fields.get("weight").and_then(|item| item.weight()).unwrap_or(1);
    fields.unserved(&["hostRewrite"], "");
    let provider = fields.get("providerHost");
    let target = match (fields.get("backendRef"), provider) {
        (Some(item), None) => item.fields(|fields| backend_ref(fields, namespace))??,
        (None, Some(item)) => {
            item.warn("LLMProviders are not served yet", "use backendRef");
            BackendTarget::Outside(item.word()?)
        }
        (Some(_), Some(item)) => {
            item.error("given together with backendRef", "keep one of them");
            return None;
        }
        (None, None) => {
            fields.need("backendRef", "an InferencePool or a Service");
            return None;
        }
    };
    Some(Backend { target, weight })
}

fn backend_ref(fields: &mut Fields<'_>, namespace: &Arc<str>) -> Option<BackendTarget> {
    let kind = match fields.get("kind") {
        Some(item) => item.one_of(&["InferencePool", "Service"]),
        None => Some("InferencePool"),
    };
    let Some(kind) = kind else {
        // What the other fields mean depends on it.
        fields.skip_all();
        return None;
    };
    let name = fields.need("name", "the name of an InferencePool or a Service");
    let name = name.and_then(|item| item.word());
    let own = fields.get("namespace").and_then(|item| item.word());
    let path = Path::new(own.map_or_else(|| Arc::clone(namespace), Arc::from), name?);
    if kind == "InferencePool" {
        check_pool_group(fields);
        // A pool knows its ports; some manifests repeat one here.
        fields.skip(&["port"]);
        return Some(BackendTarget::Pool(path));
    }
    if let Some(group) = fields.get("group")
        && group.as_text() != Some("")
    {
        let hint = format!("{POOL_GROUP_X} and {POOL_GROUP} are for kind: InferencePool");
        group.expected("\"\" for a Service", &hint);
    }
    let port = fields.need("port", "the Service's port").and_then(|item| item.port());
    Some(BackendTarget::Service(path, Some(port?)))
}

/// Whether the inference extension is on.
pub(super) fn mesh_config(spec: &mut Fields<'_>) -> bool {
    let extension: Option<Item<'_>> = spec.get("gatewayAPIInferenceExtension");
    let enabled = extension.and_then(|item| {
        item.fields(|fields| fields.get("enabled").and_then(|item| item.boolean()))?
    });
    enabled.unwrap_or(true)
}
