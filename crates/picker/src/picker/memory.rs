//! What is desired, what is known of every endpoint, and how one desired state follows another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use scheduling::EndpointId;

use crate::{Desired, EndpointSpec, Member, PoolKey, PoolSpec};

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) desired: Arc<Desired>,
    /// Where each pool is among those desired.
    pub(super) places: BTreeMap<PoolKey, usize>,
    pub(super) members: Members,
}

pub(super) type Members = HashMap<EndpointId, Known>;

/// A member, and the pools it is in, each with its description of it, in order of their keys.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) member: Member,
    pub(super) pools: Vec<(PoolKey, EndpointSpec)>,
}

impl Memory {
    /// Makes this the desired state; `make` is asked for endpoints that are new or described anew. Returns the places of the
    /// pools that are not as they were.
    pub(super) fn change(
        &mut self,
        desired: &Arc<Desired>,
        make: impl Fn(&EndpointSpec) -> Member,
    ) -> BTreeSet<usize> {
        let places =
            desired.pools.iter().enumerate().map(|(place, spec)| (spec.key.clone(), place));
        let places_before = std::mem::replace(&mut self.places, places.collect());
        let before = std::mem::replace(&mut self.desired, Arc::clone(desired));
        let now = |key: &PoolKey| self.places.get(key).map(|place| &desired.pools[*place]);
        let was = |key: &PoolKey| places_before.get(key).map(|place| &before.pools[*place]);
        let mut changed = BTreeSet::new();
        let mut moved: BTreeSet<&EndpointId> = BTreeSet::new();
        for pool in &before.pools {
            if now(&pool.key).is_some_and(|now| now.endpoints == pool.endpoints) {
                continue;
            }
            for spec in &pool.endpoints {
                moved.insert(&spec.id);
                if let Some(known) = self.members.get_mut(&spec.id) {
                    known.pools.retain(|(key, _)| *key != pool.key);
                }
            }
        }
        for (place, pool) in desired.pools.iter().enumerate() {
            let was = was(&pool.key);
            if was != Some(pool) {
                changed.insert(place);
            }
            if was.is_some_and(|was| was.endpoints == pool.endpoints) {
                continue;
            }
            for spec in &pool.endpoints {
                moved.insert(&spec.id);
                let known = self.members.entry(spec.id.clone());
                let known =
                    known.or_insert_with(|| Known { member: make(spec), pools: Vec::new() });
                known.pools.push((pool.key.clone(), spec.clone()));
            }
        }
        for id in moved {
            let Some(Known { member, pools }) = self.members.get_mut(id) else { continue };
            pools.sort_by(|a, b| a.0.cmp(&b.0));
            // Where pools describe one endpoint differently, the first description holds.
            let Some((_, first)) = pools.first() else {
                self.members.remove(id);
                continue;
            };
            if *first != member.endpoint.spec {
                *member = make(first);
                changed.extend(pools.iter().map(|(key, _)| self.places[key]));
            }
        }
        changed
    }
}

/// In the order of the pool.
pub(super) fn members_of<'m>(
    spec: &PoolSpec,
    members: &'m Members,
) -> impl Iterator<Item = &'m Member> {
    spec.endpoints.iter().filter_map(|endpoint| Some(&members.get(&endpoint.id)?.member))
}

#[cfg(test)]
mod tests;
