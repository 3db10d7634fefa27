//! To the endpoint and back to the first event: the walk along the decision's list.
//!
//! Until something of an answer has been passed on, an endpoint that cannot be reached, breaks off,
//! says it cannot serve or does not have the model is replaced by the next choice. After that, never.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, response};
use openai::{
    AnswerReader, Envelope, Operation, StreamReader, is_error, is_model_error, is_shutdown_error,
};
use picker::{Assignment, Cutoff, Delivery, Refusal, Tasks};
use tokio::time::Instant;

use crate::{
    ProxyOptions,
    alarm::{by, within},
    connections::{AnswerBody, Broken, Connections, Exchange, SendError},
    explain::explain,
    head::{Head, Outgoing, X_REQUEST_ID, remove_hop_by_hop},
    load,
    relay::{Opening, Patience, Reader, Relay},
    reply::ReplyBody,
};

const X_TOKENWEIR_ENDPOINT: HeaderName = HeaderName::from_static("x-tokenweir-endpoint");
/// Largest error answer that is read whole to see what it says.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for the body of an error answer.
const ERROR_BODY_WAIT_MAX: Duration = Duration::from_secs(2);

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct Outbound<'a> {
    pub(crate) head: &'a Head,
    pub(crate) body: &'a Bytes,
    pub(crate) envelope: Option<&'a Envelope>,
    pub(crate) until: Until<'a>,
    pub(crate) delivery: Delivery,
}

/// When a request that has no answer yet is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until<'a> {
    /// For the whole answer.
    timeout: Option<Duration>,
    /// When that runs out.
    deadline: Option<Instant>,
    cutoff: &'a Cutoff,
}

impl Until<'_> {
    /// The future's output, unless it takes too long.
    pub(crate) async fn get<F: Future>(&self, future: Pin<&mut F>) -> Result<F::Output, Refusal> {
        let late = || Refusal::RouteTimeout(self.timeout.unwrap_or_default());
        let mut output = pin!(by(self.deadline, future));
        poll_fn(|context| match output.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(output.ok_or_else(late)),
            Poll::Pending if self.cutoff.is_over() => Poll::Ready(Err(Refusal::Draining)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// An attempt that gave nothing to pass on, or only an error of the endpoint's own.
struct Failure {
    refusal: Refusal,
    blame: Blame,
    /// Another endpoint may be tried.
    may_move: bool,
    /// What to pass on if there is none.
    answer: Option<Box<Answer>>,
}

/// Whom a failure is held against.
enum Blame {
    /// The endpoint's; what it did, for the retry metric.
    Endpoint(&'static str),
    /// Nobody's: the model is not there.
    Model,
    /// Nobody's yet: the operation is not there. Should it be elsewhere, the endpoint's.
    Operation,
    /// The gateway's.
    Own,
}

/// An endpoint's head and the beginning of its body.
type Answer = (response::Parts, Opening);

#[derive(Debug)]
pub(crate) struct Upstream {
    connections: Arc<Connections>,
    options: ProxyOptions,
    cutoff: Cutoff,
}

impl Upstream {
    pub(crate) fn new(options: ProxyOptions, background: &Tasks, cutoff: &Cutoff) -> Self {
        let connections = Connections::new(options.limits, background);
        Self { connections, options, cutoff: cutoff.clone() }
    }

    /// One of so many, each with connections of its own.
    pub(crate) fn beside(&self, threads: usize) -> Self {
        let connections = self.connections.beside(threads);
        Self { connections, options: self.options, cutoff: self.cutoff.clone() }
    }

    /// From now on, with so much time for the whole answer.
    pub(crate) fn until(&self, timeout: Option<Duration>) -> Until<'_> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        Until { timeout, deadline, cutoff: &self.cutoff }
    }

    /// Sends a request along the assignment's list until one endpoint answers. Dropping the future
    /// aborts the request at the endpoint.
    pub(crate) async fn send(
        &self,
        outbound: &Outbound<'_>,
        mut assignment: Assignment,
    ) -> Result<Response<ReplyBody>, (Refusal, Assignment)> {
        let body = outbound.envelope.map_or_else(
            || outbound.body.clone(),
            |envelope| envelope.forward(outbound.body, assignment.target_model()),
        );
        loop {
            let attempt = self.attempt(outbound, &body, &mut assignment);
            let attempted = outbound.until.get(pin!(attempt)).await;
            let answer = match attempted {
                Ok(Ok(answer)) => answer,
                Ok(Err(failure)) => {
                    if failure.may_move && outbound.moves_on(&failure.blame, &mut assignment) {
                        continue;
                    }
                    if matches!(failure.blame, Blame::Endpoint(_)) {
                        assignment.failed();
                    }
                    match failure.answer {
                        Some(answer) => *answer,
                        None => return Err((failure.refusal, assignment)),
                    }
                }
                Err(refusal) => return Err((refusal, assignment)),
            };
            return Ok(self.reply(answer, outbound, assignment));
        }
    }

    /// One endpoint's answer, up to its first event.
    async fn attempt(
        &self,
        outbound: &Outbound<'_>,
        body: &Bytes,
        assignment: &mut Assignment,
    ) -> Result<Answer, Failure> {
        let limit = outbound.delivery.first_token_timeout;
        let deadline = limit.map(|limit| Instant::now() + limit);
        let answer = self.exchange_and_open(outbound, body, assignment);
        by(deadline, pin!(answer)).await.unwrap_or_else(|| {
            Err(Failure {
                refusal: Refusal::FirstTokenTimeout,
                blame: Blame::Endpoint("first_token_timeout"),
                may_move: outbound.head.may_repeat(),
                answer: None,
            })
        })
    }

    async fn exchange_and_open(
        &self,
        outbound: &Outbound<'_>,
        body: &Bytes,
        assignment: &mut Assignment,
    ) -> Result<Answer, Failure> {
        let head = outbound.head;
        let endpoint = Arc::clone(assignment.endpoint());
        let asks_load = load::asks(outbound, &endpoint);
        let mut request = Outgoing { head, body, asks_load, connected: None };
        let exchange = self.connections.exchange(&endpoint, &mut request).await;
        if let Some(connected) = request.connected {
            assignment.note(|record| {
                record.trace.iter_mut().for_each(|trace| trace.connected = Some(connected));
            });
        }
        let (response, answer): Exchange = exchange.map_err(|error| {
            let mut tried = 0;
            assignment.note(|record| tried = record.attempts);
            Failure::to_send(&error, head.may_repeat(), tried, &endpoint.spec.id.to_string())
        })?;
        assignment.note(|record| record.upstream_service_time = Some(record.started.elapsed()));
        self.open(outbound, response, answer, assignment).await
    }

    /// Reads so much of an answer as has to be known before it may be passed on.
    async fn open(
        &self,
        outbound: &Outbound<'_>,
        response: Response<()>,
        body: AnswerBody,
        assignment: &mut Assignment,
    ) -> Result<Answer, Failure> {
        let (parts, ()) = response.into_parts();
        load::hear(&parts, outbound, assignment);
        let reader = reader(&parts, outbound);
        let mut opening = Opening { body: Some(body), reader, out: VecDeque::new() };
        let repeat = outbound.head.may_repeat();
        if may_be_unserved(parts.status, outbound) {
            let Ok(said) = read_error(&mut opening).await else {
                return Err(Failure::reset(repeat));
            };
            let blame = unserved(parts.status, &said);
            if matches!(blame, Some(Blame::Endpoint(_))) && !repeat {
                assignment.failed();
            } else if let Some(blame) = blame {
                return Err(Failure::unserved(blame, parts, opening));
            }
        } else if matches!(opening.reader, Reader::Stream(_)) {
            self.await_first_event(&mut opening, assignment, outbound).await?;
            let answer = opening.reader.answer();
            let died = answer.and_then(|answer| answer.error.as_ref());
            if repeat && died.is_some_and(|error| error.code.is_none_or(|code| code >= 500)) {
                return Err(Failure::unserved(Blame::Endpoint("error"), parts, opening));
            }
        }
        Ok((parts, opening))
    }

    /// A stream's head comes before its request is scheduled and says nothing; its first event
    /// does. A keep-alive comment is passed on at once.
    async fn await_first_event(
        &self,
        opening: &mut Opening,
        assignment: &mut Assignment,
        outbound: &Outbound<'_>,
    ) -> Result<(), Failure> {
        loop {
            let idle = outbound.delivery.idle_timeout;
            let frame = within(idle, pin!(opening.frame())).await.ok_or_else(|| Failure {
                refusal: Refusal::IdleTimeout,
                blame: Blame::Endpoint("idle_timeout"),
                may_move: false,
                answer: None,
            })?;
            let data = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Err(Failure::reset(outbound.head.may_repeat())),
                None => {
                    opening.end();
                    return Ok(());
                }
            };
            let seen = opening.reader.push(data, &mut opening.out);
            if seen.tokens {
                assignment.tokens(Instant::now());
            }
            if seen.event || seen.comment {
                return Ok(());
            }
        }
    }

    fn reply(
        &self,
        (mut parts, opening): Answer,
        outbound: &Outbound<'_>,
        mut assignment: Assignment,
    ) -> Response<ReplyBody> {
        remove_hop_by_hop(&mut parts.headers);
        if matches!(opening.reader, Reader::Stream(_)) {
            // The usage chunk is taken out: a length the endpoint gave may be too long.
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        let request_id = outbound.head.request_id.clone();
        parts.headers.entry(X_REQUEST_ID).or_insert(request_id);
        let endpoint = assignment.endpoint().spec.id.as_str();
        if self.options.endpoint_header
            && let Ok(value) = HeaderValue::from_str(endpoint)
        {
            parts.headers.insert(X_TOKENWEIR_ENDPOINT, value);
        }
        if let Some(decision) = assignment.take_decision() {
            explain(&mut parts.headers, &decision);
        }
        load::strip(&mut parts.headers, outbound);
        parts.version = http::Version::default();
        assignment.note(|record| record.response_code = parts.status.as_u16());
        let patience = Patience {
            idle: outbound.delivery.idle_timeout,
            deadline: outbound.until.deadline,
            cutoff: self.cutoff.clone(),
        };
        let bodiless = http1::is_bodiless(&outbound.head.parts.method, parts.status);
        let kind = (outbound.head.operation, bodiless);
        let relay = Relay::new(opening, assignment, patience, kind);
        Response::from_parts(parts, ReplyBody::Relay(Box::new(relay)))
    }
}

impl Outbound<'_> {
    /// Moves the claim to the next endpoint, if there is one.
    fn moves_on(&self, blame: &Blame, assignment: &mut Assignment) -> bool {
        match blame {
            Blame::Endpoint(did) => assignment.advance(did),
            Blame::Model => {
                let asked = self.envelope.and_then(Envelope::model).unwrap_or_default();
                assignment.lacks_model(asked)
            }
            Blame::Operation => assignment.lacks_operation(self.head.operation),
            Blame::Own => false,
        }
    }
}

impl Failure {
    fn to_send(error: &SendError, may_repeat: bool, tried: u32, endpoint: &str) -> Self {
        match error {
            SendError::Connect(error) => {
                tracing::debug!(endpoint, error, "endpoint cannot be connected to");
                Self {
                    refusal: Refusal::Unreachable { tried },
                    blame: Blame::Endpoint("unreachable"),
                    may_move: true,
                    answer: None,
                }
            }
            SendError::Exhausted(error) => {
                tracing::debug!(endpoint, error, "no connection to give");
                Self {
                    refusal: Refusal::Exhausted,
                    blame: Blame::Own,
                    // No other endpoint could be connected to either.
                    may_move: false,
                    answer: None,
                }
            }
            SendError::Reset(error) => {
                tracing::debug!(endpoint, %error, "endpoint closed before it answered");
                Self::reset(may_repeat || error.is_unsent())
            }
        }
    }

    /// The endpoint broke off before its answer could be passed on.
    fn reset(may_move: bool) -> Self {
        Self { refusal: Refusal::Reset, blame: Blame::Endpoint("reset"), may_move, answer: None }
    }

    /// The endpoint said that it cannot serve; that is passed on if nobody else can.
    fn unserved(blame: Blame, parts: response::Parts, opening: Opening) -> Self {
        Self {
            refusal: Refusal::Reset,
            blame,
            may_move: true,
            answer: Some(Box::new((parts, opening))),
        }
    }
}

/// Whether an answer's body has to be read to know if another endpoint might serve.
fn may_be_unserved(status: StatusCode, outbound: &Outbound<'_>) -> bool {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => true,
        StatusCode::NOT_FOUND => outbound.envelope.is_some(),
        _ => false,
    }
}

/// Why another endpoint might serve what this one does not; `None` if no other would.
fn unserved(status: StatusCode, said: &[u8]) -> Option<Blame> {
    let failed = Blame::Endpoint("error");
    match status {
        StatusCode::NOT_FOUND if is_model_error(said) => Some(Blame::Model),
        StatusCode::NOT_FOUND => (!is_error(said)).then_some(Blame::Operation),
        StatusCode::INTERNAL_SERVER_ERROR => is_shutdown_error(said).then_some(failed),
        _ => Some(failed),
    }
}

fn reader(parts: &response::Parts, outbound: &Outbound<'_>) -> Reader {
    let operation = outbound.head.operation;
    if operation == Operation::Other || parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Reader::Opaque;
    }
    let essence = media_type(&parts.headers);
    if essence.eq_ignore_ascii_case("text/event-stream") {
        let strip = outbound.envelope.is_some_and(Envelope::injects_usage);
        Reader::Stream(Box::new(StreamReader::new(operation, strip)))
    } else if essence.eq_ignore_ascii_case("application/json") {
        Reader::Json(Box::new(AnswerReader::new(operation)))
    } else {
        Reader::Opaque
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).unwrap_or_default().trim()
}

/// Reads an error answer, up to its limits; what was read is also kept to be passed on. Fails if
/// the answer breaks off.
async fn read_error(opening: &mut Opening) -> Result<Bytes, Broken> {
    let mut said = BytesMut::new();
    let read = async {
        while said.len() < ERROR_BODY_BYTES_MAX {
            let Some(frame) = opening.frame().await else {
                opening.end();
                break;
            };
            let data = frame?.into_data().unwrap_or_default();
            said.extend_from_slice(&data);
            opening.reader.push(data, &mut opening.out);
        }
        Ok::<(), Broken>(())
    };
    if let Some(read) = within(ERROR_BODY_WAIT_MAX, pin!(read)).await {
        read?;
    } else {
        tracing::debug!("an error answer's body is slow");
    }
    Ok(said.freeze())
}
