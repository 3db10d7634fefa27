use super::*;

#[test]
fn equal_seeds_give_equal_requests() {
    for name in ["llmperf", "lora", "shared-prefix"] {
        let workload = Workload::named(name, |_| Err(String::new())).unwrap();
        let take =
            |seed| workload.arrivals(&Pace::Poisson(3.0), seed).take(500).collect::<Vec<_>>();
        assert_eq!(take(1), take(1), "{name}");
        assert_ne!(take(1), take(2), "{name}");
    }
}

#[test]
fn llmperf_draws_its_lengths_and_poisson_its_gaps() {
    let arrivals: Vec<Arrival> =
        Workload::llmperf().arrivals(&Pace::Poisson(4.0), 7).take(20_000).collect();
    let mean = |of: &dyn Fn(&Arrival) -> f64| arrivals.iter().map(of).sum::<f64>() / 20_000.0;
    assert!((mean(&|a| a.shape.prompt_tokens.into()) - 550.0).abs() < 5.0);
    assert!((mean(&|a| a.shape.output_tokens.into()) - 150.0).abs() < 0.5);
    assert!((arrivals[19_999].at.as_secs_f64() - 5000.0).abs() < 150.0);
}

#[test]
fn stages_end_and_have_their_rates() {
    let stages = vec![
        Stage { rate: 10.0, seconds: 100.0 },
        Stage { rate: 0.0, seconds: 50.0 },
        Stage { rate: 40.0, seconds: 100.0 },
    ];
    let arrivals: Vec<Arrival> = Workload::llmperf().arrivals(&Pace::Stages(stages), 3).collect();
    let of = |stage: usize| arrivals.iter().filter(|arrival| arrival.stage == stage).count();
    assert!((900..1100).contains(&of(0)), "{}", of(0));
    assert_eq!(of(1), 0);
    assert!((3800..4200).contains(&of(2)), "{}", of(2));
    assert_eq!(arrivals.len(), of(0) + of(2));
    assert!(arrivals.iter().all(|arrival| arrival.at.as_secs_f64() < 100.0));
}

#[test]
fn the_most_popular_adapter_of_ten_has_a_third_of_the_requests() {
    let shapes = &mut Workload::lora(10, Popularity::zipf).shapes(1);
    let adapters: Vec<u32> = (0..10_000).filter_map(|_| shapes.draw().adapter).collect();
    let share = |wanted: u32| adapters.iter().filter(|a| **a == wanted).count();
    assert_eq!(adapters.len(), 10_000);
    assert!((3200..3650).contains(&share(0)), "{}", share(0));
    assert!((270..420).contains(&share(9)), "{}", share(9));
}
