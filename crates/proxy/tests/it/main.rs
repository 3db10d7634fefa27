//! The proxy over real sockets on loopback, in front of simulated and of misbehaving endpoints.

mod bytes;
mod drain;
mod failover;
mod fake;
mod framing;
mod headers;
mod http2;
mod leaving;
mod malformed;
mod midstream;
mod pressure;
mod refusals;
mod setting;
mod tokens;
mod wire;
