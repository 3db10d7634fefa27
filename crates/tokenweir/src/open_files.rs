//! The system's limit of open files, and what follows from it.

use proxy::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files for all but clients and their endpoints: logs, ports, scrapes, the runtime.
const OWN_FILES: u64 = 128;

/// Raises the limit as far as the system lets everybody, and lowers the number of client connections
/// to what it has room for, should that be less: each needs a file for itself and one for its
/// endpoint. Whoever asked for more is warned; that the default gives way is no mistake of anybody's.
pub(crate) fn fit(limits: &mut Limits) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files could not be raised");
            current
        }
    };
    // Without a limit there is nothing to fit.
    let Some(files) = files else { return };
    let room = files.saturating_sub(OWN_FILES.min(files / 2)) / 2;
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    let wanted = limits.connections_max;
    if room >= wanted {
        return;
    }
    limits.connections_max = room;
    if wanted == Limits::default().connections_max {
        tracing::info!(
            files,
            connections = room,
            "open files limit the client connections; raise that limit (ulimit -Hn) for more"
        );
    } else {
        tracing::warn!(
            files,
            wanted,
            connections = room,
            "fewer client connections than limits.connections asks for; raise the limit of open files (ulimit -Hn)"
        );
    }
}
