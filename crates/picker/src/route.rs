//! From host, path and headers to a pool.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use scheduling::Chance;

use crate::{
    Delivery, HostPattern, PoolKey, Refusal, RouteMatch, RouteRule, RouteSpec, draw::weighted,
    pool::Pool,
};

/// What routing may look at.
pub trait RouteQuery {
    fn port(&self) -> u16;
    /// Host without port, lower case.
    fn host(&self) -> &str;
    /// Path without query.
    fn path(&self) -> &str;
    /// A header by its lower-case name.
    fn header(&self, name: &str) -> Option<&str>;
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Routed {
    pub route: Arc<str>,
    pub rule: Option<Arc<str>>,
    /// The route and its rule, as logs have them.
    pub name: Arc<str>,
    pub pool: PoolKey,
    /// Total time for the answer: the route's, else the pool's.
    pub timeout: Option<Duration>,
    /// How the pool wants its requests carried.
    pub delivery: Delivery,
    /// The pool itself, of the same configuration as the route: a reload between routing and
    /// picking takes nothing away from a request.
    pub(crate) target: Option<Arc<Pool>>,
}

impl Routed {
    /// With the pool that was found, if there is one, and what it says.
    pub(crate) fn to(self, target: Option<Arc<Pool>>) -> Self {
        let delivery = target.as_ref().map_or(self.delivery, |pool| pool.snapshot.load().delivery);
        Self { timeout: self.timeout.or(delivery.timeout), delivery, target, ..self }
    }
}

/// All routes, by port and host. Swapped whole.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    ports: BTreeMap<u16, Vec<(HostPattern, Arc<Known>)>>,
}

#[derive(Debug)]
struct Known {
    route: RouteSpec,
    /// Of each rule, as logs have it.
    names: Vec<Arc<str>>,
}

impl Known {
    fn new(route: &RouteSpec) -> Self {
        let name = |rule: &RouteRule| match &rule.name {
            Some(rule) => format!("{}/{rule}", route.name).into(),
            None => Arc::clone(&route.name),
        };
        Self { names: route.rules.iter().map(name).collect(), route: route.clone() }
    }
}

impl RouteTable {
    /// The most specific host comes first; among equals the order of `routes` holds.
    pub(crate) fn new(routes: &[RouteSpec]) -> Self {
        let mut ports: BTreeMap<u16, Vec<(HostPattern, Arc<Known>)>> = BTreeMap::new();
        for route in routes {
            let known = Arc::new(Known::new(route));
            let hosts = ports.entry(route.port).or_default();
            hosts.extend(route.hosts.iter().map(|host| (host.clone(), Arc::clone(&known))));
        }
        for hosts in ports.values_mut() {
            hosts.sort_by_key(|(host, _)| match host {
                HostPattern::Exact(_) => 0,
                HostPattern::Suffix(suffix) => 1 + (usize::MAX / 2 - suffix.len()),
                HostPattern::Any => usize::MAX,
            });
        }
        Self { ports }
    }

    /// The first rule that matches, in the route with the most specific host.
    pub(crate) fn route(
        &self,
        query: &dyn RouteQuery,
        mut chance: Chance,
    ) -> Result<Routed, Refusal> {
        let hosts = self.ports.get(&query.port()).map_or(&[][..], Vec::as_slice);
        // As in Envoy, the most specific host alone decides: no rule for it, no route.
        let claimed =
            hosts.iter().map(|(host, _)| host).find(|host| host_matches(host, query.host()));
        let mut claiming = hosts.iter().filter(|(host, _)| Some(host) == claimed);
        let found = claiming.find_map(|(_, known)| {
            let named = known.route.rules.iter().zip(&known.names);
            let (rule, name) = named.into_iter().find(|(rule, _)| rule_matches(rule, query))?;
            Some((&known.route, rule, name))
        });
        let Some((route, rule, name)) = found else {
            let clipped = |text: &str| text.chars().take(200).collect();
            return Err(Refusal::NoRoute {
                host: clipped(query.host()),
                path: clipped(query.path()),
            });
        };
        let weights = rule.pools.iter().map(|pool| pool.weight);
        let Some(index) = weighted(weights, &mut chance) else {
            return Err(Refusal::NoEndpoints { pool: format!("route {}", route.name) });
        };
        Ok(Routed {
            route: Arc::clone(&route.name),
            rule: rule.name.clone(),
            name: Arc::clone(name),
            pool: rule.pools[index].pool.clone(),
            timeout: rule.timeout,
            delivery: Delivery::default(),
            target: None,
        })
    }
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(exact) => host == exact,
        HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        HostPattern::Any => true,
    }
}

fn rule_matches(rule: &RouteRule, query: &dyn RouteQuery) -> bool {
    rule.matches.is_empty() || rule.matches.iter().any(|one| one_matches(one, query))
}

fn one_matches(one: &RouteMatch, query: &dyn RouteQuery) -> bool {
    one.path.as_ref().is_none_or(|path| path.matches(query.path()))
        && one.headers.iter().all(|(name, wanted)| match (query.header(name), wanted) {
            (Some(value), Some(wanted)) => wanted.matches(value),
            (Some(_), None) => true,
            (None, _) => false,
        })
}

#[cfg(test)]
mod tests;
