use proptest::prelude::*;

use super::*;
use crate::workload::{Workload, WorkloadError};

fn parse(kind: &str, text: &str) -> Result<Trace, TraceError> {
    Trace::parse(kind, "file", text)
}

/// (seconds, prompt, answer) of each row.
fn rows(trace: &Trace) -> Vec<(f64, u32, u32)> {
    let row = |row: &Row| (row.at.as_secs_f64(), row.prompt_tokens, row.output_tokens);
    trace.rows.iter().map(row).collect()
}

#[test]
fn built_in_traces_are_what_their_sources_say() {
    let mean = |trace: &Trace, of: fn(&Row) -> u32| {
        let sum: f64 = trace.rows.iter().map(|row| f64::from(of(row))).sum();
        sum / f64::from(u32::try_from(trace.rows.len()).unwrap())
    };
    let table = [
        ("azure-conv", 19_366, 1154.7, 211.1, Some(3502.0)),
        ("mooncake-conversation", 12_031, 12_035.0, 343.0, Some(3537.0)),
        ("sharegpt", 10_000, 245.8, 325.6, None),
    ];
    for (name, count, prompt, output, seconds) in table {
        let trace = Trace::built_in(name).unwrap();
        assert_eq!((trace.name.as_str(), trace.rows.len(), trace.failed), (name, count, 0));
        assert!((mean(&trace, |row| row.prompt_tokens) / prompt - 1.0).abs() < 5e-4, "{name}");
        assert!((mean(&trace, |row| row.output_tokens) / output - 1.0).abs() < 2e-3, "{name}");
        let last = trace.rows.last().unwrap().at.as_secs_f64();
        assert_eq!(trace.timed, seconds.is_some(), "{name}");
        assert!((last - seconds.unwrap_or(0.0)).abs() < 1.0, "{name}: {last}");
        assert_eq!(trace.shares_prefixes(), name == "mooncake-conversation");
        assert_eq!(Workload::named(name, |_| Err(String::new())).unwrap().name(), name);
    }
    assert_eq!(Trace::built_in("azure-code"), None);
    for name in Workload::NAMES {
        assert!(Workload::named(name, |_| Err(String::new())).is_ok(), "{name}");
    }
}

#[test]
fn mooncake_prompts_share_their_blocks() {
    let trace = Trace::built_in("mooncake-conversation").unwrap();
    assert_eq!(trace.segments.len(), 288_500);
    for row in &trace.rows {
        let range = row.segments.start as usize..row.segments.end as usize;
        let tokens: u32 = trace.segments[range].iter().map(|segment| segment.tokens).sum();
        assert_eq!(tokens, row.prompt_tokens);
    }
    let (one, other) = (trace.shape(0), trace.shape(1));
    assert_eq!(one.segments[0], other.segments[0]);
    assert_ne!(one.segments[1], other.segments[1]);
    assert_eq!(one.segments.last().unwrap().tokens, 6758 - 13 * 512);
}

#[test]
fn every_kind_is_read() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2024-02-28 23:59:59.5,374,44\r\n\r\n2024-02-29 00:00:01,396,109";
    assert_eq!(rows(&parse("azure", azure).unwrap()), [(0.0, 374, 44), (1.5, 396, 109)]);

    let burstgpt = "\u{feff}Session ID, log type,RESPONSE TOKENS,Request tokens,Timestamp,Elapsed time\n\
        1,Conversation log,18,472,5,2.5\n\
        2,API log,0,300,45.0,\n\
        3,API log,7,1087,45.5,1\n";
    let burstgpt = parse("burstgpt", burstgpt).unwrap();
    assert_eq!(rows(&burstgpt), [(0.0, 472, 18), (40.5, 1087, 7)]);
    assert_eq!((burstgpt.failed, burstgpt.rows[1].line), (1, 4));

    let lengths =
        "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n18,243.0,261,13.5\n";
    let lengths = parse("lengths", lengths).unwrap();
    assert_eq!((rows(&lengths), lengths.timed), (vec![(0.0, 18, 243)], false));

    let mooncake = r#"{"timestamp": 100, "input_length": 600, "output_length": 5, "hash_ids": [7, 8]}
{"timestamp": 1350, "input_length": 600, "output_length": 6, "hash_ids": [7], "more": {}}"#;
    let mooncake = parse("mooncake", mooncake).unwrap();
    assert_eq!(rows(&mooncake), [(0.0, 600, 5), (1.25, 600, 6)]);
    let segment = |id, tokens| Segment { id, tokens };
    assert_eq!(mooncake.shape(0).segments, [segment(7, 512), segment(8, 88)]);
    assert_eq!(mooncake.shape(1).segments, [segment(7, 512)]);

    let bailian = r#"{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 33, "output_length": 132, "type": "text", "turn": 2, "hash_ids": [1, -2, 3]}"#;
    let two = parse("bailian", bailian).unwrap();
    assert_eq!(two.shape(0).segments[2], segment(3, 1));
    assert_eq!(two.segments.len(), 3);
    assert_eq!(parse("bailian@11", bailian).unwrap().shape(0).segments[2], segment(3, 11));
}

#[test]
fn a_kind_may_say_how_long_its_blocks_are() {
    let text =
        r#"{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [7, 8, 9]}"#;
    let read = |path: &str| {
        assert_eq!(path, "a:b");
        Ok(text.to_owned())
    };
    let workload = Workload::named("mooncake@256:a:b", read).unwrap();
    assert_eq!(workload.name(), "mooncake@256:a:b");
    assert_eq!(workload.recorded().unwrap().segments[2], Segment { id: 9, tokens: 88 });
    for spec in ["mooncake@0:f", "bailian@:f", "mooncake@x:f", "azure@16:f", "mooncake@-1:f"] {
        let error = Workload::named(spec, |_| unreachable!()).unwrap_err();
        assert_eq!(error, WorkloadError::Block(spec.to_owned()));
    }
    for spec in ["moon:f", "@5:f", "mooncake@256", ":f"] {
        let error = Workload::named(spec, |_| unreachable!()).unwrap_err();
        assert_eq!(error, WorkloadError::Unknown(spec.to_owned()));
    }
}

#[test]
fn times_of_many_forms_are_read() {
    let second = 1_000_000_000;
    let table = [
        ("1970-01-01 00:00:00", Some(0)),
        ("1970-01-02T00:00:00Z", Some(86_400 * second)),
        ("2023-11-16 18:15:46.6805900", Some(1_700_158_546 * second + 680_590_000)),
        ("2024-05-10 00:00:00.009930+00:00", Some(1_715_299_200 * second + 9_930_000)),
        ("2024-05-10T02:00:00+02:00", Some(1_715_299_200 * second)),
        ("2024-05-09 23:00:00.5 -01:00", Some(1_715_299_200 * second + second / 2)),
        ("2000-02-29 12:00:00", Some(951_825_600 * second)),
        ("2100-02-29 12:00:00", None),
        ("2023-13-01 12:00:00", None),
        ("2023-11-31 12:00:00", None),
        ("2023-11-16", None),
        ("2023-11-16 24:00:00", None),
        ("2023-11-16 18:15:46.", None),
        ("2023-11-16 18:15:46.1234567890", None),
        ("2023-11-16 18:15", None),
        ("+023-11-16 18:15:46", None),
        ("2023-11-16 18:15:46+00:00Z+", None),
        ("12.5", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(calendar::nanos(text), expected, "{text}");
    }
}

/// The first problem of such a file is in this line and says this.
#[track_caller]
fn refused(kind: &str, text: &str, line: u32, what: &str) {
    let error = parse(kind, text).unwrap_err();
    assert!(error.to_string().contains(what), "{kind} {text:?}: {error}");
    assert_eq!(error.problems[0].line, line, "{kind} {text:?}: {error}");
    assert!(error.to_string().starts_with(&format!("file:{line}: ")), "{error}");
}

#[test]
fn files_of_other_kinds_are_refused() {
    let table = [
        (
            "azure",
            "",
            1,
            r#"columns "TIMESTAMP", "ContextTokens", "GeneratedTokens" are missing, found nothing"#,
        ),
        (
            "azure",
            "\n\nTIMESTAMP,Tokens\n",
            3,
            r#""ContextTokens", "GeneratedTokens" are missing, found "TIMESTAMP", "Tokens""#,
        ),
        ("azure", "TIMESTAMP,ContextTokens,GeneratedTokens\n", 1, "at least one row"),
        (
            "burstgpt",
            "Timestamp,Request tokens\n1,2",
            1,
            r#"the column "Response tokens" is missing"#,
        ),
        ("burstgpt", "Timestamp,Request tokens,Response tokens\n1,5,0", 1, "there are no requests"),
        ("burstgpt", "\"Timestamp\",Request tokens\n", 1, "there is a quote"),
        ("lengths", "1,2\n3,4\n", 1, "a first line that names the columns is expected"),
        ("mooncake", "\n \n", 1, "the file is empty; a JSON object a line is expected"),
        ("bailian", "version https://git-lfs.github.com/spec/v1\n", 1, "git lfs pull"),
        ("wikipedia", "", 1, "it is one of azure, burstgpt"),
    ];
    for (kind, text, line, what) in table {
        refused(kind, text, line, what);
    }
}

#[test]
fn broken_rows_of_columns_say_where_and_what() {
    let azure = [
        ("T,1", 2, "the row has 2 fields, the first line names 3"),
        ("T,1,2,3", 2, "the row has 4 fields"),
        ("T,-5,3", 2, r#"ContextTokens is "-5"; it cannot be negative"#),
        ("T,x,3", 2, r#"ContextTokens is "x"; a whole number is expected: correct the row"#),
        ("T,,1.5", 2, r#"leave it out; GeneratedTokens is "1.5"; a whole number"#),
        ("T,3,4294967296", 2, "at most 4294967295"),
        ("T,0,3", 2, "ContextTokens is 0; at least 1 is expected: leave the row out"),
        ("T,3,0", 2, "GeneratedTokens is 0"),
        ("yesterday,3,1", 2, r#"TIMESTAMP is "yesterday"; a time such as"#),
        ("T,\"3\",1", 2, "there is a quote"),
        ("T,1,1\n2023-11-16 18:15:45.5,1,1", 3, "this is 0.5 s before line 2"),
    ];
    for (rows, line, what) in azure {
        let rows = rows.replace('T', "2023-11-16T18:15:46");
        refused("azure", &format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}"), line, what);
    }
    let burstgpt = [
        ("5,1,1\n5,1,1\n\n3.5,1,1\n4,1,1", 5, "this is 1.5 s before line 3; rows are expected in"),
        ("-5,1,1", 2, r#"Timestamp is "-5"; seconds are expected"#),
        ("1e300,1,1", 2, "seconds are expected"),
        ("NaN,1,1", 2, "seconds are expected"),
        ("1,x,0", 2, r#"Request tokens is "x""#),
        ("1,1,0\n2,-1,99999999999999999999999", 3, "at most 4294967295"),
    ];
    for (rows, line, what) in burstgpt {
        let text = format!("Timestamp,Request tokens,Response tokens\n{rows}");
        refused("burstgpt", &text, line, what);
    }
}

#[test]
fn broken_rows_of_json_say_where_and_what() {
    let row = |[time, input, output, ids]: [&str; 4]| {
        format!(
            r#"{{"timestamp": {time}, "input_length": {input}, "output_length": {output}, "hash_ids": {ids}}}"#
        )
    };
    let rows = [
        ("mooncake", ["\"x\"", "1", "1", "[1]"], "milliseconds are expected"),
        ("bailian", ["-1", "1", "1", "[1]"], r#"timestamp is "-1"; seconds are expected"#),
        ("mooncake", ["1", "-1", "1", "[1]"], r#"input_length is "-1"; it cannot be negative"#),
        ("mooncake", ["1", "1", "0", "[1]"], "output_length is 0"),
        ("mooncake", ["1", "1", "null", "[1]"], r#"output_length is "null"; a whole number"#),
        ("mooncake", ["1", "1", "1", "7"], r#"hash_ids is "7"; a list"#),
        ("mooncake", ["1", "600", "1", "[1, 2.5]"], r#"hash_ids[1] is "2.5""#),
        (
            "mooncake",
            ["1", "600", "1", "[1, 2, 3]"],
            "3 hash_ids for 600 tokens, 1 or 2 are expected if a block has 512",
        ),
        ("mooncake", ["1", "600", "1", "[]"], "read the file as mooncake@N:FILE"),
        ("bailian@300", ["1", "600", "1", "[1]"], "1 hash_ids for 600 tokens, 2 are expected"),
    ];
    for (kind, values, what) in rows {
        refused(kind, &row(values), 1, what);
    }
    let [late, early] = ["9", "7"].map(|time| row([time, "1", "1", "[1]"]));
    let texts = [
        (format!("{late}\n{early}"), 2, "this is 0.002 s before line 1"),
        ("{".to_owned(), 1, "column 1: EOF while parsing"),
        (format!("{early}\n[1]"), 2, "a JSON object a line is expected"),
        (
            r#"{"timestamp": 1, "a": 2}"#.to_owned(),
            1,
            "the fields input_length, output_length, hash_ids are missing, found",
        ),
    ];
    for (text, line, what) in texts {
        refused("mooncake", &text, line, what);
    }
}

#[test]
fn ten_problems_are_told_and_the_others_counted() {
    let text = format!("num_prefill_tokens,num_decode_tokens\n{}", "x,1\n".repeat(25));
    let error = parse("lengths", &text).unwrap_err();
    assert_eq!((error.problems.len(), error.more), (PROBLEMS_MAX, 15));
    let told = error.to_string();
    assert_eq!(told.lines().count(), 11);
    assert!(told.ends_with("\n… and 15 more"), "{told}");
    assert_eq!(error.problems[9].line, 11);
}

#[test]
fn requests_that_can_never_run_are_told() {
    let text = format!("num_prefill_tokens,num_decode_tokens\n5,5\n6,5\n{}", "9,9\n".repeat(11));
    let trace = parse("lengths", &text).unwrap();
    assert_eq!(trace.check_fits("file", 18, "the KV cache"), Ok(()));
    let error = trace.check_fits("file", 10, "the KV cache of a10-llama2-7b").unwrap_err();
    assert_eq!(
        error.to_string().lines().next().unwrap(),
        "file:3: prompt and answer have 11 tokens together, the KV cache of a10-llama2-7b holds 10; leave such \
         requests out with --longest 10"
    );
    assert_eq!(error.more, 2);
    assert_eq!(trace.at_most(10).rows.len(), 1);
}

proptest! {
    #[test]
    fn arbitrary_text_is_read_or_refused(
        kind in 0..5_usize,
        header in any::<bool>(),
        text in "(?s).{0,200}|([-+0-9.,: TZe\"\\[\\]{}\r\n]{0,20}\n){0,10}",
    ) {
        let headers = [
            "TIMESTAMP,ContextTokens,GeneratedTokens\n",
            "Timestamp,Request tokens,Response tokens\n",
            "",
            "",
            "num_prefill_tokens,num_decode_tokens\n",
        ];
        let text = if header { format!("{}{text}", headers[kind]) } else { text };
        match parse(Workload::FILES[kind], &text) {
            Ok(trace) => prop_assert!(!trace.rows.is_empty()),
            Err(error) => {
                prop_assert!(!error.problems.is_empty() && error.problems.len() <= PROBLEMS_MAX);
            }
        }
    }

    #[test]
    fn arbitrary_times_are_read_or_refused(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.+Z-]{0,25}|.{0,30}") {
        let _ = calendar::nanos(&text);
    }

    #[test]
    fn what_is_written_is_read(rows in proptest::collection::vec((0..5_000_u64, 1..9_000_u32, 1..900_u32, any::<u64>()), 1..20)) {
        let (mut text, mut now, mut expected) = (String::new(), 0, Vec::new());
        let mut first = None;
        for (gap, prompt, output, id) in rows {
            now += gap;
            let ids: Vec<u64> = (0..u64::from(prompt.div_ceil(512))).map(|at| id ^ at).collect();
            let line = format!(
                r#"{{"timestamp": {now}, "input_length": {prompt}, "output_length": {output}, "hash_ids": {ids:?}}}"#
            );
            text.push_str(&line);
            text.push('\n');
            let first = *first.get_or_insert(now);
            expected.push((Duration::from_millis(now - first).as_secs_f64(), prompt, output));
        }
        prop_assert_eq!(rows_of(&text), expected);
    }
}

fn rows_of(text: &str) -> Vec<(f64, u32, u32)> {
    rows(&parse("mooncake", text).unwrap())
}
