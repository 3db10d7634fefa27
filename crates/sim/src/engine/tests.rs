use proptest::prelude::*;

use super::*;

fn engine(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config = EngineConfig::default();
    change(&mut config);
    Engine::new(config)
}

fn request(id: u64, prompt: u32, output: u32) -> Request {
    Request {
        id: RequestId(id),
        adapter: None,
        salt: 0,
        prompt_tokens: prompt,
        output_tokens: output,
        max_tokens: Some(output),
        finish: Finish::Length,
        // Different for every request.
        content: (0..u64::from((prompt + output) / 16)).map(|block| (id << 32) + block).collect(),
    }
}

fn with_adapter(adapter: u32, request: Request) -> Request {
    Request { adapter: Some(AdapterId(adapter)), ..request }
}

/// Steps to the end; (id, tokens so far) of every token in order, and the time it took.
fn run(engine: &mut Engine) -> (Vec<RequestId>, Duration) {
    let (mut tokens, mut now) = (Vec::new(), Duration::ZERO);
    while let Some(step) = engine.begin_step(now) {
        check(engine);
        now += step;
        tokens.extend(engine.end_step(now).tokens.iter().map(|token| token.id));
    }
    (tokens, now)
}

/// What holds in the middle of every step.
fn check(engine: &Engine) {
    let profile = &engine.config.profile;
    let batch: Vec<&Sequence> = engine.running.iter().filter(|s| s.chunk > 0).collect();
    assert!(!batch.is_empty(), "a step without work");
    assert!(batch.iter().map(|s| s.chunk).sum::<u32>() <= profile.max_num_batched_tokens);
    assert!(engine.running.len() <= profile.max_num_seqs as usize);
    assert!(engine.batch_adapters.len() <= engine.config.max_loras as usize);
    for sequence in &engine.running {
        let room = u32::try_from(sequence.blocks.len()).unwrap() * profile.block_tokens;
        assert!(sequence.computed + sequence.chunk <= room);
        assert!(room < sequence.computed + sequence.chunk + profile.block_tokens);
    }
    assert!(engine.waiting.iter().all(|s| s.blocks.is_empty()));
    let deferred = engine.waiting.iter().filter(|s| s.deferred).count();
    assert_eq!(engine.deferred as usize, deferred);
    let mut adapters: Vec<AdapterId> = engine.waiting.iter().filter_map(|s| s.adapter).collect();
    adapters.sort_unstable();
    adapters.dedup();
    assert!(engine.waiting_adapters.keys().eq(&adapters));
}

#[test]
fn a_burst_is_invisible_until_the_first_step_ends() {
    let mut engine = engine(|_| {});
    for id in 0..12 {
        engine.offer(request(id, 1900, 10), Duration::ZERO).unwrap();
    }
    let step = engine.begin_step(Duration::ZERO).unwrap();
    assert_eq!((engine.metrics().running, engine.metrics().waiting_capacity), (0, 0));
    engine.end_step(step);
    // 574 blocks hold four prompts of 119; the budget of the first step reaches into the second one.
    assert_eq!((engine.metrics().running, engine.metrics().waiting_capacity), (2, 10));
    assert!(engine.metrics().kv_cache_usage > 0.2);
}

#[test]
fn an_idle_instance_takes_as_long_as_its_formula_says() {
    let mut engine = engine(|_| {});
    engine.offer(request(0, 550, 2), Duration::ZERO).unwrap();
    let prefill = engine.begin_step(Duration::ZERO).unwrap();
    engine.end_step(prefill);
    let decode = engine.begin_step(prefill).unwrap();
    assert!((0.094..0.098).contains(&prefill.as_secs_f64()), "{prefill:?}");
    assert!((0.030..0.032).contains(&decode.as_secs_f64()), "{decode:?}");
}

#[test]
fn long_prompts_are_cut_and_decoding_goes_on_beside_them() {
    let mut engine = engine(|_| {});
    engine.offer(request(0, 10, 5), Duration::ZERO).unwrap();
    let step = engine.begin_step(Duration::ZERO).unwrap();
    engine.end_step(step);
    engine.offer(request(1, 4000, 3), step).unwrap();
    let mut steps = Vec::new();
    let mut now = step;
    while let Some(step) = engine.begin_step(now) {
        now += step;
        steps.push(engine.end_step(now).tokens.iter().map(|token| token.id.0).collect::<Vec<_>>());
    }
    // 4000 tokens are one step of 2047 and one of 1953.
    assert_eq!(steps, [vec![0], vec![0, 1], vec![0, 1], vec![0, 1]]);
}

#[test]
fn a_repeated_prompt_is_found_but_for_its_last_token() {
    // (prompt length, tokens found the second time): whole blocks, and never all of it.
    for (prompt, found) in [(256, 240), (257, 256), (15, 0), (16, 0), (17, 16), (1900, 1888)] {
        let mut engine = engine(|_| {});
        let mut first = request(0, prompt, 1);
        first.content = (0..200).collect();
        let second = Request { id: RequestId(1), ..first.clone() };
        for request in [first, second] {
            engine.offer(request, Duration::ZERO).unwrap();
            run(&mut engine);
        }
        assert_eq!(engine.metrics().prefix_hits, found, "{prompt}");
        assert_eq!(engine.metrics().prefix_queries, u64::from(2 * prompt));
        assert_eq!(engine.metrics().prompt_tokens_cached, found);
    }
}

#[test]
fn adapter_and_salt_keep_caches_apart() {
    let plain = Request { content: (0..200).collect(), ..request(0, 256, 1) };
    let salted = Request { salt: 7, ..plain.clone() };
    let adapted = with_adapter(0, plain.clone());
    for other in [salted, adapted] {
        let mut engine = engine(|_| {});
        for (id, request) in (0..).zip([&plain, &other, &other]) {
            let request = Request { id: RequestId(id), ..request.clone() };
            engine.offer(request, Duration::ZERO).unwrap();
            run(&mut engine);
        }
        assert_eq!(engine.metrics().prefix_hits, 240, "only the third finds anything");
    }
}

#[test]
fn an_idle_cache_counts_as_free() {
    let mut engine = engine(|_| {});
    engine.offer(request(0, 4000, 10), Duration::ZERO).unwrap();
    run(&mut engine);
    assert!(engine.metrics().kv_cache_usage.abs() < f64::EPSILON);
    assert_eq!(engine.pool.free(), engine.config.profile.usable_blocks());
    assert_eq!(engine.metrics().running, 0);
}

#[test]
fn the_last_running_request_is_preempted_and_none_is_lost() {
    // 63 blocks hold two prompts of 30 blocks, but not their answers.
    let mut engine = engine(|c| c.profile.blocks = 64);
    engine.offer(request(0, 480, 200), Duration::ZERO).unwrap();
    engine.offer(request(1, 480, 200), Duration::ZERO).unwrap();
    let (mut now, mut preempted, mut told_at_once) = (Duration::ZERO, Vec::new(), true);
    while let Some(step) = engine.begin_step(now) {
        check(&engine);
        now += step;
        let before = preempted.len();
        preempted.extend(engine.end_step(now).preempted.clone());
        if preempted.len() > before {
            told_at_once &= engine.metrics().preemptions > 0;
        }
    }
    assert_eq!(preempted, [RequestId(1)]);
    assert!(!told_at_once, "vLLM counts a preemption only when the request next gives output");
    assert_eq!(engine.metrics().preemptions, 1);
    assert_eq!(engine.metrics().generation_tokens, 400);
    assert_eq!(engine.metrics().finished_length, 2);
}

#[test]
fn adapters_beyond_the_slots_wait_and_others_pass_them() {
    let mut engine = engine(|c| c.max_loras = 2);
    for (id, adapter) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
        engine.offer(with_adapter(adapter, request(id, 32, 4)), Duration::ZERO).unwrap();
    }
    engine.offer(request(4, 32, 4), Duration::ZERO).unwrap();
    let step = engine.begin_step(Duration::ZERO).unwrap();
    engine.end_step(step);
    let metrics = engine.metrics();
    assert_eq!((metrics.running, metrics.waiting_capacity, metrics.waiting_deferred), (4, 0, 1));
    assert_eq!(metrics.running_adapters, [AdapterId(0), AdapterId(1)]);
    assert_eq!(metrics.waiting_adapters, [AdapterId(2)]);
    run(&mut engine);
    assert_eq!(engine.metrics().finished_length, 5);
}

#[test]
fn an_adapter_is_read_once_and_swapped_in_when_it_lost_its_slot() {
    let mut engine = engine(|c| {
        c.max_loras = 1;
        c.max_cpu_loras = 2;
    });
    let mut now = Duration::ZERO;
    let mut first_step = |adapter| {
        engine.offer(with_adapter(adapter, request(0, 16, 1)), now).unwrap();
        let step = engine.begin_step(now).unwrap();
        now += step;
        engine.end_step(now);
        step.as_millis()
    };
    // (adapter, extra milliseconds): disk and swap, resident, disk and swap, swap only.
    let steps: Vec<u128> = [0, 0, 1, 0, 2, 1].map(&mut first_step).to_vec();
    let extra: Vec<u128> = steps.iter().map(|ms| ms - steps[1]).collect();
    assert_eq!(extra, [530, 0, 530, 30, 530, 530]);
}

#[test]
fn what_can_never_run_is_refused_and_so_is_what_the_queue_cannot_hold() {
    let mut engine = engine(|c| c.waiting_max = 1);
    let now = Duration::ZERO;
    for (prompt, output) in [(4096, 1), (1, 4096), (0, 1), (1, 0), (u32::MAX, u32::MAX)] {
        let request = Request { content: Vec::new(), ..request(0, 1, 1) };
        let request = Request { prompt_tokens: prompt, output_tokens: output, ..request };
        assert_eq!(engine.offer(request, now), Err(Rejected::TooLong), "{prompt} {output}");
    }
    assert_eq!(engine.offer(request(0, 4095, 1), now), Ok(()));
    assert_eq!(engine.offer(request(1, 1, 1), now), Err(Rejected::QueueFull));
    assert_eq!(engine.metrics().rejected_queue_full, 1);
}

#[test]
fn an_abort_in_a_step_takes_effect_at_its_end_and_gives_no_token() {
    let mut engine = engine(|_| {});
    engine.offer(request(0, 100, 50), Duration::ZERO).unwrap();
    engine.offer(request(1, 100, 50), Duration::ZERO).unwrap();
    let step = engine.begin_step(Duration::ZERO).unwrap();
    engine.abort(RequestId(0));
    assert_eq!(engine.live(), 2);
    assert_eq!(engine.end_step(step).tokens, [Token { id: RequestId(1), last: false }]);
    assert_eq!((engine.live(), engine.metrics().running), (1, 1));
    engine.abort(RequestId(1));
    assert_eq!((engine.live(), engine.metrics().running), (0, 0));
    assert_eq!(engine.pool.free(), engine.config.profile.usable_blocks());
}

#[test]
fn speedup_divides_every_step() {
    let mut slow = engine(|_| {});
    let mut fast = engine(|c| c.speedup = 10.0);
    for engine in [&mut slow, &mut fast] {
        engine.offer(request(0, 100, 50), Duration::ZERO).unwrap();
    }
    let (slow, fast) = (run(&mut slow).1.as_secs_f64(), run(&mut fast).1.as_secs_f64());
    assert!((slow / fast - 10.0).abs() < 1e-3, "{slow} {fast}");
}

#[derive(Clone, Debug)]
enum Op {
    Offer { prompt: u32, output: u32, adapter: Option<u32>, shared: bool },
    Abort(u64),
    Begin,
    End,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1..400u32, 1..60u32, prop::option::of(0..4u32), any::<bool>())
            .prop_map(|(prompt, output, adapter, shared)| Op::Offer { prompt, output, adapter, shared }),
        1 => (0..60u64).prop_map(Op::Abort),
        4 => Just(Op::Begin),
        4 => Just(Op::End),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_every_request_gets_its_tokens_and_every_block_comes_back(
        ops in prop::collection::vec(op(), 1..150),
        blocks in 40..90u32,
        budget in 16..300u32,
    ) {
        let mut engine = engine(|c| {
            c.profile.blocks = blocks;
            c.profile.max_num_batched_tokens = budget;
            c.profile.max_num_seqs = 6;
            c.max_loras = 2;
        });
        let mut now = Duration::ZERO;
        let mut asked = BTreeMap::new();
        let mut got = BTreeMap::<RequestId, u32>::new();
        let mut offered = 0;
        for op in ops {
            match op {
                Op::Offer { prompt, output, adapter, shared } => {
                    let mut request = request(offered, prompt, output);
                    request.adapter = adapter.map(AdapterId);
                    if shared {
                        request.content = (0..30).collect();
                    }
                    if engine.offer(request, now).is_ok() {
                        asked.insert(RequestId(offered), output);
                    }
                    offered += 1;
                }
                Op::Abort(id) => {
                    engine.abort(RequestId(id));
                    if got.get(&RequestId(id)) != asked.get(&RequestId(id)) {
                        asked.remove(&RequestId(id));
                    }
                }
                Op::Begin => {
                    if let Some(step) = engine.begin_step(now) {
                        check(&engine);
                        now += step;
                    }
                }
                Op::End => {
                    for id in &engine.end_step(now).tokens {
                        *got.entry(id.id).or_default() += 1;
                    }
                }
            }
        }
        for id in &engine.end_step(now).tokens {
            *got.entry(id.id).or_default() += 1;
        }
        for id in run(&mut engine).0 {
            *got.entry(id).or_default() += 1;
        }
        for (id, output) in &asked {
            prop_assert_eq!(got.get(id), Some(output), "{:?}", id);
        }
        prop_assert_eq!(engine.live(), 0);
        prop_assert_eq!(engine.pool.free(), engine.config.profile.usable_blocks());
    }

    #[test]
    fn requests_of_the_base_model_start_in_the_order_they_came(
        lengths in prop::collection::vec((1..600u32, 1..40u32), 1..40),
    ) {
        let mut engine = engine(|c| c.profile.blocks = 120);
        for (id, (prompt, output)) in (0..).zip(&lengths) {
            engine.offer(request(id, *prompt, *output), Duration::ZERO).unwrap();
        }
        let mut firsts = Vec::new();
        for id in run(&mut engine).0 {
            if !firsts.contains(&id) {
                firsts.push(id);
            }
        }
        prop_assert!(firsts.is_sorted());
    }
}
