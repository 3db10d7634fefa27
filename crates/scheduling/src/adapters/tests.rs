use proptest::prelude::*;

use super::*;

/// Adapters as letters: `a` comes, `A` of them ends, with `-` before it of a process that is gone, and `!` is a new one; then how each of `abcd` would fit, with two slots.
fn check(events: &str, expected: &str) {
    let mut adapters = AdapterResidency::default();
    adapters.set_slots(2);
    let mut stays = true;
    for event in events.bytes() {
        let adapter = u64::from(event.to_ascii_lowercase());
        match event {
            b'a'..=b'z' => adapters.charge(adapter),
            b'!' => adapters.forget(),
            b'-' => stays = false,
            _ => adapters.release(adapter, std::mem::replace(&mut stays, true)),
        }
    }
    let fits: Vec<&str> = (b'a'..=b'd')
        .map(|adapter| match adapters.fit(Some(adapter.into())) {
            AdapterFit::Base => "base",
            AdapterFit::Active => "active",
            AdapterFit::Resident => "resident",
            AdapterFit::Room => "room",
            AdapterFit::Full => "full",
        })
        .collect();
    assert_eq!(fits.join(" "), expected, "{events}");
}

#[test]
fn slots_go_to_those_that_came_first() {
    check("", "room room room room");
    check("a", "active room room room");
    check("ab", "active active full full");
    check("abc", "active active full full");
    check("abcA", "full active active full");
    check("abcAB", "room resident active room");
    check("abcaAA", "full active active full");
}

#[test]
fn an_idle_adapter_stays_until_its_slot_is_needed() {
    check("aA", "resident room room room");
    check("aAbBcC", "room resident resident room");
    check("aAb", "resident active room room");
    check("aAbc", "full active active full");
    check("aAbcCB", "room resident resident room");
}

#[test]
fn a_new_process_has_no_adapter_but_those_in_use() {
    check("aAbB!", "room room room room");
    check("aAb!", "room active room room");
    check("ab!-AB", "room resident room room");
}

#[test]
fn pressure_counts_those_in_use_and_one_more() {
    let mut adapters = AdapterResidency::default();
    assert!((adapters.pressure() - 0.25).abs() < 1e-9);
    for adapter in 0..4 {
        adapters.charge(adapter);
    }
    adapters.charge(0);
    assert!((adapters.pressure() - 1.25).abs() < 1e-9);
    assert_eq!(adapters.fit(None), AdapterFit::Base);
}

proptest! {
    #[test]
    fn what_is_kept_of_the_slots_says_the_same_as_the_names(
        slots in 1usize..7,
        events in prop::collection::vec((0u64..6, any::<bool>()), 0..40),
    ) {
        let mut adapters = AdapterResidency::default();
        adapters.set_slots(slots);
        for (adapter, comes) in events {
            if comes { adapters.charge(adapter) } else { adapters.release(adapter, true) }
            for adapter in 0..7 {
                let by_names = adapters.names.fit(adapter);
                prop_assert_eq!(adapters.fit(Some(adapter)), by_names, "{} {:?}", adapter, adapters);
            }
        }
    }
}
