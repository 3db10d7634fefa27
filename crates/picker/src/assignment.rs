//! One request's hold on the endpoints chosen for it.

use std::sync::Arc;

use openai::{LoadReport, Operation, Usage};
use scheduling::{Outcome, Report, Slot};
use tokio::time::Instant;

use crate::{
    DecisionRecord, Endpoint, Finish, OpenRecord, RequestRecord,
    absences::Feature,
    endpoint::Claim,
    monotonic,
    pool::{Chosen, Pool},
};

/// A request's claim on an endpoint. It lives as long as the response body does.
///
/// Dropping it, however that comes about, returns the claim and writes the request's one record.
/// There is no `release` to forget.
#[must_use = "dropping an assignment ends the request"]
#[derive(Debug)]
pub struct Assignment {
    claim: Claim,
    /// The next best, in order.
    others: Chosen,
    pool: Arc<Pool>,
    target_model: Option<Arc<str>>,
    /// Endpoints that did not have its operation.
    lacking: Vec<(Operation, Slot)>,
    record: OpenRecord,
}

impl Assignment {
    pub(crate) fn new(
        claim: Claim,
        others: Chosen,
        pool: Arc<Pool>,
        target_model: Option<Arc<str>>,
        record: OpenRecord,
    ) -> Self {
        let lacking = Vec::new();
        let mut assignment = Self { claim, others, pool, target_model, lacking, record };
        assignment.note_endpoint();
        assignment
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.claim.endpoint
    }

    /// The model name to put into the forwarded body, if it is to be another than the client's.
    pub fn target_model(&self) -> Option<&str> {
        self.target_model.as_deref()
    }

    /// Moves the claim from an endpoint that has failed to the decision's next one. False if there is none.
    pub fn advance(&mut self, outcome: &'static str) -> bool {
        self.move_on(outcome, Outcome::Failed)
    }

    /// Moves the claim from an endpoint that does not have the model, as the client calls it, to the decision's next one of
    /// which that is not known. False if there is none. It is no failure of the endpoint, and is remembered for half a minute.
    pub fn lacks_model(&mut self, asked: &str) -> bool {
        let (model, now) = (self.target_model.as_deref().unwrap_or(asked), monotonic());
        let absences = self.pool.absences();
        absences.note(Feature::model(model), self.claim.endpoint.slot(), now);
        let absent = absences.of(Some(model), None, now);
        self.others.retain(|other| absent.binary_search(&other.slot()).is_err());
        self.move_on("model_not_found", Outcome::Unknown)
    }

    /// Moves the claim from an endpoint that does not know the operation to the decision's next one. False if there is none.
    /// Should another serve it, that is remembered for half a minute; else it may be the request that is wrong.
    pub fn lacks_operation(&mut self, operation: Operation) -> bool {
        let slot = self.claim.endpoint.slot();
        self.lacking.push((operation, slot));
        self.move_on("operation_not_found", Outcome::Unknown)
    }

    /// It was served: what others did not have is there.
    fn blame_lacking(&mut self) {
        for (operation, slot) in self.lacking.drain(..) {
            self.pool.absences().note(Feature::Operation(operation), slot, monotonic());
        }
    }

    fn move_on(&mut self, did: &'static str, outcome: Outcome) -> bool {
        if self.others.is_empty() {
            return false;
        }
        self.claim.advance(self.others.remove(0), outcome);
        self.note(|record| (record.first_token, record.last_token) = (None, None));
        self.pool.metrics().retry(&self.pool.key().label(), did);
        self.note_endpoint();
        true
    }

    fn note_endpoint(&mut self) {
        let spec = &self.claim.endpoint.spec;
        let Some(record) = self.record.get() else { return };
        record.upstream_host = Some(spec.id.as_str().to_owned());
        record.upstream_cluster = Some(self.pool.cluster(spec.port));
        record.attempts += 1;
    }

    /// Changes the record.
    pub fn note(&mut self, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(record) = self.record.get() {
            change(record);
        }
    }

    /// Tokens came, at this instant: the first of an answer, or more.
    pub fn tokens(&mut self, now: Instant) {
        let Some(record) = self.record.get() else { return };
        record.first_token.get_or_insert(now);
        record.last_token = Some(now);
        // The first piece of a whole answer comes with its last token and says nothing of the first.
        if record.stream {
            self.claim.tokens();
        }
        self.blame_lacking();
    }

    /// The endpoint has told its load with the head of its answer, which has only just come.
    pub fn reported(&self, load: LoadReport) {
        let LoadReport { waiting, running, kv_usage } = load;
        self.claim.reported(Report { waiting, running, kv_usage });
    }

    /// The decision, with each candidate's costs, if the record was to [explain](RequestRecord::explain) it. It can be
    /// taken once.
    pub fn take_decision(&mut self) -> Option<Arc<DecisionRecord>> {
        self.record.get()?.decision.take()
    }

    /// The endpoint has counted the tokens.
    pub fn usage(&mut self, usage: Usage) {
        let Some(record) = self.record.get() else { return };
        record.usage = usage;
        self.claim.ending.prompt_tokens = usage.prompt_tokens;
        self.claim.ending.output_tokens = usage.completion_tokens;
    }

    /// The endpoint could not be reached, broke off, said that it cannot serve, or said nothing in time. Enough of these in
    /// a row take it out; a client's mistake or departure is none.
    pub fn failed(&mut self) {
        self.claim.ending.outcome = Outcome::Failed;
    }

    /// Gives the claim back and the record on, for the gateway's own answer.
    pub fn into_record(self) -> OpenRecord {
        self.record
    }

    /// Says how the request ended. The last word counts; without one, the client has left.
    pub fn finish(&mut self, finish: Finish) {
        self.claim.ending.complete = matches!(finish, Finish::Complete(_));
        let record = self.record.get();
        let status = record.as_ref().map_or(0, |record| record.response_code);
        let empty = record.is_some_and(|record| record.stream && record.first_token.is_none());
        match finish {
            // That it cannot serve has been said before.
            Finish::Complete(_)
                if status >= 400 && self.claim.ending.outcome == Outcome::Failed => {}
            Finish::Complete(_) => {
                self.claim.ending.outcome = outcome(status, empty);
                if self.claim.ending.outcome == Outcome::Served {
                    self.blame_lacking();
                }
            }
            Finish::EndpointGone | Finish::IdleTimeout => self.failed(),
            Finish::Refused(_) | Finish::ClientGone | Finish::RouteTimeout | Finish::Draining => {}
        }
        self.note(|record| record.finish = Some(finish));
    }
}

/// What an answer that is whole says of its endpoint.
fn outcome(status: u16, empty: bool) -> Outcome {
    match status {
        ..400 if !empty => Outcome::Served,
        // It shows that the endpoint is there, but not that it can serve.
        ..400 | 401 | 403 | 429 | 500.. => Outcome::Refused,
        // The request was wrong, or asks for what is not there.
        400..500 => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests;
