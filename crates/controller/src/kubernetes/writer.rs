//! Writes statuses while this process has the lease.
//!
//! Nothing is queued: what has to be written is whatever differs between the newest fold and the
//! API server, found anew each time, so there is never more of it than there are objects.
//!
//! Without the lease it is only remembered which statuses say what would be said here: whoever has
//! the lease next knows from that what to take back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    backoff::{Backoff, RetryAfter},
    claims::{Domain, Gateways},
    entry::Source,
    follower::told,
    patch::{Written, patch, references},
    store::{Standing, Store},
    troubles::Reason,
};
use crate::{
    object::{Kind, Path},
    status::{ObjectStatus, StatusShape},
};

/// Name under which the API server books what we write.
const FIELD_MANAGER: &str = "tokenweir";
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often a write is tried again at once, when another was faster.
const CONFLICTS_MAX: u32 = 3;
/// Least time between two writes to one object.
const GAP: Duration = Duration::from_millis(100);
/// The same when somebody undoes what was written; doubled each time.
const UNDONE_GAP: Duration = Duration::from_secs(1);
const UNDONE_GAP_MAX: Duration = Duration::from_mins(2);
/// How often an object may be missing until its kind is taken to have no `/status`.
const MISSING_MAX: u32 = 3;
/// How long a write that was refused is not tried again, unless something changes.
const REFUSED: Duration = Duration::from_mins(1);

pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) store: Arc<Store>,
    pub(super) retry_after: RetryAfter,
    /// What the newest fold says.
    pub(super) wanted: watch::Receiver<Arc<Vec<ObjectStatus>>>,
    pub(super) held: watch::Receiver<bool>,
    /// The only namespace that is followed, if not all.
    pub(super) namespace: Option<String>,
}

type Key = (Kind, &'static str, Path);

/// What is remembered of one object.
struct Memory {
    /// Entries that this process or another of ours has put there.
    written: Written,
    /// What the object's status said last of what we had to say, while the object was ours.
    said: Option<ObjectStatus>,
    /// The object as it was when it was last read or written here, if that is newer than what the
    /// watch has told: known by the version the watch had told then.
    newer: Option<(String, Standing)>,
    /// The version the watch had told when this was all said already. It has to be found out once, not with every Pod.
    agreed: Option<(String, ObjectStatus)>,
    last_patch: Option<Value>,
    /// Writes in a row that found nothing to write to.
    missing: u32,
    gap: Duration,
    not_before: Instant,
    backoff: Backoff,
}

/// What came of a write.
enum Outcome {
    Written,
    /// Not now: the API server does not answer, or another process has the lease.
    Later,
    Refused,
}

impl Writer {
    /// Writes whatever has to be. Ends when folds do; dropping it between two writes loses nothing.
    pub(super) async fn write(mut self) {
        let mut memories: BTreeMap<Key, Memory> = BTreeMap::new();
        let mut statuses = self.store.statuses();
        loop {
            let next = self.pass(&mut memories).await;
            let far = Instant::now() + REFUSED;
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                changed = self.held.changed() => if changed.is_err() { return },
                changed = statuses.changed() => if changed.is_err() { return },
                () = sleep_until(next.unwrap_or(far)) => {}
            }
        }
    }

    /// Writes what may be written now; when to look again for what may not.
    async fn pass(&mut self, memories: &mut BTreeMap<Key, Memory>) -> Option<Instant> {
        let holds = *self.held.borrow_and_update();
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        let gateways = Gateways::served(&wanted);
        let domain = Domain { gateways, namespace: self.namespace.clone() };
        let mut next: Option<Instant> = None;
        let mut keys = BTreeSet::new();
        for status in wanted.iter().filter(|status| !status.foreign || is_shared(status.kind)) {
            let path = Path::new(Arc::clone(&status.namespace), Arc::clone(&status.name));
            let key = (status.kind, status.group, path);
            keys.insert(key.clone());
            let source = (status.kind, status.group);
            let Some(version) = self.store.version(source, &key.2) else { continue };
            let memory = memories.entry(key.clone()).or_insert_with(|| self.memory());
            if memory.agreed.as_ref().is_some_and(|(at, said)| *at == version && said == status) {
                continue;
            }
            let Some(standing) = self.store.standing(source, &key.2) else { continue };
            let standing = memory.newest(standing);
            let outdated = standing.source.version != status.version
                || standing.generation != status.generation;
            if outdated {
                // The fold that knows of it is about to come.
                continue;
            }
            let Some(change) = memory.change(&standing, status, &domain) else {
                memory.agree(version, status);
                self.store.status_settled(source, &key.2);
                continue;
            };
            if !holds {
                continue;
            }
            let now = Instant::now();
            if memory.not_before <= now {
                let outcome = self.write_one(status, standing, change, memory, &domain).await;
                memory.not_before = Instant::now()
                    + match outcome {
                        Outcome::Written => memory.gap,
                        Outcome::Later => memory.backoff.wait(),
                        Outcome::Refused => REFUSED,
                    };
            }
            next = Some(next.map_or(memory.not_before, |next| next.min(memory.not_before)));
            if !*self.held.borrow() {
                break;
            }
        }
        let gone = |key: &Key| !keys.contains(key);
        for (kind, group, path) in memories.keys().filter(|key| gone(key)) {
            self.store.status_settled((*kind, group), path);
        }
        memories.retain(|key, _| !gone(key));
        next
    }

    fn memory(&self) -> Memory {
        Memory {
            written: Written::new(),
            said: None,
            newer: None,
            agreed: None,
            last_patch: None,
            missing: 0,
            gap: GAP,
            not_before: Instant::now(),
            backoff: Backoff::new(self.retry_after.clone()),
        }
    }

    /// Read, replace our own, write with the version that was read; again when another was faster.
    async fn write_one(
        &self,
        wanted: &ObjectStatus,
        mut standing: Standing,
        mut change: Value,
        memory: &mut Memory,
        domain: &Domain,
    ) -> Outcome {
        let path = Path::new(Arc::clone(&wanted.namespace), Arc::clone(&wanted.name));
        let source = (wanted.kind, wanted.group);
        let told_version = self.store.version(source, &path).unwrap_or_default();
        let api = self.api(&standing, wanted);
        for _ in 0..=CONFLICTS_MAX {
            let body = json!({
                "metadata": { "resourceVersion": standing.resource_version },
                "status": change,
            });
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
            let (name, patch_of) = (&*wanted.name, Patch::Merge(&body));
            let written = timeout(ANSWER_MAX, api.patch_status(name, &params, &patch_of)).await;
            let error = match written {
                Ok(Ok(object)) => {
                    self.store.status_written(source, &path);
                    memory.wrote(wanted, change, told_version, standing.with(&object));
                    return Outcome::Written;
                }
                Ok(Err(error)) => error,
                Err(_) => return self.unanswered(),
            };
            match &error {
                kube::Error::Api(status) if status.code == 409 => {}
                // Deleted, most likely, and the watch is about to say so.
                kube::Error::Api(status) if status.code == 404 && memory.missing < MISSING_MAX => {
                    memory.missing += 1;
                    return Outcome::Later;
                }
                error => return self.failed(standing.source, &path, error),
            }
            let read = match timeout(ANSWER_MAX, api.get_opt(name)).await {
                Ok(Ok(Some(object))) => object,
                Ok(Ok(None)) => return Outcome::Later,
                Ok(Err(error)) => return self.failed(standing.source, &path, &error),
                Err(_) => return self.unanswered(),
            };
            standing = standing.with(&read);
            memory.newer = Some((told_version.clone(), standing.clone()));
            if standing.generation != wanted.generation {
                return Outcome::Later;
            }
            match memory.change(&standing, wanted, domain) {
                Some(again) => change = again,
                None => return Outcome::Written,
            }
        }
        Outcome::Later
    }

    fn api(&self, standing: &Standing, wanted: &ObjectStatus) -> Api<DynamicObject> {
        let resource = standing.source.resource();
        match &*wanted.namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    fn unanswered(&self) -> Outcome {
        self.store.server_trouble("no answer to the writing of a status");
        Outcome::Later
    }

    fn failed(&self, source: Source, path: &Path, error: &kube::Error) -> Outcome {
        let kube::Error::Api(status) = error else {
            self.store.server_trouble(&told(error));
            return Outcome::Later;
        };
        self.store.server_well();
        self.store.status_trouble(source, path, Reason::Answer(status.code), &told(error));
        let refused = (400..500).contains(&status.code) && status.code != 429;
        if refused { Outcome::Refused } else { Outcome::Later }
    }
}

impl Memory {
    /// What has to change in the object's status, if anything and if that is for us to say.
    fn change(&self, standing: &Standing, wanted: &ObjectStatus, domain: &Domain) -> Option<Value> {
        let change = || patch(&standing.status, wanted, &self.written, domain, &now());
        let by_entries = matches!(wanted.shape, StatusShape::RouteParents(_));
        if !wanted.foreign || by_entries || self.is_left_over(standing, wanted, domain) {
            change()
        } else {
            None
        }
    }

    /// Whether conditions that are nobody's by name are ours, on an object that is not any more:
    /// they say what was said last, or speak for Gateways of which there are none.
    fn is_left_over(&self, standing: &Standing, wanted: &ObjectStatus, domain: &Domain) -> bool {
        let still = |said: &ObjectStatus| {
            patch(&standing.status, said, &self.written, domain, "").is_none()
        };
        if let Some(said) = &self.said {
            return still(said);
        }
        let nowhere =
            wanted.condition("Accepted").is_some_and(|now| now.reason == "GatewayNotFound");
        nowhere && domain.namespace.is_none() && is_in_our_words(&standing.status)
    }

    /// All is said that has to be.
    fn agree(&mut self, version: String, status: &ObjectStatus) {
        self.written = references(status);
        if is_shared(status.kind) && !status.foreign {
            self.said = Some(status.clone());
        }
        self.agreed = Some((version, status.clone()));
    }

    /// The newest of what the watch has told and what was read or written here.
    fn newest(&mut self, told: Standing) -> Standing {
        match &self.newer {
            Some((version, newer)) if *version == told.resource_version => newer.clone(),
            _ => {
                self.newer = None;
                told
            }
        }
    }

    fn wrote(
        &mut self,
        wanted: &ObjectStatus,
        change: Value,
        told_version: String,
        standing: Standing,
    ) {
        let again = self
            .last_patch
            .as_ref()
            .is_some_and(|last| without_times(last) == without_times(&change));
        self.gap = if again { (self.gap * 2).clamp(UNDONE_GAP, UNDONE_GAP_MAX) } else { GAP };
        self.last_patch = Some(change);
        self.written = references(wanted);
        self.said = is_shared(wanted.kind).then(|| wanted.clone());
        self.newer = Some((told_version, standing));
        self.agreed = None;
        self.missing = 0;
        self.backoff.reset();
    }
}

impl Standing {
    /// The same object as it is now.
    fn with(&self, object: &DynamicObject) -> Self {
        let meta = &object.metadata;
        Self {
            source: self.source,
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation.and_then(|number| number.try_into().ok()).unwrap_or(1),
            status: object.data.get("status").cloned().unwrap_or_default(),
        }
    }
}

/// Whether some objects of the kind are ours and some are other controllers', by turns even.
fn is_shared(kind: Kind) -> bool {
    matches!(kind, Kind::Gateway | Kind::HTTPRoute | Kind::VirtualService)
}

/// Whether it reads as what is said here of a route that is in force: no other controller of
/// Istio's kinds has these two conditions.
fn is_in_our_words(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let has = |name: &str| conditions.iter().find(|condition| condition["type"] == name);
    let accepted = has("Accepted").is_some_and(|one| one["reason"] == "Accepted");
    accepted && has("ResolvedRefs").is_some()
}

/// What was said, whenever it was.
fn without_times(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| *key != "lastTransitionTime")
            .map(|(key, value)| (key.clone(), without_times(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

/// Now, as conditions have it.
fn now() -> String {
    Timestamp::try_from(picker::wall_clock())
        .map_or_else(|_| String::new(), |at| format!("{at:.0}"))
}

#[cfg(test)]
mod tests;
