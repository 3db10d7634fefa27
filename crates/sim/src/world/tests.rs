use super::*;
use crate::Profile;
use crate::limits::Demand;
use crate::scenario::Scenario;
use crate::workload::Stage;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many of the tutorial's endpoints at this share of what they can do.
fn world(endpoints: usize, load: f64, requests: u64) -> WorldConfig {
    let endpoint = EngineConfig { profile: Profile::default(), ..EngineConfig::default() };
    let endpoints = vec![endpoint; endpoints];
    let workload = Workload::llmperf();
    let rate = load * Demand::of(&workload, 1).capacity(&endpoints);
    WorldConfig {
        endpoints,
        gateways: 2,
        scrape_interval: seconds(1),
        scrapes_in_step: false,
        network_delay: Duration::from_micros(250),
        faults: Vec::new(),
        flow_control: FlowControl::default(),
        classes: Vec::new(),
        workload,
        pace: Pace::Poisson(rate),
        requests,
        warmup: 0,
    }
}

fn all() -> Vec<Placement> {
    Policy::ALL.into_iter().map(Placement::Policy).chain([Placement::Oracle]).collect()
}

fn fault(endpoint: u32, kind: FaultKind, from: u64, until: u64) -> ScheduledFault {
    ScheduledFault { endpoint, kind, from: seconds(from), until: seconds(until) }
}

fn finish(config: &WorldConfig, placement: Placement) -> Figures {
    run(config, placement, 7, &mut |_| true)
}

/// Every request that counts is answered, refused or cut, and whatever was sent was asked for or sent again.
fn check(config: &WorldConfig, placement: Placement) -> Figures {
    let figures = finish(config, placement);
    let name = placement.name();
    let ended = figures.completed + figures.refused + figures.cut;
    assert_eq!(ended, config.requests - config.warmup, "{name}");
    assert_eq!(figures.ttft.count(), figures.completed, "{name}");
    assert!(!figures.stopped, "{name}");
    if config.warmup == 0 && figures.refused == 0 {
        assert_eq!(figures.sent.iter().sum::<u64>(), config.requests + figures.retries, "{name}");
    }
    figures
}

#[test]
fn every_request_ends_once_in_an_open_loop() {
    for placement in all() {
        let figures = check(&world(3, 0.8, 200), placement);
        assert_eq!((figures.completed, figures.retries), (200, 0), "{}", placement.name());
    }
}

#[test]
fn every_request_ends_once_in_a_closed_loop() {
    for placement in all() {
        let config = WorldConfig { pace: Pace::Closed(20), ..world(3, 0.8, 200) };
        let figures = check(&config, placement);
        assert_eq!((figures.completed, figures.retries), (200, 0), "{}", placement.name());
    }
}

#[test]
fn every_request_ends_once_whatever_breaks() {
    let faults = vec![
        fault(0, FaultKind::Stall, 10, 15),
        fault(1, FaultKind::Restart, 20, 25),
        fault(2, FaultKind::FrozenMetrics, 22, 40),
        fault(0, FaultKind::Restart, 30, 31),
        fault(1, FaultKind::Drain, 32, 38),
    ];
    for placement in all() {
        for pace in [world(3, 0.9, 1).pace, Pace::Closed(30)] {
            let config =
                WorldConfig { pace, faults: faults.clone(), warmup: 120, ..world(3, 0.9, 250) };
            check(&config, placement);
        }
    }
}

#[test]
fn a_request_that_is_on_its_way_when_its_endpoint_dies_is_sent_again_once() {
    let at = Duration::from_millis;
    let dies = |from, until| ScheduledFault {
        endpoint: 0,
        kind: FaultKind::Restart,
        from: at(from),
        until: at(until),
    };
    for (fault, placement) in [
        (dies(100, 9_000), Placement::Policy(Policy::RoundRobin)),
        (dies(100, 9_000), Placement::Oracle),
        (dies(250, 9_000), Placement::Policy(Policy::RoundRobin)),
    ] {
        let config = WorldConfig {
            network_delay: at(200),
            pace: Pace::Constant(1.0),
            faults: vec![fault],
            ..world(2, 0.5, 1)
        };
        let figures = check(&config, placement);
        assert_eq!((figures.completed, figures.retries), (1, 1), "{}", placement.name());
        assert_eq!(figures.sent, [1, 1]);
    }
}

#[test]
fn what_can_never_run_is_refused_and_holds_up_nobody() {
    for placement in all() {
        for pace in [Pace::Poisson(1.0), Pace::Closed(5)] {
            let mut config = WorldConfig { pace, ..world(2, 0.5, 40) };
            for endpoint in &mut config.endpoints {
                endpoint.profile.blocks = 41;
            }
            let figures = check(&config, placement);
            assert!(figures.refused > 10 && figures.completed > 5, "{}", placement.name());
        }
    }
}

#[test]
fn equal_seeds_give_equal_figures_and_others_do_not() {
    let config = WorldConfig {
        faults: vec![fault(1, FaultKind::Restart, 10, 15)],
        workload: Workload::lora(10, crate::workload::Popularity::zipf),
        ..world(3, 0.8, 100)
    };
    for placement in all() {
        let of = |seed| format!("{:?}", run(&config, placement, seed, &mut |_| true));
        assert!(of(3) == of(3), "{}", placement.name());
        assert!(of(3) != of(4), "{}", placement.name());
    }
}

#[test]
fn every_policy_meets_the_same_requests() {
    let config = WorldConfig { warmup: 20, ..world(3, 0.5, 200) };
    let met = |placement| {
        let figures = finish(&config, placement);
        (figures.floor.to_bits(), figures.output_tokens)
    };
    let first = met(Placement::Oracle);
    for placement in all() {
        assert_eq!(met(placement), first, "{}", placement.name());
    }
}

#[test]
fn requests_of_the_warm_up_do_not_count() {
    let all = finish(&world(3, 0.5, 200), Placement::Policy(Policy::LeastRequest));
    let config = WorldConfig { warmup: 150, ..world(3, 0.5, 200) };
    let some = finish(&config, Placement::Policy(Policy::LeastRequest));
    assert_eq!((all.completed, some.completed), (200, 50));
    assert_eq!((some.ttft.count(), some.tpot.count(), some.e2e.count()), (50, 50, 50));
    assert!(some.output_tokens < all.output_tokens / 3 && some.seconds < all.seconds / 2.0);
    assert_eq!((all.sent.iter().sum::<u64>(), some.sent.iter().sum::<u64>()), (200, 50));
}

#[test]
fn answers_cut_in_the_warm_up_do_not_count() {
    let faults = vec![fault(0, FaultKind::Restart, 10, 15)];
    let config = WorldConfig { faults, ..world(1, 0.9, 60) };
    let placement = Placement::Policy(Policy::LeastRequest);
    assert!(check(&config, placement).cut > 0);
    assert_eq!(check(&WorldConfig { warmup: 50, ..config }, placement).cut, 0);
}

#[test]
fn a_closed_loop_never_has_more_requests_than_users() {
    for users in [1, 7] {
        let config = WorldConfig { pace: Pace::Closed(users), ..world(1, 0.5, 60) };
        let figures = check(&config, Placement::Policy(Policy::RoundRobin));
        // Little's law: users are the rate times the time in the system.
        let under_way = figures.requests_per_s() * figures.e2e.mean().unwrap();
        assert!(under_way <= f64::from(users) + 1e-6 && figures.backlog < users.into());
        assert!(under_way > 0.8 * f64::from(users), "{under_way} of {users}");
    }
    // One user alone never waits: each first token comes as soon as it can.
    let alone = finish(
        &WorldConfig { pace: Pace::Closed(1), network_delay: Duration::ZERO, ..world(1, 0.5, 60) },
        Placement::Policy(Policy::Predicted),
    );
    assert!((alone.ttft.mean().unwrap() - alone.floor).abs() < 1e-6);
}

#[test]
fn a_stage_begins_when_nothing_of_the_one_before_is_left() {
    let overload = Stage { rate: 40.0, seconds: 3.0 };
    let calm = Stage { rate: 0.5, seconds: 20.0 };
    let of = |stages: &[Stage]| {
        let pace = Pace::Stages(stages.to_vec());
        finish(&WorldConfig { pace, ..world(1, 0.5, u64::MAX) }, Placement::Policy(Policy::Random))
    };
    let (first, both) = (of(&[overload]), of(&[overload, calm]));
    assert!(first.seconds > 40.0, "the first takes long to drain");
    assert!(both.seconds > first.seconds);
    let calm_ones = both.completed - first.completed;
    assert!((3..25).contains(&calm_ones));
    // Those of the second stage find an empty pool.
    let slow = both.ttft.quantile(1.0).unwrap();
    let sums = both.ttft.mean().unwrap() * number(both.completed)
        - first.ttft.mean().unwrap() * number(first.completed);
    assert!(sums / number(calm_ones) < 0.4, "{sums}");
    assert!(slow > 20.0);
}

#[test]
fn a_stage_without_requests_is_passed_over() {
    let (none, some) = (Stage { rate: 0.0, seconds: 5.0 }, Stage { rate: 5.0, seconds: 5.0 });
    for stages in [vec![none, some], vec![some, none, some], vec![some, none], vec![none]] {
        let pace = Pace::Stages(stages.clone());
        let config = WorldConfig { pace, ..world(1, 0.5, u64::MAX) };
        let asked = config.workload.arrivals(&config.pace, 7).count() as u64;
        for placement in [Placement::Oracle, Placement::Policy(Policy::Random)] {
            assert_eq!(finish(&config, placement).completed, asked, "{stages:?}");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred requests")]
fn number(count: u64) -> f64 {
    count as f64
}

/// One prompt of 960 tokens that everybody has, and 64 of one's own.
fn sharing(requests: u64) -> WorldConfig {
    WorldConfig {
        workload: Workload::shared_prefix(1, 1_000_000, 960, 64, 20),
        pace: Pace::Constant(2.0),
        ..world(2, 0.5, requests)
    }
}

#[test]
fn a_restart_empties_the_prefix_cache_and_sends_requests_elsewhere() {
    let config = WorldConfig {
        faults: [20, 40, 60, 80].map(|from| fault(0, FaultKind::Restart, from, from + 1)).to_vec(),
        ..sharing(200)
    };
    let placement = Placement::Policy(Policy::RoundRobin);
    let (whole, broken) = (check(&sharing(200), placement), check(&config, placement));
    let missed = |figures: &Figures| figures.prefix_queries - figures.prefix_hits;
    assert_eq!(missed(&whole), 200 * 64 + 2 * 960, "each endpoint computes it once");
    assert!(missed(&broken) >= missed(&whole) + 4 * 960, "and once more after each restart");
    assert!(broken.retries > 0 && broken.completed + broken.cut == 200);
    assert_eq!(broken.refused, 0);
}

/// A faulty endpoint gets at most this share of the requests sent while the fault lasts, its two neighbours the rest.
fn check_share(kind: FaultKind, policy: Policy, gateways: u32, at_most: f64) {
    let config =
        WorldConfig { faults: vec![fault(1, kind, 20, 40)], gateways, ..world(3, 0.6, 300) };
    let figures = check(&config, Placement::Policy(policy));
    assert!(figures.sent_during_faults > 40);
    let share = number(figures.sent_while_faulty[1]) / number(figures.sent_during_faults);
    assert!(share < at_most, "{kind:?} {policy} {gateways}: {share}");
    assert_eq!(figures.refused, 0, "{kind:?} {policy} {gateways}");
}

#[test]
fn a_faulty_endpoint_gets_no_more_than_its_share_of_any_policy() {
    for policy in Policy::ALL {
        check_share(FaultKind::Stall, policy, 1, 0.2);
        check_share(FaultKind::Restart, policy, 1, 0.1);
        check_share(FaultKind::Drain, policy, 1, 0.15);
        check_share(FaultKind::Drain, policy, 2, 0.25);
    }
    check_share(FaultKind::FrozenMetrics, Policy::Predicted, 1, 0.4);
}

#[test]
fn an_endpoint_whose_metrics_are_frozen_still_gets_its_requests() {
    let config = WorldConfig {
        faults: vec![fault(1, FaultKind::FrozenMetrics, 20, 60)],
        ..world(3, 0.6, 300)
    };
    for policy in [Policy::Predicted, Policy::RoundRobin, Policy::LeastRequest] {
        // Of one seed, chance alone gives it a quarter now and then.
        let all = (1..=4).map(|seed| run(&config, Placement::Policy(policy), seed, &mut |_| true));
        let (sent, of) = all.fold((0, 0), |(sent, of), figures| {
            (sent + figures.sent_while_faulty[1], of + figures.sent_during_faults)
        });
        let share = number(sent) / number(of);
        assert!(share > 0.27, "{policy}: {share}");
    }
}

#[test]
fn a_short_trouble_of_the_azure_pool_ends_every_request() {
    let trouble = Scenario::named("S10").unwrap();
    let config = WorldConfig {
        endpoints: trouble.endpoints,
        workload: trouble.workload,
        pace: trouble.pace,
        faults: vec![
            fault(0, FaultKind::Stall, 20, 30),
            fault(1, FaultKind::FrozenMetrics, 25, 60),
            fault(2, FaultKind::Restart, 40, 50),
        ],
        ..world(1, 0.5, 300)
    };
    let figures = check(&config, Placement::Policy(Policy::Predicted));
    // An eighth of those that came in 10 and in 35 seconds, four a second. One that is down loses a few, and is ejected.
    let [stalled, frozen, down] = figures.sent_while_faulty[..3] else { unreachable!() };
    assert!(stalled + frozen <= (10 + 35) * 4 / 8, "{stalled} {frozen}");
    assert!(figures.retries >= down && down <= 5 && figures.refused == 0, "{down}");
}

#[test]
fn the_network_shows_in_the_time_to_the_first_token_both_ways() {
    for placement in [Placement::Policy(Policy::RoundRobin), Placement::Oracle] {
        let mean = |delay| {
            let config = WorldConfig {
                network_delay: Duration::from_millis(delay),
                pace: Pace::Constant(0.2),
                ..world(2, 0.5, 40)
            };
            finish(&config, placement).ttft.mean().unwrap()
        };
        let slower = mean(40) - mean(0);
        assert!((slower - 0.08).abs() < 1e-6, "{slower}");
    }
}

#[test]
fn no_policy_is_below_the_idle_floor() {
    for placement in all() {
        for config in [world(3, 0.3, 100), WorldConfig { warmup: 30, ..sharing(100) }] {
            let figures = finish(&config, placement);
            let mean = figures.ttft.mean().unwrap();
            assert!(figures.floor > 0.0 && figures.floor <= mean + 1e-9, "{}", placement.name());
        }
    }
}

#[test]
fn a_run_can_be_stopped() {
    let config = world(3, 0.5, 3_000);
    let mut told = Vec::new();
    let figures = run(&config, Placement::Policy(Policy::RoundRobin), 1, &mut |ended| {
        told.push(ended);
        false
    });
    // One step may end several.
    assert!(figures.stopped && told.len() == 1 && (1_000..1_020).contains(&told[0]));
    assert_eq!(figures.completed, told[0]);
}

/// What the classes that are counted get on so many of the tutorial's endpoints, at this rate of all together.
fn figures_of(endpoints: usize, rate: f64, classes: &[(f64, u64, i32, bool)]) -> Figures {
    let class = |&(weight, flow, priority, counted): &(f64, u64, i32, bool)| {
        let weight = weight / classes.iter().map(|class| class.0).sum::<f64>();
        Class { weight, flow, priority, counted }
    };
    let config = WorldConfig {
        gateways: 1,
        pace: Pace::Poisson(rate),
        warmup: 1_000,
        classes: classes.iter().map(class).collect(),
        ..world(endpoints, 1.0, 12_000)
    };
    finish(&config, Placement::Policy(Policy::Predicted))
}

fn mean_ttft_of(endpoints: usize, rate: f64, classes: &[(f64, u64, i32, bool)]) -> f64 {
    figures_of(endpoints, rate, classes).ttft.mean().unwrap()
}

/// On the tutorial's pool.
fn mean_ttft(rate: f64, classes: &[(f64, u64, i32, bool)]) -> f64 {
    mean_ttft_of(3, rate, classes)
}

#[test]
fn flows_that_send_about_the_same_are_not_delayed_for_being_told_apart() {
    for endpoints in 1..=3_u32 {
        let mean =
            |classes: &[_]| mean_ttft_of(endpoints as usize, 1.45 * f64::from(endpoints), classes);
        let undivided = mean(&[(1.0, 0, 0, true)]);
        let flow = |flow| (if flow == 5 { 2.6 } else { 2.0 }, flow, 0, true);
        let divided = mean(&[1, 2, 3, 4, 5].map(flow));
        assert!(divided < 1.05 * undivided, "{endpoints}: {divided} s, as one flow {undivided} s");
    }
}

#[test]
fn a_few_critical_requests_hardly_delay_the_others() {
    let alone = mean_ttft_of(2, 2.3, &[(1.0, 0, 0, true)]);
    let beside = mean_ttft_of(2, 2.3, &[(0.985, 0, 0, true), (0.015, 0, 100, false)]);
    assert!(beside < 1.15 * alone, "{alone} s alone, {beside} s beside them");
}

#[test]
fn a_flow_that_sends_ten_times_its_share_hardly_delays_the_others() {
    let others =
        [(0.425, 1, 0, true), (0.425, 2, 0, true), (0.425, 3, 0, true), (0.425, 4, 0, true)];
    let alone = mean_ttft(1.7, &others);
    let beside = mean_ttft(6.0, &[&others[..], &[(4.3, 9, 0, false)]].concat());
    assert!(beside < 1.2 * alone, "{alone} s alone, {beside} s beside it");
    let one_flow: Vec<_> = others.iter().map(|class| (class.0, 9, 0, true)).collect();
    let undivided = mean_ttft(6.0, &[&one_flow[..], &[(4.3, 9, 0, false)]].concat());
    assert!(undivided > 2.0 * alone, "as one flow they wait like all: {undivided} s");
}

#[test]
fn a_flood_of_sheddable_requests_hardly_delays_critical_ones() {
    let alone = mean_ttft(1.5, &[(1.0, 1, 100, true)]);
    let beside = mean_ttft(15.0, &[(1.5, 1, 100, true), (13.5, 2, -100, false)]);
    assert!(beside < 1.1 * alone, "{alone} s alone, {beside} s beside it");
    // The fewer there are, the more of a pool would be idle without the flood.
    let alone = mean_ttft(0.6, &[(1.0, 1, 100, true)]);
    let beside = mean_ttft(14.0, &[(0.6, 1, 100, true), (13.4, 2, -100, false)]);
    assert!(beside < 1.1 * alone, "{alone} s alone, {beside} s beside it");
}

#[test]
fn rare_critical_requests_find_room_on_an_endpoint_flooded_with_sheddable_ones() {
    // So rare that they are forgotten in between, a step under way is what they wait for: half of one, a seventh of their time.
    for (critical, later_max, others_min) in [(0.05, 1.3, 0.6), (0.2, 1.1, 0.2)] {
        let alone = mean_ttft_of(1, critical, &[(1.0, 1, 100, true)]);
        let both = |counts_critical: bool| {
            let classes = [(critical, 1, 100, counts_critical), (5.0, 2, -100, !counts_critical)];
            figures_of(1, critical + 5.0, &classes)
        };
        let later = both(true).ttft.mean().unwrap() / alone;
        assert!(later < later_max, "at {critical}/s: {later} times {alone} s");
        let others = both(false).requests_per_s();
        assert!(others > others_min, "at {critical}/s: {others}/s");
    }
}

#[test]
fn prompts_that_need_most_of_an_endpoint_hardly_delay_the_others() {
    let ttft = |large: &str| {
        let small = "400,200\n".repeat(40);
        let text = format!("num_prefill_tokens,num_decode_tokens\n{small}{large}");
        let mut config = WorldConfig {
            gateways: 1,
            pace: Pace::Poisson(4.8),
            warmup: 500,
            workload: Workload::named("lengths:requests", |_| Ok(text)).unwrap(),
            ..world(4, 1.0, 6_000)
        };
        for EngineConfig { profile, .. } in &mut config.endpoints {
            (profile.blocks, profile.max_model_len) = (513, 8_192);
        }
        check(&config, Placement::Policy(Policy::Predicted)).ttft
    };
    let (without, with) = (ttft(""), ttft("6000,20\n"));
    let p90 = [&without, &with].map(|ttft| ttft.quantile(0.9).unwrap());
    assert!(p90[1] < 2.0 * p90[0], "{p90:?} s without and with them");
    // They wait longer than others and not for ever: as long as a few answers take.
    let longest = with.quantile(1.0).unwrap();
    assert!(longest < 20.0, "{longest} s");
}

#[test]
fn gateways_that_read_metrics_seldom_feel_each_others_requests() {
    let scenario = Scenario::named("S8").unwrap();
    let mean = |policy| {
        let config = WorldConfig {
            endpoints: scenario.endpoints.clone(),
            gateways: scenario.gateways,
            scrape_interval: seconds(5),
            workload: scenario.workload.clone(),
            pace: scenario.pace.clone(),
            warmup: 600,
            ..world(1, 1.0, 6_000)
        };
        finish(&config, Placement::Policy(policy)).ttft.mean().unwrap()
    };
    // It reads no metrics.
    let (predicted, counting) = (mean(Policy::Predicted), mean(Policy::LeastRequest));
    assert!(predicted < 0.85 * counting, "{predicted} s, least-request {counting} s");
}
