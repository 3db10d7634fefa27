//! Streams, recorded and made up, under every way of cutting them.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::{EVENT_BYTES_MAX, StreamReader};
use crate::answer::{Answer, AnswerError, Usage};
use crate::ending::HELD_BYTES_MAX;
use crate::operation::Operation;
use crate::tests::captures::{STREAMS, Stream, stream};

/// What a reader made of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    out: Vec<u8>,
    answer: Answer,
    events: u32,
    first_tokens: u32,
    comments: bool,
}

/// Reads `input` in pieces that end at `cuts`.
fn read(operation: Operation, strip: bool, input: &[u8], cuts: &[usize]) -> Heard {
    let whole = Bytes::copy_from_slice(input);
    let mut reader = StreamReader::new(operation, strip);
    let (mut pieces, mut out) = (VecDeque::new(), Vec::new());
    let (mut events, mut first_tokens, mut comments) = (0, 0, false);
    let mut from = 0;
    for &cut in cuts.iter().chain([&input.len()]) {
        let progress = reader.push(whole.slice(from..cut), &mut pieces);
        from = cut;
        events += progress.events;
        first_tokens += u32::from(progress.first_token);
        comments |= progress.comments;
        out.extend(pieces.drain(..).flatten());
        assert!(strip || out.len() == cut, "nothing is held back");
    }
    reader.finish(&mut pieces);
    out.extend(pieces.drain(..).flatten());
    Heard { out, answer: reader.answer().clone(), events, first_tokens, comments }
}

/// Reads whole, byte by byte and cut in two at every place; all must agree.
fn read_every_way(operation: Operation, strip: bool, input: &[u8]) -> Heard {
    let heard = read(operation, strip, input, &[]);
    let bytewise: Vec<usize> = (1..input.len()).collect();
    assert_eq!(heard, read(operation, strip, input, &bytewise), "byte by byte");
    for cut in 0..=input.len() {
        assert_eq!(heard, read(operation, strip, input, &[cut]), "cut at {cut}");
    }
    heard
}

fn check(operation: Operation, strip: bool, input: &str, out: &str, expected: &Answer) {
    let heard = read_every_way(operation, strip, input.as_bytes());
    assert_eq!(String::from_utf8_lossy(&heard.out), out, "{input:?}");
    assert_eq!(&heard.answer, expected, "{input:?}");
    assert_eq!(heard.first_tokens, u32::from(expected.tokens_started), "{input:?}");
}

fn tokens(prompt: u64, completion: u64) -> Usage {
    Usage { prompt_tokens: Some(prompt), completion_tokens: Some(completion), cached_tokens: None }
}

const TOKEN: &str =
    "data: {\"model\":\"m\",\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const LAST: &str = "data: {\"choices\":[{\"text\":\"z\",\"finish_reason\":\"stop\"}]}\n\n";
const LAST_STAMPED: &str = "data: {\"choices\":[{\"text\":\"z\",\"finish_reason\":\"stop\"}],\
                            \"system_fingerprint\":\"f\\u0031\"}\n\n";
const USAGE_NAMED: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3},\
                           \"system_fingerprint\":\"f\\u0031\"}\n\n";
const FORCED: &str = "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":3}}\n\n";

fn token_answer() -> Answer {
    Answer { model: Some("m".to_owned()), events: 1, tokens_started: true, ..Answer::default() }
}

#[test]
fn recorded_streams_pass_unchanged_and_read_the_same_however_they_are_cut() {
    for stream in STREAMS.iter() {
        for strip in [false, true] {
            let heard = read(stream.operation, strip, &stream.body, &[]);
            let bytewise: Vec<usize> = (1..stream.body.len()).collect();
            assert_eq!(heard, read(stream.operation, strip, &stream.body, &bytewise));
            assert!(strip || heard.out == stream.body, "{}", stream.name);
            assert_eq!(u64::from(heard.events), heard.answer.events, "{}", stream.name);
            assert!(heard.answer.done && heard.answer.tokens_started, "{}", stream.name);
            assert_eq!(heard.first_tokens, 1, "{}", stream.name);
        }
    }
}

proptest! {
    #[test]
    fn any_cut_of_any_recorded_stream_is_the_same(
        which in 0..STREAMS.len(),
        strip: bool,
        line_end in 0..3_usize,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let stream = &STREAMS[which];
        let text = String::from_utf8(stream.body.clone()).unwrap();
        let input = text.replace('\n', ["\n", "\r\n", "\r"][line_end]).into_bytes();
        let mut cuts: Vec<usize> = places.iter().map(|place| place.index(input.len())).collect();
        cuts.sort_unstable();
        let whole = read(stream.operation, strip, &input, &[]);
        prop_assert_eq!(&whole, &read(stream.operation, strip, &input, &cuts));
        prop_assert_eq!(whole.answer, read(stream.operation, strip, &stream.body, &[]).answer);
    }

    #[test]
    fn any_cut_of_any_bytes_is_the_same(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "data", ":", ": ", "\n", "\r", "\r\n", "\n\n", "\u{feff}", "[DONE]", "event: error", "{", "}",
            "\"choices\":[]", "\"usage\":{}", "\"usage\":{\"prompt_tokens\":1}", ",", "\"error\":{}",
            TOKEN, USAGE, DONE, "\"", "\\", LAST, LAST, LAST_STAMPED, USAGE_NAMED, USAGE_NAMED, FORCED,
            "\"system_fingerprint\":\"f\"", "\"choices\":[{\"finish_reason\":\"stop\"}]",
        ]), 0..30),
        strip: bool,
        places in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let input = pieces.concat().into_bytes();
        let mut cuts: Vec<usize> = places.iter().map(|place| place.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = read(Operation::Completions, strip, &input, &[]);
        prop_assert_eq!(whole, read(Operation::Completions, strip, &input, &cuts));
    }
}

/// The bytes of a stream, but for what differs between two requests: `id` and `created`.
fn normalised(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap();
    let first = text.split("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    let created = format!("\"created\":{}", first["created"]);
    assert!(text.contains(&created));
    text.replace(first["id"].as_str().unwrap(), "ID").replace(&created, "\"created\":0")
}

/// The events of a recorded stream, without its usage event.
fn without_usage(stream: &Stream) -> String {
    let text = str::from_utf8(&stream.body).unwrap();
    let kept: String =
        text.split_inclusive("\n\n").filter(|event| !event.contains("\"choices\":[]")).collect();
    assert_ne!(kept, text);
    kept
}

#[test]
fn a_stream_without_the_injected_usage_is_the_stream_nobody_asked_usage_for() {
    for (asked, plain) in [
        ("vllm-0.32.0/completions-stream-usage", "vllm-0.32.0/completions-stream"),
        ("vllm-0.32.0/chat-stream-usage", "vllm-0.32.0/chat-stream"),
        ("vllm-0.8.5/completions-stream-usage", "vllm-0.8.5/completions-stream"),
    ] {
        let (asked, plain) = (stream(asked), stream(plain));
        let heard = read(asked.operation, true, &asked.body, &[]);
        assert_eq!(normalised(&heard.out), normalised(&plain.body), "{}", asked.name);
        assert_eq!(heard.answer.usage.completion_tokens, Some(16), "{}", asked.name);
        // Where nobody asked, there is nothing to take out.
        assert_eq!(read(plain.operation, true, &plain.body, &[]).out, plain.body);
    }
}

#[test]
fn exactly_the_bytes_of_a_usage_event_without_fingerprint_are_taken_out() {
    for name in ["vllm-0.8.5/chat-stream-usage", "vllm-0.8.5/completions-stream-usage"] {
        let stream = stream(name);
        let heard = read(stream.operation, true, &stream.body, &[]);
        assert_eq!(String::from_utf8(heard.out).unwrap(), without_usage(stream), "{name}");
    }
}

#[test]
fn every_chunk_that_ends_a_choice_gets_the_fingerprint() {
    let stream = stream("vllm-0.32.0/completions-stream-n2-usage");
    let expected: String = without_usage(stream)
        .split_inclusive("\n\n")
        .map(|event| {
            let ends = event.contains("\"finish_reason\":\"length\"");
            let end = if ends { ",\"system_fingerprint\":\"vllm-0.32.0-4889c0e9\"}" } else { "}" };
            event.replace("}\n\n", &format!("{end}\n\n"))
        })
        .collect();
    assert_eq!(expected.matches("system_fingerprint").count(), 2);
    let heard = read_every_way(stream.operation, true, &stream.body);
    assert_eq!(String::from_utf8(heard.out).unwrap(), expected);
}

#[test]
fn usage_that_the_server_sends_to_everybody_passes() {
    for name in [
        "vllm-0.32.0/chat-stream-usage-continuous",
        "vllm-0.32.0/completions-stream-usage-continuous",
        "vllm-0.8.5/completions-stream-usage-continuous",
    ] {
        let stream = stream(name);
        let heard = read(stream.operation, true, &stream.body, &[]);
        assert_eq!(heard, read(stream.operation, false, &stream.body, &[]), "{name}");
        assert_eq!(heard.out, stream.body, "{name}");
        let mut reader = StreamReader::new(stream.operation, true);
        let mut out = VecDeque::new();
        let end = memchr::memmem::find(&stream.body, b"\"choices\":[]").unwrap();
        reader.push(Bytes::copy_from_slice(&stream.body[..end]), &mut out);
        let passed: usize = out.iter().map(Bytes::len).sum();
        let whole = memchr::memmem::rfind(&stream.body[..end], b"\n\n").unwrap() + 2;
        assert_eq!(passed, whole, "{name}: nothing but the open event is held back");
    }
}

#[test]
fn what_recorded_streams_say_is_known_at_their_end() {
    let expect = |name: &str, usage: Usage, finish: Option<&str>, events: u64| {
        let stream = stream(name);
        let answer = read(stream.operation, false, &stream.body, &[]).answer;
        assert_eq!(answer.usage, usage, "{name}");
        assert_eq!(answer.finish_reason.as_deref(), finish, "{name}");
        assert_eq!(answer.model.as_deref(), Some("tweet-summary"), "{name}");
        assert_eq!(answer.events, events, "{name}");
        assert_eq!(answer.error, None, "{name}");
    };
    let (length, none) = (Some("length"), Usage::default());
    expect("vllm-0.32.0/completions-stream", none, length, 16);
    expect("vllm-0.32.0/completions-stream-usage", tokens(18, 16), length, 17);
    expect("vllm-0.32.0/completions-stream-n2-usage", tokens(18, 8), length, 9);
    expect("vllm-0.32.0/chat-stream-usage-continuous", tokens(15, 4), length, 6);
    expect("vllm-0.32.0/messages-stream", tokens(15, 8), Some("max_tokens"), 12);
    let cached = Usage { cached_tokens: Some(0), ..tokens(16, 8) };
    expect("vllm-0.32.0/responses-stream", cached, Some("max_output_tokens"), 16);
    expect("vllm-0.8.5/completions-stream", none, length, 16);
    expect("vllm-0.8.5/chat-stream-usage", tokens(15, 16), length, 18);
}

#[test]
fn a_dead_engine_is_an_error_although_the_stream_ends_politely() {
    for name in ["vllm-0.32.0/fail-engine-stream-1", "vllm-0.32.0/fail-engine-stream-2"] {
        let stream = stream(name);
        let answer = read(stream.operation, true, &stream.body, &[]).answer;
        let error = answer.error.unwrap();
        assert_eq!(error.code, Some(500), "{name}");
        assert!(error.message.starts_with("EngineCore encountered an issue"), "{name}");
        assert!(answer.done && answer.tokens_started, "{name}");
    }
}

#[test]
fn comments_are_signs_of_life_and_no_events() {
    let stream = stream("vllm-0.32.0/sse-keep-alive-while-queued");
    let heard = read_every_way(stream.operation, true, &stream.body);
    assert!(heard.comments && heard.out == stream.body);
    assert_eq!(heard.events, 4);
    let mut reader = StreamReader::new(Operation::Completions, true);
    let mut out = VecDeque::new();
    let progress = reader.push(Bytes::from_static(b": keep-alive\n\n"), &mut out);
    assert!(progress.comments && progress.events == 0 && !progress.first_token);
    assert_eq!(out.len(), 1);
}

#[test]
fn usage_is_taken_out_whatever_the_line_ends() {
    let answer = Answer { usage: tokens(3, 1), done: true, ..token_answer() };
    for end in ["\n", "\r\n", "\r"] {
        let input = format!("{TOKEN}{USAGE}{DONE}").replace('\n', end);
        let output = format!("{TOKEN}{DONE}").replace('\n', end);
        check(Operation::Completions, true, &input, &output, &answer);
        let asked = Answer { events: 2, ..answer.clone() };
        check(Operation::Completions, false, &input, &input, &asked);
    }
}

#[test]
fn data_of_several_lines_and_a_byte_order_mark_are_read() {
    let usage = USAGE.replace(",\"usage\":", ",\ndata: \"usage\"\ndata::");
    let answer = Answer { usage: tokens(3, 1), done: true, ..token_answer() };
    let bom = "\u{feff}";
    let input = format!("{bom}{TOKEN}{usage}{DONE}");
    check(Operation::Completions, true, &input, &format!("{bom}{TOKEN}{DONE}"), &answer);
    let spaced = USAGE.replace(':', " : ").replacen("data : ", "data:", 1);
    check(
        Operation::Completions,
        true,
        &format!("{TOKEN}{spaced}"),
        TOKEN,
        &Answer { done: false, ..answer },
    );
}

#[test]
fn words_of_the_model_are_no_fields() {
    let text = "data: {\"choices\":[{\"text\":\"usage\",\"x\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":9}\",\
                \"delta\":{\"usage\":{\"prompt_tokens\":9},\"error\":{\"message\":\"no\"}}}]}\n\n";
    let input = format!("{TOKEN}{text}");
    check(Operation::Completions, true, &input, &input, &Answer { events: 2, ..token_answer() });
}

#[test]
fn a_stream_that_begins_with_an_error_has_no_first_token() {
    let error = |message: &str, code| Some(AnswerError { code, message: message.to_owned() });
    for (operation, input, expected) in [
        (
            Operation::Completions,
            "data: {\"error\": {\"message\": \"no\", \"code\": 500}}\n\n",
            error("no", Some(500)),
        ),
        (
            Operation::ChatCompletions,
            "data: {\"object\":\"error\",\"message\":\"old\",\"code\":400}\n\n",
            error("old", Some(400)),
        ),
        (
            Operation::Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"m\"}}\n\n",
            error("m", None),
        ),
        (
            Operation::Responses,
            "data: {\"type\":\"error\",\"code\":\"503\",\"message\":\"r\"}\n\n",
            error("r", Some(503)),
        ),
    ] {
        let answer = Answer { error: expected, events: 1, ..Answer::default() };
        check(operation, true, input, input, &answer);
    }
}

#[test]
fn a_failed_response_tells_its_error_and_its_end() {
    let input = "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\
                 \"error\":{\"code\":\"server_error\",\"message\":\"m\"}}}\n\n";
    let error = Some(AnswerError { code: None, message: "m".to_owned() });
    let finish_reason = Some("failed".to_owned());
    let answer = Answer { error, finish_reason, events: 1, done: true, ..Answer::default() };
    check(Operation::Responses, false, input, input, &answer);
}

#[test]
fn later_usage_overrides_and_cached_tokens_are_read() {
    let input = "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":5,\
                 \"output_tokens\":0,\"cache_read_input_tokens\":4}}}\n\n\
                 data: {\"type\":\"content_block_delta\"}\n\n\
                 data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\n";
    let usage = Usage { cached_tokens: Some(4), ..tokens(5, 7) };
    check(Operation::Messages, false, input, input, &Answer { usage, events: 3, ..token_answer() });
}

#[test]
fn a_last_event_without_its_empty_line_is_read_and_treated_alike_at_the_end() {
    let answer = Answer { usage: tokens(3, 1), ..token_answer() };
    check(Operation::Completions, true, &format!("{TOKEN}{}", USAGE.trim_end()), TOKEN, &answer);
    let input = format!("{TOKEN}{}", DONE.trim_end());
    check(Operation::Completions, true, &input, &input, &Answer { done: true, ..token_answer() });
}

#[test]
fn strings_of_the_server_are_cut_to_their_bounds() {
    let mut input = String::new();
    let long = "é".repeat(600);
    write!(
        input,
        "data: {{\"model\":\"{long}\",\"choices\":[{{\"finish_reason\":\"{long}\"}}]}}\n\n"
    )
    .unwrap();
    write!(input, "data: {{\"error\":{{\"message\":\"{long}\"}}}}\n\n").unwrap();
    let answer = read(Operation::Completions, false, input.as_bytes(), &[]).answer;
    assert_eq!(answer.model.unwrap().len(), 256);
    assert_eq!(answer.finish_reason.unwrap().len(), 64);
    assert_eq!(answer.error.unwrap().message.len(), 256);
}

#[test]
fn an_event_beyond_the_limit_passes_without_being_held() {
    let text = "x".repeat(EVENT_BYTES_MAX);
    let huge = format!("data: {{\"choices\":[],\"usage\":{{}},\"pad\":\"{text}\"}}\n\n");
    let input = format!("{TOKEN}{huge}{USAGE}{DONE}");
    let whole = read(Operation::Completions, true, input.as_bytes(), &[]);
    assert_eq!(whole.out, format!("{TOKEN}{huge}{DONE}").into_bytes());
    assert_eq!(whole.answer.usage, tokens(3, 1));
    assert_eq!(whole.answer.events, 2);
    for step in [1000, 65_536, EVENT_BYTES_MAX - 1, EVENT_BYTES_MAX, EVENT_BYTES_MAX + 1] {
        let cuts: Vec<usize> = (1..input.len().div_ceil(step)).map(|n| n * step).collect();
        assert_eq!(whole, read(Operation::Completions, true, input.as_bytes(), &cuts), "{step}");
    }
    let mut reader = StreamReader::new(Operation::Completions, true);
    let mut out = VecDeque::new();
    reader.push(Bytes::from(huge.into_bytes()).slice(..EVENT_BYTES_MAX + 10), &mut out);
    assert_eq!(out.iter().map(Bytes::len).sum::<usize>(), EVENT_BYTES_MAX + 10);
}

#[test]
fn what_passes_is_a_slice_of_what_came() {
    let chunk = Bytes::from(format!("{TOKEN}{TOKEN}{USAGE}{DONE}"));
    let mut reader = StreamReader::new(Operation::Completions, true);
    let mut out = VecDeque::new();
    let progress = reader.push(chunk.clone(), &mut out);
    assert_eq!((progress.events, progress.first_token, progress.comments), (2, true, false));
    assert_eq!(out.len(), 2);
    assert_eq!(out[0].as_ptr(), chunk.as_ptr());
}

/// Strips `input`, whatever the cuts and line ends, to `out`.
fn check_ending(input: &str, out: &str) {
    for end in ["\n", "\r\n", "\r"] {
        let input = input.replace('\n', end);
        let heard = read_every_way(Operation::ChatCompletions, true, input.as_bytes());
        assert_eq!(String::from_utf8_lossy(&heard.out), out.replace('\n', end), "{input:?}");
    }
}

#[test]
fn the_end_waits_for_the_usage_event_and_gets_its_fingerprint() {
    let comment = ": still here\n\n";
    for (input, out) in [
        (
            format!("{TOKEN}{LAST}{comment}{TOKEN}{LAST}{USAGE_NAMED}{DONE}"),
            format!("{TOKEN}{LAST_STAMPED}{comment}{TOKEN}{LAST_STAMPED}{DONE}"),
        ),
        // The server names its build anyway, or nowhere.
        (format!("{LAST_STAMPED}{USAGE_NAMED}{DONE}"), format!("{LAST_STAMPED}{DONE}")),
        (format!("{LAST}{USAGE}{DONE}"), format!("{LAST}{DONE}")),
        (format!("{TOKEN}{USAGE_NAMED}{DONE}"), format!("{TOKEN}{DONE}")),
    ] {
        check_ending(&input, &out);
    }
    let mut reader = StreamReader::new(Operation::Completions, true);
    let mut push = |chunk: &'static str| {
        let mut out = VecDeque::new();
        let progress = reader.push(Bytes::from_static(chunk.as_bytes()), &mut out);
        (progress.events, out.into_iter().flatten().collect::<Vec<u8>>())
    };
    assert_eq!(push(TOKEN), (1, TOKEN.into()));
    assert_eq!(push(LAST), (1, vec![]));
    assert_eq!(push(TOKEN), (1, vec![]));
    assert_eq!(push(USAGE_NAMED), (0, format!("{LAST_STAMPED}{TOKEN}").into()));
    assert_eq!(push(LAST), (1, LAST.into()));
    assert_eq!(push(DONE), (0, DONE.into()));
}

#[test]
fn the_end_is_let_go_unchanged_when_no_usage_event_can_come() {
    let error = "data: {\"error\":{\"message\":\"no\"}}\n\n";
    for last in [DONE, error, FORCED] {
        let kept = if last == FORCED { USAGE_NAMED } else { "" };
        let input = format!("{TOKEN}{LAST}{last}{LAST}{USAGE_NAMED}");
        check_ending(&input, &format!("{TOKEN}{LAST}{last}{LAST}{kept}"));
    }
    check_ending(LAST, LAST);
    check_ending(LAST.trim_end(), LAST.trim_end());
    check_ending(&format!("{LAST}{TOKEN}data: {{"), &format!("{LAST}{TOKEN}data: {{"));
    let last = format!("{LAST}{}", USAGE_NAMED.trim_end());
    check_ending(&last, LAST_STAMPED);
}

#[test]
fn a_fingerprint_goes_before_the_last_brace_of_the_data_or_nowhere() {
    let stamp = ",\"system_fingerprint\":\"f\\u0031\"";
    for (last, stamped) in [
        (
            "\u{feff}data:{\"choices\":[{\"finish_reason\":\"}\"}] } \n: }\nid: }\n\n",
            Some("\u{feff}data:{\"choices\":[{\"finish_reason\":\"}\"}] STAMP} \n: }\nid: }\n\n"),
        ),
        (
            "data:{\"choices\":\ndata: [{\"finish_reason\":\"stop\"}]\ndata:}\n\n",
            Some("data:{\"choices\":\ndata: [{\"finish_reason\":\"stop\"}]\ndata:STAMP}\n\n"),
        ),
        ("data: {\"choices\":[{\"finish_reason\":\"stop\"}]\n\n", None),
        ("data: [{\"choices\":[{\"finish_reason\":\"stop\"}]}]\n\n", None),
        (
            "data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"system_fingerprint\":null}\n\n",
            None,
        ),
    ] {
        let out = stamped.unwrap_or(last).replace("STAMP", stamp);
        check_ending(&format!("{last}{USAGE_NAMED}"), &out);
    }
    for fingerprint in ["null", "1", "{\"a\":\"f\"}", "\"a\ndata:b\"", &format!("\"{:257}\"", 'f')]
    {
        let usage = USAGE_NAMED.replace("\"f\\u0031\"", fingerprint);
        check_ending(&format!("{LAST}{usage}"), LAST);
    }
}

#[test]
fn no_more_than_a_megabyte_waits() {
    let padded = |length: usize| {
        let around = TOKEN.len() + 1;
        TOKEN.replacen(' ', &format!(" {}", " ".repeat(length + 1 - around)), 1)
    };
    let room = HELD_BYTES_MAX - LAST.len() - USAGE_NAMED.len();
    for (length, last) in [(room, LAST_STAMPED), (room + 1, LAST)] {
        let token = padded(length);
        assert_eq!(token.len(), length);
        let input = format!("{LAST}{token}{USAGE_NAMED}{LAST}{DONE}");
        let whole = read(Operation::Completions, true, input.as_bytes(), &[]);
        assert!(whole.out == format!("{last}{token}{LAST}{DONE}").into_bytes(), "{length}");
        let near: Vec<usize> = (input.len() - 400..input.len()).collect();
        assert!(whole == read(Operation::Completions, true, input.as_bytes(), &near), "{length}");
    }
    // An event that is too long to be held back lets go of what waits before its own end has come;
    // one that comes earlier changes nothing.
    let huge = padded(EVENT_BYTES_MAX + 1);
    let input = format!("{TOKEN}{huge}{LAST}{TOKEN}{USAGE_NAMED}{DONE}");
    let whole = read(Operation::Completions, true, input.as_bytes(), &[]);
    assert!(whole.out == format!("{TOKEN}{huge}{LAST_STAMPED}{TOKEN}{DONE}").into_bytes());
    let mut reader = StreamReader::new(Operation::Completions, true);
    let mut out = VecDeque::new();
    reader.push(Bytes::from(format!("{LAST}{}", &huge[..HELD_BYTES_MAX - 10])), &mut out);
    assert_eq!(out.iter().map(Bytes::len).sum::<usize>(), LAST.len());
}
