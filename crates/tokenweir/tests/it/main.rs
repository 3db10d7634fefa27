//! The binary as scripts use it where no server is needed, and as a gateway in trouble.

mod clock;
mod compare;
mod crowd;
mod endings;
mod gateway;
mod panics;
mod resets;
mod trouble;
