//! Pools, and the endpoints of each.

use std::{collections::BTreeMap, sync::Arc};

use picker::{AppProtocol, EndpointSpec, PoolKey, PoolKind, PoolSpec};
use scheduling::Policy;

use super::{
    DISABLED, DISABLED_MESSAGE, World,
    routes::{Routes, Uses},
    workloads::{Workload, Workloads, endpoint_id},
};
use crate::{
    object::{Object, Path, Spec},
    resource::{InferencePool, Selector, Service},
    status::Verdict,
};

/// Every pool that could be served, and the objects endpoints are made of.
pub(super) struct Pools<'o> {
    inference: BTreeMap<PoolKey, &'o Object>,
    services: BTreeMap<Path, (&'o Object, &'o Service)>,
    workloads: Workloads<'o>,
    specs: BTreeMap<PoolKey, PoolSpec>,
}

/// What a reference to a Service lacks. The key stands for it all the same.
pub(super) struct Missing {
    pub(super) key: PoolKey,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn find<'o>(world: &mut World<'o>, workloads: Workloads<'o>) -> Pools<'o> {
    let services = world.all(|spec| match spec {
        Spec::Service(service) => Some(service),
        _ => None,
    });
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
                let count = pools.specs.get(&key).map_or(0, |spec| spec.endpoints.len());
                let endpoints = if count == 1 { "endpoint" } else { "endpoints" };
                // Pods come and go: a status that told of them would be written each time.
                if !world.options.kubernetes {
                    verdict.remark(format!("{count} {endpoints}"));
                }
                verdict.remark(used_by(routes.uses.routes(&key)));
                if count == 0 && !world.options.kubernetes {
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

/// Names the routes that send requests here, or the first of them.
fn used_by<'r>(routes: impl Iterator<Item = &'r str>) -> String {
    const NAMED_MAX: usize = 8;
    let all: Vec<&str> = routes.collect();
    match all.len().checked_sub(NAMED_MAX) {
        _ if all.is_empty() => "no route sends requests to it yet".to_owned(),
        None | Some(0) => format!("used by {}", all.join(", ")),
        Some(more) => format!("used by {} and {more} more", all[..NAMED_MAX].join(", ")),
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

    /// Whether the InferencePool that is served under the name is of that group.
    pub(super) fn is_of_group(&self, key: &PoolKey, group: &str) -> bool {
        self.inference.get(key).is_some_and(|object| object.group == group)
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
        let ports = |workload: &Workload<'_>| workload.pool_ports(&pool.ports);
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
            let ports = |workload: &Workload<'_>| workload.service_port(found, only);
            let endpoints = self.endpoints(world, object, &service.selector, found.protocol, ports);
            if endpoints.is_empty() {
                let namespace = &object.namespace;
                let message = if world.options.kubernetes {
                    "no Pod that is ready has the labels of its selector".to_owned()
                } else {
                    format!(
                        "no WorkloadEntry in namespace {namespace} has the labels of its selector"
                    )
                };
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
        ports: impl Fn(&Workload<'_>) -> P,
    ) -> Vec<EndpointSpec> {
        let mut found: Vec<(EndpointSpec, &Object)> = Vec::new();
        for (object, workload) in self.workloads.selected(&pool.namespace, selector) {
            let mut ports: Vec<u16> = ports(workload).into_iter().collect();
            ports.sort_unstable();
            ports.dedup();
            found.extend(ports.into_iter().map(|port| {
                let endpoint = EndpointSpec {
                    id: endpoint_id(workload.address(), port),
                    workload: Arc::clone(&object.name),
                    host: workload.address().into(),
                    port,
                    protocol,
                };
                (endpoint, *object)
            }));
        }
        // The oldest of those with one id stays the first of them.
        found.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        found.dedup_by(|(later, object), (endpoint, first)| {
            let same = later.id == endpoint.id;
            if same {
                let message = format!("{first} is {} already in {pool}; counted once", later.id);
                world.warn(object, "spec.address", message);
            }
            same
        });
        found.into_iter().map(|(endpoint, _)| endpoint).collect()
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
