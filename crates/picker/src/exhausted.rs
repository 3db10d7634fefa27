//! What this process lacks, which is nobody else's fault.

use std::io::{Error, ErrorKind};

/// Open files, of the system and of this process; memory for a socket.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

/// Whether the system refused a connection for want of files, memory or local ports. It says nothing
/// of the endpoint that was to be connected to.
pub fn is_exhausted(error: &Error) -> bool {
    let lacking = [ErrorKind::OutOfMemory, ErrorKind::AddrNotAvailable, ErrorKind::AddrInUse];
    lacking.contains(&error.kind())
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}
