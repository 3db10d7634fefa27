//! Prompts of every kind as tokens: text, token ids, and conversations through the Llama 2 chat template.

use serde_json::Value;

use super::ask::{Fields, Operation};
use super::errors::{ApiError, python_repr};
use crate::tokens::{BOS, EOS, VOCABULARY, push_text, tokenize};

/// That there is something to answer at all; vLLM looks before it looks for the model.
pub(super) fn require(operation: Operation, fields: &Fields<'_>) -> Result<(), ApiError> {
    let whole = || Value::Object(fields.0.clone());
    match operation {
        Operation::Completions => {
            let empty = match fields.get("prompt") {
                None => true,
                Some(Value::String(text)) => text.is_empty(),
                Some(Value::Array(items)) => items.is_empty(),
                Some(_) => false,
            };
            if empty {
                let message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)";
                return Err(ApiError::parameter("prompt", message));
            }
        }
        Operation::Chat | Operation::Messages if fields.get("messages").is_none() => {
            return Err(ApiError::missing("body.messages", &whole()));
        }
        Operation::Responses if fields.get("input").is_none() => {
            return Err(ApiError::missing("body.input", &whole()));
        }
        _ => {}
    }
    Ok(())
}

/// The tokens of the prompt.
pub(super) fn tokens(operation: Operation, fields: &Fields<'_>) -> Result<Vec<u32>, ApiError> {
    let empty = Value::Array(Vec::new());
    match operation {
        Operation::Completions => completion(fields.get("prompt").unwrap_or(&empty)),
        Operation::Chat => chat(None, fields.get("messages").unwrap_or(&empty), "messages"),
        Operation::Messages => {
            let system = fields.get("system").map(|s| content(s, "system")).transpose()?;
            chat(system, fields.get("messages").unwrap_or(&empty), "messages")
        }
        Operation::Responses => {
            let system = fields.text("instructions")?.map(str::to_owned);
            match fields.get("input").unwrap_or(&empty) {
                Value::String(text) => Ok(template(system, &[("user".to_owned(), text.clone())])),
                turns => chat(system, turns, "input"),
            }
        }
    }
}

fn wrong_type(place: &str, noun: &str, value: &Value) -> ApiError {
    let text = format!("Input should be a valid {noun}");
    let kind = format!("{}_type", noun.split(' ').next().unwrap_or(noun));
    ApiError::validation(&kind, &format!("body.{place}"), &text, &python_repr(value), "")
}

/// Text, ids, or one of either in a list. A batch is several requests in one, which nothing here needs.
fn completion(prompt: &Value) -> Result<Vec<u32>, ApiError> {
    match prompt {
        Value::String(text) => Ok(tokenize(text)),
        Value::Array(items) if items.iter().all(Value::is_number) => {
            items.iter().map(token_id).collect()
        }
        Value::Array(items) if items.len() == 1 && !items[0].is_object() => completion(&items[0]),
        Value::Array(items) if items.iter().all(|i| i.is_string() || i.is_array()) => {
            let message = format!(
                "a batch of {} prompts is not simulated: send one prompt a request. (parameter=prompt)",
                items.len()
            );
            Err(ApiError::parameter("prompt", message))
        }
        other => Err(wrong_type("prompt", "string", other)),
    }
}

fn token_id(value: &Value) -> Result<u32, ApiError> {
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < VOCABULARY);
    id.ok_or_else(|| ApiError::bad_request(format!("Token id {value} is out of vocabulary")))
}

/// A list of turns, each with a role and a content.
fn chat(system: Option<String>, turns: &Value, place: &str) -> Result<Vec<u32>, ApiError> {
    let turns = turns.as_array().ok_or_else(|| wrong_type(place, "list", turns))?;
    let mut system = system;
    let mut read = Vec::with_capacity(turns.len());
    for (index, turn) in turns.iter().enumerate() {
        let place = format!("{place}.{index}");
        let fields = Fields(turn.as_object().ok_or_else(|| wrong_type(&place, "dict", turn))?);
        let role = fields.text("role")?;
        let role = role.ok_or_else(|| ApiError::missing(&format!("body.{place}.role"), turn))?;
        let text = fields.get("content").map(|c| content(c, &place)).transpose()?;
        let text = text.unwrap_or_default();
        if index == 0 && matches!(role, "system" | "developer") {
            system = Some(text);
        } else {
            read.push((role.to_owned(), text));
        }
    }
    if turns.is_empty() {
        let message =
            "Cannot apply chat template to an empty conversation. Provide at least one message.";
        return Err(ApiError::bad_request(message));
    }
    if read.iter().enumerate().any(|(index, (role, _))| (role == "user") != (index % 2 == 0)) {
        let message = "Conversation roles must alternate user/assistant/user/assistant/...";
        return Err(ApiError::bad_request(message));
    }
    Ok(template(system, &read))
}

/// A content that is text or a list of parts, of which only text counts.
fn content(value: &Value, place: &str) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            Ok(texts.collect::<Vec<_>>().join("\n"))
        }
        other => Err(wrong_type(&format!("{place}.content"), "string", other)),
    }
}

/// Llama 2's chat template. A conversation that goes on begins with the same tokens as before.
fn template(system: Option<String>, turns: &[(String, String)]) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut system = system.map(|text| format!("<<SYS>>\n{}\n<</SYS>>\n\n", text.trim()));
    for (role, text) in turns {
        if role == "user" {
            let text = format!("{}{text}", system.take().unwrap_or_default());
            tokens.push(BOS);
            push_text(&mut tokens, "[INST]");
            push_text(&mut tokens, &format!(" {}", text.trim()));
            push_text(&mut tokens, " [/INST]");
        } else if role == "assistant" {
            push_text(&mut tokens, &format!(" {}", text.trim()));
            tokens.push(EOS);
        }
    }
    if tokens.is_empty() {
        tokens.push(BOS);
    }
    tokens
}

#[cfg(test)]
mod tests;
