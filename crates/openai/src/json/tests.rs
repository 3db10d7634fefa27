//! The grammar, against serde_json where it says the same.

use proptest::prelude::*;

use super::{DEPTH_MAX, Fault, Kind, Scanner, Value, Wrong, unescape};

fn read(text: &[u8]) -> Result<Value, Fault> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value(0)?;
    scanner.end()?;
    Ok(value)
}

/// Where the first wrong byte is; `None`: the text is right.
fn check(text: &str, expected: Option<usize>) {
    assert_eq!(read(text.as_bytes()).err().map(|fault| fault.at), expected, "{text}");
    let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    assert_eq!(theirs, expected.is_none(), "serde_json on {text}");
}

#[test]
fn right_texts_are_right() {
    for text in [
        "{}",
        "[]",
        " [ ] ",
        "[[],{}]",
        "null",
        "-0.5e+10",
        "0",
        "\"\"",
        "\"\\u00e9\\\\\\/\"",
        "{\"a\":{\"b\":[1,2,{}]},\"c\":\"é\"}",
        "[{\"a\":[]},[{}]]",
        "\t\r\n 1E5 ",
        "\"\u{7f}\"",
    ] {
        check(text, None);
    }
}

#[test]
fn the_first_wrong_byte_is_named() {
    for (text, at) in [
        ("", 0),
        ("{", 1),
        ("[1,]", 3),
        ("{\"a\"}", 4),
        ("{\"a\":}", 5),
        ("{\"a\":1,}", 7),
        ("{,}", 1),
        ("[,]", 1),
        ("{\"a\" 1}", 5),
        ("{a:1}", 1),
        ("[1 2]", 3),
        ("[1}", 2),
        ("{\"a\":1]", 6),
        ("01", 1),
        ("-", 1),
        ("1.", 2),
        ("1e", 2),
        (".5", 0),
        ("+1", 0),
        ("tru", 0),
        ("nul1", 0),
        ("NaN", 0),
        ("\"a", 0),
        ("\"\\x\"", 2),
        ("\"\\u12g4\"", 2),
        ("\"a\nb\"", 2),
        ("{} {}", 3),
        ("1 x", 2),
        ("'a'", 0),
        ("\u{feff}{}", 0),
    ] {
        check(text, Some(at));
    }
}

#[test]
fn depth_is_bounded_and_the_bound_can_be_reached() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
    let fault = Fault { at: DEPTH_MAX, wrong: Wrong::TooDeep };
    assert_eq!(read(nested(DEPTH_MAX + 1).as_bytes()), Err(fault));
    let wide = format!("[{}[]]", "{},".repeat(5000));
    assert!(read(wide.as_bytes()).is_ok());
}

#[test]
fn a_value_has_its_span() {
    let text = b" {\"a\": \"b\"} ";
    assert_eq!(read(text), Ok(Value { kind: Kind::Object, span: 1..11 }));
}

#[test]
fn strings_are_decoded_as_far_as_they_can_be() {
    for (inside, text) in [
        ("plain é", "plain é"),
        ("\\u00e9\\n\\/\\\"\\\\", "é\n/\"\\"),
        ("\\ud83d\\ude00", "\u{1F600}"),
        ("\\ud83d", "\u{fffd}"),
        ("\\ud83dx", "\u{fffd}x"),
        ("\\ud83d\\u0041", "\u{fffd}A"),
        ("cut \\u00", "cut "),
        ("cut \\", "cut "),
        ("\\b\\f\\r\\t", "\u{8}\u{c}\r\t"),
    ] {
        assert_eq!(unescape(inside.as_bytes()), text, "{inside}");
    }
    assert_eq!(unescape(&"é".as_bytes()[..1]), "");
}

#[test]
fn runs_of_whole_numbers_obey_the_grammar() {
    check("[1,2, 30,0,4]", None);
    check("[1,2.5,3e1,-4,[5,6],7]", None);
    check("{\"a\":1,\"b\":[1,2]}", None);
    check("[1,2,]", Some(5));
    check("[1,02,3]", Some(4));
    check("[1,2,,3]", Some(5));
    check("[1,2", Some(4));
    check("{1,2:3}", Some(1));
}

#[test]
fn what_ends_a_string_is_found_at_every_distance() {
    for length in 0..100 {
        for filler in ["x", "é", "\u{7f}", "\u{a0}"] {
            let text = filler.repeat(length);
            check(&format!("\"{text}\""), None);
            check(&format!("\"{text}\\n{text}\""), None);
            check(&format!("\"{text}\u{1f}{text}\""), Some(1 + text.len()));
            check(&format!("\"{text}"), Some(0));
        }
    }
}

proptest! {
    #[test]
    fn every_text_is_judged_as_serde_json_judges_it(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\\", "\\n", "1", "-", "0", ".", "e", "+", "true", "null",
            " ", "é", "\u{1}", "{\"a\":1}", "[1,2]", "\\u00e9",
        ]), 0..12),
    ) {
        let text = pieces.concat();
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(read(text.as_bytes()).is_ok(), theirs, "{}", text);
    }

    #[test]
    fn every_string_decodes_to_what_was_encoded(text: String) {
        let encoded = serde_json::Value::from(text.as_str()).to_string();
        prop_assert!(read(encoded.as_bytes()).is_ok());
        prop_assert_eq!(unescape(&encoded.as_bytes()[1..encoded.len() - 1]), text);
    }
}
