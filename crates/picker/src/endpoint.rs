//! An endpoint as the picker remembers it: where it is, and what this gateway has on it.

use std::sync::Arc;

use parking_lot::Mutex;
use scheduling::{Ending, Ledger, ScrapeMark, Slot};

use crate::{EndpointSpec, monotonic};

/// What the gateway has on all endpoints. One lock for all of them: a decision looks at every candidate and charges one
/// before the next decision may look.
pub(crate) type SharedLedger = Arc<Mutex<Ledger>>;

/// One endpoint, shared by every pool it is in and every request it answers. It outlives snapshots.
#[derive(Debug)]
pub struct Endpoint {
    pub spec: EndpointSpec,
    slot: Slot,
    ledger: SharedLedger,
}

impl Endpoint {
    pub(crate) fn new(spec: EndpointSpec, ledger: SharedLedger) -> Self {
        let slot = ledger.lock().add(&spec.id);
        Self { spec, slot, ledger }
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

    /// To be taken just before a scrape is sent: what of this gateway's load the scrape can have seen.
    pub fn mark(&self) -> ScrapeMark {
        self.ledger.lock().mark(self.slot)
    }

    /// Prompt tokens of this gateway's requests that have no first token yet and are not cached, estimated from their
    /// length. Answers that are not streamed show their first token with their last.
    pub fn prefill_tokens_pending(&self) -> f64 {
        self.ledger.lock().prefill_tokens_pending(self.slot)
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
    /// Absent only while it moves.
    charge: Option<scheduling::Claim>,
    pub(crate) ending: Ending,
}

impl Claim {
    pub(crate) fn new(endpoint: Arc<Endpoint>, charge: scheduling::Claim) -> Self {
        Self { endpoint, charge: Some(charge), ending: Ending::default() }
    }

    /// Takes the charge to another endpoint.
    pub(crate) fn advance(&mut self, to: Arc<Endpoint>) {
        if let Some(charge) = self.charge.take() {
            self.charge = Some(to.ledger.lock().advance(charge, to.slot, monotonic()));
        }
        self.endpoint = to;
        self.ending = Ending::default();
    }

    /// Tokens of a stream have come.
    pub(crate) fn tokens(&mut self) {
        if let Some(charge) = &mut self.charge {
            self.endpoint.ledger.lock().tokens(charge, 1, monotonic());
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            self.endpoint.ledger.lock().end(charge, self.ending);
        }
    }
}
