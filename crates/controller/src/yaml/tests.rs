//! JSON is YAML, and neither bombs nor towers get through.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{DEPTH_MAX, NODES_MAX, Node, Value, chunks, parse};

/// The only document's JSON, or the faults.
fn read(text: &str) -> Result<serde_json::Value, Vec<String>> {
    let parsed = parse(text);
    match (parsed.documents.as_slice(), parsed.faults.as_slice()) {
        ([one], []) => Ok(one.to_json()),
        _ => Err(parsed
            .faults
            .iter()
            .map(|fault| format!("{}: {}", fault.line, fault.message))
            .collect()),
    }
}

fn check(text: &str, json: &str) {
    assert_eq!(read(text), Ok(serde_json::from_str(json).expect(json)), "{text}");
}

fn check_refused(text: &str, expected: &str) {
    assert_eq!(read(text), Err(vec![expected.to_owned()]));
}

#[test]
fn scalars_mean_what_yaml_1_2_says() {
    check("[1, -1, 0x10, 0o17, +5, 007]", "[1, -1, 16, 15, 5, 7]");
    check("[1.5, 1e3, .5]", "[1.5, 1000.0, 0.5]");
    check("[true, True, false, yes, on, no]", r#"[true, true, false, "yes", "on", "no"]"#);
    check("[null, ~, Null, '', 'null']", r#"[null, null, null, "", "null"]"#);
    check("[1.2.3, 10.0.0.1, 1s, 0x, 12e]", r#"["1.2.3", "10.0.0.1", "1s", "0x", "12e"]"#);
    check("[!!str 1, !!int '1', ! 1]", r#"["1", 1, "1"]"#);
    check("a: |\n  x\n  --- y\n", r#"{"a": "x\n--- y\n"}"#);
    check("9223372036854775808", "9223372036854775808.0");
    check("\u{feff}a: b\r\nc: d\r\n", r#"{"a": "b", "c": "d"}"#);
}

#[test]
fn documents_are_cut_at_their_markers_and_nowhere_else() {
    let lines = |text| chunks(text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
    assert_eq!(lines("a: b\n---\nc: d\n--- {e: f}\n---- g\n ---\n"), [1, 2, 4]);
    assert_eq!(lines("# only\n---\n# comments\n"), [2]);
    assert_eq!(lines("%YAML 1.2\n---\na: b"), [2]);
    assert_eq!(lines("---\r\na: b\r\n---\r\n"), [1, 3]);
    assert_eq!(lines(""), [] as [u32; 0]);
}

#[test]
fn every_value_has_the_line_it_is_on() {
    let parsed = parse("# a\na:\n  b: 1\n---\n\nc:\n- d\n- e\n");
    let lines: Vec<u32> = parsed.documents.iter().map(|node| node.line).collect();
    assert_eq!(lines, [2, 6]);
    let Some(entry) = parsed.documents[1].get("c") else { panic!("no c") };
    let Value::List(items) = &entry.node.value else { panic!("no list") };
    assert_eq!((entry.line, items[0].line, items[1].line), (6, 7, 8));
}

#[test]
fn an_alias_bomb_is_refused_in_no_time() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").expect("written");
    }
    check_refused(&bomb, &format!("6: more than {NODES_MAX} values, aliases written out"));
}

#[test]
fn too_many_documents_are_told_once() {
    let faults = parse(&"--- a\n".repeat(NODES_MAX + 2)).faults;
    let line = u32::try_from(NODES_MAX).expect("fits") + 1;
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [line]);
}

#[test]
fn deep_nesting_is_refused_however_it_is_written() {
    let deep = DEPTH_MAX + 1;
    let message = format!("1: nested more than {DEPTH_MAX} deep");
    assert!(read(&("[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX))).is_ok());
    check_refused(&("[".repeat(deep) + &"]".repeat(deep)), &message);
    check_refused(&"[".repeat(1_000_000), &message);
    check_refused(&"- ".repeat(100_000), &message);
    check_refused(&"{a: ".repeat(100_000), &message);
    let half = DEPTH_MAX / 2 + 1;
    let mixed = "- ".repeat(half) + &"[".repeat(half) + &"]".repeat(half);
    check_refused(&mixed, &message);
    let (open, close) = ("[".repeat(40), "]".repeat(40));
    let tower = format!("[&a0 {open}x{close}, {open}*a0{close}]");
    check_refused(&tower, &message);
}

#[test]
fn a_merge_key_fills_in_what_is_missing() {
    check("- &a {x: 1, y: 2}\n- {<<: *a, y: 3}", r#"[{"x": 1, "y": 2}, {"y": 3, "x": 1}]"#);
    check("- {<<: [{a: 1}, {a: 2, b: 2}]}", r#"[{"a": 1, "b": 2}]"#);
}

/// YAML wants control characters escaped that JSON does not.
fn text() -> impl Strategy<Value = String> {
    "(\\PC|[\n\t\\\\\"]){0,20}"
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let scalar = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text().prop_map(Into::into),
    ];
    scalar.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(text(), inner, 0..6).prop_map(|map| {
                map.into_iter()
                    .filter(|(key, _)| key != "<<")
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn json_is_read_as_json(value in json(), pretty: bool) {
        let object = serde_json::json!({ "value": value });
        let text = if pretty { format!("{object:#}") } else { object.to_string() };
        prop_assert_eq!(read(&text), Ok(object));
    }

    #[test]
    fn no_text_panics(text in "([-a:\\[\\]{}\"'&*!|>#%\n\t ]|\\PC){0,200}") {
        parse(&text);
    }

    #[test]
    fn a_good_document_is_found_beside_a_bad_one(bad in "[-a:\\[\\]{}\"' \n]{0,60}") {
        let parsed = parse(&format!("---\n{bad}\n---\nfine: yes\n"));
        let fine = |node: &Node| node.get("fine").is_some();
        prop_assert!(parsed.documents.iter().any(fine));
    }
}
