//! Decides: which endpoint should answer a request, given what is known of each of them.
//!
//! Pure. Time and chance are arguments, so equal inputs give equal decisions and a decision can be
//! replayed. Costs are explained term by term.
//!
//! Deliberately absent: I/O, clocks, randomness of its own, locks, tokio, serde, wire formats.

mod chance;
mod decision;
mod endpoint;
mod policy;
mod schedule;
mod signals;

pub use chance::Chance;
pub use decision::{CHOICES_MAX, Choices, Cost, Decision, Reason, Term};
pub use endpoint::EndpointId;
pub use policy::{Policy, UnknownPolicy};
pub use schedule::{Candidate, Unschedulable, schedule};
pub use signals::{Reading, Signals};
