//! Bodies, read and forwarded.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Envelope, InvalidBody, MODEL_BYTES_MAX};
use crate::operation::Operation;
use crate::tests::captures::request;

fn parse(body: &str) -> Envelope {
    Envelope::parse(Operation::ChatCompletions, body.as_bytes()).unwrap()
}

fn refused(body: &[u8]) -> InvalidBody {
    Envelope::parse(Operation::Completions, body).unwrap_err()
}

/// What is sent upstream for a chat request whose model becomes `model`.
fn check(body: &str, model: Option<&str>, upstream: &str) {
    let forwarded = parse(body).forward(&Bytes::copy_from_slice(body.as_bytes()), model);
    assert_eq!(std::str::from_utf8(&forwarded).unwrap(), upstream);
}

#[test]
fn the_model_is_read_decoded() {
    for (body, model) in [
        (r#"{"model":"a"}"#, Some("a")),
        (r#"{"model":""}"#, Some("")),
        (r#"{"model":null}"#, None),
        (r"{}", None),
        (r#" { "x" : [{"model":1}], "mod\u0065l" : "\u00e9\/" } "#, Some("é/")),
        (r#"{"messages":[{"model":"inner"}],"model":"outer"}"#, Some("outer")),
    ] {
        assert_eq!(parse(body).model(), model, "{body}");
    }
}

#[test]
fn a_hazardous_model_is_refused() {
    for body in [
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","m\u006fdel":"a"}"#,
        r#"{"model":null,"model":null}"#,
    ] {
        assert!(matches!(refused(body.as_bytes()), InvalidBody::ModelTwice { first: 9, .. }));
    }
    for model in ["1", "true", "{}", "[\"a\"]"] {
        let body = format!("{{\"model\":{model}}}");
        assert_eq!(refused(body.as_bytes()), InvalidBody::ModelNotAString { at: 9 }, "{body}");
    }
    let name = "x".repeat(MODEL_BYTES_MAX);
    assert_eq!(parse(&format!("{{\"model\":\"{name}\"}}")).model(), Some(name.as_str()));
    let error = refused(format!("{{\"model\":\"{name}x\"}}").as_bytes());
    assert_eq!(error, InvalidBody::ModelTooLong { at: 9, bytes: MODEL_BYTES_MAX + 1 });
}

#[test]
fn what_is_no_json_object_is_refused_with_its_place() {
    for (body, message) in [
        (&b""[..], "empty"),
        (b"  ", "empty"),
        (b"[1]", "not a JSON object (byte 0)"),
        (b" \"a\"", "not a JSON object (byte 1)"),
        (b"[1", "not valid JSON at byte 2"),
        (b"{\"a\":1} x", "not valid JSON at byte 8: unexpected data after the end"),
        (b"{\"a\":\"\xff\"}", "not UTF-8 at byte 6"),
        (b"{\"a\":1", "not valid JSON at byte 6: the text ends too early"),
    ] {
        let error = refused(body).to_string();
        assert!(error.contains(message), "{error}");
    }
    let deep = format!("{{\"a\":{}", "[".repeat(5000));
    assert_eq!(refused(deep.as_bytes()), InvalidBody::TooDeep { at: 5 + 1023 });
}

#[test]
fn recorded_requests_are_read_as_real_servers_read_them() {
    let streamed = parse(std::str::from_utf8(&request!("vllm-0.32.0/completions-stream")).unwrap());
    assert_eq!(streamed.model(), Some("tweet-summary"));
    assert!(streamed.stream() && streamed.injects_usage() && !streamed.include_usage());
    assert_eq!(streamed.max_tokens(), Some(16));
    let usage = parse(std::str::from_utf8(&request!("vllm-0.32.0/chat-stream-usage")).unwrap());
    assert!(usage.stream() && !usage.injects_usage() && usage.include_usage());
    assert_eq!(parse(r#"{"prompt":"x"}"#).model(), None);
    for (body, expected) in [
        (request!("vllm-0.32.0/error-malformed-json"), "not valid JSON"),
        (request!("vllm-0.32.0/error-json-array"), "not a JSON object"),
        (request!("vllm-0.32.0/error-invalid-utf8"), "not UTF-8"),
        (request!("vllm-0.32.0/error-model-number"), "not a string"),
        (request!("vllm-0.32.0/error-duplicate-model-key"), "given twice"),
    ] {
        assert!(refused(&body).to_string().contains(expected));
    }
}

#[test]
fn stream_is_true_as_the_server_takes_it() {
    for yes in
        ["true", "1", "1.0", "\"true\"", "\"1\"", "\"Yes\"", "\"y\"", "\"ON\"", "\"t\"", "1e0"]
    {
        assert!(parse(&format!("{{\"stream\":{yes}}}")).stream(), "{yes}");
    }
    for no in ["false", "0", "null", "2", "\"no\"", "\"\"", "[]", "{}", "\"truely\"", "-1"] {
        assert!(!parse(&format!("{{\"stream\":{no}}}")).stream(), "{no}");
    }
    assert!(!parse(r#"{"stream":true,"stream":false}"#).stream());
    assert!(parse(r#"{"stream":false,"str\u0065am":true}"#).stream());
}

#[test]
fn the_token_limit_is_the_one_of_the_operation() {
    let limit =
        |operation, body: &str| Envelope::parse(operation, body.as_bytes()).unwrap().max_tokens();
    let body = r#"{"max_tokens":1,"max_completion_tokens":2,"max_output_tokens":3}"#;
    assert_eq!(limit(Operation::Completions, body), Some(1));
    assert_eq!(limit(Operation::ChatCompletions, body), Some(2));
    assert_eq!(limit(Operation::Responses, body), Some(3));
    assert_eq!(limit(Operation::Messages, body), Some(1));
    assert_eq!(limit(Operation::Embeddings, body), None);
    for (text, expected) in
        [("16.0", Some(16)), ("1e2", Some(100)), ("-1", None), ("1.5", None), ("null", None)]
    {
        assert_eq!(
            limit(Operation::Completions, &format!("{{\"max_tokens\":{text}}}")),
            expected,
            "{text}"
        );
    }
}

#[test]
fn the_model_is_exchanged_and_nothing_else() {
    let body = " {\"a\": 1 ,\"model\" : \"x\",\"b\":\"\\u00e9\"}\n";
    check(body, Some("y\"é"), " {\"a\": 1 ,\"model\" : \"y\\\"é\",\"b\":\"\\u00e9\"}\n");
    check("{\"model\":null}", Some("m"), "{\"model\":\"m\"}");
    check("{}", Some("m"), "{\"model\":\"m\"}");
    check(" { } ", Some("m"), " {\"model\":\"m\" } ");
    check("{\"a\":1}", Some("m"), "{\"model\":\"m\",\"a\":1}");
}

#[test]
fn the_usage_option_is_put_in_where_the_client_did_not_ask() {
    let on = r#""stream_options":{"include_usage":true}"#;
    check(r#"{"stream":true}"#, None, &format!(r#"{{"stream":true,{on}}}"#));
    check("{\"stream\":true } ", None, &format!("{{\"stream\":true ,{on}}} "));
    check(r#"{"stream":true,"stream_options":null}"#, None, &format!(r#"{{"stream":true,{on}}}"#));
    check(
        r#"{"stream":true,"stream_options":{"include_usage": false ,"x":[1]}}"#,
        None,
        r#"{"stream":true,"stream_options":{"include_usage": true ,"x":[1]}}"#,
    );
    check(
        r#"{"stream_options":{"continuous_usage_stats":1,"include_usage":null},"stream":1,"model":"a"}"#,
        Some("b"),
        r#"{"stream_options":{"continuous_usage_stats":false,"include_usage":true},"stream":1,"model":"b"}"#,
    );
    check(
        r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}"#,
        None,
        &format!(r#"{{"stream":true,{on},{on}}}"#),
    );
}

#[test]
fn a_client_that_asked_or_asks_for_nonsense_is_left_alone() {
    for options in [
        r#"{"include_usage":true}"#,
        r#"{"include_usage":"yes","continuous_usage_stats":true}"#,
        // The server refuses these.
        "5",
        "[]",
        r#"{"include_usage":"maybe"}"#,
    ] {
        let body = format!(r#"{{"stream":true,"stream_options":{options}}}"#);
        assert!(!parse(&body).injects_usage(), "{options}");
        check(&body, None, &body);
    }
    assert!(!parse(r#"{"stream":true,"stream_options":5}"#).include_usage());
}

#[test]
fn options_that_do_not_speak_of_usage_do_not_ask_for_it() {
    for (options, upstream) in [
        ("{}", r#"{"include_usage":true}"#),
        ("{ }", r#"{"include_usage":true }"#),
        (r#"{"x":1}"#, r#"{"include_usage":true,"x":1}"#),
        (r#"{"include_usage":null}"#, r#"{"include_usage":true}"#),
        (
            r#"{"continuous_usage_stats":true}"#,
            r#"{"include_usage":true,"continuous_usage_stats":false}"#,
        ),
    ] {
        let body = format!(r#"{{"stream":true,"stream_options":{options}}}"#);
        assert!(parse(&body).injects_usage() && !parse(&body).include_usage(), "{options}");
        check(&body, None, &format!(r#"{{"stream":true,"stream_options":{upstream}}}"#));
    }
}

#[test]
fn of_options_given_twice_the_last_one_counts() {
    for (options, upstream) in [
        (
            r#"{"include_usage":true,"include_usage":false}"#,
            r#"{"include_usage":true,"include_usage":true}"#,
        ),
        (
            r#"{"include_usage":false,"include_usage":null}"#,
            r#"{"include_usage":false,"include_usage":true}"#,
        ),
        (
            r#"{"continuous_usage_stats":false,"continuous_usage_stats":true}"#,
            r#"{"include_usage":true,"continuous_usage_stats":false,"continuous_usage_stats":false}"#,
        ),
        (
            r#"{"continuous_usage_stats":true,"continuous_usage_stats":false}"#,
            r#"{"include_usage":true,"continuous_usage_stats":true,"continuous_usage_stats":false}"#,
        ),
    ] {
        let body = format!(r#"{{"stream":true,"stream_options":{options}}}"#);
        check(&body, None, &format!(r#"{{"stream":true,"stream_options":{upstream}}}"#));
    }
    let asked = r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":true}}"#;
    assert!(parse(asked).include_usage());
    check(asked, None, asked);
}

#[test]
fn usage_is_asked_for_only_in_streams_of_operations_that_have_the_option() {
    let injects =
        |operation| Envelope::parse(operation, br#"{"stream":true}"#).unwrap().injects_usage();
    assert!(injects(Operation::Completions) && injects(Operation::ChatCompletions));
    assert!(!injects(Operation::Messages) && !injects(Operation::Responses));
    check(r#"{"stream":false}"#, None, r#"{"stream":false}"#);
}

#[test]
fn a_body_that_needs_no_change_is_not_copied() {
    let body = Bytes::from_static(br#"{"model":"a"}"#);
    let envelope = Envelope::parse(Operation::Completions, &body).unwrap();
    assert_eq!(envelope.operation(), Operation::Completions);
    assert_eq!(envelope.forward(&body, None).as_ptr(), body.as_ptr());
    assert_eq!(envelope.forward(&body, Some("a")).as_ptr(), body.as_ptr());
    let other = Envelope::parse(Operation::Other, b"\xff no json").unwrap();
    assert_eq!(other.forward(&body, Some("b")).as_ptr(), body.as_ptr());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4).prop_map(|members| {
                Value::from(members.into_iter().collect::<Map<String, Value>>())
            }),
        ]
    })
}

prop_compose! {
    fn any_request()(
        model in prop::option::of(prop_oneof![Just(Value::Null), ".{0,8}".prop_map(Value::from)]),
        stream in prop::option::of(any::<bool>()),
        options in prop::option::of(prop::sample::select(vec![
            json!(null), json!({}), json!({"include_usage": true}), json!({"include_usage": false}),
            json!({"x": [1], "continuous_usage_stats": true, "include_usage": null}),
        ])),
        rest in prop::collection::vec(("[a-z]{1,3}", any_json()), 0..5),
    ) -> Map<String, Value> {
        let mut members: Map<String, Value> = rest.into_iter().collect();
        for (key, value) in
            [("model", model), ("stream", stream.map(Value::from)), ("stream_options", options)]
        {
            if let Some(value) = value {
                members.insert(key.to_owned(), value);
            }
        }
        members
    }
}

proptest! {
    #[test]
    fn forwarded_bodies_differ_in_the_changed_fields_only(
        request in any_request(),
        model in prop::option::of(".{0,8}"),
        pretty: bool,
    ) {
        let value = Value::from(request.clone());
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let body = Bytes::from(text.unwrap());
        let envelope = Envelope::parse(Operation::ChatCompletions, &body).unwrap();
        let forwarded = envelope.forward(&body, model.as_deref());
        let mut expected = request;
        if let Some(model) = model {
            expected.insert("model".to_owned(), model.into());
        }
        if envelope.injects_usage() {
            let options = expected.entry("stream_options").or_insert(Value::Null);
            if options.is_null() {
                *options = json!({});
            }
            options["include_usage"] = true.into();
            if options.get("continuous_usage_stats").is_some() {
                options["continuous_usage_stats"] = false.into();
            }
        }
        let read: Value = serde_json::from_slice(&forwarded).unwrap();
        prop_assert_eq!(read, Value::from(expected));
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_it_forwards_it_reads_again(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"model\":", "\"stream\":true", "\"stream_options\":", "null", "\"a\"",
            "{\"include_usage\":false}", "\\", "\"", " ",
        ]), 0..12),
    ) {
        let body = Bytes::from(pieces.concat());
        if let Ok(envelope) = Envelope::parse(Operation::Completions, &body) {
            let forwarded = envelope.forward(&body, Some("new"));
            let again = Envelope::parse(Operation::Completions, &forwarded).unwrap();
            prop_assert_eq!(again.model(), Some("new"));
            prop_assert!(!again.injects_usage());
            prop_assert_eq!(again.forward(&forwarded, Some("new")), forwarded);
        }
    }
}

/// The parts of the prompt, and the salt, with a bar between them.
fn check_prompt(operation: Operation, body: &str, expected: &str) {
    let envelope = Envelope::parse(operation, body.as_bytes()).unwrap();
    let [system, tools, asked] = envelope.prompt(body.as_bytes());
    let parts = [system, tools, asked, envelope.cache_salt(body.as_bytes())];
    assert_eq!(String::from_utf8(parts.join(&b'|')).unwrap(), expected, "{body}");
}

#[test]
fn the_prompt_is_what_the_operation_asks_about() {
    use Operation::{ChatCompletions, Completions, Embeddings, Messages, Responses};
    check_prompt(Completions, r#"{"model":"m","prompt":"say \"hi\""}"#, r#"||say \"hi\"|"#);
    check_prompt(Completions, r#"{"prompt":[1, 2],"cache_salt":"s"}"#, r#"||1, 2|"s""#);
    check_prompt(Completions, r#"{"messages":[{"role":"user"}]}"#, "|||");
    check_prompt(Completions, r#"{"prompt":null}"#, "|||");
    let chat = r#"{"messages":[{"content":"a"}],"tools":[{}],"prompt":"b"}"#;
    check_prompt(ChatCompletions, chat, r#"|[{}]|{"content":"a"}|"#);
    let messages = r#"{"messages":[{}],"tools":[ ],"system":"be kind"}"#;
    check_prompt(Messages, messages, r#""be kind"|[ ]|{}|"#);
    let responses = r#"{"input":"a","instructions":"b","tools":[1]}"#;
    check_prompt(Responses, responses, r#""b"|[1]|a|"#);
    check_prompt(Embeddings, r#"{"input":"a"}"#, "|||");
}

#[test]
fn what_the_server_does_not_put_before_the_model_is_no_part_of_the_prompt() {
    let body = r#"{"system":"a","instructions":"b","tools":[1],"prompt":"c"}"#;
    check_prompt(Operation::Completions, body, "||c|");
    check_prompt(Operation::ChatCompletions, body, "|[1]||");
    check_prompt(Operation::Messages, body, r#""a"|[1]||"#);
    check_prompt(Operation::Responses, body, r#""b"|[1]||"#);
    check_prompt(Operation::Responses, r#"{"instructions":null,"tools":null}"#, "|||");
}
