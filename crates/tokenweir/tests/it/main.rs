//! The binary as scripts use it, where no server is needed.

mod compare;
