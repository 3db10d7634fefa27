//! Which requests go to which pools.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picker::{HostPattern, PoolKey, RouteMatch, RouteRule, RouteSpec, WeightedPool};

use super::{
    DISABLED, DISABLED_MESSAGE, World,
    gateways::{self, Found, Gateways},
    pools::{self, Pools},
};
use crate::{
    object::{ISTIO_GROUP, Kind, Object, Path, Spec},
    resource::{self, BackendTarget, MESH, Route, Rule},
    status::{ObjectStatus, ParentRef, StatusShape, Verdict},
};

pub(super) struct Routes {
    pub(super) specs: Vec<Ranked>,
    pub(super) uses: Uses,
}

/// A route, and its place among those of equal hosts.
pub(super) struct Ranked {
    pub(super) rank: Rank,
    pub(super) spec: RouteSpec,
}

/// Lower goes first. Only HTTPRoutes share a host, and the Gateway API says in which order.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rank {
    /// 0 for an exact path.
    pub(super) path: u8,
    pub(super) path_length: Reverse<usize>,
    pub(super) headers: Reverse<usize>,
    pub(super) created: u64,
    pub(super) route: String,
    pub(super) rule: usize,
}

/// Everything in an order that does not depend on that of the objects.
pub(super) fn in_order(mut routes: Vec<Ranked>) -> Vec<RouteSpec> {
    routes.sort_by_cached_key(|Ranked { rank, spec }| {
        let best = spec.hosts.iter().map(specificity).min();
        (spec.port, best, rank.clone(), Arc::clone(&spec.name), spec.hosts.clone())
    });
    routes.into_iter().map(|route| route.spec).collect()
}

/// Lower is more specific.
fn specificity(host: &HostPattern) -> usize {
    match host {
        HostPattern::Exact(_) => 0,
        HostPattern::Suffix(suffix) => usize::MAX / 2 - suffix.len(),
        HostPattern::Any => usize::MAX,
    }
}

/// Who sends requests to a pool.
#[derive(Default)]
pub(super) struct Uses {
    by_pool: BTreeMap<PoolKey, PoolUse>,
}

#[derive(Default)]
struct PoolUse {
    routes: BTreeSet<String>,
    /// By their group.
    gateways: BTreeSet<(&'static str, Path)>,
}

impl Uses {
    /// The accepted routes that send requests to the pool.
    pub(super) fn routes(&self, pool: &PoolKey) -> impl Iterator<Item = &str> {
        self.by_pool.get(pool).into_iter().flat_map(|found| &found.routes).map(String::as_str)
    }

    pub(super) fn any(&self, pool: &PoolKey) -> bool {
        self.by_pool.contains_key(pool)
    }

    /// A route sends requests to the pool that come through these Gateways.
    pub(super) fn note(
        &mut self,
        pool: &PoolKey,
        route: &Object,
        group: &'static str,
        through: impl IntoIterator<Item = Path>,
    ) {
        let found = self.by_pool.entry(pool.clone()).or_default();
        found.routes.insert(route.to_string());
        found.gateways.extend(through.into_iter().map(|path| (group, path)));
    }

    /// Completes a pool's status with the Gateways it is reached through.
    pub(super) fn name_parents(&self, status: &mut ObjectStatus) {
        let path = Path::new(Arc::clone(&status.namespace), Arc::clone(&status.name));
        let found = self.by_pool.get(&Pools::key(&path));
        let gateways = found.into_iter().flat_map(|found| &found.gateways);
        let named = gateways.map(|(group, path)| ParentRef {
            group,
            namespace: Arc::clone(&path.namespace),
            name: Arc::clone(&path.name),
        });
        match &mut status.shape {
            StatusShape::Parent(parents) | StatusShape::Parents(parents) => parents.extend(named),
            StatusShape::Flat
            | StatusShape::Ancestors(_)
            | StatusShape::Gateway(_)
            | StatusShape::RouteParents(_) => {}
        }
    }
}

/// Which route serves a host on a port.
type Claims = BTreeMap<(u16, HostPattern), String>;

pub(super) fn fold<'o>(
    world: &mut World<'o>,
    gateways: &Gateways<'o>,
    pools: &mut Pools<'o>,
) -> Routes {
    let all = world.all(|spec| match spec {
        Spec::Route(route) => Some(route),
        _ => None,
    });
    let mut claims = Claims::new();
    let mut routes = Routes { specs: Vec::new(), uses: Uses::default() };
    for (object, route) in all {
        let mut verdict = Verdict::new(object);
        let backends = resolve(world, &mut verdict, route, pools);
        let served = attach(&mut verdict, route, gateways);
        // VirtualServices are mostly for sidecars and other proxies.
        if served.is_empty() && object.kind == Kind::VirtualService {
            verdict.leave_to_others();
        }
        if verdict.is_accepted() {
            let claimed = claim(&mut verdict, &mut claims, route, &served);
            routes.add(object, route, &backends, claimed);
        }
        world.verdicts.push(verdict);
    }
    routes
}

type Backends = BTreeMap<BackendTarget, PoolKey>;

/// Finds the pool of each backend; one that is missing keeps its place, so that its share of the
/// requests is refused rather than sent elsewhere.
fn resolve<'o>(
    world: &mut World<'o>,
    verdict: &mut Verdict<'o>,
    route: &Route,
    pools: &mut Pools<'o>,
) -> Backends {
    let mut backends = Backends::new();
    let mut of_pools = 0;
    let targets: BTreeSet<&BackendTarget> =
        route.rules.iter().flat_map(|rule| &rule.backends).map(|backend| &backend.target).collect();
    for target in &targets {
        let key = match target {
            BackendTarget::Pool(path) => {
                of_pools += 1;
                let key = Pools::key(path);
                if !world.extension_on {
                    let message = format!("{key} is not served: {DISABLED_MESSAGE}");
                    verdict.unresolved(DISABLED, backend_field(verdict), message);
                } else if !pools.contains(&key) {
                    let message = format!("there is no {key}");
                    verdict.unresolved("PoolNotFound", backend_field(verdict), message);
                }
                key
            }
            BackendTarget::Service(path, port) => match pools.service(world, path, *port) {
                Ok(key) => key,
                Err(missing) => {
                    verdict.unresolved(missing.reason, backend_field(verdict), missing.message);
                    missing.key
                }
            },
            BackendTarget::Outside(host) => {
                let message = format!("{host} is outside, which is not served yet");
                verdict.unresolved("UnsupportedBackend", backend_field(verdict), message);
                pools::outside(&verdict.object.namespace, host)
            }
        };
        backends.insert((*target).clone(), key);
    }
    if !world.extension_on && of_pools > 0 && of_pools == targets.len() {
        verdict.refuse(DISABLED, "", DISABLED_MESSAGE.to_owned());
    }
    backends
}

fn backend_field(verdict: &Verdict<'_>) -> &'static str {
    if verdict.object.kind == Kind::VirtualService { "spec.http" } else { "spec.rules" }
}

/// The Gateways of a route that this proxy serves.
fn attach<'g, 'o>(
    verdict: &mut Verdict<'_>,
    route: &'g Route,
    gateways: &Gateways<'o>,
) -> Vec<(&'g Path, &'o resource::Gateway)> {
    const FIELD: &str = "spec.gateways";
    let mut served = Vec::new();
    let mut objections = Vec::new();
    for path in &route.gateways {
        match gateways.get(path) {
            Some(Found::Served(gateway)) => served.push((path, *gateway)),
            Some(Found::NotServed(why)) => {
                objections.push(("GatewayNotAccepted", format!("Gateway {path}: {why}")));
            }
            // Every namespace has a `mesh`: it means sidecars, of which we have none.
            None if &*path.name == MESH => {}
            None => {
                let message = format!("there is no Gateway {path}");
                verdict.unresolved("GatewayNotFound", FIELD, message.clone());
                objections.push(("GatewayNotFound", message));
            }
        }
    }
    if !served.is_empty() {
        return served;
    }
    if objections.is_empty() {
        let message = "it names no gateways, which means the sidecars of a mesh; add the name of \
                       a Gateway"
            .to_owned();
        objections.push(("NoGateways", message));
    }
    // That one is there but not for us says more than that others are not there.
    objections.sort_by_key(|(reason, _)| *reason == "GatewayNotFound");
    for (reason, message) in objections {
        verdict.refuse(reason, FIELD, message);
    }
    served
}

/// Hosts, by port and the Gateways that take requests for them there. Gateways may share a port.
type Claimed<'g> = BTreeMap<(u16, BTreeSet<&'g Path>), Vec<HostPattern>>;

/// Takes the hosts nobody has yet.
fn claim<'g>(
    verdict: &mut Verdict<'_>,
    claims: &mut Claims,
    route: &Route,
    served: &[(&'g Path, &resource::Gateway)],
) -> Claimed<'g> {
    let mut met: BTreeMap<(u16, HostPattern), BTreeSet<&'g Path>> = BTreeMap::new();
    for (path, gateway) in served {
        for place in gateways::meet(gateway, &verdict.object.namespace, &route.hosts) {
            met.entry(place).or_default().insert(path);
        }
    }
    let nowhere = met.is_empty();
    let own = verdict.object.to_string();
    let mut claimed = Claimed::new();
    let mut lost = Vec::new();
    for ((port, host), through) in met {
        let owner = claims.entry((port, host.clone())).or_insert_with(|| own.clone());
        if *owner == own {
            claimed.entry((port, through)).or_default().push(host);
        } else {
            lost.push(format!("{owner} has host {} on port {port} already", show(&host)));
        }
    }
    let field =
        if verdict.object.kind == Kind::VirtualService { "spec.hosts" } else { "spec.host" };
    if nowhere {
        let hosts: Vec<String> = route.hosts.iter().map(show).collect();
        let message = format!("no server of its Gateways takes host {}", hosts.join(", "));
        verdict.refuse("NoMatchingHost", field, message);
    } else if claimed.is_empty() {
        for message in lost {
            verdict.refuse("HostInUse", field, message);
        }
    } else {
        let ports: BTreeSet<u16> = claimed.keys().map(|(port, _)| *port).collect();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        verdict.remark(format!("serves port {}", ports.join(", ")));
        for message in lost {
            verdict.caution(field, message);
        }
    }
    claimed
}

pub(super) fn show(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
        HostPattern::Any => "*".into(),
    }
}

impl Routes {
    fn add(&mut self, object: &Object, route: &Route, backends: &Backends, claimed: Claimed<'_>) {
        let name: Arc<str> = object.path().into();
        let mut specs: Vec<RouteSpec> = Vec::new();
        for ((port, through), hosts) in claimed {
            for pool in backends.values() {
                let through = through.iter().map(|path| (*path).clone());
                self.uses.note(pool, object, ISTIO_GROUP, through);
            }
            let rules: Vec<RouteRule> =
                route.rules.iter().filter_map(|rule| narrow(rule, backends, &through)).collect();
            if rules.is_empty() {
                continue;
            }
            match specs.iter_mut().find(|spec| spec.port == port && spec.rules == rules) {
                Some(same) => same.hosts.extend(hosts),
                None => specs.push(RouteSpec { name: Arc::clone(&name), port, hosts, rules }),
            }
        }
        for spec in &mut specs {
            spec.hosts.sort();
        }
        let ranked = |spec| Ranked { rank: Rank::default(), spec };
        self.specs.extend(specs.into_iter().map(ranked));
    }
}

/// The rule as it is for requests of these Gateways, if it is for them at all.
fn narrow(rule: &Rule, backends: &Backends, through: &BTreeSet<&Path>) -> Option<RouteRule> {
    let applies = |only: &[Path]| only.is_empty() || only.iter().any(|path| through.contains(path));
    let matches: Vec<RouteMatch> = rule
        .matches
        .iter()
        .filter(|one| applies(&one.gateways))
        .map(|one| one.condition.clone())
        .collect();
    if matches.is_empty() && !rule.matches.is_empty() {
        return None;
    }
    let weighted = rule.backends.iter().filter_map(|backend| {
        let pool = backends.get(&backend.target)?.clone();
        Some(WeightedPool { pool, weight: backend.weight })
    });
    Some(RouteRule {
        name: rule.name.as_deref().map(Arc::from),
        matches,
        pools: weighted.collect(),
        timeout: rule.timeout,
    })
}
