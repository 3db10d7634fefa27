//! The commands, one file each.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod crds;
pub(crate) mod demo;
pub(crate) mod get;
pub(crate) mod reference;
pub(crate) mod serve;
pub(crate) mod sim;
pub(crate) mod top;
