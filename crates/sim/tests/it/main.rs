//! The simulated server over real sockets on loopback.

mod behaviour;
mod faults;
mod golden;
mod metrics;
mod wire;
