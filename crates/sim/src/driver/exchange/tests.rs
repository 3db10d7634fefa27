use std::time::Duration;

use super::*;

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// A stream read in these pieces, a millisecond apart, the first at 1 ms.
fn read(operation: Operation, pieces: &[String]) -> (Sample, Result<(), Failed>) {
    let start = Instant::now();
    let mut sample = Sample::new(true, 1, start, start);
    let mut stream = Stream::new(operation, &mut sample);
    for (piece, millis) in pieces.iter().zip(1..) {
        stream.push(Bytes::from(piece.clone()), start + Duration::from_millis(millis));
    }
    let end = stream.finish();
    (sample, end)
}

fn first_millis(sample: &Sample) -> Option<u128> {
    Some((sample.first? - sample.due).as_millis())
}

fn completion(text: &str) -> String {
    event(&format!(r#"{{"choices":[{{"index":0,"text":"{text}","finish_reason":null}}]}}"#))
}

fn chat(delta: &str) -> String {
    event(&format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#))
}

fn usage(tokens: u32) -> String {
    event(&format!(
        r#"{{"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":{tokens}}}}}"#
    ))
}

fn done() -> String {
    event("[DONE]")
}

#[test]
fn every_chunk_of_a_completion_is_one_and_usage_is_none() {
    let pieces = [": hello\n\n".to_owned(), completion("a"), completion("b"), usage(3) + &done()];
    let (sample, end) = read(Operation::Completions, &pieces);
    assert_eq!(end, Ok(()));
    assert_eq!((first_millis(&sample), sample.chunks, sample.output_tokens()), (Some(2), 2, 3));
    assert_eq!(sample.gaps, [1000]);
    assert_eq!(sample.last, sample.first.map(|first| first + Duration::from_millis(1)));
}

#[test]
fn chunks_that_come_together_have_no_gap_between_them() {
    let pieces = [
        completion("a") + &completion("b"),
        completion("c") + &completion("d") + &completion("e"),
        done(),
    ];
    let (sample, end) = read(Operation::Completions, &pieces);
    assert_eq!((end, sample.chunks), (Ok(()), 5));
    assert_eq!(sample.gaps, [0, 1000, 0, 0]);
}

#[test]
fn a_chat_begins_with_content_and_not_with_a_role() {
    let role = chat(r#"{"role":"assistant","content":""}"#);
    for content in [
        r#"{"content":"Hi"}"#,
        r#"{"content": "Hi"}"#,
        r#"{"content":"\"Hi\""}"#,
        r#"{"reasoning_content":"Hm"}"#,
        r#"{"reasoning": "Hm"}"#,
        r#"{"content":null,"tool_calls":[{"index":0}]}"#,
    ] {
        let content = chat(content);
        let (cut, rest) = content.split_at(content.len() / 2);
        for (pieces, millis) in [
            (vec![role.clone(), content.clone(), content.clone(), done()], 2),
            (vec![role.clone() + &content, content.clone(), done()], 1),
            (vec![role.clone() + cut, rest.to_owned(), content.clone(), done()], 2),
        ] {
            let (sample, end) = read(Operation::ChatCompletions, &pieces);
            assert_eq!(end, Ok(()));
            assert_eq!((first_millis(&sample), sample.chunks), (Some(millis), 2), "{content}");
        }
    }
}

#[test]
fn an_end_must_be_said() {
    let cut = read(Operation::Completions, &[completion("a")]).1;
    assert!(matches!(cut, Err((Failure::Cut, _))));
    let error = event(r#"{"error":{"message":"the engine died","code":500}}"#);
    let died = read(Operation::Completions, &[completion("a"), error, done()]).1;
    assert_eq!(died, Err((Failure::ErrorEvent, "the engine died".to_owned())));
}
