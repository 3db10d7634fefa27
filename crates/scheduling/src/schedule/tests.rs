use std::{collections::BTreeMap, str::FromStr};

use proptest::prelude::*;

use super::*;
use crate::Reading;

const NOW: Duration = Duration::from_secs(100);

/// `east in_flight=2 sent=1 waiting=3 kv=0.5 age=9`, one candidate a `|`.
fn check(policy: Policy, turn: u64, candidates: &str, expected: &[&str]) {
    let parsed = parse(candidates);
    let firsts: Vec<String> = (0..64)
        .map(|seed| {
            let decision = decide(policy, &parsed, Chance::new(turn, seed));
            parsed[decision.choices[0]].0.to_string()
        })
        .collect();
    let mut seen: Vec<&str> = firsts.iter().map(String::as_str).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, expected, "{policy} over {candidates}");
}

type Parsed = Vec<(EndpointId, u32, u32, Signals)>;

fn parse(text: &str) -> Parsed {
    text.split('|')
        .map(|line| {
            let mut words = line.split_whitespace();
            let id = EndpointId::new(words.next().unwrap());
            let fields: BTreeMap<&str, f64> = words
                .map(|word| word.split_once('=').unwrap())
                .map(|(key, value)| (key, value.parse().unwrap()))
                .collect();
            let get = |key: &str| fields.get(key).copied();
            let age = Duration::from_secs_f64(get("age").unwrap_or(0.0));
            let heard = NOW.checked_sub(age).unwrap();
            let whole = |value: f64| u32::from_str(&value.to_string()).unwrap();
            let signals = Signals {
                waiting: get("waiting").map(|value| Reading { value: whole(value), heard }),
                kv_usage: get("kv").map(|value| Reading { value, heard }),
                ..Signals::default()
            };
            (id, get("in_flight").map_or(0, whole), get("sent").map_or(0, whole), signals)
        })
        .collect()
}

fn decide(policy: Policy, parsed: &Parsed, chance: Chance) -> Decision {
    let candidates: Vec<Candidate<'_>> = parsed
        .iter()
        .map(|(id, in_flight, sent, signals)| Candidate {
            id,
            in_flight: *in_flight,
            sent_since_scrape: *sent,
            signals,
        })
        .collect();
    schedule(policy, &candidates, NOW, chance).unwrap()
}

#[test]
fn round_robin_takes_turns_whatever_the_load() {
    check(Policy::RoundRobin, 0, "a waiting=9 | b | c", &["a"]);
    check(Policy::RoundRobin, 1, "a | b waiting=9 | c", &["b"]);
    check(Policy::RoundRobin, 5, "a | b | c", &["c"]);
}

#[test]
fn random_reaches_everyone() {
    check(Policy::Random, 0, "a | b waiting=50 | c", &["a", "b", "c"]);
}

#[test]
fn least_request_counts_what_is_in_flight() {
    check(Policy::LeastRequest, 0, "a in_flight=3 | b in_flight=1 | c in_flight=2", &["b"]);
    check(Policy::LeastRequest, 0, "a in_flight=1 | b in_flight=1 | c in_flight=2", &["a", "b"]);
}

#[test]
fn queue_kv_prefers_short_queues_then_free_blocks() {
    check(Policy::QueueKv, 0, "a waiting=4 kv=0.1 | b waiting=0 kv=0.5", &["b"]);
    check(Policy::QueueKv, 0, "a waiting=0 kv=0.9 | b waiting=0 kv=0.5", &["b"]);
}

#[test]
fn queue_kv_taken_literally_does_not_see_what_was_just_sent() {
    check(Policy::QueueKv, 0, "a waiting=0 sent=9 in_flight=9 | b waiting=1", &["a"]);
    check(Policy::QueueKvLocal, 0, "a waiting=0 sent=9 in_flight=9 | b waiting=1", &["b"]);
}

#[test]
fn an_unknown_queue_is_neither_empty_nor_full() {
    check(Policy::QueueKv, 0, "a | b waiting=0 kv=0 | c waiting=8 kv=0.9", &["b"]);
    check(Policy::QueueKv, 0, "a | b waiting=6 kv=0.9 | c waiting=0 kv=0.9", &["c"]);
    check(Policy::QueueKv, 0, "a age=30 waiting=0 kv=0 | b waiting=0 kv=0.1", &["a", "b"]);
}

#[test]
fn own_counts_decide_where_every_signal_is_unknown() {
    check(Policy::QueueKvLocal, 0, "a in_flight=2 | b in_flight=1", &["b"]);
    check(Policy::QueueKv, 0, "a age=60 waiting=0 in_flight=2 | b age=60 waiting=9", &["b"]);
}

#[test]
fn nobody_to_choose_is_an_error() {
    let chance = Chance::new(0, 0);
    assert_eq!(schedule(Policy::Random, &[], NOW, chance).unwrap_err(), Unschedulable::NoEndpoints);
}

#[test]
fn the_choice_is_followed_by_the_next_best() {
    let parsed = parse("a in_flight=3 | b in_flight=0 | c in_flight=1 | d in_flight=2");
    for seed in 0..20 {
        let decision = decide(Policy::LeastRequest, &parsed, Chance::new(0, seed));
        assert_eq!(decision.choices.as_slice(), [1, 2, 3]);
    }
}

proptest! {
    #[test]
    fn equal_inputs_give_equal_decisions_of_distinct_endpoints(
        loads in prop::collection::vec((0u32..5, 0u32..5, prop::option::of(0u32..5)), 1..12),
        turn: u64,
        seed: u64,
        which in 0usize..Policy::ALL.len(),
    ) {
        let parsed: Parsed = loads
            .iter()
            .enumerate()
            .map(|(index, &(in_flight, sent, waiting))| {
                let signals = Signals {
                    waiting: waiting.map(|value| Reading { value, heard: NOW }),
                    ..Signals::default()
                };
                (EndpointId::new(format!("e{index}")), in_flight, sent, signals)
            })
            .collect();
        let policy = Policy::ALL[which];
        let decision = decide(policy, &parsed, Chance::new(turn, seed));
        prop_assert_eq!(&decision, &decide(policy, &parsed, Chance::new(turn, seed)));
        prop_assert_eq!(decision.choices.len(), parsed.len().min(CHOICES_MAX));
        let mut distinct = decision.choices.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), decision.choices.len());
        let total = |index: usize| decision.costs[index].total();
        for pair in decision.choices.windows(2) {
            prop_assert!(total(pair[0]) <= total(pair[1]));
        }
        let least = (0..parsed.len()).map(total).fold(f64::INFINITY, f64::min);
        prop_assert!(total(decision.choices[0]) <= least);
    }
}
