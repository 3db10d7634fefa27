//! What is wrong, each reason told once until all is well again.
//!
//! Troubles are kept apart by what they are about, so that one that is over says nothing of the
//! others, and reasons that take turns are not told again and again.

use std::collections::{BTreeMap, BTreeSet};

use super::store::SourceKey;
use crate::object::Path;

/// Why something cannot be had.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reason {
    /// The API server's answer, by its code: its text may differ from one time to the next.
    Answer(u16),
    Unreadable,
    TooMany,
}

/// What is wrong with one thing.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    told: BTreeSet<Reason>,
    last: Option<String>,
}

impl Troubles {
    /// Whether this has to be told.
    pub(super) fn add(&mut self, reason: Reason, message: &str) -> bool {
        self.last = Some(message.to_owned());
        self.told.insert(reason)
    }

    /// All is well; whether that has to be told.
    pub(super) fn clear(&mut self) -> bool {
        self.last = None;
        !std::mem::take(&mut self.told).is_empty()
    }

    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }
}

/// Statuses whose writing failed, by kind.
#[derive(Debug, Default)]
pub(super) struct Unwritten(BTreeMap<SourceKey, OfKind>);

#[derive(Debug, Default)]
struct OfKind {
    /// Those that wait to be written.
    objects: BTreeSet<Path>,
    troubles: Troubles,
    /// Whether the last write succeeded.
    works: bool,
}

impl Unwritten {
    /// A write failed; whether that has to be told.
    pub(super) fn add(&mut self, key: SourceKey, path: Path, reason: Reason, why: &str) -> bool {
        let of_kind = self.0.entry(key).or_default();
        of_kind.objects.insert(path);
        of_kind.works = false;
        of_kind.troubles.add(reason, why)
    }

    /// A status was written; whether it has to be told that all of its kind can be.
    pub(super) fn written(&mut self, key: SourceKey, path: &Path) -> bool {
        let Some(of_kind) = self.0.get_mut(&key) else { return false };
        of_kind.works = true;
        of_kind.settled(path)
    }

    /// There is nothing to write any more, which by itself does not mean that it could be; whether
    /// it has to be told that all others of its kind can.
    pub(super) fn forget(&mut self, key: SourceKey, path: &Path) -> bool {
        self.0.get_mut(&key).is_some_and(|of_kind| of_kind.settled(path))
    }
}

impl OfKind {
    /// That object waits no longer; whether none does and writes succeed.
    fn settled(&mut self, path: &Path) -> bool {
        self.objects.remove(path);
        self.works && self.objects.is_empty() && self.troubles.clear()
    }
}

#[cfg(test)]
mod tests;
