//! The binary as scripts use it where no server is needed, and as a gateway in trouble.

mod compare;
mod crowd;
mod endings;
mod gateway;
mod trouble;
