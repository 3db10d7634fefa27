use clap::Parser;
use serde_json::Value;

use super::*;
use crate::args::{Args, Command};

fn bench(flags: &str) -> BenchArgs {
    let line = format!("tokenweir bench --url http://127.0.0.1:1 {flags}");
    match Args::try_parse_from(line.split_whitespace()).unwrap().command {
        Command::Bench(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn pace_of(flags: &str) -> Result<Pace, String> {
    let args = bench(flags);
    pace(&args.load, &workload(&args.load.workload).unwrap())
}

#[test]
fn the_load_is_what_the_flags_say() {
    assert_eq!(pace_of(""), Ok(Pace::Closed(10)));
    assert_eq!(pace_of("--concurrency 64"), Ok(Pace::Closed(64)));
    assert_eq!(pace_of("--rate 2.5"), Ok(Pace::Poisson(2.5)));
    assert_eq!(pace_of("--rate 2 --arrivals constant"), Ok(Pace::Constant(2.0)));
    for (flags, said) in [
        ("--arrivals poisson", "need --rate"),
        ("--arrivals recorded", "no recorded times"),
        ("--speed 2", "no recorded times"),
        ("--rate 2 --arrivals recorded", "--speed"),
    ] {
        let error = pace_of(flags).unwrap_err();
        assert!(error.contains(said), "{flags}: {error}");
    }
}

#[test]
fn a_rate_with_a_bound_on_what_is_under_way_is_refused() {
    for flags in ["--rate 2 --concurrency 4", "--speed 2 --concurrency 4", "--rate 2 --speed 2"] {
        let line = format!("tokenweir bench --url http://127.0.0.1:1 {flags}");
        assert!(Args::try_parse_from(line.split_whitespace()).is_err(), "{flags}");
    }
}

#[test]
fn limits_are_read_by_name() {
    let read = slo("ttft=500ms,tpot=50ms, e2e=10s").unwrap();
    assert_eq!(read.ttft, Some(Duration::from_millis(500)));
    assert_eq!(
        (read.tpot, read.e2e),
        (Some(Duration::from_millis(50)), Some(Duration::from_secs(10)))
    );
    for (text, said) in [("ttft", "NAME=TIME"), ("itl=1s", "none of"), ("ttft=x", "a time")] {
        let error = slo(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn adapters_are_as_many_as_the_workload_has() {
    let named = |flags: &str| {
        let args = bench(flags);
        let mut workload = workload(&args.load.workload).unwrap();
        adapters(&args, &mut workload).map(|names| (names.len(), workload.adapters()))
    };
    assert_eq!(named("--workload lora"), Ok((10, 10)));
    assert_eq!(named("--adapter a --adapter b"), Ok((2, 2)));
    let error = named("--workload lora --adapter a").unwrap_err();
    assert!(error.contains("10 adapters and 1 are named"), "{error}");
}

#[tokio::test]
async fn figures_have_their_names() {
    let server = sim::Server::start(SimConfig::fast()).await.unwrap();
    let target = Target::resolve(&format!("http://{}", server.addr())).await.unwrap();
    let plan =
        Plan { requests: Some(3), ..Plan::new(target, "", Workload::llmperf(), Pace::Closed(1)) };
    let measured = driver::drive(&plan, std::future::pending(), &|_| {}).await;
    let figures = figures::all(&plan, &measured);
    for name in ["ttft_mean_s", "tpot_p50_s", "itl_p99_s", "ntpot_p95_s", "e2e_max_s"] {
        assert!(figures[name].as_f64().unwrap() > 0.0, "{name}");
    }
    assert_eq!(figures["completed"], 3);
    assert_eq!(figures["goodput_ratio"], Value::Null);
    let llmperf = &figures["llmperf"];
    assert_eq!(llmperf["results_ttft_s_mean"], figures["ttft_mean_s"]);
    assert_eq!(llmperf["results_inter_token_latency_s_quantiles_p99"], figures["ntpot_p99_s"]);
    assert_eq!(llmperf["results_num_completed_requests"], 3);
}
