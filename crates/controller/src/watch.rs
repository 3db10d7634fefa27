//! Reads files again when they change.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    files,
    manifest::{Contents, Manifests},
};

/// How long files have to stay the same: editors and people write in steps, and a file caught
/// between two of them may be empty.
const QUIET: Duration = Duration::from_millis(100);

/// How many times that is put off for files that never stay the same.
const QUIET_TRIES_MAX: u32 = 10;

/// How often the files are read anyway: not every file system tells of changes.
const POLL: Duration = Duration::from_secs(2);

/// Calls `apply` with every reading that differs from `known` or from the one before, good or
/// broken; each broken state is told once. Never returns.
///
/// Reading blocks the thread for as long as the files take, so it belongs on a runtime that
/// carries no requests. Dropping the future ends the watch; no thread or watch outlives it.
pub async fn watch(paths: Vec<PathBuf>, known: Contents, mut apply: impl FnMut(Manifests) + Send) {
    // One place: that something changed is all there is to know.
    let (tell, mut changes) = mpsc::channel(1);
    let _watcher = watcher(&paths, tell);
    let mut known = known;
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // One change comes seldom alone; those that follow find the place taken or are next.
            Some(()) = changes.recv() => sleep(QUIET).await,
            _ = poll.tick() => {}
        }
        let manifests = files::read(&paths);
        if manifests.contents != known {
            let manifests = settled(&paths, manifests).await;
            if manifests.contents != known {
                known = manifests.contents;
                apply(manifests);
            }
        }
    }
}

/// Reads again until two readings agree.
async fn settled(paths: &[PathBuf], mut manifests: Manifests) -> Manifests {
    for _ in 0..QUIET_TRIES_MAX {
        sleep(QUIET).await;
        let again = files::read(paths);
        let same = again.contents == manifests.contents;
        manifests = again;
        if same {
            break;
        }
    }
    manifests
}

/// Watches the folders rather than the files: an editor replaces a file, and Kubernetes the link
/// to a whole ConfigMap.
fn watcher(paths: &[PathBuf], tell: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event as well; if the place is taken somebody has told already.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            tell.try_send(()).ok();
        }
    };
    let mut watcher = match notify::recommended_watcher(on_event) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "changes are noticed by looking every {POLL:?}");
            return None;
        }
    };
    let folders: BTreeSet<PathBuf> = paths.iter().map(|path| folder(path)).collect();
    for folder in folders {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            let folder = folder.display();
            tracing::warn!(%error, %folder, "changes are noticed by looking every {POLL:?}");
        }
    }
    Some(watcher)
}

fn folder(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
