//! What the walker meets, and that it keeps no more than it must.

use super::{Found, Sink, Step, TOKEN_BYTES_MAX, Walker};

#[derive(Default)]
struct Met(Vec<(Vec<Step>, String)>);

impl Sink for Met {
    fn found(&mut self, path: &[Step], found: Found<'_>) {
        let text = match found {
            Found::Text(text) => format!("\"{}", String::from_utf8_lossy(text)),
            Found::Literal(text) => String::from_utf8_lossy(text).into_owned(),
            Found::Object => "{".to_owned(),
            Found::Array => "[".to_owned(),
        };
        self.0.push((path.to_vec(), text));
    }
}

fn check(text: &str, expected: &[(&[Step], &str)]) {
    for step in [1, 2, 3, text.len()] {
        let (mut walker, mut met) = (Walker::new(), Met::default());
        text.as_bytes().chunks(step).for_each(|piece| walker.push(piece, &mut met));
        let met: Vec<(&[Step], &str)> =
            met.0.iter().map(|(path, text)| (path.as_slice(), text.as_str())).collect();
        assert_eq!(met, expected, "{text} by {step}");
    }
}

#[test]
fn fields_are_met_with_their_paths() {
    use Step::{Choices, First, Later, Model, Unknown};
    check(
        r#"{"model" : "a\"b", "choices": [1,{"x":null}, []]}"#,
        &[
            (&[], "{"),
            (&[Model], "\"a\\\"b"),
            (&[Choices], "["),
            (&[Choices, First], "1"),
            (&[Choices, Later], "{"),
            (&[Choices, Later, Unknown], "null"),
            (&[Choices, Later], "["),
        ],
    );
}

#[test]
fn what_lies_too_deep_is_nobodys_field_and_does_not_confuse() {
    use Step::{Code, Model, Unknown};
    check(
        r#"{"a":{"b":{"c":{"d":{"model":"x","l":[1,2]}}}},"model":"y"}"#,
        &[
            (&[], "{"),
            (&[Unknown], "{"),
            (&[Unknown; 2], "{"),
            (&[Unknown; 3], "{"),
            (&[Unknown; 4], "{"),
            (&[Model], "\"y"),
        ],
    );
    check(r#"{"code":-1.5e3}"#, &[(&[], "{"), (&[Code], "-1.5e3")]);
}

#[test]
fn a_long_string_is_kept_in_part() {
    let (mut walker, mut met) = (Walker::new(), Met::default());
    walker.push(b"{\"model\":\"", &mut met);
    for _ in 0..1000 {
        walker.push(&[b'x'; 1000], &mut met);
    }
    walker.push(b"\"}", &mut met);
    assert_eq!(met.0[1].1.len(), 1 + TOKEN_BYTES_MAX);
    assert!(walker.is_closed() && walker.token.capacity() < 4 * TOKEN_BYTES_MAX);
}

#[test]
fn nonsense_neither_panics_nor_counts_as_an_end() {
    for text in ["}}]]", "\"", "{\"a\":\"\\", "\u{1f}\u{8b}", ",,::"] {
        let (mut walker, mut met) = (Walker::new(), Met::default());
        walker.push(text.as_bytes(), &mut met);
        assert!(!walker.is_closed(), "{text}");
    }
}
