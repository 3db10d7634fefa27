//! The three servers over loopback sockets.

mod limits;
mod setting;
mod views;
