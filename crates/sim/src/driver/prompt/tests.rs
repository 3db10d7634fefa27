use super::*;
use crate::tokens::tokenize;
use crate::workload::Segment;

fn writer(operation: Operation, prompts: Prompts) -> Writer {
    Writer { operation, prompts, stream: true, ignore_eos: true, salt: 5 }
}

fn shape(segments: &[(u64, u32)], prompt_tokens: u32) -> Shape {
    let segments = segments.iter().map(|&(id, tokens)| Segment { id, tokens }).collect();
    Shape { prompt_tokens, output_tokens: 8, adapter: None, segments }
}

fn value(body: &Bytes) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn equal_segments_are_equal_text_and_the_rest_is_unique() {
    let writer = writer(Operation::Completions, Prompts::default());
    let tokens = |segments: &[(u64, u32)], number| {
        let body = value(&writer.body("m", &shape(segments, 300), number));
        tokenize(body["prompt"].as_str().unwrap())
    };
    let alike = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (one, other) = (tokens(&[(1, 100), (2, 100)], 0), tokens(&[(1, 100), (2, 100)], 1));
    assert_eq!((one.len(), other.len()), (300, 300));
    assert!((200..210).contains(&alike(&one, &other)));
    let third = tokens(&[(1, 100), (3, 100)], 2);
    assert!((100..110).contains(&alike(&one, &third)));
    assert!(alike(&one, &tokens(&[], 3)) < 10);
    assert_eq!(one, tokens(&[(1, 100), (2, 100)], 0));
}

#[test]
fn bodies_are_json_and_hold_what_was_asked() {
    let words = Prompts::default();
    let body = value(&writer(Operation::Completions, words).body("a\"b", &shape(&[], 5), 0));
    assert_eq!((&body["model"], &body["max_tokens"]), (&"a\"b".into(), &8.into()));
    assert_eq!(body["stream_options"]["include_usage"], true);
    assert_eq!(body["ignore_eos"], true);
    let body = value(&writer(Operation::ChatCompletions, words).body("m", &shape(&[], 5), 0));
    assert_eq!(body["messages"][0]["content"].as_str().unwrap().split(' ').count(), 4);
    let ids = Prompts::TokenIds(10, 12);
    let body = value(&writer(Operation::Completions, ids).body("m", &shape(&[(1, 20)], 50), 0));
    let ids = body["prompt"].as_array().unwrap();
    assert_eq!(ids.len(), 50);
    assert!(ids.iter().all(|id| (10..=12).contains(&id.as_u64().unwrap())));
    let plain =
        Writer { stream: false, ignore_eos: false, ..writer(Operation::Completions, words) };
    let body = value(&plain.body("m", &shape(&[], 5), 0));
    assert!(body.get("stream").is_none() && body.get("ignore_eos").is_none());
}

#[test]
fn a_fit_is_a_rising_line() {
    let fit = Calibration::fit((40, 55), (400, 487)).unwrap();
    assert!((fit.base - 7.0).abs() < 1e-9 && (fit.per_word - 1.2).abs() < 1e-9);
    assert_eq!(Calibration::fit((40, 55), (400, 55)), None);
}

#[test]
fn a_prompt_has_at_least_one_word() {
    let long = Calibration { base: 30.0, per_word: 1.0 };
    let writer = writer(Operation::ChatCompletions, Prompts::Words(long));
    let body = value(&writer.body("m", &shape(&[(1, 4)], 8), 0));
    assert!(!body["messages"][0]["content"].as_str().unwrap().is_empty());
}

#[test]
fn words_are_different_and_short() {
    let mut words = WORDS.to_vec();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), WORDS.len());
    assert!(words.iter().all(|word| word.len() <= 4));
}
