//! Reads Pod: the little of it that makes an endpoint.

use std::collections::BTreeMap;

use crate::fields::{Fields, Item};

/// Annotations that say which of a pool's ports the Pod serves right now.
const ACTIVE_PORTS: [&str; 2] =
    ["inference.networking.k8s.io/active-ports", "llm-d.ai/active-ports"];

/// What becomes of a Pod hangs on this alone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Pod {
    /// Its IP address, once it has one.
    pub(crate) address: Option<String>,
    /// Its Ready condition.
    pub(crate) ready: bool,
    /// It is being deleted: nothing new goes there.
    pub(crate) leaving: bool,
    /// Numbers of its containers' ports that have a name.
    pub(crate) ports: BTreeMap<String, u16>,
    /// The only ports of a pool that are served, if not all.
    pub(crate) active_ports: Option<Vec<u16>>,
}

impl Pod {
    pub(crate) fn serves(&self) -> bool {
        self.ready && !self.leaving && self.address.is_some()
    }
}

/// The whole object: its parts lie everywhere. What else a Pod says is for Kubernetes to do.
pub(crate) fn read(root: &mut Fields<'_>) -> Pod {
    let mut pod = Pod::default();
    if let Some(metadata) = root.get("metadata") {
        metadata.fields(|fields| {
            pod.leaving = fields.get("deletionTimestamp").is_some();
            let annotations = fields.get("annotations").map(|item| item.labels());
            pod.active_ports = active_ports(&annotations.unwrap_or_default());
            fields.skip_all();
        });
    }
    if let Some(spec) = root.get("spec") {
        spec.fields(|fields| {
            let containers = fields.get("containers").map(|item| item.list()).unwrap_or_default();
            pod.ports = containers.iter().flat_map(named_ports).collect();
            fields.skip_all();
        });
    }
    if let Some(status) = root.get("status") {
        status.fields(|fields| {
            let address = fields.get("podIP").and_then(|item| item.text());
            pod.address = address.filter(|address| !address.is_empty());
            let conditions = fields.get("conditions").map(|item| item.list()).unwrap_or_default();
            pod.ready = conditions.iter().any(is_ready);
            fields.skip_all();
        });
    }
    pod
}

fn named_ports(container: &Item<'_>) -> Vec<(String, u16)> {
    let ports = container.fields(|fields| {
        let ports = fields.get("ports").map(|item| item.list()).unwrap_or_default();
        fields.skip_all();
        ports
    });
    let named = |item: &Item<'_>| {
        item.fields(|fields| {
            let name = fields.get("name").and_then(|item| item.text());
            let number = fields.get("containerPort").and_then(|item| item.port());
            fields.skip_all();
            name.zip(number)
        })?
    };
    ports.unwrap_or_default().iter().filter_map(named).collect()
}

fn is_ready(condition: &Item<'_>) -> bool {
    let ready = condition.fields(|fields| {
        let name = fields.get("type").and_then(|item| item.as_text());
        let status = fields.get("status").and_then(|item| item.as_text());
        fields.skip_all();
        name == Some("Ready") && status == Some("True")
    });
    ready.unwrap_or(false)
}

/// Ports between commas; what is no port is passed over, and nothing at all means none.
pub(crate) fn active_ports(annotations: &BTreeMap<String, String>) -> Option<Vec<u16>> {
    let text = ACTIVE_PORTS.iter().find_map(|name| annotations.get(*name))?;
    Some(text.split(',').filter_map(|port| port.trim().parse().ok()).collect())
}
