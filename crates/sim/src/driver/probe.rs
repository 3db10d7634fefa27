//! What is asked of a server before load is put on it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use openai::{AnswerReader, Operation};

use super::client::{Client, Link, Unanswered, request, uri};
use super::exchange::message;
use super::prompt::{Calibration, Prompts, Writer};
use super::{Plan, Target};
use crate::workload::Shape;

/// Longest answer read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest wait for the list of models.
const MODELS_WAIT_MAX: Duration = Duration::from_secs(30);
/// Words of the two probes. The longer one fits into a context of 512 tokens, template included.
const WORDS: [u32; 2] = [40, 400];

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("cannot connect to the server: {0}")]
    Connect(std::io::Error),
    /// No answer.
    #[error("the server gives no answer: {0}")]
    Http(String),
    /// An answer that is an error.
    #[error("the server answers {path} with {status}: {said}")]
    Status {
        /// What was asked.
        path: &'static str,
        /// Its status.
        status: StatusCode,
        /// Its message.
        said: String,
    },
    /// No models.
    #[error("the server lists no model at /v1/models; name one")]
    NoModel,
    /// Too slow.
    #[error("the server does not answer in {0:?}")]
    Timeout(Duration),
}

impl From<Unanswered> for ProbeError {
    fn from(error: Unanswered) -> ProbeError {
        match error {
            Unanswered::Connect(error) => ProbeError::Connect(error),
            Unanswered::Http(error) => ProbeError::Http(error.to_string()),
        }
    }
}

/// The first model that the server lists. Dropping the future closes the connection.
pub async fn first_model(target: &Target) -> Result<String, ProbeError> {
    const PATH: &str = "/v1/models";
    let asking = async {
        let mut link = Link::open(&target.addrs).await?;
        let request = request(Method::GET, uri(target, PATH), target.headers.clone(), Bytes::new());
        let response = link.send(request).await.map_err(Unanswered::Http)?;
        let status = response.status();
        let body = whole(&mut link, response.into_body()).await?;
        if status != StatusCode::OK {
            let said = message(Operation::Completions, &body);
            return Err(ProbeError::Status { path: PATH, status, said });
        }
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let first = list["data"][0]["id"].as_str().map(str::to_owned);
        first.ok_or(ProbeError::NoModel)
    };
    let waited = tokio::time::timeout(MODELS_WAIT_MAX, Box::pin(asking)).await;
    waited.unwrap_or(Err(ProbeError::Timeout(MODELS_WAIT_MAX)))
}

/// Sends two short prompts and sees how many tokens the server counts; none if it does not count. Dropping the future
/// closes the connection.
pub async fn calibrate(plan: &Plan) -> Result<Option<Calibration>, ProbeError> {
    let client = Client::of(&plan.target, plan.operation, false, plan.timeout);
    let words = Prompts::Words(Calibration { base: 0.0, per_word: 1.0 });
    let writer = Writer::new(&Plan { prompts: words, stream: false, ..plan.clone() });
    let mut counts = Vec::new();
    for count in WORDS {
        let shape = Shape { prompt_tokens: count, output_tokens: 1, ..Shape::default() };
        // A number that no request of the plan has.
        let body = writer.body(&plan.model, &shape, u64::MAX - u64::from(count));
        let probe = Box::pin(counted(&client, body));
        let waited = tokio::time::timeout(plan.timeout, probe).await;
        let tokens = waited.unwrap_or(Err(ProbeError::Timeout(plan.timeout)))?;
        counts.extend(tokens.map(|tokens| (u64::from(count), tokens)));
    }
    Ok(match counts[..] {
        [short, long] => Calibration::fit(short, long),
        _ => None,
    })
}

/// How many tokens the server says a prompt has.
async fn counted(client: &Client, body: Bytes) -> Result<Option<u64>, ProbeError> {
    let (mut link, response) = client.send(body).await?;
    let status = response.status();
    let body = whole(&mut link, response.into_body()).await?;
    if status != StatusCode::OK {
        let path = "a first prompt";
        return Err(ProbeError::Status { path, status, said: message(client.operation, &body) });
    }
    client.keep(link);
    let mut reader = AnswerReader::new(client.operation);
    reader.push(&body);
    Ok(reader.answer().usage.prompt_tokens)
}

async fn whole(link: &mut Link, body: hyper::body::Incoming) -> Result<Bytes, ProbeError> {
    let body = link.along(Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
    Ok(body.map_err(|error| ProbeError::Http(error.to_string()))?.to_bytes())
}
