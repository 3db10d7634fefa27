use std::{path::PathBuf, time::Duration};

use proptest::prelude::*;
use scheduling::Signals;

use super::{ADAPTERS_MAX, parse_metrics};

const HEARD: Duration = Duration::from_secs(7);

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One line for all that a page says; `-` is unknown.
fn summary(signals: &Signals) -> String {
    fn show<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    let adapters = signals.running_adapters.as_ref();
    let adapters = adapters.map(|names| names.iter().cloned().collect::<Vec<_>>().join("+"));
    format!(
        "waiting {} running {} kv {} blocks {}x{} adapters {} of {} tokens {} {}",
        show(signals.waiting.map(|r| r.value)),
        show(signals.running.map(|r| r.value)),
        show(signals.kv_usage.map(|r| format!("{:.3}", r.value))),
        show(signals.kv_blocks.map(|r| r.value)),
        show(signals.kv_block_tokens.map(|r| r.value)),
        show(adapters.map(|names| format!("[{names}]"))),
        show(signals.adapters_max.map(|r| r.value)),
        show(signals.prompt_tokens.map(|r| r.value)),
        show(signals.generation_tokens.map(|r| r.value)),
    )
}

#[track_caller]
fn check(page: impl AsRef<[u8]>, expected: &str) {
    let signals = parse_metrics(page.as_ref(), HEARD);
    let said = signals.as_ref().map_or_else(|| "not a page".to_owned(), summary);
    let begin: String = String::from_utf8_lossy(page.as_ref()).chars().take(200).collect();
    assert_eq!(said, expected, "{begin}");
}

#[test]
fn pages_of_real_servers_are_understood() {
    let table = [
        ("00-fresh-idle", "0 running 0 kv 0.000 blocks 256x32 adapters - of - tokens 0 0"),
        (
            "01-idle-after-traffic",
            "0 running 0 kv 0.000 blocks 256x32 adapters [] of 4 tokens 965 508",
        ),
        ("dp2-idle", "0 running 0 kv 0.000 blocks 512x32 adapters - of - tokens 0 0"),
        ("dp2-load", "5 running 4 kv 0.110 blocks 512x32 adapters - of - tokens 1204 442"),
        ("load-2s", "12 running 8 kv 0.753 blocks 256x32 adapters [] of 4 tokens 5608 450"),
        ("load-6s", "5 running 7 kv 0.631 blocks 256x32 adapters [] of 4 tokens 10515 2444"),
        ("load-after", "0 running 0 kv 0.000 blocks 256x32 adapters [] of 4 tokens 14020 6000"),
        (
            "lora-3s",
            "3 running 4 kv 0.361 blocks 256x32 adapters [sql-lora+sql-lora-1+sql-lora-3+sql-lora-4] of 4 tokens 16824 6096",
        ),
        (
            "lora-8s",
            "3 running 4 kv 0.471 blocks 256x32 adapters [sql-lora+sql-lora-1+sql-lora-3+sql-lora-4] of 4 tokens 16824 6964",
        ),
        ("lora-after", "0 running 0 kv 0.000 blocks 256x32 adapters [] of 4 tokens 18927 8100"),
    ];
    for (name, expected) in table {
        check(golden(&format!("vllm-0.32.0/{name}.prom")), &format!("waiting {expected}"));
    }
    let table = [
        ("fresh-idle", "0 running 0 kv 0.000 blocks 256x16 adapters [] of 2 tokens 0 0"),
        (
            "fresh-idle-hidden-shown",
            "0 running 0 kv 0.000 blocks 256x16 adapters [] of 4 tokens 0 0",
        ),
        ("load-2s", "16 running 4 kv 0.734 blocks 256x16 adapters [] of 2 tokens 2944 372"),
        ("load-after", "0 running 0 kv 0.000 blocks 256x16 adapters [] of 2 tokens 14160 6188"),
        (
            "lora-4s",
            "3 running 4 kv 0.766 blocks 256x16 adapters [sql-lora+sql-lora-1+tweet-summary+tweet-summary-1] of 4 tokens 2804 328",
        ),
        (
            "after-traffic-hidden-shown",
            "0 running 0 kv 0.000 blocks 256x16 adapters [] of 4 tokens 4907 2100",
        ),
    ];
    for (name, expected) in table {
        check(golden(&format!("vllm-0.8.5/{name}.prom")), &format!("waiting {expected}"));
    }
}

#[test]
fn a_server_of_one_process_says_when_it_began() {
    let start = |page: &[u8]| {
        parse_metrics(page, HEARD).and_then(|signals| Some(signals.process_start?.value))
    };
    assert_eq!(start(&golden("vllm-0.32.0/load-2s.prom")), Some(1.795_341_292_23e9));
    assert_eq!(start(&golden("vllm-0.8.5/load-2s.prom")), None);
    assert_eq!(start(b"vllm:num_requests_waiting 1\nprocess_start_time_seconds_x 5"), None);
}

/// What a page says that is nothing but one queue length.
fn only_waiting(waiting: &str) -> String {
    format!("waiting {waiting} running - kv - blocks -x- adapters - of - tokens 0 0")
}

#[test]
fn every_spelling_of_a_sample_is_read() {
    let table = [
        ("vllm:num_requests_waiting 3", "3"),
        ("vllm:num_requests_waiting 3\n", "3"),
        ("vllm:num_requests_waiting 3.0\r\n", "3"),
        ("vllm:num_requests_waiting\t3 1795341386\n", "3"),
        ("vllm:num_requests_waiting{} 3", "3"),
        ("vllm:num_requests_waiting {model_name = \"m\", } 3e0 17", "3"),
        ("vllm:num_requests_waiting{model_name=\"a } b\\\" 9 \\\\\"} 1.2e+1", "12"),
        ("# HELP vllm:num_requests_waiting 9\nvllm:num_requests_waiting 3", "3"),
        ("\n\nvllm:num_requests_waiting 3\nvllm:num_requests_waiting_by_reason 9", "3"),
        ("vllm:num_requests_waiting 1e300", "4294967295"),
        (
            "vllm:num_requests_waiting{engine=\"0\"} 1\nvllm:num_requests_waiting{engine=\"1\"} 2",
            "3",
        ),
        ("vllm:num_requests_waiting NaN\nvllm:num_requests_waiting 2", "2"),
        (
            "vllm:num_requests_waiting{engine=\"0\"} -1\nvllm:num_requests_waiting{engine=\"1\"} 2",
            "2",
        ),
    ];
    for (page, waiting) in table {
        check(page, &only_waiting(waiting));
    }
}

#[test]
fn a_page_without_a_gauge_is_not_a_page() {
    let table = [
        "",
        "\n",
        "<html>vllm:num_requests_waiting 1</html>",
        "vllm:prompt_tokens_total 5",
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting ",
        "vllm:num_requests_waiting{",
        "vllm:num_requests_waiting{a",
        "vllm:num_requests_waiting{a=\"\\",
        "vllm:num_requests_waiting{a=\"b} 1",
        "vllm:num_requests_waiting{a=b} 1",
        "vllm:num_requests_waiting NaN",
        "vllm:num_requests_waiting +Inf",
        "vllm:num_requests_waiting -3",
        "vllm:num_requests_waiting three",
        "vllm:num_requests_waitings 3",
        "sglang:num_requests_waiting 3",
    ];
    for page in table {
        check(page, "not a page");
    }
}

#[test]
fn of_several_ranks_the_fullest_kv_counts_under_either_name() {
    let page = "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n\
                vllm:gpu_cache_usage_perc{engine=\"2\"} 0.125\nvllm:kv_cache_usage_perc{engine=\"3\"} Inf\n";
    check(page, "waiting - running - kv 0.500 blocks -x- adapters - of - tokens 0 0");
    let over = "vllm:kv_cache_usage_perc 1.5";
    check(over, "waiting - running - kv 1.000 blocks -x- adapters - of - tokens 0 0");
}

#[test]
fn sizes_that_say_nothing_are_unknown() {
    for (labels, expected) in [
        ("block_size=\"None\",num_gpu_blocks=\"0\"", "-x-"),
        ("block_size=\"0\",num_gpu_blocks=\"None\",num_gpu_blocks_override=\"9\"", "-x-"),
        ("block_size=\"16\"", "-x16"),
        ("num_gpu_blocks=\"7\",block_size=\"16\"", "7x16"),
    ] {
        let page = format!("vllm:num_requests_waiting 1\nvllm:cache_config_info{{{labels}}} 1.0");
        let expected =
            format!("waiting 1 running - kv - blocks {expected} adapters - of - tokens 0 0");
        check(page, &expected);
    }
}

#[test]
fn the_newest_set_of_adapters_counts_and_escapes_are_undone() {
    let page = r#"vllm:num_requests_waiting 1
vllm:lora_requests_info{max_lora="4",running_lora_adapters="new\\er, \"b\" ,,new\\er"} 20
vllm:lora_requests_info{max_lora="8",running_lora_adapters="old"} 1.9e1
vllm:lora_requests_info{max_lora="8",running_lora_adapters="never"} NaN
vllm:lora_requests_info{max_lora="8"} 99
"#;
    check(page, "waiting 1 running - kv - blocks -x- adapters [\"b\"+new\\er] of 4 tokens 0 0");
}

#[test]
fn adapters_beyond_the_maximum_are_left_out() {
    let names: Vec<String> = (0..ADAPTERS_MAX + 10).map(|number| number.to_string()).collect();
    let page = format!(
        "vllm:num_requests_waiting 1\nvllm:lora_requests_info{{running_lora_adapters=\"{}\"}} 1",
        names.join(",")
    );
    let signals = parse_metrics(page.as_bytes(), HEARD).expect("a page");
    assert_eq!(signals.running_adapters.expect("adapters").len(), ADAPTERS_MAX);
}

#[test]
fn readings_are_stamped() {
    let signals = parse_metrics(&golden("vllm-0.8.5/lora-4s.prom"), HEARD).expect("a page");
    assert_eq!(signals.waiting.expect("waiting").heard, HEARD);
    assert_eq!(signals.generation_tokens.expect("tokens").heard, HEARD);
}

/// Which fields are known.
fn known(signals: &Signals) -> [bool; 9] {
    [
        signals.waiting.is_some(),
        signals.running.is_some(),
        signals.kv_usage.is_some(),
        signals.kv_block_tokens.is_some(),
        signals.kv_blocks.is_some(),
        signals.adapters_max.is_some(),
        signals.running_adapters.is_some(),
        signals.prompt_tokens.is_some(),
        signals.generation_tokens.is_some(),
    ]
}

fn pieces_of_a_page() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("vllm:num_requests_waiting".to_owned()),
        Just("vllm:kv_cache_usage_perc".to_owned()),
        Just("vllm:cache_config_info".to_owned()),
        Just("vllm:lora_requests_info".to_owned()),
        Just("{running_lora_adapters=\"".to_owned()),
        Just("block_size=\"".to_owned()),
        "[{}\",= \\\\\n\r\t#.eE0-9Nan+-]{1,4}",
        any::<f64>().prop_map(|value| value.to_string()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(page: Vec<u8>) {
        let _ = parse_metrics(&page, HEARD);
    }

    #[test]
    fn what_is_nearly_a_page_gives_sane_values(page in pieces_of_a_page()) {
        if let Some(signals) = parse_metrics(page.as_bytes(), HEARD) {
            let usage = signals.kv_usage.map_or(0.0, |reading| reading.value);
            prop_assert!((0.0..=1.0).contains(&usage));
            prop_assert!(signals.kv_block_tokens.is_none_or(|reading| reading.value > 0));
        }
    }

    #[test]
    fn a_page_cut_anywhere_says_no_more_than_the_whole(
        name in prop_oneof![
            Just("vllm-0.32.0/lora-8s.prom"),
            Just("vllm-0.32.0/dp2-load.prom"),
            Just("vllm-0.8.5/lora-4s.prom"),
        ],
        cut: prop::sample::Index,
    ) {
        let page = golden(name);
        let whole = known(&parse_metrics(&page, HEARD).expect("a page"));
        let cut = parse_metrics(&page[..cut.index(page.len())], HEARD);
        let cut = cut.as_ref().map_or([false; 9], known);
        prop_assert!(cut.iter().zip(whole).all(|(&cut, whole)| whole || !cut));
    }
}
