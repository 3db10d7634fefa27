//! What is measured.

use std::collections::VecDeque;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use openai::{AnswerReader, Envelope, Operation, StreamReader};
use scheduling::{
    Chance, Ending, EndpointId, InferenceRequest, Ledger, OutlierDetection, Policy, Reading,
    ScrapeMark, Signals, Slot, hash_blocks,
};

/// One round of a case.
type Round = Box<dyn FnMut()>;

/// Makes what a case needs.
type Make = fn() -> Round;

/// Each case by its name.
pub(crate) const ALL: &[(&str, Make)] = &[
    ("envelope of 300 B", || envelope(300)),
    ("envelope of 8 KB", || envelope(8 * 1024)),
    ("envelope of 100 KB", || envelope(100 * 1024)),
    ("prompt hash of 8 KB", || prompt_hash(8 * 1024)),
    ("prompt hash of 100 KB", || prompt_hash(100 * 1024)),
    ("answer that is JSON", answer),
    ("stream of 64 events", || stream(false)),
    ("stream of 64 events, usage taken out", || stream(true)),
    ("metrics page", metrics_page),
    ("pick among 3", || pick(3)),
    ("pick among 64", || pick(64)),
];

/// A chat of two messages with so many bytes of prompt, as clients write it.
fn chat(prompt_bytes: usize) -> Bytes {
    let text = "The quick brown fox jumps over the lazy dog.\\n";
    let text: String = text.chars().cycle().take(prompt_bytes).collect();
    Bytes::from(format!(
        r#"{{"model":"meta-llama/Llama-3.1-8B-Instruct","messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"{text} "}}],"max_tokens":150,"temperature":0.7,"stream":true}}"#
    ))
}

fn envelope(prompt_bytes: usize) -> Round {
    let body = chat(prompt_bytes);
    Box::new(move || {
        let envelope = Envelope::parse(Operation::ChatCompletions, black_box(&body));
        black_box(envelope.expect("a valid body"));
    })
}

fn prompt_hash(prompt_bytes: usize) -> Round {
    let body = chat(prompt_bytes);
    let envelope = Envelope::parse(Operation::ChatCompletions, &body).expect("a valid body");
    Box::new(move || {
        let mut blocks = Vec::new();
        hash_blocks(1, &black_box(envelope.prompt(&body)), &mut blocks);
        black_box(blocks);
    })
}

fn answer() -> Round {
    let text = br#"{"id":"chatcmpl-3e1c1c2a4b","object":"chat.completion","created":1763880000,"model":"llama","choices":[{"index":0,"message":{"role":"assistant","content":"The fox is quick, brown, and above all not lazy.","reasoning_content":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":96,"total_tokens":110,"completion_tokens":14,"prompt_tokens_details":null},"prompt_logprobs":null}"#;
    Box::new(move || {
        let mut reader = Box::new(AnswerReader::new(Operation::ChatCompletions));
        reader.push(black_box(text));
        assert!(reader.answer().done);
    })
}

fn stream(strips: bool) -> Round {
    let chunk = |delta: &str, finish: &str| {
        Bytes::from(format!(
            "data: {{\"id\":\"chatcmpl-3e1c1c2a4b\",\"object\":\"chat.completion.chunk\",\"created\":1763880000,\"model\":\"llama\",\"choices\":[{{\"index\":0,\"delta\":{{{delta}}},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
        ))
    };
    let mut chunks = vec![chunk(r#""role":"assistant","content":"""#, "null")];
    chunks.extend((0..60).map(|_| chunk(r#""content":" fox""#, "null")));
    chunks.push(chunk(r#""content":"""#, r#""stop""#));
    chunks.push(Bytes::from_static(
        b"data: {\"id\":\"chatcmpl-3e1c1c2a4b\",\"object\":\"chat.completion.chunk\",\"created\":1763880000,\"model\":\"llama\",\"choices\":[],\"usage\":{\"prompt_tokens\":96,\"total_tokens\":157,\"completion_tokens\":61}}\n\n",
    ));
    chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
    Box::new(move || {
        let mut reader = Box::new(StreamReader::new(Operation::ChatCompletions, strips));
        let mut out = VecDeque::new();
        for chunk in &chunks {
            black_box(reader.push(chunk.clone(), &mut out));
            out.clear();
        }
        assert!(reader.answer().done && reader.answer().usage.completion_tokens == Some(61));
    })
}

fn metrics_page() -> Round {
    let page = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/datalayer/testdata/vllm-0.32.0/load-6s.prom");
    let page = std::fs::read(page).expect("the recorded page");
    Box::new(move || {
        let signals = datalayer::parse_metrics(black_box(&page), Duration::ZERO);
        black_box(signals.expect("a page of vLLM"));
    })
}

/// Decides among so many endpoints by `predicted`, and takes the charge back.
fn pick(endpoints: u32) -> Round {
    let mut ledger = Ledger::default();
    let name = |at: u32| EndpointId::new(format!("10.0.0.{at}:8000"));
    let slots: Vec<Slot> = (0..endpoints).map(|at| ledger.add(&name(at))).collect();
    for (at, slot) in (0..).zip(&slots) {
        ledger.scraped(*slot, ScrapeMark::NOTHING, signals(at));
    }
    let body = chat(8 * 1024);
    let envelope = Envelope::parse(Operation::ChatCompletions, &body).expect("a valid body");
    let mut blocks = Vec::new();
    hash_blocks(1, &envelope.prompt(&body), &mut blocks);
    let prompt_bytes = envelope.prompt(&body).iter().map(|part| part.len() as u64).sum();
    let (rule, mut turn) = (OutlierDetection::default(), 0);
    Box::new(move || {
        turn += 1;
        let request = InferenceRequest {
            model: envelope.model(),
            prompt_bytes,
            blocks: &blocks,
            max_tokens: envelope.max_tokens(),
            ..InferenceRequest::default()
        };
        let now = Duration::from_secs(1) + Duration::from_millis(turn);
        let chance = Chance::new(turn, turn);
        let picked = ledger.pick(Policy::Predicted, &request, &slots, &rule, now, chance);
        let (decision, claim) = picked.expect("there are endpoints");
        black_box(decision);
        ledger.end(claim, Ending { complete: true, ..Ending::default() }, now);
    })
}

fn signals(at: u32) -> Signals {
    fn heard<T>(value: T) -> Reading<T> {
        Reading { value, heard: Duration::from_secs(1) }
    }
    Signals {
        waiting: Some(heard(0)),
        running: Some(heard(at % 7)),
        kv_usage: Some(heard(0.1 + 0.01 * f64::from(at % 7))),
        kv_block_tokens: Some(heard(16)),
        kv_blocks: Some(heard(27_000)),
        ..Signals::default()
    }
}
