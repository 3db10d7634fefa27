//! An endpoint as the picker remembers it: where it is, and what this gateway has on it.

use std::sync::Arc;

use parking_lot::Mutex;
use scheduling::{Ending, Ledger, Outcome, Report, ScrapeMark, Slot, Trouble};

use crate::{EndpointSpec, monotonic, waiting::Lobby};

/// What the gateway has on all endpoints. One lock for all of them: a decision looks at every candidate and charges one
/// before the next decision may look.
pub(crate) type SharedLedger = Arc<Mutex<Ledger>>;

/// One endpoint, shared by every pool it is in and every request it answers. It outlives snapshots.
#[derive(Debug)]
pub struct Endpoint {
    pub spec: EndpointSpec,
    slot: Slot,
    ledger: SharedLedger,
    lobby: Arc<Lobby>,
}

impl Endpoint {
    pub(crate) fn new(spec: EndpointSpec, ledger: SharedLedger, lobby: Arc<Lobby>) -> Self {
        let slot = ledger.lock().add(&spec.id);
        Self { spec, slot, ledger, lobby }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// Requests of this gateway it has not finished.
    pub fn in_flight(&self) -> u32 {
        self.ledger.lock().in_flight(self.slot)
    }

    /// Of these, the ones that the last scrape cannot have seen.
    pub fn sent_since_scrape(&self) -> u32 {
        self.ledger.lock().sent_since_scrape(self.slot)
    }

    /// Whether a request that is sent there now is to ask for its load. If so, it counts as asked: telling costs the
    /// endpoint something, so not every request does.
    pub fn asks_report(&self) -> bool {
        self.ledger.lock().asks_report(self.slot, monotonic())
    }

    /// To be taken just before a scrape is sent: what of this gateway's load the scrape can have seen.
    pub fn mark(&self) -> ScrapeMark {
        self.ledger.lock().mark(self.slot)
    }

    /// Prompt tokens of this gateway's requests that have no first token yet and are not cached, estimated from their
    /// length. Where an answer is not streamed, until its prompt must have been computed.
    pub fn prefill_tokens_pending(&self) -> f64 {
        self.ledger.lock().prefill_tokens_pending(self.slot)
    }

    /// Why it gets no requests though its health check succeeds, if so.
    pub fn trouble(&self) -> Option<Trouble> {
        self.ledger.lock().trouble(self.slot)
    }

    /// Does something to its account, and logs if that takes it out or brings it back.
    pub(crate) fn watched<T>(&self, change: impl FnOnce(&mut Ledger, Slot) -> T) -> T {
        let mut ledger = self.ledger.lock();
        let before = ledger.trouble(self.slot);
        let result = change(&mut ledger, self.slot);
        let after = ledger.trouble(self.slot);
        drop(ledger);
        if before != after {
            self.log(before, after);
        }
        result
    }

    #[cold]
    fn log(&self, before: Option<Trouble>, after: Option<Trouble>) {
        let endpoint = &self.spec.id;
        match (before, after) {
            (_, Some(Trouble::Ejected)) => {
                // Who is chosen all the same is known with each pick only.
                tracing::warn!(
                    %endpoint,
                    "endpoint is ejected: it failed several times in a row; \
                     it still gets requests while more of its pool are out than may be"
                );
            }
            (_, Some(Trouble::Hung)) => {
                tracing::warn!(%endpoint, "endpoint hangs: it has requests and no counter moves");
            }
            (Some(Trouble::Ejected), None) => tracing::info!(%endpoint, "endpoint is readmitted"),
            (Some(Trouble::Hung), None) => tracing::info!(%endpoint, "endpoint moves again"),
            (None, None) => {}
        }
    }

    /// The time to first token to expect: the mean of the latest ones of streams; `None` before the first.
    pub fn predicted_ttft_seconds(&self) -> Option<f64> {
        self.ledger.lock().predicted_ttft_seconds(self.slot)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.ledger.lock().release(self.slot);
    }
}

/// One request's charge on one endpoint, from the pick until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Absent only while it moves. Boxed: what holds it is handed on many times.
    charge: Option<Box<scheduling::Claim>>,
    pub(crate) ending: Ending,
}

impl Claim {
    pub(crate) fn new(endpoint: Arc<Endpoint>, charge: scheduling::Claim) -> Self {
        Self { endpoint, charge: Some(Box::new(charge)), ending: Ending::default() }
    }

    /// Takes the charge to another endpoint, from one where this became of the request.
    pub(crate) fn advance(&mut self, to: Arc<Endpoint>, outcome: Outcome) {
        if let Some(charge) = self.charge.take() {
            let slot = to.slot;
            let moved = self
                .endpoint
                .watched(|ledger, _| ledger.advance(*charge, slot, outcome, monotonic()));
            self.charge = Some(Box::new(moved));
            self.endpoint.lobby.release();
        }
        self.endpoint = to;
        self.ending = Ending::default();
    }

    /// The endpoint has told its load along with its answer.
    pub(crate) fn reported(&self, report: Report) {
        if let Some(charge) = &self.charge {
            self.endpoint.ledger.lock().reported(charge, report, monotonic());
            self.endpoint.lobby.release();
        }
    }

    /// Tokens of a stream have come.
    pub(crate) fn tokens(&mut self) {
        if let Some(charge) = &mut self.charge {
            let first = !charge.has_begun();
            self.endpoint.watched(|ledger, _| ledger.tokens(charge, 1, monotonic()));
            if first {
                // Its prompt is not in the way of others any more.
                self.endpoint.lobby.release();
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            let ending = self.ending;
            self.endpoint.watched(|ledger, _| ledger.end(*charge, ending, monotonic()));
            self.endpoint.lobby.release();
        }
    }
}

#[cfg(test)]
mod tests;
