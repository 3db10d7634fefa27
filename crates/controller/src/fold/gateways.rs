//! Which Gateways are ours, and what they listen for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picker::{HostPattern, ListenerSpec};

use super::{FoldOptions, World};
use crate::{
    object::{Path, Spec},
    resource::{self, ServerHost},
    status::Verdict,
};

/// Every Gateway there is.
pub(super) struct Gateways<'o> {
    by_path: BTreeMap<Path, Found<'o>>,
}

/// A Gateway, and whether this proxy serves it.
pub(super) enum Found<'o> {
    Served(&'o resource::Gateway),
    /// Why not.
    NotServed(String),
}

pub(super) fn find<'o>(world: &mut World<'o>) -> Gateways<'o> {
    let all = world.all(|spec| match spec {
        Spec::Gateway(gateway) => Some(gateway),
        _ => None,
    });
    let mut by_path = BTreeMap::new();
    for (object, gateway) in all {
        let mut verdict = Verdict::new(object);
        let missing = gateway
            .selector
            .iter()
            .find(|(key, value)| world.options.labels.get(*key) != Some(*value));
        let found = if let Some((key, value)) = missing {
            let message = format!("it is for proxies labelled {key}={value}, and this one is not");
            verdict.refuse("SelectorMismatch", "spec.selector", message.clone());
            verdict.leave_to_others();
            Found::NotServed(message)
        } else if gateway.servers.is_empty() {
            let message = "it has no server that can be served".to_owned();
            verdict.refuse("NoServedServer", "spec.servers", message.clone());
            Found::NotServed(message)
        } else {
            let ports: BTreeSet<u16> = gateway.servers.iter().map(|server| server.port).collect();
            let (mut open, mut taken) = (Vec::new(), Vec::new());
            for port in ports {
                match world.options.port_taken(port) {
                    None => open.push(port.to_string()),
                    Some(message) => taken.push(message),
                }
            }
            if open.is_empty() {
                let message = taken.join("; ");
                verdict.refuse("PortUnavailable", "spec.servers", message.clone());
                Found::NotServed(message)
            } else {
                verdict.remark(format!("listens on port {}", open.join(", ")));
                for message in taken {
                    verdict.caution("spec.servers", message);
                }
                Found::Served(gateway)
            }
        };
        by_path.insert(Path::of(object), found);
        world.verdicts.push(verdict);
    }
    Gateways { by_path }
}

impl<'o> Gateways<'o> {
    pub(super) fn get(&self, path: &Path) -> Option<&Found<'o>> {
        self.by_path.get(path)
    }

    pub(super) fn listeners(&self, options: &FoldOptions) -> Vec<ListenerSpec> {
        let mut ports: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for (path, found) in &self.by_path {
            let Found::Served(gateway) = found else { continue };
            let open = |port| options.port_taken(port).is_none();
            for server in gateway.servers.iter().filter(|server| open(server.port)) {
                let names = ports.entry(server.port).or_default();
                let name = path.to_string();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        ports.into_iter().map(|(port, gateways)| ListenerSpec { port, gateways }).collect()
    }
}

/// The ports and hosts on which a Gateway takes requests for a route of that namespace and hosts.
pub(super) fn meet(
    gateway: &resource::Gateway,
    namespace: &Arc<str>,
    hosts: &[HostPattern],
) -> Vec<(u16, HostPattern)> {
    let mut met = Vec::new();
    for server in &gateway.servers {
        let open = |own: &&ServerHost| own.namespace.as_ref().is_none_or(|only| only == namespace);
        for own in server.hosts.iter().filter(open) {
            for host in hosts {
                if let Some(both) = both(&own.host, host)
                    && !met.contains(&(server.port, both.clone()))
                {
                    met.push((server.port, both));
                }
            }
        }
    }
    met
}

/// The hosts that match both patterns.
pub(super) fn both(a: &HostPattern, b: &HostPattern) -> Option<HostPattern> {
    use HostPattern::{Any, Exact, Suffix};
    let fits = |host: &str, suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
    match (a, b) {
        (Any, other) | (other, Any) => Some(other.clone()),
        (Exact(a), Exact(b)) => (a == b).then(|| Exact(a.clone())),
        (Exact(host), Suffix(suffix)) | (Suffix(suffix), Exact(host)) => {
            fits(host, suffix).then(|| Exact(host.clone()))
        }
        (Suffix(a), Suffix(b)) if a == b || fits(a, b) => Some(Suffix(a.clone())),
        (Suffix(a), Suffix(b)) => fits(b, a).then(|| Suffix(b.clone())),
    }
}
