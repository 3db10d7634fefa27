//! The datalayer against servers on loopback sockets, well-behaved and otherwise.

mod rounds;
mod server;
mod setting;
