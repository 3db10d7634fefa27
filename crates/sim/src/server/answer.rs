//! Answers as vLLM 0.32 writes them, field by field: whole bodies and the events of streams.
//!
//! The templates are spelled out instead of derived, so that they can be laid beside a recorded answer.

use std::time::Duration;

use super::ask::{Ask, Operation};
use super::errors::quote;
use crate::engine::Finish;
use crate::tokens::Origin;

const FINGERPRINT: &str = r#""system_fingerprint":"vllm-0.32.0-4889c0e9""#;

/// Everything about an answer but how far it is.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    operation: Operation,
    /// JSON strings, quoted.
    id: String,
    item: String,
    model: String,
    created: u64,
    origin: Origin,
    prompt: u32,
    pub(super) output: u32,
    finish: Finish,
    include_usage: bool,
    continuous_usage: bool,
    temperature: f64,
    max_tokens: u32,
}

impl Answer {
    pub(super) fn new(ask: &Ask, now: Duration, mut fresh_id: impl FnMut() -> String) -> Answer {
        let base = ask.request_id.clone().unwrap_or_else(&mut fresh_id);
        let id = match ask.operation {
            Operation::Completions => format!("cmpl-{base}"),
            Operation::Chat | Operation::Messages => format!("chatcmpl-{base}"),
            Operation::Responses => format!("resp_{base}"),
        };
        Answer {
            operation: ask.operation,
            id: quote(&id),
            item: quote(&format!("msg_{}", fresh_id())),
            model: quote(&ask.model),
            created: now.as_secs(),
            origin: ask.origin,
            prompt: u32::try_from(ask.prompt.len()).unwrap_or(u32::MAX),
            output: ask.output,
            finish: ask.finish,
            include_usage: ask.include_usage,
            continuous_usage: ask.continuous_usage,
            temperature: ask.temperature.unwrap_or(1.0),
            max_tokens: ask.max_tokens.unwrap_or(ask.output),
        }
    }

    fn finish_reason(&self) -> &'static str {
        match self.finish {
            Finish::Stop => r#""stop""#,
            Finish::Length => r#""length""#,
        }
    }

    /// Anthropic's names for the same.
    fn stop_reason(&self) -> &'static str {
        match self.finish {
            Finish::Stop => r#""end_turn""#,
            Finish::Length => r#""max_tokens""#,
        }
    }

    /// The three counts after `output` tokens.
    fn counts(&self, output: u32) -> String {
        let (prompt, total) = (self.prompt, self.prompt + output);
        format!(r#""prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{output}"#)
    }

    /// The body of an answer that is not streamed.
    pub(super) fn whole(&self) -> String {
        let Answer { id, model, created, prompt, output, .. } = self;
        let text = quote(&self.origin.text(self.output));
        let (finish, counts) = (self.finish_reason(), self.counts(self.output));
        match self.operation {
            Operation::Completions => format!(
                r#"{{"id":{id},"object":"text_completion","created":{created},"model":{model},"choices":[{{"index":0,"text":{text},"logprobs":null,"finish_reason":{finish},"stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}}],"service_tier":null,{FINGERPRINT},"usage":{{{counts},"prompt_tokens_details":null,"completion_tokens_details":null}},"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#
            ),
            Operation::Chat => format!(
                r#"{{"id":{id},"object":"chat.completion","created":{created},"model":{model},"choices":[{{"index":0,"message":{{"role":"assistant","content":{text},"refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null}},"logprobs":null,"finish_reason":{finish},"stop_reason":null,"token_ids":null,"routed_experts":null}}],"service_tier":null,{FINGERPRINT},"usage":{{{counts},"prompt_tokens_details":null,"completion_tokens_details":null}},"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#
            ),
            Operation::Messages => {
                let stop = self.stop_reason();
                format!(
                    r#"{{"id":{id},"type":"message","role":"assistant","content":[{{"type":"text","text":{text}}}],"model":{model},"stop_reason":{stop},"usage":{{"input_tokens":{prompt},"output_tokens":{output}}}}}"#
                )
            }
            Operation::Responses => self.response(true),
        }
    }

    /// Events before the first token, which only one of the four has.
    pub(super) fn opening(&self) -> Vec<String> {
        if self.operation != Operation::Responses {
            return Vec::new();
        }
        let response = self.response(false);
        ["response.created", "response.in_progress"]
            .into_iter()
            .zip(0..)
            .map(|(kind, number)| {
                let data = format!(
                    r#"{{"response":{response},"sequence_number":{number},"type":"{kind}"}}"#
                );
                named_event(kind, &data)
            })
            .collect()
    }

    /// Events that come with the first token, before its own.
    pub(super) fn first(&self) -> Vec<String> {
        let Answer { id, item, model, created, prompt, .. } = self;
        match self.operation {
            Operation::Completions => Vec::new(),
            Operation::Chat => {
                let usage = self.chat_usage(0);
                vec![event(&format!(
                    r#"{{"id":{id},"object":"chat.completion.chunk","created":{created},"model":{model},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}]{usage},"prompt_token_ids":null,"prompt_text":null}}"#
                ))]
            }
            Operation::Messages => vec![
                named_event(
                    "message_start",
                    &format!(
                        r#"{{"type":"message_start","message":{{"id":{id},"type":"message","role":"assistant","content":[],"model":{model},"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{prompt},"output_tokens":0}}}}}}"#
                    ),
                ),
                named_event(
                    "content_block_start",
                    r#"{"type":"content_block_start","content_block":{"type":"text","text":""},"index":0}"#,
                ),
            ],
            Operation::Responses => vec![
                named_event(
                    "response.output_item.added",
                    &format!(
                        r#"{{"item":{{"id":{item},"content":[],"role":"assistant","status":"in_progress","type":"message","phase":null}},"output_index":0,"sequence_number":2,"type":"response.output_item.added"}}"#
                    ),
                ),
                named_event(
                    "response.content_part.added",
                    &format!(
                        r#"{{"content_index":0,"item_id":{item},"output_index":0,"part":{{"annotations":[],"text":"","type":"output_text","logprobs":[]}},"sequence_number":3,"type":"response.content_part.added"}}"#
                    ),
                ),
            ],
        }
    }

    fn chat_usage(&self, output: u32) -> String {
        if !self.continuous_usage {
            return String::new();
        }
        format!(r#","usage":{{{},"completion_tokens_details":null}}"#, self.counts(output))
    }

    /// The event of token `index`, counted from 0.
    pub(super) fn token(&self, index: u32) -> String {
        let Answer { id, item, model, created, .. } = self;
        let text = quote(&self.origin.word(index));
        let last = index + 1 == self.output;
        let finish = if last { self.finish_reason() } else { "null" };
        // The fingerprint comes once, in the last chunk, and that is the usage chunk if there is one.
        let fingerprint =
            if last && !self.include_usage { format!(",{FINGERPRINT}") } else { String::new() };
        match self.operation {
            Operation::Completions => {
                let usage = if self.continuous_usage {
                    format!(r#","usage":{{{}}}"#, self.counts(index + 1))
                } else {
                    String::new()
                };
                event(&format!(
                    r#"{{"id":{id},"object":"text_completion","created":{created},"model":{model},"choices":[{{"index":0,"text":{text},"logprobs":null,"finish_reason":{finish},"stop_reason":null,"prompt_token_ids":null,"token_ids":null}}]{usage}{fingerprint}}}"#
                ))
            }
            Operation::Chat => {
                let usage = self.chat_usage(index + 1);
                let stop = if last { r#""stop_reason":null,"# } else { "" };
                event(&format!(
                    r#"{{"id":{id},"object":"chat.completion.chunk","created":{created},"model":{model},"choices":[{{"index":0,"delta":{{"content":{text}}},"logprobs":null,"finish_reason":{finish},{stop}"token_ids":null}}]{usage}{fingerprint}}}"#
                ))
            }
            Operation::Messages => named_event(
                "content_block_delta",
                &format!(
                    r#"{{"type":"content_block_delta","delta":{{"type":"text_delta","text":{text}}},"index":0}}"#
                ),
            ),
            Operation::Responses => {
                let number = index + 4;
                named_event(
                    "response.output_text.delta",
                    &format!(
                        r#"{{"content_index":0,"delta":{text},"item_id":{item},"logprobs":[],"output_index":0,"sequence_number":{number},"type":"response.output_text.delta"}}"#
                    ),
                )
            }
        }
    }

    /// Events after the last token.
    pub(super) fn closing(&self) -> Vec<String> {
        let Answer { id, model, created, prompt, output, .. } = self;
        let mut events = Vec::new();
        match self.operation {
            Operation::Completions | Operation::Chat => {
                if self.include_usage {
                    let object = if self.operation == Operation::Chat {
                        "chat.completion.chunk"
                    } else {
                        "text_completion"
                    };
                    let counts = self.counts(self.output);
                    events.push(event(&format!(
                        r#"{{"id":{id},"object":"{object}","created":{created},"model":{model},"choices":[],"usage":{{{counts}}},{FINGERPRINT}}}"#
                    )));
                }
                events.push(event("[DONE]"));
            }
            Operation::Messages => {
                let stop = self.stop_reason();
                events.push(named_event(
                    "content_block_stop",
                    r#"{"type":"content_block_stop","index":0}"#,
                ));
                events.push(named_event(
                    "message_delta",
                    &format!(
                        r#"{{"type":"message_delta","delta":{{"stop_reason":{stop},"stop_sequence":null}},"usage":{{"input_tokens":{prompt},"output_tokens":{output}}}}}"#
                    ),
                ));
                events.push(named_event("message_stop", r#"{"type":"message_stop"}"#));
            }
            Operation::Responses => events = self.response_closing(),
        }
        events
    }

    fn response_closing(&self) -> Vec<String> {
        let (item, text) = (&self.item, quote(&self.origin.text(self.output)));
        let number = self.output + 4;
        let (part_number, item_number, last_number) = (number + 1, number + 2, number + 3);
        let (message, response) = (self.message(), self.response(true));
        let events = [
            (
                "response.output_text.done",
                format!(
                    r#"{{"content_index":0,"item_id":{item},"logprobs":[],"output_index":0,"sequence_number":{number},"text":{text},"type":"response.output_text.done"}}"#
                ),
            ),
            (
                "response.content_part.done",
                format!(
                    r#"{{"content_index":0,"item_id":{item},"output_index":0,"part":{{"annotations":[],"text":{text},"type":"output_text","logprobs":null}},"sequence_number":{part_number},"type":"response.content_part.done"}}"#
                ),
            ),
            (
                "response.output_item.done",
                format!(
                    r#"{{"item":{message},"output_index":0,"sequence_number":{item_number},"type":"response.output_item.done"}}"#
                ),
            ),
            (
                "response.completed",
                format!(
                    r#"{{"response":{response},"sequence_number":{last_number},"type":"response.completed"}}"#
                ),
            ),
        ];
        events.into_iter().map(|(kind, data)| named_event(kind, &data)).collect()
    }

    /// The output item of a response.
    fn message(&self) -> String {
        let (item, text) = (&self.item, quote(&self.origin.text(self.output)));
        format!(
            r#"{{"id":{item},"content":[{{"annotations":[],"text":{text},"type":"output_text","logprobs":null}}],"role":"assistant","status":"completed","type":"message","phase":null}}"#
        )
    }

    /// The response object, before the first token or when all are there.
    fn response(&self, done: bool) -> String {
        let Answer { id, model, created, temperature, max_tokens, prompt, output, .. } = self;
        let total = prompt + output;
        let (incomplete, status) = match (done, self.finish) {
            (false, _) => ("null", "in_progress"),
            (true, Finish::Stop) => ("null", "completed"),
            (true, Finish::Length) => (r#"{"reason":"max_output_tokens"}"#, "incomplete"),
        };
        let (item, usage) = if done {
            let usage = format!(
                r#"{{"input_tokens":{prompt},"input_tokens_details":{{"cached_tokens":0,"cache_write_tokens":0,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":0,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]}},"total_tokens":{total}}}"#
            );
            (self.message(), usage)
        } else {
            (String::new(), "null".to_owned())
        };
        format!(
            r#"{{"id":{id},"created_at":{created},"incomplete_details":{incomplete},"instructions":null,"metadata":null,"model":{model},"object":"response","output":[{item}],"parallel_tool_calls":true,"temperature":{temperature:?},"tool_choice":"none","tools":[],"top_p":1.0,"background":false,"max_output_tokens":{max_tokens},"max_tool_calls":null,"previous_response_id":null,"prompt":null,"reasoning":null,"service_tier":"auto","status":"{status}","text":null,"top_logprobs":null,"truncation":"disabled","usage":{usage},"user":null,"presence_penalty":0.0,"frequency_penalty":0.0,"kv_transfer_params":null,"ec_transfer_params":null,"input_messages":null,"output_messages":null}}"#
        )
    }
}

/// One server-sent event.
pub(super) fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

fn named_event(kind: &str, data: &str) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}
