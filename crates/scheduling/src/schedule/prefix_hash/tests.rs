use crate::{InferenceRequest, Policy, schedule::tests::firsts};

/// Who is chosen; there are no dice in it.
fn check(candidates: &str, chosen: &str) {
    let request = InferenceRequest::default();
    let (firsts, _) = firsts(Policy::PrefixHash, &request, candidates).unwrap();
    assert_eq!(firsts, chosen, "{candidates}");
}

#[test]
fn the_first_on_the_ring_is_chosen_whatever_its_queue() {
    check("a ring=1 | b ring=0 waiting=99 kv=1 | c ring=2", "b");
    check("a ring=2 in_flight=1 | b ring=1 in_flight=1 | c ring=0 in_flight=1", "c");
}

#[test]
fn it_is_passed_over_from_a_quarter_above_the_mean_on() {
    check("a ring=0 in_flight=1 | b ring=1", "a");
    check("a ring=0 in_flight=2 | b ring=1", "b");
    // The mean with this request is 4.5 and 4.75, the bound both times 6.
    let four = |first: u32| {
        format!(
            "a ring=0 in_flight={first} | b ring=1 in_flight=4 | c ring=2 in_flight=4 | d ring=3 in_flight=4"
        )
    };
    check(&four(5), "a");
    check(&four(6), "b");
}

#[test]
fn the_next_on_the_ring_is_asked_and_the_next() {
    check("a ring=0 in_flight=9 | b ring=1 in_flight=9 | c ring=2 | d ring=3", "c");
    check("a ring=3 | b ring=1 in_flight=9 | c ring=0 in_flight=9 | d ring=2 in_flight=9", "a");
}
