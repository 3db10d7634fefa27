//! Which requests HTTPRoutes send to which pools.
//!
//! Unlike Istio's, several routes may share a host: their matches are put in one order, the most
//! specific first.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use picker::{HostPattern, PoolKey, RouteMatch, RouteRule, RouteSpec, StringMatch, WeightedPool};

use super::{
    DISABLED, DISABLED_MESSAGE, World,
    gateway_api::ApiGateways,
    pools::{self, Pools},
    routes::{Rank, Ranked, Routes},
};
use crate::{
    object::{GATEWAY_API_GROUP, Object, Path, Spec},
    resource::{
        BackendTarget, HttpBackend, HttpMatch, HttpParent, HttpPath, HttpRoute, HttpRule,
        HttpTarget, ReferenceGrant,
    },
    status::{RouteParent, StatusShape, Verdict},
};

pub(super) fn fold<'o>(
    world: &mut World<'o>,
    gateways: &mut ApiGateways<'o>,
    pools: &mut Pools<'o>,
    routes: &mut Routes,
) {
    let grants = world.all(|spec| match spec {
        Spec::ReferenceGrant(grant) => Some(grant),
        _ => None,
    });
    for (object, route) in world.all(|spec| match spec {
        Spec::HttpRoute(route) => Some(route),
        _ => None,
    }) {
        let mut verdict = Verdict::new(object);
        let ours: Vec<&HttpParent> =
            route.parents.iter().filter(|parent| gateways.is_served(&parent.gateway)).collect();
        if ours.is_empty() {
            let message = "none of its parents is a Gateway that is served here".to_owned();
            verdict.refuse("NoMatchingParent", "spec.parentRefs", message);
            verdict.leave_to_others();
            verdict.put_into(StatusShape::RouteParents(Vec::new()));
            world.verdicts.push(verdict);
            continue;
        }
        let rules = resolve(world, &mut verdict, route, pools, &grants);
        let met = attach(&mut verdict, route, gateways, &ours);
        if verdict.is_accepted() {
            add(routes, object, &rules, met);
        }
        world.verdicts.push(verdict);
    }
}

/// Ports, the hosts met there, and the Gateways that take their requests.
type Met = BTreeMap<u16, (BTreeSet<HostPattern>, BTreeSet<Path>)>;

/// Attaches the route where it can be; it is refused when no parent takes it.
fn attach(
    verdict: &mut Verdict<'_>,
    route: &HttpRoute,
    gateways: &mut ApiGateways<'_>,
    ours: &[&HttpParent],
) -> Met {
    let mut met = Met::new();
    let mut parents = Vec::new();
    for parent in ours {
        let attached = gateways.attach(verdict.object, &route.hosts, parent);
        let refused = match attached {
            Ok(places) => {
                for (port, host) in places {
                    let (hosts, through) = met.entry(port).or_default();
                    hosts.insert(host);
                    through.insert(parent.gateway.clone());
                }
                None
            }
            Err(refused) => Some(refused),
        };
        parents.push(RouteParent { reference: parent.reference.clone(), refused });
    }
    for refused in parents.iter().filter_map(|parent| parent.refused.as_ref()) {
        let message = refused.message.clone();
        if met.is_empty() {
            verdict.refuse(refused.reason, "spec.parentRefs", message);
        } else {
            verdict.caution("spec.parentRefs", message);
        }
    }
    verdict.put_into(StatusShape::RouteParents(parents));
    met
}

/// A rule whose backends are found.
struct Resolved<'o> {
    rule: &'o HttpRule,
    pools: Vec<WeightedPool>,
}

/// Finds the pool of each backend; one that is missing keeps its place, so that its share of the
/// requests is refused rather than sent elsewhere.
fn resolve<'o>(
    world: &mut World<'o>,
    verdict: &mut Verdict<'o>,
    route: &'o HttpRoute,
    pools: &mut Pools<'o>,
    grants: &Grants<'o>,
) -> Vec<Resolved<'o>> {
    let mut rules = Vec::new();
    for rule in &route.rules {
        let weighted = rule.backends.iter().map(|backend| WeightedPool {
            pool: find(world, verdict, backend, pools, grants),
            weight: backend.weight,
        });
        let mut weighted: Vec<WeightedPool> = weighted.collect();
        if rule.filtered {
            weighted = vec![WeightedPool { pool: refuse_filtered(verdict, "rule"), weight: 1 }];
        }
        rules.push(Resolved { rule, pools: weighted });
    }
    rules
}

/// Every grant, and whose it is.
type Grants<'o> = [(&'o Object, &'o ReferenceGrant)];

/// Whether HTTPRoutes of that namespace may refer to what is in another.
fn is_granted(grants: &Grants<'_>, from: &str, target: &BackendTarget, path: &Path) -> bool {
    let pool = matches!(target, BackendTarget::Pool(_));
    grants.iter().filter(|(object, _)| object.namespace == path.namespace).any(|(_, grant)| {
        let names = |name: &String| **name == *path.name;
        let mut to = grant.to.iter().filter(|to| to.pool == pool);
        grant.from.iter().any(|namespace| namespace == from)
            && to.any(|to| to.name.as_ref().is_none_or(names))
    })
}

const BACKENDS: &str = "spec.rules";

fn find<'o>(
    world: &mut World<'o>,
    verdict: &mut Verdict<'o>,
    backend: &'o HttpBackend,
    pools: &mut Pools<'o>,
    grants: &Grants<'o>,
) -> PoolKey {
    if backend.filtered {
        return refuse_filtered(verdict, "backend");
    }
    let own = &verdict.object.namespace;
    let target = match &backend.target {
        HttpTarget::Known(target) => target,
        HttpTarget::Unknown(kind) => {
            let message = format!("{kind} is no backend here; use InferencePool or Service");
            verdict.unresolved("InvalidKind", BACKENDS, message);
            return pools::outside(own, kind);
        }
    };
    let (BackendTarget::Pool(path) | BackendTarget::Service(path, _)) = target else {
        return pools::outside(own, "outside");
    };
    if path.namespace != *own && !is_granted(grants, own, target, path) {
        let message = format!(
            "{path} is in another namespace, and no ReferenceGrant there is for HTTPRoutes of {own}"
        );
        verdict.unresolved("RefNotPermitted", BACKENDS, message);
        return pools::outside(own, &path.to_string());
    }
    if let BackendTarget::Service(path, port) = target {
        return pools.service(world, path, *port).unwrap_or_else(|missing| {
            verdict.unresolved("BackendNotFound", BACKENDS, missing.message);
            missing.key
        });
    }
    let key = Pools::key(path);
    if !world.extension_on {
        let message = format!("{key} is not served: {DISABLED_MESSAGE}");
        verdict.unresolved(DISABLED, BACKENDS, message);
    } else if !pools.contains(&key) {
        verdict.unresolved("BackendNotFound", BACKENDS, format!("there is no {key}"));
    } else if !pools.is_of_group(&key, &backend.group) {
        let message = format!("{key} is served, but not the one of group {}", backend.group);
        verdict.unresolved("BackendNotFound", BACKENDS, message);
        return pools::outside(own, &path.to_string());
    }
    key
}

/// What is to be done to requests is not left out: they go nowhere.
fn refuse_filtered(verdict: &mut Verdict<'_>, what: &str) -> PoolKey {
    let message = format!("a {what} has filters, which are not applied: its requests are refused");
    verdict.unresolved("UnsupportedValue", BACKENDS, message);
    pools::outside(&verdict.object.namespace, "filters")
}

fn add(routes: &mut Routes, object: &Object, rules: &[Resolved<'_>], met: Met) {
    let name: Arc<str> = object.path().into();
    for (port, (hosts, through)) in met {
        let hosts: Vec<HostPattern> = hosts.into_iter().collect();
        for (index, resolved) in rules.iter().enumerate() {
            for weighted in &resolved.pools {
                let through = through.iter().cloned();
                routes.uses.note(&weighted.pool, object, GATEWAY_API_GROUP, through);
            }
            for one in &resolved.rule.matches {
                let rule = RouteRule {
                    name: resolved.rule.name.as_deref().map(Arc::from),
                    matches: conditions(one),
                    pools: resolved.pools.clone(),
                    timeout: resolved.rule.timeout,
                };
                let (name, hosts) = (Arc::clone(&name), hosts.clone());
                let spec = RouteSpec { name, port, hosts, rules: vec![rule] };
                routes.specs.push(Ranked { rank: rank(object, index, one), spec });
            }
        }
    }
}

/// What a request has to be like; any of these.
fn conditions(one: &HttpMatch) -> Vec<RouteMatch> {
    let paths = match &one.path {
        HttpPath::Exact(path) => vec![Some(StringMatch::Exact(path.clone()))],
        HttpPath::Regex(regex) => vec![Some(regex.clone())],
        HttpPath::Prefix(prefix) => match prefix.trim_end_matches('/') {
            "" => vec![None],
            prefix => vec![
                Some(StringMatch::Exact(prefix.to_owned())),
                Some(StringMatch::Prefix(format!("{prefix}/"))),
            ],
        },
    };
    let headers: Vec<_> =
        one.headers.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    let condition = |path| RouteMatch { path, headers: headers.clone() };
    paths.into_iter().map(condition).collect()
}

fn rank(object: &Object, rule: usize, one: &HttpMatch) -> Rank {
    let (path, length) = match &one.path {
        HttpPath::Exact(path) => (0, path.len()),
        HttpPath::Regex(StringMatch::Regex(regex)) => (1, regex.as_str().len()),
        HttpPath::Regex(_) => (1, 0),
        HttpPath::Prefix(prefix) => (1, prefix.len()),
    };
    Rank {
        path,
        path_length: Reverse(length),
        headers: Reverse(one.headers.len()),
        created: object.created,
        route: object.path(),
        rule,
    }
}
