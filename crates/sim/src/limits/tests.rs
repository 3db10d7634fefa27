use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use scheduling::{Candidate, Chance, EndpointId, InferenceRequest, Policy, Signals, schedule};

use super::*;
use crate::profile::{Batch, Profile};
use crate::scenario::Scenario;
use crate::tokens::mix;
use crate::workload::{Arrival, Pace, Stage};
use crate::world::{Placement, WorldConfig, run};

fn pool(name: &str, blocks: u32, replicas: usize) -> Vec<EngineConfig> {
    let named = Profile::named(name).unwrap();
    let profile = Profile { blocks: blocks + 1, max_num_seqs: 256, ..named };
    vec![EngineConfig { profile, ..EngineConfig::default() }; replicas]
}

fn check(workload: &Workload, pool: &[EngineConfig], expected: f64) {
    let capacity = Demand::of(workload, 0).capacity(pool);
    assert!((capacity / expected - 1.0).abs() < 0.02, "{workload}: {capacity} is not {expected}");
}

/// The table of the bound's own derivation, computed by hand from means.
#[test]
fn the_bound_is_that_of_the_closed_form() {
    check(&Workload::llmperf(), &pool("a10-llama2-7b", 575, 3), 5.71);
    check(&Workload::llmperf(), &pool("h100-llama3-8b", 27_500, 10), 416.0);
    check(&Workload::llmperf(), &pool("a100-llama3-8b", 27_500, 10), 164.0);
}

#[test]
fn shared_prompts_cost_only_what_is_their_own() {
    let all = Workload::shared_prefix(150, 1, 6000, 1200, 1000);
    let alone = Workload::shared_prefix(1_000_000_000, 1, 6000, 1200, 1000);
    let pool = pool("h100x2-qwen3-32b", 19_208, 8);
    let of = |workload: &Workload| Demand::of(workload, 0).capacity(&pool);
    assert!(of(&alone) < 8.3 && of(&all) > 14.0, "{} {}", of(&alone), of(&all));
}

/// Seconds to the first token of a request that need not wait, on top of its prefill: half a step.
const UNQUEUED_TTFT: f64 = 0.13;

/// Mean TTFT under a queue before `count` endpoints that share it: a birth–death chain over the requests present, each
/// state served at the speed of a batch as large as it fills. Service times vary little, so the wait is that of an
/// exponential server times (1 + cv²) / 2.
fn queued_ttft(rate: f64, count: f64) -> f64 {
    const SERVICE_CV2: f64 = 0.05;
    let demand = Demand::of(&Workload::llmperf(), 0);
    let machine = &pool("a10-llama2-7b", 574, 1)[0];
    let slots = demand.batch(machine, 0.0) * count;
    let cost = machine.profile.cost;
    let served = |present: f64| {
        let batch = present.min(slots) / count;
        let step = cost.duration(&Batch {
            tokens: batch,
            sequences: batch,
            decode_context: batch * demand.context,
            prefill_pairs: 0.0,
        });
        let prefill = (cost.b * demand.uncached + cost.p * demand.pairs) / 1e3;
        count / (demand.output * step.as_secs_f64() / batch + prefill)
    };
    let (mut weight, mut weights, mut queued) = (1.0, 1.0, 0.0);
    for present in (1..5_000).map(f64::from) {
        weight *= rate / served(present);
        weights += weight;
        queued += weight * (present - slots).max(0.0);
    }
    queued / weights / rate * f64::midpoint(1.0, SERVICE_CV2) + UNQUEUED_TTFT
}

/// The tutorial's pool at this rate.
fn tutorial(rate: f64, requests: usize) -> WorldConfig {
    let requests = requests as u64;
    WorldConfig {
        endpoints: pool("a10-llama2-7b", 574, 3),
        gateways: 1,
        scrape_interval: Duration::from_secs(1),
        scrapes_in_step: false,
        network_delay: Duration::ZERO,
        faults: Vec::new(),
        flow_control: scheduling::FlowControl::default(),
        classes: Vec::new(),
        workload: Workload::llmperf(),
        pace: Pace::Poisson(rate),
        requests,
        warmup: requests / 10,
    }
}

/// Mean wait of these arrivals before as many servers as there are slots, each request taking as long as its share of KV
/// and time is large.
///
/// Waits of a few thousand arrivals hang on chance. How far, this queue shows, which is as chancy and costs next to
/// nothing: its wait of these arrivals less that of very many is taken off (a control variate).
fn plain_wait(arrivals: &[Arrival], endpoints: f64) -> f64 {
    let demand = Demand::of(&Workload::llmperf(), 0);
    let machine = &pool("a10-llama2-7b", 574, 1)[0];
    let slots = (demand.batch(machine, 0.0) * endpoints).floor();
    let service = slots / endpoints * demand.seconds(machine, 0.0) / (demand.output * demand.held);
    let mut free: BinaryHeap<Reverse<Duration>> = BinaryHeap::new();
    let (mut waits, mut counted) = (0.0, 0.0);
    for (index, Arrival { at, shape, .. }) in arrivals.iter().enumerate() {
        let full = number(free.len()) >= slots;
        let begin = if full { free.pop().map_or(*at, |first| first.0.max(*at)) } else { *at };
        let (prompt, output) = (f64::from(shape.prompt_tokens), f64::from(shape.output_tokens));
        let held = output * (prompt + output / 2.0 + HALF_A_BLOCK);
        free.push(Reverse(begin + Duration::from_secs_f64(service * held)));
        if index >= arrivals.len() / 10 {
            waits += begin.saturating_sub(*at).as_secs_f64();
            counted += 1.0;
        }
    }
    waits / counted
}

fn arrivals(rate: f64, requests: usize, seed: u64) -> Vec<Arrival> {
    Workload::llmperf().arrivals(&Pace::Poisson(rate), seed).take(requests).collect()
}

/// What each endpoint gets if `random` chooses.
fn dealt(arrivals: &[Arrival], seed: u64) -> [Vec<Arrival>; 3] {
    let (id, signals) = (EndpointId::new("any"), Signals::default());
    let candidates = [Candidate::new(&id, &signals); 3];
    let seed = mix(seed, 11);
    let mut dealt = [const { Vec::new() }; 3];
    for (turn, arrival) in (0..).zip(arrivals) {
        let chance = Chance::new(turn, seed.wrapping_add(turn));
        let request = InferenceRequest::default();
        let decision = schedule(Policy::Random, &request, &candidates[..], arrival.at, chance);
        dealt[decision.unwrap().choices[0]].push(arrival.clone());
    }
    dealt
}

const REQUESTS: usize = 3_000;
const SEEDS: u64 = 3;

/// Mean TTFT of the tutorial's pool over that of the chain. `usual` is what [`plain_wait`] comes to over millions of
/// arrivals, to one per cent.
fn check_queue(placement: Placement, rate: f64, usual: f64, most: f64) {
    let split = if placement == Placement::Oracle { 1.0 } else { 3.0 };
    let expected = queued_ttft(rate / split, 3.0 / split);
    let of = |seed| {
        let arrivals = arrivals(rate, REQUESTS, seed);
        let plain = if placement == Placement::Oracle {
            plain_wait(&arrivals, 3.0)
        } else {
            let dealt = dealt(&arrivals, seed);
            let weighted = dealt.iter().map(|own| plain_wait(own, 1.0) * number(own.len()));
            weighted.sum::<f64>() / number(REQUESTS)
        };
        let world = tutorial(rate, REQUESTS);
        run(&world, placement, seed, &mut |_| true).ttft.mean().unwrap() - plain + usual
    };
    let means: Vec<f64> = (1..=SEEDS).map(of).collect();
    let mean = means.iter().sum::<f64>() / number(means.len());
    let off = mean / expected - 1.0;
    assert!(off.abs() < most, "{}, {rate}/s: {mean} is not {expected}", placement.name());
}

#[test]
fn waits_are_those_of_a_queue_before_all_slots_or_of_one_before_each_endpoint() {
    let random = Placement::Policy(Policy::Random);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            check_queue(Placement::Oracle, 4.6, 0.068, 0.10);
            check_queue(Placement::Oracle, 4.9, 0.187, 0.10);
        });
        check_queue(random, 4.6, 0.552, 0.15);
        check_queue(random, 4.9, 1.024, 0.15);
    });
}

#[test]
fn an_overloaded_pool_answers_as_many_as_the_bound_says() {
    for placement in [Placement::Oracle, Placement::Policy(Policy::LeastRequest)] {
        let figures = run(&tutorial(8.0, 2_000), placement, 1, &mut |_| true);
        let share = figures.requests_per_s() / 5.71;
        assert!((share - 1.0).abs() < 0.1, "{}: {share} of λ*", placement.name());
    }
}

/// llm-d's published runs: the Endpoint Picker's defaults give 2.2 / 1.6 times the tokens of round robin.
#[test]
fn shared_prefixes_are_worth_what_was_published() {
    let scenario = Scenario::named("S5").unwrap();
    let stages = [Stage { rate: 15.0, seconds: 50.0 }, Stage { rate: 50.0, seconds: 12.0 }];
    let config = WorldConfig {
        endpoints: scenario.endpoints,
        workload: scenario.workload,
        pace: Pace::Stages(stages.to_vec()),
        warmup: 750,
        ..tutorial(1.0, usize::MAX)
    };
    let tokens =
        |policy| run(&config, Placement::Policy(policy), 1, &mut |_| true).output_tokens_per_s();
    let (picker, turns) = (tokens(Policy::GieDefault), tokens(Policy::RoundRobin));
    assert!(picker > 1.4 * turns, "{picker} and {turns} tokens/s");
}
