//! The model against a recording: 300 ShareGPT requests at ten a second on vLLM 0.19 with Llama 3.1 8B on an RTX 4090.

use super::*;

struct Recorded {
    arrival: f64,
    prompt: u32,
    output: u32,
    first_token: f64,
    last_token: f64,
}

fn recording() -> Vec<Recorded> {
    include_str!("../../../testdata/rtx4090-llama3.1-8b.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<f64> = line.split(',').map(|field| field.parse().unwrap()).collect();
            let count = |at: usize| format!("{}", fields[at]).parse().unwrap();
            Recorded {
                arrival: fields[0],
                prompt: count(1),
                output: count(2),
                first_token: fields[3],
                last_token: fields[4],
            }
        })
        .collect()
}

/// (first token, last token) of each request, seconds.
fn replay(recorded: &[Recorded]) -> (Vec<(f64, f64)>, u64) {
    let profile = Profile::named("rtx4090-llama3.1-8b").unwrap();
    let mut engine = Engine::new(EngineConfig { profile, ..EngineConfig::default() });
    let mut times = vec![(0.0, 0.0); recorded.len()];
    let mut arrivals = (0..).zip(recorded).peekable();
    let mut now = Duration::ZERO;
    loop {
        while let Some((id, next)) =
            arrivals.next_if(|(_, r)| Duration::from_secs_f64(r.arrival) <= now)
        {
            let request = request(id, next.prompt, next.output);
            engine.offer(request, Duration::from_secs_f64(next.arrival)).unwrap();
        }
        let Some(step) = engine.begin_step(now) else {
            let Some((_, next)) = arrivals.peek() else { break };
            now = Duration::from_secs_f64(next.arrival);
            continue;
        };
        now += step;
        for id in &engine.end_step(now).tokens {
            let time = &mut times[usize::try_from(id.0).unwrap()];
            if time.0 == 0.0 {
                time.0 = now.as_secs_f64();
            }
            time.1 = now.as_secs_f64();
        }
    }
    (times, engine.metrics().preemptions)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap())
}

fn p99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * 99 / 100]
}

#[test]
fn a_recorded_run_is_reproduced_within_three_per_cent_and_its_tail_within_five() {
    let recorded = recording();
    let (modelled, preemptions) = replay(&recorded);
    let of = |times: &dyn Fn(usize) -> (f64, f64)| {
        let each = |value: &dyn Fn(&Recorded, f64, f64) -> f64| -> Vec<f64> {
            let pairs = recorded.iter().enumerate();
            pairs.map(|(i, r)| value(r, times(i).0, times(i).1)).collect()
        };
        [
            each(&|r, first, _| first - r.arrival),
            each(&|r, first, last| (last - first) / f64::from(r.output - 1)),
            each(&|r, _, last| last - r.arrival),
        ]
    };
    let truth = of(&|i| (recorded[i].first_token, recorded[i].last_token));
    let model = of(&|i| modelled[i]);
    for ((name, truth), model) in ["TTFT", "TPOT", "E2E"].iter().zip(&truth).zip(&model) {
        let error = mean(model) / mean(truth) - 1.0;
        let tail = p99(model) / p99(truth) - 1.0;
        println!(
            "{name}: mean {:.4} s, {:+.2} %, p99 {:+.2} %",
            mean(truth),
            error * 1e2,
            tail * 1e2
        );
        assert!(error.abs() < 0.03, "{name} mean {error}");
        assert!(tail.abs() < 0.05, "{name} p99 {tail}");
    }
    println!("{preemptions} preemptions");
}
