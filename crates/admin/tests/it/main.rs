//! The three servers over loopback sockets.

mod dashboard;
mod limits;
mod setting;
mod views;
