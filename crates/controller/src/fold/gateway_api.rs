//! Which Gateways of the Gateway API are ours, and what they listen for.

use std::collections::{BTreeMap, BTreeSet};

use picker::{HostPattern, ListenerSpec};

use super::{FoldOptions, World, gateways};
use crate::{
    object::{Object, Path, Spec},
    resource::{AllowedFrom, ApiGateway, ApiListener, HttpParent},
    status::{
        Address, CONTROLLER_NAME, GatewayStatus, ListenerStatus, Refused, StatusShape, Verdict,
    },
};

/// The class that is ours without a GatewayClass that says so: files need none.
const OWN_CLASS: &str = "tokenweir";

/// The Gateways this proxy serves.
pub(super) struct ApiGateways<'o> {
    served: BTreeMap<Path, Served<'o>>,
    options: &'o FoldOptions,
}

struct Served<'o> {
    object: &'o Object,
    gateway: &'o ApiGateway,
    /// Routes by listener.
    attached: BTreeMap<&'o str, BTreeSet<Path>>,
}

pub(super) fn find<'o>(world: &mut World<'o>) -> ApiGateways<'o> {
    let own = classes(world);
    let mut served = BTreeMap::new();
    for (object, gateway) in world.all(|spec| match spec {
        Spec::ApiGateway(gateway) => Some(gateway),
        _ => None,
    }) {
        let is_own = own.get(gateway.class.as_str()).copied();
        if is_own.unwrap_or(gateway.class == OWN_CLASS) {
            served.insert(Path::of(object), Served { object, gateway, attached: BTreeMap::new() });
            continue;
        }
        let mut verdict = Verdict::new(object);
        let message = match is_own {
            Some(_) => format!("GatewayClass {} is another controller's", gateway.class),
            None => format!("there is no GatewayClass {}; use {OWN_CLASS}", gateway.class),
        };
        verdict.refuse("Pending", "spec.gatewayClassName", message);
        verdict.leave_to_others();
        world.verdicts.push(verdict);
    }
    ApiGateways { served, options: world.options }
}

/// Every class, and whether it is ours.
fn classes<'o>(world: &mut World<'o>) -> BTreeMap<&'o str, bool> {
    let classes = world.all(|spec| match spec {
        Spec::GatewayClass(controller) => Some(controller),
        _ => None,
    });
    let mut own = BTreeMap::new();
    for (object, controller) in classes {
        let is_own = controller == CONTROLLER_NAME;
        own.insert(&*object.name, is_own);
        let mut verdict = Verdict::new(object);
        if !is_own {
            let message = format!("it is for controller {controller}");
            verdict.refuse("Pending", "spec.controllerName", message);
            verdict.leave_to_others();
        }
        world.verdicts.push(verdict);
    }
    own
}

/// Where requests for a route come in, or why none do.
pub(super) type Attached = Result<Vec<(u16, HostPattern)>, Refused>;

impl<'o> ApiGateways<'o> {
    pub(super) fn is_served(&self, path: &Path) -> bool {
        self.served.contains_key(path)
    }

    /// Attaches a route to the listeners its reference means.
    pub(super) fn attach(
        &mut self,
        route: &Object,
        hosts: &[HostPattern],
        parent: &HttpParent,
    ) -> Attached {
        let refused = |reason, message| Err(Refused { reason, message });
        let Some(served) = self.served.get_mut(&parent.gateway) else {
            return refused("NoMatchingParent", format!("there is no Gateway {}", parent.gateway));
        };
        let meant: Vec<&ApiListener> = served
            .gateway
            .listeners
            .iter()
            .filter(|one| parent.section.as_ref().is_none_or(|name| *name == one.name))
            .filter(|one| parent.port.is_none_or(|port| port == one.port))
            .collect();
        if meant.is_empty() {
            let message = format!("Gateway {} has no listener of that name", parent.gateway);
            return refused("NoMatchingParent", message);
        }
        let own = parent.gateway.namespace == route.namespace;
        let allows = |one: &&ApiListener| match one.from {
            _ if !one.takes_http => false,
            AllowedFrom::All => true,
            AllowedFrom::Same | AllowedFrom::Selector => own,
            AllowedFrom::None => false,
        };
        let allowed: Vec<&ApiListener> = meant.into_iter().filter(allows).collect();
        if allowed.is_empty() {
            let message = format!(
                "the listeners of Gateway {} take no HTTPRoute of namespace {}",
                parent.gateway, route.namespace
            );
            return refused("NotAllowedByListeners", message);
        }
        let mut met = Vec::new();
        let options = self.options;
        for listener in allowed.into_iter().filter(|one| refused_listener(options, one).is_none()) {
            let any = [HostPattern::Any];
            let hosts = if hosts.is_empty() { &any[..] } else { hosts };
            let before = met.len();
            let both = hosts.iter().filter_map(|host| gateways::both(&listener.host, host));
            met.extend(both.map(|host| (listener.port, host)));
            if met.len() > before {
                served.attached.entry(&listener.name).or_default().insert(Path::of(route));
            }
        }
        if met.is_empty() {
            let message = format!("no listener of Gateway {} takes its hostnames", parent.gateway);
            return refused("NoMatchingListenerHostname", message);
        }
        Ok(met)
    }

    pub(super) fn add_listeners(&self, listeners: &mut Vec<ListenerSpec>) {
        for (path, served) in &self.served {
            let name = path.to_string();
            let open = |one: &&ApiListener| refused_listener(self.options, one).is_none();
            for one in served.gateway.listeners.iter().filter(open) {
                match listeners.iter_mut().find(|spec| spec.port == one.port) {
                    Some(spec) if spec.gateways.contains(&name) => {}
                    Some(spec) => spec.gateways.push(name.clone()),
                    None => {
                        listeners
                            .push(ListenerSpec { port: one.port, gateways: vec![name.clone()] });
                    }
                }
            }
        }
    }

    /// Writes the verdicts on the Gateways, once it is known which routes are attached.
    pub(super) fn judge(&self, world: &mut World<'o>) {
        let addresses = published(world);
        for served in self.served.values() {
            let mut verdict = Verdict::new(served.object);
            let listeners: Vec<ListenerStatus> = served
                .gateway
                .listeners
                .iter()
                .map(|one| served.listener(self.options, one))
                .collect();
            let ports: BTreeSet<u16> = served
                .gateway
                .listeners
                .iter()
                .zip(&listeners)
                .filter(|(_, status)| status.refused.is_none())
                .map(|(one, _)| one.port)
                .collect();
            if ports.is_empty() {
                let message = "it has no listener that can be served".to_owned();
                verdict.refuse("ListenersNotValid", "spec.listeners", message);
            } else {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                verdict.remark(format!("listens on port {}", ports.join(", ")));
            }
            for refused in listeners.iter().filter_map(|one| one.refused.as_ref()) {
                if !ports.is_empty() {
                    verdict.caution("spec.listeners", refused.message.clone());
                }
            }
            let addresses = addresses.clone();
            verdict.put_into(StatusShape::Gateway(GatewayStatus { listeners, addresses }));
            world.verdicts.push(verdict);
        }
    }
}

/// The addresses of the Service clients come through, if it was named; none while there is none.
fn published(world: &World<'_>) -> Option<Vec<Address>> {
    let name = world.options.publish_service.as_ref()?;
    let services = world.all(|spec| match spec {
        Spec::Service(service) => Some(service),
        _ => None,
    });
    let found = services.into_iter().find(|(object, _)| object.path() == *name);
    Some(found.map_or_else(Vec::new, |(_, service)| service.addresses.clone()))
}

/// Why a listener is not opened.
fn refused_listener(options: &FoldOptions, listener: &ApiListener) -> Option<Refused> {
    let ApiListener { name, port, unserved, .. } = listener;
    if let Some(protocol) = unserved {
        let message = format!("listener {name}: {protocol} is not served yet, use HTTP");
        return Some(Refused { reason: "UnsupportedProtocol", message });
    }
    let message = format!("listener {name}: {}", options.port_taken(*port)?);
    Some(Refused { reason: "PortUnavailable", message })
}

impl Served<'_> {
    fn listener(&self, options: &FoldOptions, listener: &ApiListener) -> ListenerStatus {
        let refused = refused_listener(options, listener);
        let attached = self.attached.get(listener.name.as_str()).map_or(0, BTreeSet::len);
        let attached = u32::try_from(attached).unwrap_or(u32::MAX);
        ListenerStatus { name: listener.name.clone(), attached, refused }
    }
}
