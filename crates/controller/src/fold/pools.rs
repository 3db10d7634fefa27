//! Pools, and the endpoints of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    sync::Arc,
};

use picker::{AppProtocol, EndpointSpec, PoolKey, PoolKind, PoolSpec};
use scheduling::{EndpointId, Policy};

use super::{
    DISABLED, DISABLED_MESSAGE, World,
    routes::{Routes, Uses},
};
use crate::{
    object::{Object, Path, Spec},
    resource::{InferencePool, Selector, Service, ServicePort, TargetPort, WorkloadEntry},
    status::Verdict,
};

/// Every pool that could be served, and the objects endpoints are made of.
pub(super) struct Pools<'o> {
    inference: BTreeMap<PoolKey, &'o Object>,
    services: BTreeMap<Path, (&'o Object, &'o Service)>,
    workloads: Workloads<'o>,
    specs: BTreeMap<PoolKey, PoolSpec>,
}

/// WorkloadEntries by namespace.
type Workloads<'o> = BTreeMap<&'o str, Vec<(&'o Object, &'o WorkloadEntry)>>;

/// What a reference to a Service lacks. The key stands for it all the same.
pub(super) struct Missing {
    pub(super) key: PoolKey,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn find<'o>(world: &mut World<'o>) -> Pools<'o> {
    let services = world.all(|spec| match spec {
        Spec::Service(service) => Some(service),
        _ => None,
    });
    let mut workloads = Workloads::new();
    for (object, entry) in world.all(|spec| match spec {
        Spec::WorkloadEntry(entry) => Some(entry),
        _ => None,
    }) {
        workloads.entry(&object.namespace).or_default().push((object, entry));
    }
    let mut pools = Pools {
        inference: BTreeMap::new(),
        services: services
            .into_iter()
            .map(|(object, service)| (Path::of(object), (object, service)))
            .collect(),
        workloads,
        specs: BTreeMap::new(),
    };
    for (object, pool) in world.all(|spec| match spec {
        Spec::InferencePool(pool) => Some(pool),
        _ => None,
    }) {
        pools.add(world, object, pool);
    }
    pools
}

/// Writes the verdicts on the InferencePools, once it is known who uses them.
pub(super) fn judge<'o>(world: &mut World<'o>, pools: &Pools<'o>, routes: &Routes) {
    for (object, _) in world.all(|spec| match spec {
        Spec::InferencePool(pool) => Some(pool),
        _ => None,
    }) {
        let key = Pools::key(&Path::of(object));
        let mut verdict = Verdict::new(object);
        match pools.inference.get(&key) {
            _ if !world.extension_on => verdict.refuse(DISABLED, "", DISABLED_MESSAGE.to_owned()),
            Some(winner) if !std::ptr::eq(*winner, object) => {
                let message = format!(
                    "there is a pool of that name already, of group {}, at {}",
                    winner.group, winner.place
                );
                verdict.refuse("PoolNameInUse", "metadata.name", message);
            }
            _ => {
                let users: Vec<&str> = routes.uses.routes(&key).collect();
                let count = pools.specs.get(&key).map_or(0, |spec| spec.endpoints.len());
                let endpoints = if count == 1 { "endpoint" } else { "endpoints" };
                verdict.remark(format!("{count} {endpoints}"));
                verdict.remark(match users.as_slice() {
                    [] => "no route sends requests to it yet".to_owned(),
                    users => format!("used by {}", users.join(", ")),
                });
                if count == 0 {
                    let message = format!(
                        "no WorkloadEntry in namespace {} has the labels of its selector",
                        object.namespace
                    );
                    verdict.unresolved("SelectorMatchesNothing", "spec.selector", message);
                }
            }
        }
        world.verdicts.push(verdict);
    }
}

impl<'o> Pools<'o> {
    /// The key of an InferencePool.
    pub(super) fn key(path: &Path) -> PoolKey {
        PoolKey {
            kind: PoolKind::InferencePool,
            namespace: Arc::clone(&path.namespace),
            name: Arc::clone(&path.name),
            port: 0,
        }
    }

    pub(super) fn contains(&self, key: &PoolKey) -> bool {
        self.specs.contains_key(key)
    }

    pub(super) fn get_mut(&mut self, key: &PoolKey) -> Option<&mut PoolSpec> {
        self.specs.get_mut(key)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut PoolSpec> {
        self.specs.values_mut()
    }

    /// The pools of all ports of a Service.
    pub(super) fn of_service_mut<'s>(
        &'s mut self,
        path: &'s Path,
    ) -> impl Iterator<Item = &'s mut PoolSpec> {
        self.specs.values_mut().filter(move |spec| {
            spec.key.kind == PoolKind::Service
                && spec.key.namespace == path.namespace
                && spec.key.name == path.name
        })
    }

    pub(super) fn has_service(&self, path: &Path) -> bool {
        self.services.contains_key(path)
    }

    /// Drops the Service ports no accepted route sends requests to: nobody would miss them.
    pub(super) fn forget_unused(&mut self, uses: &Uses) {
        self.specs.retain(|key, _| key.kind == PoolKind::InferencePool || uses.any(key));
    }

    pub(super) fn into_specs(self) -> Vec<PoolSpec> {
        self.specs.into_values().collect()
    }

    fn add(&mut self, world: &mut World<'o>, object: &'o Object, pool: &InferencePool) {
        let key = Self::key(&Path::of(object));
        if !world.extension_on || self.inference.contains_key(&key) {
            return;
        }
        let ports = |entry: &WorkloadEntry| match entry.ports.get("http") {
            Some(port) => vec![*port],
            None => pool.ports.clone(),
        };
        let endpoints = self.endpoints(world, object, &pool.selector, pool.protocol, ports);
        self.inference.insert(key.clone(), object);
        let policy = world.options.default_policy;
        self.specs.insert(key.clone(), PoolSpec { endpoints, ..PoolSpec::new(key, policy) });
    }

    /// The pool of a Service's port, made when a route first asks for it.
    pub(super) fn service(
        &mut self,
        world: &mut World<'o>,
        path: &Path,
        port: Option<u16>,
    ) -> Result<PoolKey, Missing> {
        let key = |port| PoolKey {
            kind: PoolKind::Service,
            namespace: Arc::clone(&path.namespace),
            name: Arc::clone(&path.name),
            port,
        };
        let missing = |reason, message| Missing { key: key(port.unwrap_or(0)), reason, message };
        let Some((object, service)) = self.services.get(path).copied() else {
            return Err(missing("ServiceNotFound", format!("there is no Service {path}")));
        };
        let found = match (port, service.ports.as_slice()) {
            (Some(number), ports) => ports.iter().find(|port| port.port == number),
            (None, [only]) => Some(only),
            (None, _) => {
                let message =
                    format!("Service {path} has {} ports: say which", service.ports.len());
                return Err(missing("PortNotFound", message));
            }
        };
        let Some(found) = found else {
            let message = format!("Service {path} has no port {}", port.unwrap_or(0));
            return Err(missing("PortNotFound", message));
        };
        let key = key(found.port);
        if !self.contains(&key) {
            let only = service.ports.len() == 1;
            let ports = |entry: &WorkloadEntry| service_port(found, only, entry);
            let endpoints = self.endpoints(world, object, &service.selector, found.protocol, ports);
            if endpoints.is_empty() {
                let namespace = &object.namespace;
                let message = format!(
                    "no WorkloadEntry in namespace {namespace} has the labels of its selector"
                );
                world.warn(object, "spec.selector", message);
            }
            let policy = Policy::RoundRobin;
            let spec = PoolSpec { endpoints, ..PoolSpec::new(key.clone(), policy) };
            self.specs.insert(key.clone(), spec);
        }
        Ok(key)
    }

    /// The workloads with these labels, times their ports, in order of their ids.
    fn endpoints<P: IntoIterator<Item = u16>>(
        &self,
        world: &mut World<'o>,
        pool: &Object,
        selector: &Selector,
        protocol: AppProtocol,
        ports: impl Fn(&WorkloadEntry) -> P,
    ) -> Vec<EndpointSpec> {
        // As in Kubernetes: no selector selects nothing.
        let candidates = self.workloads.get(&*pool.namespace).filter(|_| !selector.is_empty());
        let mut endpoints: Vec<EndpointSpec> = Vec::new();
        let mut workload_of: BTreeMap<EndpointId, &Object> = BTreeMap::new();
        for (object, entry) in candidates.into_iter().flatten() {
            if !selector.iter().all(|(key, value)| label(object, entry, key) == Some(value)) {
                continue;
            }
            for port in ports(entry).into_iter().collect::<BTreeSet<u16>>() {
                let id = endpoint_id(&entry.address, port);
                if let Some(first) = workload_of.get(&id) {
                    let message = format!("{first} is {id} already in {pool}; counted once");
                    world.warn(object, "spec.address", message);
                    continue;
                }
                workload_of.insert(id.clone(), object);
                endpoints.push(EndpointSpec {
                    id,
                    workload: Arc::clone(&object.name),
                    host: entry.address.as_str().into(),
                    port,
                    protocol,
                });
            }
        }
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints
    }
}

/// Stands for a host that is not served, so that its share of the requests is refused rather than
/// sent elsewhere. No Service has a name with dots.
pub(super) fn outside(namespace: &Arc<str>, host: &str) -> PoolKey {
    PoolKey {
        kind: PoolKind::Service,
        namespace: Arc::clone(namespace),
        name: host.into(),
        port: 0,
    }
}

/// A label of a workload. As in Istio the object's own labels go before those in its spec.
fn label<'w>(object: &'w Object, entry: &'w WorkloadEntry, key: &str) -> Option<&'w String> {
    object.labels.get(key).or_else(|| entry.labels.get(key))
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn endpoint_id(host: &str, port: u16) -> EndpointId {
    if host.parse::<Ipv6Addr>().is_ok() {
        return EndpointId::new(format!("[{host}]:{port}"));
    }
    EndpointId::new(format!("{host}:{port}"))
}

/// Where a workload takes the traffic of a Service's port: Istio looks for the port's name in the
/// workload's own ports first.
fn service_port(port: &ServicePort, only: bool, entry: &WorkloadEntry) -> Option<u16> {
    let named = |name: &str| entry.ports.get(name).copied();
    if let Some(found) = port.name.as_deref().and_then(named) {
        return Some(found);
    }
    if let TargetPort::Name(name) = &port.target
        && let Some(found) = named(name)
    {
        return Some(found);
    }
    // A Service with one port has often no name for it.
    if let Some(found) = named("http").filter(|_| only) {
        return Some(found);
    }
    match port.target {
        TargetPort::Number(number) => Some(number),
        TargetPort::Name(_) => None,
    }
}
