//! Decides: which endpoint should answer a request, given what is known of each of them.
//!
//! Pure. Time and chance are arguments, so equal inputs give equal decisions and a decision can be
//! replayed. Costs are explained term by term.
//!
//! Deliberately absent: I/O, clocks, randomness of its own, locks, tokio, serde, wire formats.

mod adapters;
mod admission;
mod breaker;
mod candidate;
mod chance;
mod decision;
mod endpoint;
mod ledger;
mod lengths;
mod mean;
mod outline;
mod policy;
mod prefix;
mod pulse;
mod request;
mod ring;
mod schedule;
mod signals;
mod slow_start;
mod speed;

pub use admission::{AdmissionQueue, Entry, FlowControl, Ticket};
pub use breaker::{Outcome, OutlierDetection};
pub use candidate::{AdapterFit, Candidate, Candidates, KvCapacity, Load, Speed};
pub use chance::Chance;
pub use decision::{CHOICES_MAX, COSTS_MAX, Choices, Cost, Decision, Reason, Term};
pub use endpoint::EndpointId;
pub use ledger::{Claim, Ending, Ledger, ScrapeMark, Slot, Trouble};
pub use outline::{Ask, Outline};
pub use policy::{Policy, UnknownPolicy};
pub use request::{
    Admission, BLOCK_BYTES, BLOCKS_MAX, InferenceRequest, hash_blocks, hash_bytes, hash_name,
    hash_prefix,
};
pub use schedule::{Unschedulable, schedule};
pub use signals::{Reading, Report, Signals};
