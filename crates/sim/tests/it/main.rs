//! The simulated server over real sockets on loopback.

mod behaviour;
mod driver;
mod faults;
mod golden;
mod metrics;
mod wire;
