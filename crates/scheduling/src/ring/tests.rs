use std::collections::BTreeMap;

use super::*;

fn ring(endpoints: &[u32]) -> HashRing {
    let ids: Vec<(u32, EndpointId)> = endpoints
        .iter()
        .map(|index| (*index, EndpointId::new(format!("10.0.0.{index}:8000"))))
        .collect();
    HashRing::new(ids.iter().map(|(index, id)| (*index, id)))
}

fn points() -> impl Iterator<Item = u64> {
    (0..4_000u64).map(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Where keys go before and after; only those of `leaving` may have moved.
fn check(endpoints: &[u32], leaving: u32) {
    let stay: Vec<u32> = endpoints.iter().copied().filter(|e| *e != leaving).collect();
    let (before, after) = (ring(endpoints), ring(&stay));
    for point in points() {
        let rest = before.from(point).find(|endpoint| *endpoint != leaving);
        assert_eq!(after.from(point).next(), rest, "the next one on the ring takes over");
    }
}

#[test]
fn an_endpoint_that_leaves_moves_only_its_own_keys() {
    check(&[0, 1, 2, 3, 4, 5, 6, 7], 3);
    check(&[0, 1], 0);
    check(&[0], 0);
}

#[test]
fn every_endpoint_has_about_as_many_keys() {
    let ring = ring(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let mut keys: BTreeMap<u32, u32> = BTreeMap::new();
    for point in points() {
        *keys.entry(ring.from(point).next().unwrap()).or_default() += 1;
    }
    assert_eq!(keys.len(), 8);
    assert!(keys.values().all(|count| (350..650).contains(count)), "{keys:?}");
}

#[test]
fn all_endpoints_are_met_from_every_point() {
    let ring = ring(&[4, 7, 9]);
    for point in [0, 1, u64::MAX / 2, u64::MAX] {
        let mut met: Vec<u32> = ring.from(point).collect();
        met.sort_unstable();
        met.dedup();
        assert_eq!(met, [4, 7, 9]);
    }
    assert_eq!(HashRing::default().from(5).next(), None);
}
