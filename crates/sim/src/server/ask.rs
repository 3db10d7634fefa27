//! What a client asks for: one JSON body of four kinds read into one value, with vLLM's checks in vLLM's order.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::errors::{ApiError, python_repr};
use super::models::Models;
use super::prompt;
use crate::engine::{AdapterId, Finish};
use crate::profile::Profile;
use crate::tokens::{Origin, mix_bytes};

/// vLLM's `max_tokens` for completions that give none.
const COMPLETION_TOKENS: u32 = 16;

/// The four ways to ask for text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Completions,
    Chat,
    Responses,
    Messages,
}

/// A checked request for text.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) operation: Operation,
    /// The name the answer carries.
    pub(super) model: String,
    pub(super) adapter: Option<AdapterId>,
    pub(super) prompt: Vec<u32>,
    pub(super) origin: Origin,
    /// Tokens it will get.
    pub(super) output: u32,
    pub(super) finish: Finish,
    pub(super) max_tokens: Option<u32>,
    pub(super) salt: u64,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) continuous_usage: bool,
    pub(super) temperature: Option<f64>,
    pub(super) request_id: Option<String>,
}

/// A JSON object whose fields are read with their types checked; null is absent.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        name: &str,
        (kind, noun): (&str, &str),
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| {
            let text = format!("Input should be a valid {noun}");
            ApiError::validation(kind, &format!("body.{name}"), &text, &python_repr(value), "")
        })
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, ("string_type", "string"), Value::as_str)
    }

    fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.typed(name, ("bool_type", "boolean"), Value::as_bool)?.unwrap_or(false))
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, ("int_type", "integer"), Value::as_i64)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ApiError> {
        self.typed(name, ("float_type", "number"), Value::as_f64)
    }
}

/// The body as a JSON value, or what vLLM says if it is none. Of two equal keys the last one counts.
pub(super) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Err(ApiError::missing("body", &Value::Null));
    }
    let text = std::str::from_utf8(body).map_err(|_| ApiError::not_utf8())?;
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let line_start: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at =
            if error.is_eof() { text.len() } else { line_start + error.column().saturating_sub(1) };
        ApiError::validation(
            "json_invalid",
            &format!("body.{at}"),
            "JSON decode error",
            "<dict of 0 items>",
            ", 'ctx': {'error': 'Expecting value'}",
        )
    })?;
    Ok(value)
}

/// The fields of a body that must be an object.
pub(super) fn fields(value: &Value) -> Result<Fields<'_>, ApiError> {
    value.as_object().map(Fields).ok_or_else(|| {
        let text = "Input should be a valid dictionary or object to extract fields from";
        ApiError::validation("model_attributes_type", "body", text, &python_repr(value), "")
    })
}

/// What of a server a request is read against.
pub(super) struct Against<'a> {
    pub(super) models: &'a Models,
    pub(super) profile: &'a Profile,
    pub(super) seed: u64,
}

impl Ask {
    pub(super) fn read(
        operation: Operation,
        headers: &HeaderMap,
        body: &[u8],
        against: &Against<'_>,
    ) -> Result<Ask, ApiError> {
        let value = parse(body)?;
        let fields = fields(&value)?;
        let named = fields.text("model")?;
        let stream = fields.flag("stream")?;
        let (include_usage, continuous_usage) = stream_options(&fields, stream)?;
        let ignore_eos = fields.flag("ignore_eos")?;
        let temperature = fields.number("temperature")?;
        let asked = asked_tokens(operation, &fields)?;
        let choices = fields.integer("n")?;
        prompt::require(operation, &fields)?;
        let (model, adapter) = against.models.resolve(named)?;
        data_parallel_rank(headers)?;
        let prompt = prompt::tokens(operation, &fields)?;
        check_sampling(temperature, choices)?;
        let limit = against.profile.max_model_len;
        let max_tokens = check_lengths(prompt.len(), asked, limit)?;
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let room = limit - prompt_tokens;
        let origin = Origin::new(against.seed, &model, &prompt);
        let (output, finish) = match (max_tokens, operation) {
            (Some(max), _) => (max, Finish::Length),
            (None, Operation::Completions) => (COMPLETION_TOKENS.min(room), Finish::Length),
            (None, _) if ignore_eos || origin.natural_length() > room => (room, Finish::Length),
            (None, _) => (origin.natural_length(), Finish::Stop),
        };
        let header_id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let request_id = header_id.or(fields.text("request_id")?).map(str::to_owned);
        let salt = fields.text("cache_salt")?.map_or(0, |salt| mix_bytes(1, salt.as_bytes()));
        Ok(Ask {
            operation,
            model,
            adapter,
            prompt,
            origin,
            output,
            finish,
            max_tokens,
            salt,
            stream,
            include_usage,
            continuous_usage,
            temperature,
            request_id,
        })
    }
}

fn stream_options(fields: &Fields<'_>, stream: bool) -> Result<(bool, bool), ApiError> {
    let Some(options) = fields.get("stream_options") else { return Ok((false, false)) };
    if !stream {
        let message =
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)";
        return Err(ApiError::parameter("stream_options", message));
    }
    let options = Fields(options.as_object().ok_or_else(|| {
        let text = "Input should be a valid dictionary or instance of StreamOptions";
        let shown = python_repr(options);
        ApiError::validation("model_type", "body.stream_options", text, &shown, "")
    })?);
    let include = options.flag("include_usage")?;
    Ok((include, include && options.flag("continuous_usage_stats")?))
}

/// The token limit a request names, under whatever name.
fn asked_tokens(operation: Operation, fields: &Fields<'_>) -> Result<Option<i64>, ApiError> {
    match operation {
        Operation::Completions => fields.integer("max_tokens"),
        Operation::Chat => {
            let old = fields.integer("max_tokens")?;
            Ok(fields.integer("max_completion_tokens")?.or(old))
        }
        Operation::Responses => fields.integer("max_output_tokens"),
        Operation::Messages => {
            let asked = fields.integer("max_tokens")?;
            let whole = || Value::Object(fields.0.clone());
            asked.map(Some).ok_or_else(|| ApiError::missing("body.max_tokens", &whole()))
        }
    }
}

fn data_parallel_rank(headers: &HeaderMap) -> Result<(), ApiError> {
    let rank = headers.get("x-data-parallel-rank").and_then(|rank| rank.to_str().ok());
    // Not a number: vLLM ignores it.
    match rank.and_then(|rank| rank.trim().parse::<i64>().ok()) {
        None | Some(0) => Ok(()),
        Some(rank) => {
            let message = format!("data_parallel_rank {rank} is out of range [0, 1).");
            Err(ApiError::bad_request(message))
        }
    }
}

fn check_sampling(temperature: Option<f64>, choices: Option<i64>) -> Result<(), ApiError> {
    if let Some(temperature) = temperature.filter(|t| *t < 0.0) {
        let message = format!(
            "temperature must be non-negative, got {temperature:?}. (parameter=temperature, value={temperature:?})"
        );
        return Err(ApiError::parameter("temperature", message));
    }
    match choices {
        None | Some(1) => Ok(()),
        Some(n) if n < 1 => Err(ApiError::bad_request(format!("n must be at least 1, got {n}."))),
        Some(n) => {
            let message = format!(
                "n={n} is not simulated: this server gives one choice a request. (parameter=n, value={n})"
            );
            Err(ApiError::parameter("n", message))
        }
    }
}

/// Prompt and limit against the context; the limit as asked.
fn check_lengths(prompt: usize, asked: Option<i64>, limit: u32) -> Result<Option<u32>, ApiError> {
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
    let bad = |message: String| Err(ApiError::parameter("max_tokens", message));
    let asked = match asked {
        Some(asked) if asked < 1 => {
            return bad(format!(
                "max_tokens must be at least 1, got {asked}. (parameter=max_tokens, value={asked})"
            ));
        }
        Some(asked) if asked > i64::from(limit) => {
            return bad(format!(
                "max_tokens={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens. \
                 (parameter=max_tokens, value={asked})"
            ));
        }
        asked => asked.and_then(|asked| u32::try_from(asked).ok()),
    };
    let context = format!("This model's maximum context length is {limit} tokens. However, ");
    if prompt > limit {
        let least = limit + 1;
        let message = format!(
            "{context}your prompt contains at least {least} input tokens, which exceeds this limit even without any \
             output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value={least})"
        );
        return Err(ApiError::parameter("input_tokens", message));
    }
    let output = asked.unwrap_or(1);
    if prompt + output > limit {
        // vLLM stops counting at the first token too many.
        let least = limit - output + 1;
        let total = least + output;
        let message = format!(
            "{context}you requested {output} output tokens and your prompt contains at least {least} input tokens, \
             for a total of at least {total} tokens. Please reduce the length of the input prompt or the number of \
             requested output tokens. (parameter=input_tokens, value={least})"
        );
        return Err(ApiError::parameter("input_tokens", message));
    }
    Ok(asked)
}
