//! Learns: asks every endpoint for its health and its metrics, and tells the picker.
//!
//! One task an endpoint, one keep-alive connection a task. Whatever an endpoint does to its metrics
//! page (fail, hang, grow, talk nonsense), what was last read stays and ages; only its health check
//! decides whether it can be used.
//!
//! Deliberately absent: judging what was learned (old readings are `scheduling`'s business), a
//! general Prometheus parser, TLS, redirects, and any retry but the one that a closed idle
//! connection asks for.
//!
//! Modules:
//! - `roster`: [`Datalayer`], one scraper for every endpoint the picker knows
//! - `scraper`: the rounds of one endpoint: health, then metrics
//! - `client`: requests over one connection that is opened anew when it has closed
//! - `connection`: one connection, HTTP/1.1 or HTTP/2, driven by the task that uses it
//! - `failure`: everything that can go wrong in a round
//! - `metrics_text`: what vLLM's metrics page says

mod client;
mod connection;
mod failure;
mod metrics_text;
mod roster;
mod scraper;

pub use metrics_text::{ADAPTERS_MAX, parse_metrics};
pub use roster::{Datalayer, Options};
pub use scraper::METRICS_BYTES_MAX;
