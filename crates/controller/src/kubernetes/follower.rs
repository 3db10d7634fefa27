//! Follows one source: lists it, watches it, and lists again when the watch has lost its place.
//!
//! What was heard stays until something else is heard: an API server that is away, hangs or
//! refuses takes nothing away.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use futures_util::StreamExt;
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    backoff::{Backoff, RetryAfter},
    entry::{Entries, Sent, Source, WatchedPod},
    store::{OBJECTS_MAX, Store},
    troubles::Reason,
};
use crate::object::Kind;

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// After this long the server ends a watch, and we begin another.
const WATCH_SECONDS: u32 = 60;
/// Silence after which a watch is taken for dead: the server should have ended it.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// Longest wait for an answer to begin, and for a page of a list.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A watch that ended sooner is not begun again at once.
const WATCH_MIN: Duration = Duration::from_secs(1);

/// Asks for one source.
#[derive(Clone)]
pub(super) struct Follower {
    pub(super) client: Client,
    pub(super) store: Arc<Store>,
    pub(super) retry_after: RetryAfter,
    /// The only namespace that is followed, if not all.
    pub(super) namespace: Option<String>,
    /// What the selectors of Gateways match.
    pub(super) labels: Arc<BTreeMap<String, String>>,
}

/// Why a list or watch ended.
enum Ended {
    /// The API server knows no such kind any more.
    Gone,
    /// The watch has lost its place; only a list tells where things stand.
    Desynced,
    Failed,
}

impl Follower {
    /// Follows the source until the API server no longer has it. Dropping the future ends the
    /// watch; what was heard stays in the store.
    pub(super) async fn follow(self, source: Source) {
        let resource = source.resource();
        let client = self.client.clone();
        let own = self.namespace.as_deref().filter(|_| !source.kind.is_cluster_scoped());
        if source.kind == Kind::Pod {
            let api = match own {
                Some(namespace) => Api::<WatchedPod>::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            self.follow_api(source, &api).await;
        } else {
            let api = match own {
                Some(namespace) => {
                    Api::<DynamicObject>::namespaced_with(client, namespace, &resource)
                }
                None => Api::all_with(client, &resource),
            };
            self.follow_api(source, &api).await;
        }
    }

    async fn follow_api<K>(&self, source: Source, api: &Api<K>)
    where
        K: Sent + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut backoff = Backoff::new(self.retry_after.clone());
        loop {
            let listed = self.list(source, api).await;
            let ended = match listed {
                Ok(resource_version) => {
                    backoff.reset();
                    self.watch(source, api, resource_version, &mut backoff).await
                }
                Err(ended) => ended,
            };
            match ended {
                Ended::Gone => return,
                Ended::Desynced => {}
                Ended::Failed => backoff.pause().await,
            }
        }
    }

    /// Puts everything there is into the store and returns what version of it that was.
    async fn list<K>(&self, source: Source, api: &Api<K>) -> Result<String, Ended>
    where
        K: Sent + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let mut entries = Entries::new();
        let mut params = ListParams::default().limit(PAGE);
        let (mut left_out, mut restarted) = (false, false);
        loop {
            let page = timeout(ANSWER_MAX, api.list(&params)).await;
            let page = match page.unwrap_or_else(|_| Err(no_answer())) {
                Ok(page) => page,
                // The rest of a list that took too long: all of it at once, as kubectl does.
                Err(kube::Error::Api(status)) if status.code == 410 && !restarted => {
                    restarted = true;
                    entries.clear();
                    params = ListParams::default();
                    continue;
                }
                Err(error) => return Err(self.failed(source, &error)),
            };
            for object in page.items {
                let path = object.path();
                if entries.len() < OBJECTS_MAX {
                    entries.insert(path, object.into_entry(source, &self.labels));
                } else {
                    left_out = true;
                }
            }
            if let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) {
                params = params.continue_token(&token);
                continue;
            }
            self.store.replace(source, entries);
            self.store.server_well();
            if left_out {
                let message = format!("more than {OBJECTS_MAX} objects; the rest is left out");
                self.store.source_trouble(source, Reason::TooMany, &message);
            } else {
                self.store.source_well(source);
            }
            return Ok(page.metadata.resource_version.unwrap_or_default());
        }
    }

    /// Watches from that version on, as often as it takes.
    async fn watch<K>(
        &self,
        source: Source,
        api: &Api<K>,
        mut resource_version: String,
        backoff: &mut Backoff,
    ) -> Ended
    where
        K: Sent + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        // A watch that began well may say only later that something is wrong, each time.
        let mut doubted = false;
        loop {
            let began = tokio::time::Instant::now();
            let stream = timeout(ANSWER_MAX, api.watch(&params, &resource_version)).await;
            let mut stream = match stream.unwrap_or_else(|_| Err(no_answer())) {
                Ok(stream) => stream.boxed(),
                Err(kube::Error::Api(status)) if status.code == 410 => return Ended::Desynced,
                Err(error) => match self.failed(source, &error) {
                    Ended::Failed => {
                        backoff.pause().await;
                        continue;
                    }
                    ended => return ended,
                },
            };
            self.store.server_well();
            if !doubted {
                self.store.source_well(source);
            }
            loop {
                let event = match timeout(SILENCE_MAX, stream.next()).await {
                    Ok(Some(Ok(event))) => event,
                    // The usual end; a server that stops ends its watches like this as well.
                    Ok(None) => break,
                    // Whether something is wrong is seen at the next try.
                    Ok(Some(Err(error))) => {
                        tracing::debug!(%error, resource = source.name(), "watch cut");
                        break;
                    }
                    Err(_) => {
                        self.store.server_trouble("a watch fell silent");
                        break;
                    }
                };
                doubted = matches!(event, WatchEvent::Error(_));
                if !doubted {
                    self.store.source_well(source);
                    backoff.reset();
                }
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        resource_version = version_of(&object, resource_version);
                        self.store.apply(
                            source,
                            object.path(),
                            object.into_entry(source, &self.labels),
                        );
                    }
                    WatchEvent::Deleted(object) => {
                        resource_version = version_of(&object, resource_version);
                        self.store.delete(source, &object.path());
                    }
                    WatchEvent::Bookmark(bookmark) => {
                        resource_version = bookmark.metadata.resource_version;
                    }
                    WatchEvent::Error(status) if status.code == 410 => return Ended::Desynced,
                    WatchEvent::Error(status) => {
                        self.failed(source, &kube::Error::Api(status));
                        backoff.pause().await;
                        break;
                    }
                }
            }
            if began.elapsed() < WATCH_MIN {
                backoff.pause().await;
            }
        }
    }

    /// Tells what is wrong, once.
    fn failed(&self, source: Source, error: &kube::Error) -> Ended {
        match error {
            kube::Error::Api(status) if status.code == 404 => return Ended::Gone,
            // Whatever it says, it is there: this kind's trouble alone.
            kube::Error::Api(status) => {
                self.store.server_well();
                self.store.source_trouble(source, Reason::Answer(status.code), &told(error));
                if matches!(status.code, 401 | 403) {
                    self.store.give_up_waiting(source);
                }
            }
            // A page that does not read: this kind's trouble alone.
            kube::Error::SerdeError(error) => {
                self.store.source_trouble(source, Reason::Unreadable, &error.to_string());
            }
            error => self.store.server_trouble(&told(error)),
        }
        Ended::Failed
    }
}

fn version_of<K: Sent>(object: &K, before: String) -> String {
    object.meta().resource_version.clone().unwrap_or(before)
}

/// What stands for an answer that did not come in time.
pub(super) fn no_answer() -> kube::Error {
    kube::Error::Service(format!("no answer in {} s", ANSWER_MAX.as_secs()).into())
}

/// An error with what is behind it: what went wrong says the innermost.
pub(super) fn told(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} {}", status.code, status.message.trim());
    }
    let mut text = error.to_string();
    let mut inner = std::error::Error::source(error);
    while let Some(error) = inner {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        inner = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
