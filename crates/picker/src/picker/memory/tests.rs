use proptest::{collection::vec, prelude::*};
use scheduling::Policy;

use super::*;
use crate::{
    AppProtocol, Health,
    picker::tests::{Gateway, desired},
};

/// Which of the endpoints each of three pools has, where it has any, and how it describes them.
type Pools = [Vec<(usize, bool)>; 3];

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn pools() -> impl Strategy<Value = Pools> {
    let endpoints = || vec((0..NAMES.len(), prop::bool::weighted(0.2)), 0..5);
    [endpoints(), endpoints(), endpoints()]
}

/// As the fold makes it: pools and endpoints in order, each endpoint once in a pool.
fn state(pools: &Pools, policy: Policy) -> Desired {
    let served = ["p", "q", "r"].iter().zip(pools).filter(|(_, endpoints)| !endpoints.is_empty());
    let served: Vec<_> = served
        .map(|(name, endpoints)| (*name, endpoints.iter().copied().collect::<BTreeMap<_, _>>()))
        .collect();
    let described = |(name, endpoints): &(&str, BTreeMap<usize, bool>)| {
        let names: Vec<&str> = endpoints.keys().map(|endpoint| NAMES[*endpoint]).collect();
        format!("{name}: {}", names.join(" "))
    };
    let texts: Vec<String> = served.iter().map(described).collect();
    if texts.is_empty() {
        return Desired::default();
    }
    let mut desired = desired(policy, &texts.join(" | "));
    for (pool, (_, endpoints)) in desired.pools.iter_mut().zip(&served) {
        for (spec, h2c) in pool.endpoints.iter_mut().zip(endpoints.values()) {
            spec.protocol = if *h2c { AppProtocol::H2c } else { AppProtocol::Http1 };
        }
    }
    desired
}

/// Every pool's policy, its endpoints as they are described where they are used, and those that get requests.
fn known(gateway: &Gateway) -> Vec<String> {
    let told = |(key, members): (PoolKey, Vec<Member>)| {
        let members: Vec<String> =
            members.iter().map(|member| format!("{:?}", member.endpoint.spec)).collect();
        let (policy, usable) = gateway.picker.usable(&key);
        format!("{key} {policy:?} {members:?} {usable:?}")
    };
    gateway.picker.view().pools().into_iter().map(told).collect()
}

proptest! {
    /// What a change leaves is what the new state alone would come to.
    #[test]
    fn history_leaves_nothing_behind(
        states in vec((pools(), prop::bool::weighted(0.2), 0..NAMES.len()), 1..6),
    ) {
        let gateway = Gateway::new(Desired::default());
        for (pools, other_policy, unready) in &states {
            let policy = if *other_policy { Policy::Random } else { Policy::LeastRequest };
            let state = state(pools, policy);
            gateway.picker.writer().apply(state.clone());
            let fresh = Gateway::new(state);
            for member in gateway.picker.view().members() {
                fresh.picker.writer().health(&member.endpoint.spec.id, member.health);
            }
            prop_assert_eq!(known(&gateway), known(&fresh));
            let ids = |gateway: &Gateway| -> Vec<EndpointId> {
                let members = gateway.picker.view().members();
                members.iter().map(|member| member.endpoint.spec.id.clone()).collect()
            };
            prop_assert_eq!(ids(&gateway), ids(&fresh));
            gateway.picker.writer().health(&EndpointId::new(NAMES[*unready]), Health::Unready);
        }
    }
}
