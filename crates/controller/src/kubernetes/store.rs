//! Everything the API server has told so far, and how well it can be heard.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{
    entry::{Entries, Entry, Read, Source, Unreadable},
    selectors::Selectors,
    troubles::{Reason, Troubles, Unwritten},
};
use crate::{
    object::{Kind, Object, Path},
    problem::Problem,
};

/// How many objects of one kind are kept; the memory of 100,000 Pods is about 100 MB.
pub(super) const OBJECTS_MAX: usize = 100_000;

/// A kind of one API group, whatever its version.
pub(super) type SourceKey = (Kind, &'static str);

/// What is known, shared by those who watch, fold and write statuses.
#[derive(Debug, Default)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    /// Objects changed.
    changed: Notify,
    /// Counts statuses that changed in the API server while their objects did not.
    statuses: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    stage: Stage,
    holds_lease: bool,
    sources: BTreeMap<SourceKey, Known>,
    /// Which Pods can be selected, as of the latest fold; nothing once that may have changed.
    selectors: Option<Selectors>,
    /// Why the API server cannot be heard at all.
    server_trouble: Option<String>,
    /// Which kinds are served.
    discovery: Troubles,
    lease: Troubles,
    unwritten: Unwritten,
}

/// How far the start has come.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    /// Nobody has said yet which kinds there are.
    #[default]
    Undiscovered,
    /// The first lists are awaited.
    Discovered,
    /// Every first list was here. Kinds that are added later hold nothing up.
    Complete,
    /// What the objects come to is in force.
    Folded,
}

/// What is known of one source.
#[derive(Debug)]
struct Known {
    source: Source,
    /// The first list is here, or was refused.
    answered: bool,
    entries: Entries,
    troubles: Troubles,
}

/// What the objects are at one moment.
#[derive(Debug, Default)]
pub struct Watched {
    pub objects: Vec<Arc<Object>>,
    /// Found while the objects were read.
    pub problems: Vec<Problem>,
    /// Objects that cannot be used.
    pub(super) unreadable: Vec<Unreadable>,
}

/// An object's status as it stands in the API server.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) source: Source,
    pub(super) resource_version: String,
    pub(super) generation: u64,
    pub(super) status: Value,
}

impl Store {
    /// Resolves when objects have changed since the last time.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn statuses(&self) -> watch::Receiver<u64> {
        self.statuses.subscribe()
    }

    /// Takes over which sources there are. Objects of sources that are gone go with them; those of
    /// a source that is served in another version now stay until its list is here.
    pub(super) fn discovered(&self, sources: &[Source]) {
        let mut inner = self.inner.lock();
        let first = inner.stage == Stage::Undiscovered;
        inner.stage = inner.stage.max(Stage::Discovered);
        let before = inner.sources.len();
        inner.sources.retain(|key, known| {
            let stays = sources.iter().any(|source| (source.kind, source.group) == *key);
            if !stays {
                tracing::info!(resource = known.source.name(), "no longer served");
            }
            stays
        });
        let lost = inner.sources.len() < before;
        if lost {
            inner.selectors = None;
        }
        for source in sources {
            let known = inner.sources.entry((source.kind, source.group)).or_insert_with(|| Known {
                source: *source,
                answered: false,
                entries: Entries::new(),
                troubles: Troubles::default(),
            });
            known.source = *source;
        }
        drop(inner);
        if first || lost {
            self.changed.notify_one();
        }
    }

    /// Everything there is of a source; what is not among it is gone.
    pub(super) fn replace(&self, source: Source, mut entries: Entries) {
        let mut inner = self.inner.lock();
        let Some(known) = inner.sources.get_mut(&(source.kind, source.group)) else { return };
        let same = known.answered
            && known.entries.len() == entries.len()
            && known.entries.iter().zip(&entries).all(|((path, entry), (other_path, other))| {
                path == other_path && entry.means_the_same(other)
            });
        if same {
            // Keeps what others hold as well.
            for (entry, kept) in entries.values_mut().zip(std::mem::take(&mut known.entries)) {
                (entry.read, entry.counts) = (kept.1.read, kept.1.counts);
            }
        }
        known.entries = entries;
        known.answered = true;
        if !same {
            inner.selectors = None;
        }
        drop(inner);
        self.tell(!same);
    }

    pub(super) fn apply(&self, source: Source, path: Path, mut entry: Entry) {
        let mut inner = self.inner.lock();
        let Inner { sources, selectors, .. } = &mut *inner;
        let Some(known) = sources.get_mut(&(source.kind, source.group)) else { return };
        let full = known.entries.len() >= OBJECTS_MAX;
        entry.counts = counts(selectors.as_ref(), &entry.read);
        let mut news = entry.counts;
        let same = match known.entries.get_mut(&path) {
            Some(kept) if kept.means_the_same(&entry) => {
                std::mem::swap(&mut entry.read, &mut kept.read);
                *kept = entry;
                true
            }
            Some(kept) => {
                news |= kept.counts;
                *kept = entry;
                false
            }
            None if full => {
                drop(inner);
                let message = format!("more than {OBJECTS_MAX} objects; the rest is left out");
                self.source_trouble(source, Reason::TooMany, &message);
                return;
            }
            None => {
                known.entries.insert(path, entry);
                false
            }
        };
        if !same && is_selecting(source.kind) {
            *selectors = None;
        }
        drop(inner);
        if news {
            self.tell(!same);
        }
    }

    pub(super) fn delete(&self, source: Source, path: &Path) {
        let mut inner = self.inner.lock();
        let known = inner.sources.get_mut(&(source.kind, source.group));
        let gone = known.and_then(|known| known.entries.remove(path));
        if gone.is_some() && is_selecting(source.kind) {
            inner.selectors = None;
        }
        drop(inner);
        if gone.is_some_and(|gone| gone.counts) {
            self.tell(true);
        }
    }

    fn tell(&self, objects: bool) {
        if objects {
            self.changed.notify_one();
        } else {
            self.statuses.send_modify(|count| *count += 1);
        }
    }

    /// Every object that means anything, once the first lists of all sources are here.
    pub(super) fn watched(&self) -> Option<Watched> {
        let mut inner = self.inner.lock();
        let answered = inner.sources.values().all(|known| known.answered);
        if inner.stage == Stage::Discovered && answered {
            inner.stage = Stage::Complete;
        }
        if inner.stage < Stage::Complete {
            return None;
        }
        inner.select();
        let mut watched = Watched::default();
        let entries = inner.sources.values().flat_map(|known| known.entries.values());
        for entry in entries.filter(|entry| entry.counts) {
            watched.problems.extend(entry.problems.iter().cloned());
            match &entry.read {
                Read::Object(object) => watched.objects.push(Arc::clone(object)),
                Read::Unreadable(object) => watched.unreadable.push((**object).clone()),
                Read::Ignored => {}
            }
        }
        Some(watched)
    }

    /// The version of the object that the watch has told last.
    pub(super) fn version(&self, key: SourceKey, path: &Path) -> Option<String> {
        let inner = self.inner.lock();
        Some(inner.sources.get(&key)?.entries.get(path)?.resource_version.clone())
    }

    /// What stands in the object's status now.
    pub(super) fn standing(&self, key: SourceKey, path: &Path) -> Option<Standing> {
        let inner = self.inner.lock();
        let known = inner.sources.get(&key)?;
        let entry = known.entries.get(path)?;
        Some(Standing {
            source: known.source,
            resource_version: entry.resource_version.clone(),
            generation: entry.generation,
            status: entry.status.clone(),
        })
    }

    /// What is not heard yet, and why. `None` once everything has been heard.
    pub(super) fn waiting_for(&self) -> Option<String> {
        let inner = self.inner.lock();
        // Any answer ends it: it is the newest there is to say.
        let server = inner.server_trouble.as_deref();
        let why = |troubles: &Troubles| {
            let trouble = server.or(troubles.last());
            trouble.map_or_else(String::new, |trouble| format!(": {trouble}"))
        };
        if inner.stage == Stage::Undiscovered {
            let why = why(&inner.discovery);
            return Some(format!("waiting for the Kubernetes API server{why}"));
        }
        if inner.stage == Stage::Folded {
            return None;
        }
        let Some(waiting) = inner.sources.values().find(|known| !known.answered) else {
            return Some("the objects are being read".to_owned());
        };
        let (name, why) = (waiting.source.name(), why(&waiting.troubles));
        Some(format!("waiting for the Kubernetes API server's list of {name}{why}"))
    }

    /// The objects were folded and what they come to is in force.
    pub(super) fn folded(&self) {
        self.inner.lock().stage = Stage::Folded;
    }

    pub(super) fn holds_lease(&self) -> bool {
        self.inner.lock().holds_lease
    }

    pub(super) fn set_holds_lease(&self, holds: bool) {
        self.inner.lock().holds_lease = holds;
    }

    /// The API server cannot be heard; told once until it can be heard again.
    pub(super) fn server_trouble(&self, message: &str) {
        let mut inner = self.inner.lock();
        if inner.server_trouble.is_none() {
            tracing::warn!(
                error = message,
                "the Kubernetes API server cannot be heard; what it said last stays in force"
            );
            inner.server_trouble = Some(message.to_owned());
        }
    }

    /// The API server answered.
    pub(super) fn server_well(&self) {
        if self.inner.lock().server_trouble.take().is_some() {
            tracing::info!("the Kubernetes API server is heard again");
        }
    }

    /// The API server does not say which kinds it serves; told once for each reason.
    pub(super) fn discovery_trouble(&self, reason: Reason, message: &str) {
        if self.inner.lock().discovery.add(reason, message) {
            tracing::warn!(
                error = message,
                "the Kubernetes API server does not say which kinds it serves; those that are \
                 known stay"
            );
        }
    }

    pub(super) fn discovery_well(&self) {
        if self.inner.lock().discovery.clear() {
            tracing::info!("the Kubernetes API server says again which kinds it serves");
        }
    }

    /// A kind cannot be watched; told once for each reason.
    pub(super) fn source_trouble(&self, source: Source, reason: Reason, message: &str) {
        let mut inner = self.inner.lock();
        let Some(known) = inner.sources.get_mut(&(source.kind, source.group)) else { return };
        if known.troubles.add(reason, message) {
            let resource = source.name();
            tracing::warn!(resource, error = message, "cannot be watched; what is known stays");
        }
    }

    pub(super) fn source_well(&self, source: Source) {
        let mut inner = self.inner.lock();
        let known = inner.sources.get_mut(&(source.kind, source.group));
        if known.is_some_and(|known| known.troubles.clear()) {
            tracing::info!(resource = source.name(), "is watched again");
        }
    }

    /// A source that is refused is no reason to wait any longer.
    pub(super) fn give_up_waiting(&self, source: Source) {
        let mut inner = self.inner.lock();
        let Some(known) = inner.sources.get_mut(&(source.kind, source.group)) else { return };
        if !known.answered {
            known.answered = true;
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// The lease cannot be asked for; told once for each reason.
    pub(super) fn lease_trouble(&self, lease: &str, reason: Reason, message: &str) {
        if self.inner.lock().lease.add(reason, message) {
            tracing::warn!(
                lease,
                error = message,
                "the lease cannot be had; without it no statuses are written"
            );
        }
    }

    /// It is known who has the lease.
    pub(super) fn lease_well(&self, lease: &str) {
        if self.inner.lock().lease.clear() {
            tracing::info!(lease, "the lease can be had again");
        }
    }

    /// An object's status cannot be written; told once for each kind and reason.
    pub(super) fn status_trouble(&self, source: Source, path: &Path, reason: Reason, why: &str) {
        let key = (source.kind, source.group);
        if self.inner.lock().unwritten.add(key, path.clone(), reason, why) {
            let (resource, object) = (source.name(), path.to_string());
            tracing::warn!(resource, object, error = why, "statuses cannot be written");
        }
    }

    /// An object's status was written.
    pub(super) fn status_written(&self, key: SourceKey, path: &Path) {
        let over = self.inner.lock().unwritten.written(key, path);
        tell_statuses_well(key, over);
    }

    /// Nothing has to be written to that object any more.
    pub(super) fn status_settled(&self, key: SourceKey, path: &Path) {
        let over = self.inner.lock().unwritten.forget(key, path);
        tell_statuses_well(key, over);
    }
}

impl Inner {
    /// Finds out which Pods can be selected, if that may have changed.
    fn select(&mut self) {
        if self.selectors.is_some() {
            return;
        }
        let selecting = self.sources.iter().filter(|((kind, _), _)| is_selecting(*kind));
        let entries = selecting.flat_map(|(_, known)| known.entries.values());
        let objects = entries.filter_map(|entry| match &entry.read {
            Read::Object(object) => Some(&**object),
            _ => None,
        });
        let selectors = Selectors::of(objects);
        let pods = self.sources.iter_mut().filter(|((kind, _), _)| *kind == Kind::Pod);
        for entry in pods.flat_map(|(_, known)| known.entries.values_mut()) {
            entry.counts = counts(Some(&selectors), &entry.read);
        }
        self.selectors = Some(selectors);
    }
}

/// Whether objects of that kind select Pods.
fn is_selecting(kind: Kind) -> bool {
    matches!(kind, Kind::InferencePool | Kind::Service)
}

/// Whether it means anything; as long as that is not known, it may.
fn counts(selectors: Option<&Selectors>, read: &Read) -> bool {
    match (selectors, read) {
        (Some(selectors), Read::Object(object)) if object.kind == Kind::Pod => {
            selectors.select(object)
        }
        _ => true,
    }
}

fn tell_statuses_well((kind, group): SourceKey, over: bool) {
    if over {
        let source = Source { kind, group, version: "" };
        tracing::info!(resource = source.name(), "statuses can be written again");
    }
}

#[cfg(test)]
impl Store {
    /// What was heard of one source, whether or not it means anything.
    pub(super) fn heard(&self, source: Source) -> Vec<Arc<Object>> {
        let inner = self.inner.lock();
        let known = inner.sources.get(&(source.kind, source.group));
        let entries = known.into_iter().flat_map(|known| known.entries.values());
        let objects = entries.filter_map(|entry| match &entry.read {
            Read::Object(object) => Some(Arc::clone(object)),
            _ => None,
        });
        objects.collect()
    }
}

#[cfg(test)]
mod tests;
