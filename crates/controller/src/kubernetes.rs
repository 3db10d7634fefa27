//! Objects by watch: the Kubernetes API server as a source for the same fold.
//!
//! Each kind that is served is followed by list and watch into one store; whenever objects change,
//! all of them go through the fold together, and what became of them is written back by whichever
//! process has the lease. Nothing here ever takes away what was heard last.
//!
//! - `discovery`: which kinds are served; `follower`: list and watch of one; `entry`: JSON to objects
//! - `store`: everything heard so far; `selectors`: which Pods mean anything; `troubles`: what is wrong, told once
//! - `claims`: which Gateways are served here, and what of others' statuses that makes ours
//! - `patch`: conditions into a status that others write to as well; `writer`, `lease`: writing it
//! - `backoff`: waits between tries

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{Client, Config, client::ClientBuilder};
use picker::Tasks;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};
use tower::util::MapResponseLayer;

use crate::status::ObjectStatus;
use backoff::{Backoff, RetryAfter};
use claims::Gateways;
use entry::Source;
use follower::{Follower, told};
use lease::Lease;
use store::{SourceKey, Store};
use troubles::Reason;
use writer::Writer;

mod backoff;
mod claims;
mod discovery;
mod entry;
mod follower;
mod lease;
mod patch;
mod selectors;
mod store;
mod troubles;
mod writer;

pub use store::Watched;

/// Changes come seldom alone: this long others are waited for.
const SETTLE: Duration = Duration::from_millis(5);
/// After a fold nothing is folded for as long as it took, so that a storm of changes leaves half of the
/// time for others; and for this long at least.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// How soon it is looked again for kinds that are not served yet.
const POLL_MIN: Duration = Duration::from_secs(2);
/// How long that is put off at most while nothing changes.
const POLL_MAX: Duration = Duration::from_secs(5);
/// How long after a kind is gone it is looked for again.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// How many times in a row a kind has to be missing until its objects are given up.
const MISSING_MAX: u32 = 2;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence of a connection after which it is given up; watches end earlier.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// What is followed, and who writes statuses.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// The only namespace that is looked at, if not all.
    pub namespace: Option<String>,
    /// What the selectors of Gateways match.
    pub labels: BTreeMap<String, String>,
    /// Name of the Lease whose holder writes statuses.
    pub lease_name: String,
    /// Namespace of that Lease, if not the process's own.
    pub lease_namespace: Option<String>,
    /// Tells this process from all others.
    pub identity: String,
    /// The Service through which clients reach the Gateways, `NAME` in the process's own namespace
    /// or `NAMESPACE/NAME`.
    pub publish_service: Option<String>,
}

/// A Kubernetes API server as the source of objects.
#[derive(Debug)]
pub struct Kubernetes {
    options: KubernetesOptions,
    config: Config,
    store: Arc<Store>,
}

/// Followers that run: dropping the sender ends one.
type Following = BTreeMap<SourceKey, (Source, oneshot::Sender<()>)>;

impl Kubernetes {
    /// Finds the API server as kubectl does: by `KUBECONFIG`, by `~/.kube/config`, by the Pod's
    /// service account. Nothing is asked of the server yet.
    pub async fn read(options: KubernetesOptions) -> Result<Self, String> {
        let advice = "set KUBECONFIG, or run in a Pod with a service account";
        let config = Config::infer().await;
        let mut config = config.map_err(|error| {
            format!("no Kubernetes API server is configured: {error}; {advice}")
        })?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.write_timeout = Some(WRITE_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        // Waits are ours: what is wrong has to be told at once.
        config.default_retry = false;
        let built = ClientBuilder::try_from(config.clone());
        built.map_err(|error| {
            format!("the Kubernetes configuration cannot be used: {}", told(&error))
        })?;
        Ok(Self { options, config, store: Arc::default() })
    }

    /// `namespace/name` of the Service through which clients reach the Gateways, if it was named.
    pub fn publish_service(&self) -> Option<String> {
        let name = self.options.publish_service.as_ref()?;
        let own = || format!("{}/{name}", self.config.default_namespace);
        Some(if name.contains('/') { name.clone() } else { own() })
    }

    /// What is not heard yet, and why; `None` once the objects are known.
    pub fn waiting_for(&self) -> Option<String> {
        self.store.waiting_for()
    }

    /// Follows the objects: calls `apply` with all of them whenever any has changed, and writes the
    /// statuses it returns while this process has the lease. Never returns.
    ///
    /// Dropping the future ends the writing; `tasks` owns the watches.
    pub async fn follow(
        self: Arc<Self>,
        tasks: Tasks,
        apply: impl FnMut(Watched) -> Vec<ObjectStatus> + Send,
    ) {
        let retry_after = RetryAfter::default();
        let client = match self.client(&retry_after) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(error = told(&error), "the Kubernetes API cannot be used");
                return;
            }
        };
        let (wanted, statuses) = watch::channel(Arc::default());
        let lease = self.lease(client.clone());
        let writer = Writer {
            client: client.clone(),
            store: Arc::clone(&self.store),
            retry_after: retry_after.clone(),
            wanted: statuses,
            held: lease.held(),
            namespace: self.options.namespace.clone(),
        };
        tokio::join!(
            self.follow_sources(client, retry_after, tasks),
            self.fold_changes(apply, wanted),
            lease.keep(),
            writer.write(),
        );
    }

    /// Gives the lease back, so that another process can write statuses at once. Dropping the
    /// future leaves the lease to run out.
    pub async fn release(&self) {
        if self.store.holds_lease()
            && let Ok(client) = self.client(&RetryAfter::default())
        {
            self.lease(client).release().await;
        }
    }

    fn lease(&self, client: Client) -> Lease {
        let namespace = self.options.lease_namespace.as_ref();
        let namespace = namespace.unwrap_or(&self.config.default_namespace);
        let (name, identity) = (self.options.lease_name.clone(), self.options.identity.clone());
        Lease::new(client, Arc::clone(&self.store), namespace, name, identity)
    }

    fn client(&self, retry_after: &RetryAfter) -> Result<Client, kube::Error> {
        let retry_after = retry_after.clone();
        let note = MapResponseLayer::new(move |response: http::Response<_>| {
            retry_after.note(response.headers());
            response
        });
        Ok(ClientBuilder::try_from(self.config.clone())?.with_layer(&note).build())
    }

    /// Folds whenever something has changed.
    async fn fold_changes(
        &self,
        mut apply: impl FnMut(Watched) -> Vec<ObjectStatus>,
        wanted: watch::Sender<Arc<Vec<ObjectStatus>>>,
    ) {
        loop {
            self.store.changed().await;
            sleep(SETTLE).await;
            let began = Instant::now();
            let Some(mut watched) = self.store.watched() else { continue };
            let unreadable = std::mem::take(&mut watched.unreadable);
            let mut statuses = apply(watched);
            let gateways = Gateways::served(&statuses);
            statuses.extend(unreadable.into_iter().map(|object| object.status(&gateways)));
            wanted.send_replace(Arc::new(statuses));
            self.store.folded();
            sleep(began.elapsed().max(PAUSE_MIN)).await;
        }
    }

    /// Keeps one follower for each kind that is served.
    async fn follow_sources(&self, client: Client, retry_after: RetryAfter, tasks: Tasks) {
        let mut backoff = Backoff::new(retry_after.clone());
        let mut following = Following::new();
        let mut missing: BTreeMap<SourceKey, u32> = BTreeMap::new();
        let (ended, mut endings) = mpsc::channel(64);
        let follower = Follower {
            client: client.clone(),
            store: Arc::clone(&self.store),
            retry_after,
            namespace: self.options.namespace.clone(),
            labels: Arc::new(self.options.labels.clone()),
        };
        let mut poll = POLL_MIN;
        loop {
            let wait = match discovery::discover(&client).await {
                Ok(found) => {
                    backoff.reset();
                    self.store.server_well();
                    self.store.discovery_well();
                    let sources = with_lost(found, &following, &mut missing);
                    self.store.discovered(&sources);
                    let changed = start(&follower, &sources, &mut following, &ended, &tasks);
                    poll = if changed { POLL_MIN } else { (poll * 2).min(POLL_MAX) };
                    poll
                }
                Err(error) => {
                    match &error {
                        kube::Error::Api(status) => {
                            self.store.server_well();
                            let reason = Reason::Answer(status.code);
                            self.store.discovery_trouble(reason, &told(&error));
                        }
                        error => self.store.server_trouble(&told(error)),
                    }
                    backoff.wait()
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                Some(()) = endings.recv() => {
                    poll = POLL_MIN;
                    sleep(LOST_PAUSE).await;
                }
            }
        }
    }
}

/// The sources that were found, and those that were lost only now: an API server that has just
/// started may not know all of its kinds.
fn with_lost(
    mut found: Vec<Source>,
    following: &Following,
    missing: &mut BTreeMap<SourceKey, u32>,
) -> Vec<Source> {
    let keys: Vec<SourceKey> = found.iter().map(|source| (source.kind, source.group)).collect();
    missing.retain(|key, _| !keys.contains(key));
    for (key, (source, _)) in following {
        if !keys.contains(key) {
            let times = missing.entry(*key).or_default();
            *times += 1;
            if *times < MISSING_MAX {
                found.push(*source);
            }
        }
    }
    found
}

/// Starts and ends followers until there is one for each source; whether any had to be.
fn start(
    follower: &Follower,
    sources: &[Source],
    following: &mut Following,
    ended: &mpsc::Sender<()>,
    tasks: &Tasks,
) -> bool {
    let before = following.len();
    following.retain(|_, (source, stop)| sources.contains(source) && !stop.is_closed());
    let mut changed = following.len() != before;
    for source in sources {
        let key = (source.kind, source.group);
        if following.contains_key(&key) {
            continue;
        }
        changed = true;
        let (stop, stopped) = oneshot::channel();
        let (follower, source, ended) = (follower.clone(), *source, ended.clone());
        tasks.spawn("follow a kind", async move {
            tokio::select! {
                _ = stopped => {}
                () = follower.follow(source) => drop(ended.send(()).await),
            }
        });
        following.insert(key, (source, stop));
    }
    changed
}

#[cfg(test)]
mod tests;
