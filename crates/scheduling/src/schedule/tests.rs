use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::{AdapterFit, CHOICES_MAX, EndpointId, KvCapacity, Load, Reading, Signals, Speed};

const NOW: Duration = Duration::from_secs(100);

/// `east in_flight=2 sent=1 waiting=3 kv=0.5 age=9`, one candidate a `|`.
fn check(policy: Policy, turn: u64, candidates: &str, expected: &[&str]) {
    let parsed = parse(candidates);
    let request = InferenceRequest::default();
    let mut seen: Vec<&str> = (0..64)
        .map(|seed| {
            let decision = decide(policy, &request, &parsed, Chance::new(turn, seed)).unwrap();
            parsed[decision.choices[0]].id.as_str()
        })
        .collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, expected, "{policy} over {candidates}");
}

/// A candidate as the tables below write it.
pub(super) struct Parsed {
    pub(super) id: EndpointId,
    signals: Signals,
    fields: BTreeMap<String, String>,
}

pub(super) fn parse(text: &str) -> Vec<Parsed> {
    text.split('|').map(Parsed::new).collect()
}

impl Parsed {
    fn new(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        let id = EndpointId::new(words.next().unwrap());
        let pair = |word: String| {
            let (key, value) = word.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        let mut parsed =
            Self { id, signals: Signals::default(), fields: words.map(pair).collect() };
        let age = Duration::from_secs_f64(parsed.number("age").unwrap_or(0.0));
        let heard = NOW.checked_sub(age).unwrap();
        let running = (0..parsed.whole("adapters").unwrap_or(0)).map(|n| format!("adapter-{n}"));
        let running: BTreeSet<String> = running.collect();
        parsed.signals = Signals {
            waiting: parsed.whole("waiting").map(|value| Reading { value, heard }),
            kv_usage: parsed.number("kv").map(|value| Reading { value, heard }),
            adapters_max: parsed.whole("slots").map(|value| Reading { value, heard }),
            running_adapters: (!running.is_empty()).then(|| Arc::new(running)),
            ..Signals::default()
        };
        parsed
    }

    fn field<T: FromStr>(&self, key: &str) -> Option<T> {
        let value = self.fields.get(key)?;
        Some(value.parse().unwrap_or_else(|_| panic!("{key}={value}")))
    }

    fn whole(&self, key: &str) -> Option<u32> {
        self.field(key)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.field(key)
    }

    /// With the speed of a 7B model on a mid-range GPU and answers of 100 tokens.
    pub(super) fn candidate(&self) -> Candidate<'_> {
        let number = |key: &str| self.number(key).unwrap_or(0.0);
        let whole = |key: &str| self.whole(key).unwrap_or(0);
        Candidate {
            in_flight: whole("in_flight"),
            sent_since_scrape: whole("sent"),
            load: Load {
                prefill_tokens: number("prefill"),
                kv_tokens: number("kv_tokens"),
                kv_variance: number("variance"),
                context_tokens: number("context"),
                foreign_kv_tokens: number("foreign_kv"),
                foreign_requests: number("foreign"),
                kv_capacity: self.number("capacity").map(KvCapacity::of).unwrap_or_default(),
            },
            cached_blocks: whole("cached"),
            uncached_tokens: self.number("uncached").unwrap_or(1.0),
            unshared_tokens: self.number("unshared").or(self.number("uncached")).unwrap_or(1.0),
            untried: whole("untried") > 0,
            adapter: match self.fields.get("fit").map(String::as_str) {
                None => AdapterFit::Base,
                Some("active") => AdapterFit::Active,
                Some("resident") => AdapterFit::Resident,
                Some("room") => AdapterFit::Room,
                Some("full") => AdapterFit::Full,
                Some(other) => panic!("fit={other}"),
            },
            adapter_pressure: number("pressure"),
            adapter_listed: whole("listed") > 0,
            ring_rank: whole("ring"),
            speed: Speed {
                prefill_token_seconds: 1e-4,
                step_seconds: 0.03,
                context_token_seconds: 1e-6,
                output_tokens: 100.0,
            },
            ..Candidate::new(&self.id, &self.signals)
        }
    }
}

pub(super) fn decide(
    policy: Policy,
    request: &InferenceRequest<'_>,
    parsed: &[Parsed],
    chance: Chance,
) -> Result<Decision, Unschedulable> {
    let candidates: Vec<Candidate<'_>> = parsed.iter().map(Parsed::candidate).collect();
    schedule(policy, request, &candidates[..], NOW, chance)
}

/// Who comes first over many dice, in order, and the costs.
pub(super) fn firsts(
    policy: Policy,
    request: &InferenceRequest<'_>,
    candidates: &str,
) -> Result<(String, Vec<f64>), Unschedulable> {
    let parsed = parse(candidates);
    let mut firsts = BTreeSet::new();
    let mut costs = Vec::new();
    for seed in 0..64 {
        let decision = decide(policy, request, &parsed, Chance::new(0, seed))?;
        firsts.insert(parsed[decision.choices[0]].id.to_string());
        let by_index: BTreeMap<usize, f64> =
            decision.costs.iter().map(|(index, cost)| (*index, cost.total())).collect();
        costs = by_index.into_values().collect();
    }
    Ok((firsts.into_iter().collect::<Vec<_>>().join(" "), costs))
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
    assert_eq!(
        schedule(Policy::Random, &InferenceRequest::default(), &[][..], NOW, chance).unwrap_err(),
        Unschedulable::NoEndpoints
    );
}

#[test]
fn the_choice_is_followed_by_the_next_best() {
    let parsed = parse("a in_flight=3 | b in_flight=0 | c in_flight=1 | d in_flight=2");
    let request = InferenceRequest::default();
    for seed in 0..20 {
        let chance = Chance::new(0, seed);
        let decision = decide(Policy::LeastRequest, &request, &parsed, chance).unwrap();
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
        let candidate = |(index, &(in_flight, sent, waiting)): (usize, &(u32, u32, Option<u32>))| {
            let waiting = waiting.map(|waiting| format!("waiting={waiting}")).unwrap_or_default();
            Parsed::new(&format!("e{index} in_flight={in_flight} sent={sent} {waiting}"))
        };
        let parsed: Vec<Parsed> = loads.iter().enumerate().map(candidate).collect();
        let policy = Policy::ALL[which];
        let request = InferenceRequest::default();
        let decide = || decide(policy, &request, &parsed, Chance::new(turn, seed)).unwrap();
        let decision = decide();
        prop_assert_eq!(&decision, &decide());
        prop_assert_eq!(decision.choices.len(), parsed.len().min(CHOICES_MAX));
        let mut distinct = decision.choices.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), decision.choices.len());
        let costs: BTreeMap<usize, f64> =
            decision.costs.iter().map(|(index, cost)| (*index, cost.total())).collect();
        let total = |index: usize| costs[&index];
        for pair in decision.choices.windows(2) {
            prop_assert!(total(pair[0]) <= total(pair[1]));
        }
        let least = (0..parsed.len()).map(total).fold(f64::INFINITY, f64::min);
        prop_assert!(total(decision.choices[0]) <= least);
    }
}
