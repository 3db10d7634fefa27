use crate::{InferenceRequest, Policy, Unschedulable, schedule::tests::firsts};

/// Who may be chosen; `-` says that the request is refused.
fn check(sheddable: bool, candidates: &str, chosen: &str) {
    let priority = if sheddable { -1 } else { 0 };
    let request = InferenceRequest { priority, ..InferenceRequest::default() };
    match firsts(Policy::LoraChain, &request, candidates) {
        Ok((firsts, _)) => assert_eq!(firsts, chosen, "{candidates}"),
        Err(why) => assert_eq!((chosen, why), ("-", Unschedulable::Shed), "{candidates}"),
    }
}

#[test]
fn an_endpoint_that_lists_the_adapter_is_preferred_until_fifty_wait_there() {
    check(false, "a fit=room listed=1 waiting=49 kv=0.9 | b fit=room", "a");
    check(false, "a fit=room listed=1 waiting=50 | b fit=room waiting=49", "b");
}

#[test]
fn a_free_slot_is_next_best() {
    check(
        false,
        "a fit=full slots=2 adapters=2 waiting=0 | b fit=room slots=2 adapters=1 waiting=9",
        "b",
    );
    check(false, "a fit=full slots=1 adapters=1 waiting=3 | b fit=full slots=1 adapters=1", "a b");
    check(
        false,
        "a fit=full slots=1 adapters=1 waiting=8 | b fit=full slots=1 adapters=1 waiting=1",
        "b",
    );
}

#[test]
fn adapters_follow_queues_where_fifty_wait_everywhere() {
    check(false, "a fit=room listed=1 waiting=90 | b fit=room waiting=50", "b");
    check(
        false,
        "a fit=room slots=1 adapters=1 waiting=50 kv=0.1 | b fit=room listed=1 waiting=50 kv=0.9",
        "b",
    );
}

#[test]
fn a_base_model_asks_for_no_slot() {
    check(false, "a slots=1 adapters=1 waiting=0 | b slots=1 waiting=9", "a");
}

#[test]
fn what_may_be_refused_is_where_nobody_has_five_or_fewer_waiting_and_a_fifth_of_kv_free() {
    check(true, "a waiting=5 kv=0.8 | b waiting=6 kv=0", "a");
    check(true, "a waiting=6 kv=0 | b waiting=5 kv=0.81", "-");
    check(true, "a waiting=0 kv=0.81", "-");
    check(false, "a waiting=500 kv=1", "a");
    check(true, "a", "a");
}

#[test]
fn least_means_the_first_nth_of_the_span() {
    check(false, "a waiting=0 | b waiting=2 | c waiting=3 | d waiting=8", "a b");
    check(false, "a waiting=0 kv=0.6 | b waiting=2 kv=0.1 | c waiting=3 kv=0 | d waiting=8", "b");
    check(false, "a waiting=0 kv=0.1 | b waiting=2 kv=0.1 | c waiting=3 kv=0 | d waiting=8", "a b");
}
