//! Reads InferencePool, InferenceModel, InferenceModelRewrite and InferenceObjective.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    InferenceModel, InferenceModelRewrite, InferenceObjective, InferencePool, RewriteRule,
    Selector, Target, pool_ref, strings,
};
use crate::fields::{Fields, Item};

const TARGETS_MAX: usize = 10;
const PORTS_MAX: usize = 8;
const MODEL_NAME_MAX: usize = 256;

/// Model priorities of the three criticalities.
const CRITICAL: i32 = 100;
const STANDARD: i32 = 0;
const SHEDDABLE: i32 = -100;

pub(super) fn pool(spec: &mut Fields<'_>, version: &str) -> Option<InferencePool> {
    let released = version == "v1";
    let selector =
        spec.need("selector", "labels of the endpoints").map(|item| selector(&item, released));
    let single = spec.get("targetPortNumber");
    let several = spec.get("targetPorts");
    if let (true, Some(item)) = (released, &single) {
        item.warn(
            "not in v1, where Kubernetes would refuse it",
            "write targetPorts: [{number: …}]",
        );
    }
    let ports = match (single, several) {
        (Some(single), None) => single.port().into_iter().collect(),
        (None, Some(several)) => target_ports(&several),
        (Some(_), Some(several)) => {
            several.error("given together with targetPortNumber", "keep one of them");
            Vec::new()
        }
        (None, None) => {
            let field = if released { "targetPorts" } else { "targetPortNumber" };
            spec.need(field, "the port the endpoints listen on");
            Vec::new()
        }
    };
    let protocol = spec.get("appProtocol").map(|item| strings::app_protocol(&item));
    for field in ["extensionRef", "endpointPickerRef"] {
        if let Some(item) = spec.get(field) {
            item.info("not used: the gateway picks endpoints itself", "");
        }
    }
    Some(InferencePool { selector: selector?, ports, protocol: protocol.unwrap_or_default() })
}

/// A flat map, or one below `matchLabels`.
fn selector(item: &Item<'_>, released: bool) -> Selector {
    let entries = item.entries();
    let (inner, flat): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, item)| *key == "matchLabels" && item.is_map());
    let mut selector = Selector::new();
    if item.is_map() && flat.is_empty() && inner.iter().all(|(_, item)| item.entries().is_empty()) {
        item.error("expected at least one label, found none", "write e.g. app: NAME");
    }
    for (_, item) in &inner {
        selector.extend(item.labels());
        if !released {
            item.warn("this version has the labels directly below selector", "");
        }
    }
    for (key, item) in flat {
        if key == "matchExpressions" {
            item.error("an InferencePool selects by labels alone", "write matchLabels");
        } else if let Some(value) = item.text() {
            if released {
                item.warn("v1 has labels below matchLabels", "Kubernetes would refuse this");
            }
            selector.insert(key.to_owned(), value);
        }
    }
    selector
}

fn target_ports(item: &Item<'_>) -> Vec<u16> {
    let items = item.list();
    if items.is_empty() || items.len() > PORTS_MAX {
        item.error(format_args!("expected 1-{PORTS_MAX} ports, found {}", items.len()), "");
    }
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for item in items.iter().take(PORTS_MAX) {
        let port =
            item.fields(|fields| fields.need("number", "a port number 1-65535")?.port()).flatten();
        let Some(port) = port else { continue };
        if seen.insert(port) {
            ports.push(port);
        } else {
            item.error(format_args!("port {port} given twice"), "keep one of them");
        }
    }
    ports
}

pub(super) fn model(spec: &mut Fields<'_>, namespace: &Arc<str>) -> Option<InferenceModel> {
    let pool = spec.need("poolRef", "the InferencePool that serves the model");
    let pool = pool.and_then(|item| pool_ref(&item, namespace));
    let model = spec.need("modelName", "the model's name in requests");
    let model = model.and_then(|item| model_name(&item));
    let criticality = spec
        .get("criticality")
        .and_then(|item| item.one_of(&["Critical", "Standard", "Sheddable"]));
    let priority = match criticality {
        Some("Critical") => CRITICAL,
        Some("Sheddable") => SHEDDABLE,
        _ => STANDARD,
    };
    let targets = spec.get("targetModels").map(|item| targets(&item, "name"));
    let targets = targets.unwrap_or_default();
    Some(InferenceModel { pool: pool?, model: model?, priority, targets })
}

fn model_name(item: &Item<'_>) -> Option<String> {
    let name = item.word()?;
    if name.chars().count() > MODEL_NAME_MAX {
        item.error(format_args!("longer than {MODEL_NAME_MAX} characters"), "");
        return None;
    }
    Some(name)
}

fn targets(item: &Item<'_>, name_key: &'static str) -> Vec<Target> {
    let items = item.list();
    if items.len() > TARGETS_MAX {
        item.error(
            format_args!("expected at most {TARGETS_MAX} targets, found {}", items.len()),
            "",
        );
    }
    let target = |item: &Item<'_>| {
        item.fields(|fields| {
            let name = fields.need(name_key, "a model's name").and_then(|item| model_name(&item));
            let weight = fields.get("weight").and_then(|item| item.weight());
            Some(Target { name: name?, weight })
        })?
    };
    let targets: Vec<Target> = items.iter().take(TARGETS_MAX).filter_map(target).collect();
    let weighted = targets.iter().filter(|target| target.weight.is_some()).count();
    if weighted != 0 && weighted != targets.len() {
        item.error(
            format_args!(
                "expected a weight on all targets or on none, found {weighted} of {}",
                targets.len()
            ),
            "write weight: on each, or on none for equal shares",
        );
    }
    if weighted != 0 && targets.iter().all(|target| target.weight == Some(0)) {
        item.warn("every weight is 0", "requests then keep the model's name");
    }
    targets
}

pub(super) fn rewrite(
    spec: &mut Fields<'_>,
    namespace: &Arc<str>,
) -> Option<InferenceModelRewrite> {
    let pool = spec.need("poolRef", "the InferencePool that serves the models");
    let pool = pool.and_then(|item| pool_ref(&item, namespace));
    let rules = spec.need("rules", "a list of rules").map(|item| item.list()).unwrap_or_default();
    let rules = rules.iter().filter_map(|item| item.fields(rewrite_rule)).collect();
    Some(InferenceModelRewrite { pool: pool?, rules })
}

fn rewrite_rule(fields: &mut Fields<'_>) -> RewriteRule {
    let matches = fields.get("matches").map(|item| item.list()).unwrap_or_default();
    let models = matches.iter().filter_map(|item| {
        item.fields(|fields| {
            fields.need("model", "a model to match")?.fields(|fields| {
                if let Some(kind) = fields.get("type") {
                    kind.one_of(&["Exact"]);
                }
                model_name(&fields.need("value", "a model's name")?)
            })?
        })?
    });
    let models = models.collect();
    let targets =
        fields.need("targets", "what to send on").map(|item| targets(&item, "modelRewrite"));
    RewriteRule { models, targets: targets.unwrap_or_default() }
}

pub(super) fn objective(spec: &mut Fields<'_>, namespace: &Arc<str>) -> Option<InferenceObjective> {
    let pool = spec.need("poolRef", "the InferencePool it is for");
    let pool = pool.and_then(|item| pool_ref(&item, namespace));
    let range = i64::from(i32::MIN)..=i64::from(i32::MAX);
    let priority = spec.get("priority").and_then(|item| {
        item.integer(range, "a number", "higher goes first; below zero may be shed")
    });
    let priority = priority.and_then(|priority| priority.try_into().ok()).unwrap_or(STANDARD);
    Some(InferenceObjective { pool: pool?, priority })
}
