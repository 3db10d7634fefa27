//! The proxy over real sockets on loopback, in front of simulated and of misbehaving endpoints.

mod absent;
mod bytes;
mod chaos;
mod conformance;
mod drain;
mod ejection;
mod explain;
mod failover;
mod fake;
mod frames;
mod framing;
mod headers;
mod http2;
mod leaving;
mod limits;
mod load;
mod malformed;
mod midstream;
mod policy;
mod pressure;
mod refusals;
mod setting;
mod smuggling;
mod tokens;
mod waiting;
mod wire;
