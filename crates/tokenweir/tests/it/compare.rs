use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

const RECORDING: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/testdata/recorded/rtx4090-llama3.1-8b");

fn compare(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokenweir"))
        .arg("compare")
        .args(flags)
        .output()
        .expect("it runs")
}

/// Exit code 2 at once, nothing on stdout, and what stderr says.
fn check(flags: &str, said: &[&str]) {
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let output = compare(&flags);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{flags:?}");
    for said in said {
        assert!(stderr.contains(said), "{flags:?}: no {said:?} in {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{flags:?}: {stderr}");
}

/// A file of this test alone.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("compare-{name}"))
}

fn written(name: &str, text: &str) -> String {
    std::fs::write(file(name), text).expect("it can be written");
    file(name).display().to_string()
}

fn succeeds(flags: &[&str]) -> String {
    let output = compare(flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(name: &str) -> Value {
    let text = std::fs::read(file(name)).expect("it was written");
    serde_json::from_slice(&text).expect("it is JSON")
}

#[test]
fn unknown_names_are_told_with_those_there_are() {
    check("--scenario S12", &["--scenario", "\"S12\"", "S1  ", "S11 "]);
    check("--scenario V0", &["--recorded"]);
    check("--scenario S1 --policies fastest", &["--policies", "\"fastest\"", "predicted"]);
    check("--trace nothing", &["--trace", "\"nothing\"", "llmperf"]);
    check("--trace llmperf --profile b200", &["--profile", "b200", "a10-llama2-7b"]);
    check("--scenario S1 --profile b200", &["--profile", "b200"]);
    check("--trace csv:file", &["--trace", "azure"]);
}

#[test]
fn every_problem_is_told_at_once() {
    check(
        "--scenario S1 --policies a,random,b --seeds 0 --requests 0",
        &["\"a\"", "\"b\"", "--seeds", "--requests", "4 problems"],
    );
    check("--trace nothing --profile b200 --replicas 0", &["--trace", "--profile", "--replicas"]);
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    check("--scenario S1 --rate 0", &["--rate"]);
    check("--scenario S1 --rate -1", &["-1"]);
    check("--scenario S1 --rate nan", &["--rate"]);
    check("--scenario S1 --load 0", &["--load"]);
    check("--scenario S1 --concurrency 0", &["--concurrency"]);
    check("--scenario S1 --seeds 0", &["--seeds", "1 to 1000"]);
    check("--scenario S1 --seeds 1001", &["--seeds"]);
    check("--scenario S1 --requests 0", &["--requests"]);
    check("--scenario S1 --gateways 0", &["--gateways"]);
    check("--scenario S1 --scrape-interval 0s", &["--scrape-interval"]);
    check("--trace llmperf --replicas 0", &["--replicas"]);
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    check("", &["--scenario", "--trace", "--recorded"]);
    check("--scenario S1 --trace llmperf", &["cannot be used with"]);
    check("--scenario S1 --rate 1 --load 0.5", &["cannot be used with"]);
    check("--scenario S1 --concurrency 3 --sweep", &["cannot be used with"]);
    check("--trace llmperf --arrivals recorded", &["--arrivals recorded", "llmperf has no times"]);
    check("--trace sharegpt --longest 4000 --arrivals recorded", &["has no times"]);
}

#[test]
fn a_broken_trace_is_told_by_file_and_line() {
    let header = "TIMESTAMP,ContextTokens,GeneratedTokens";
    let row = "2023-11-16 18:15:46.6,374,44";
    for (name, text, line, said) in [
        ("negative.csv", format!("{header}\n{row}\n2023-11-16 18:15:47,-5,44\n"), 3, "-5"),
        ("word.csv", format!("{header}\n2023-11-16 18:15:47,many,44\n"), 2, "many"),
        ("column.csv", format!("TIMESTAMP,ContextTokens\n{row}\n"), 1, "GeneratedTokens"),
        ("backwards.csv", format!("{header}\n{row}\n2023-11-16 18:15:45,5,44\n"), 3, ""),
        ("empty.csv", String::new(), 1, ""),
        ("header.csv", format!("{header}\n"), 1, ""),
    ] {
        let path = written(name, &text);
        check(&format!("--trace azure:{path}"), &[&format!("{path}:{line}: "), said]);
    }
    let path = written("broken.jsonl", "{\"timestamp\": 0, \"input_length\": 5\n");
    check(&format!("--trace mooncake:{path}"), &[&format!("{path}:1: ")]);
    check("--trace azure:/nowhere/trace.csv", &["/nowhere/trace.csv"]);
}

#[test]
fn requests_that_can_never_run_are_told_with_what_to_do() {
    let rows = "2023-11-16 18:15:46,374,44\n2023-11-16 18:15:47,5000,44\n";
    let path = written("long.csv", &format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}"));
    check(&format!("--trace azure:{path}"), &[&format!("{path}:3"), "--longest"]);
    check(&format!("--trace azure:{path} --kv-blocks 20"), &["KV cache", "--longest"]);
    check(&format!("--trace azure:{path} --longest 10"), &["--longest"]);
    let flags = format!("--trace azure:{path} --longest 4000 --requests 20 --seeds 1 --rate 1");
    succeeds(&[flags.split(' ').collect(), vec!["--policies", "random"]].concat());
}

#[test]
fn drawn_requests_that_can_never_run_are_refused_and_not_waited_for() {
    let flags = "--trace llmperf --kv-blocks 41 --requests 40 --seeds 1 --rate 1 --policies random";
    let json_to = file("never.json").display().to_string();
    succeeds(&[flags.split(' ').collect(), vec!["--json", &json_to]].concat());
    for result in json("never.json")["results"].as_array().unwrap() {
        assert!(result["refused"].as_u64() > Some(5), "{result}");
    }
}

#[test]
fn a_comparison_is_written_for_programs_and_for_people() {
    let (json_to, html_to) = (file("s1.json"), file("s1.html"));
    let flags = ["--scenario", "S1", "--requests", "300", "--seeds", "2", "--policies"];
    let files = ["--json", json_to.to_str().unwrap(), "--html", html_to.to_str().unwrap()];
    let table = succeeds(&[&flags[..], &["predicted,round-robin"], &files].concat());
    for name in ["predicted", "round-robin", "oracle"] {
        assert!(table.lines().any(|line| line.starts_with(name)), "{table}");
    }
    assert!(std::fs::read_to_string(&html_to).unwrap().starts_with("<!DOCTYPE html>"));
    let json = json("s1.json");
    for key in ["scenario", "workload", "rate", "lambda_star", "seeds", "requests", "results"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!((&json["scenario"], &json["seeds"]), (&"S1".into(), &2.into()));
    let results = json["results"].as_array().unwrap();
    let names: Vec<&str> = results.iter().map(|r| r["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["predicted", "round-robin", "oracle"]);
    for result in results {
        assert_eq!(result["completed"], 540, "{result}");
        for key in ["ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "e2e_mean_s", "ci95_ttft_mean_s"] {
            assert!(result[key].as_f64() > Some(0.0), "{key} of {result}");
        }
    }
}

#[test]
fn two_runs_write_equal_bytes_on_one_thread_and_on_two() {
    let run = |name: &str, threads: &str| {
        let path = file(name).display().to_string();
        let flags = "--scenario s2 --requests 100 --seeds 2 --policies predicted,lora-chain";
        let flags: Vec<&str> = flags.split(' ').collect();
        succeeds(&[flags, vec!["--json", &path, "--threads", threads]].concat());
        std::fs::read(path).unwrap()
    };
    assert!(run("one.json", "1") == run("two.json", "2"));
}

#[test]
fn every_scenario_is_listed() {
    let list = succeeds(&["--scenario", "help"]);
    assert_eq!(list.lines().count(), 11);
    assert!(list.starts_with("S1 ") && list.contains("\nS11 "));
}

#[test]
fn a_recorded_run_is_reproduced_within_three_per_cent_and_its_tail_within_five() {
    let path = file("v0.json").display().to_string();
    let profile = ["--profile", "rtx4090-llama3.1-8b"];
    let said = succeeds(&[&["--recorded", RECORDING, "--json", &path], &profile[..]].concat());
    assert!(said.contains("300 requests"), "{said}");
    let json = json("v0.json");
    let recorded = json["recorded"].as_object().unwrap();
    let mut compared = 0;
    for (name, value) in recorded.iter().filter(|(name, _)| *name != "preemptions") {
        let error = json["simulated"][name].as_f64().unwrap() / value.as_f64().unwrap() - 1.0;
        let most = if name.contains("p99") { 0.05 } else { 0.03 };
        assert!(error.abs() < most, "{name}: {error}");
        compared += 1;
    }
    assert!(compared >= 4, "{json}");
}

#[test]
fn a_folder_without_a_recording_is_told() {
    check("--recorded /nowhere --profile a10-llama2-7b", &["/nowhere/requests.jsonl", "meta.json"]);
    check(&format!("--recorded {RECORDING} --profile b200"), &["--profile", "b200"]);
    check(&format!("--recorded {RECORDING} --policies random"), &["cannot be used with"]);
}
