//! The lease: of all processes that could write statuses, its holder does.
//!
//! As with every leader election of Kubernetes, a lease that was not renewed for its own duration,
//! by the clock of whoever looks, is free.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as Record, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{follower::told, store::Store, troubles::Reason};

/// How long a lease lasts without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long writes nothing any more.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, or tried for.
const INTERVAL: Duration = Duration::from_secs(4);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

pub(super) struct Lease {
    api: Api<Record>,
    store: Arc<Store>,
    name: String,
    identity: String,
    held: watch::Sender<bool>,
    /// Another's lease as it was last seen to change, and when.
    seen: Mutex<Option<(LeaseSpec, Instant)>>,
}

impl Lease {
    pub(super) fn new(
        client: Client,
        store: Arc<Store>,
        namespace: &str,
        name: String,
        identity: String,
    ) -> Self {
        let api = Api::namespaced(client, namespace);
        let (held, seen) = (watch::Sender::new(false), Mutex::default());
        Self { api, store, name, identity, held, seen }
    }

    /// Whether this process holds it.
    pub(super) fn held(&self) -> watch::Receiver<bool> {
        self.held.subscribe()
    }

    /// Tries for the lease and renews it. Never returns; dropped, the lease runs out.
    pub(super) async fn keep(&self) {
        let mut renewed = Instant::now();
        loop {
            let asked = Instant::now();
            match timeout(ANSWER_MAX, self.hold()).await {
                Ok(Ok(holds)) => {
                    renewed = asked;
                    self.set(holds);
                    self.store.lease_well(&self.name);
                }
                Ok(Err(error)) => self.trouble(&error, renewed),
                Err(_) => {
                    self.store.server_trouble("no answer about the lease");
                    self.lose_after(renewed);
                }
            }
            sleep(INTERVAL.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        }
    }

    /// Gives the lease back, if it is ours.
    pub(super) async fn release(&self) {
        let given = timeout(ANSWER_MAX, async {
            let Some(mut record) = self.api.get_opt(&self.name).await? else { return Ok(()) };
            if let Some(spec) = record.spec.as_mut().filter(|spec| self.is_ours(spec)) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &PostParams::default(), &record).await?;
            }
            Ok::<_, kube::Error>(())
        });
        if let Ok(Err(error)) = given.await {
            tracing::debug!(error = told(&error), "the lease could not be given back");
        }
    }

    fn set(&self, holds: bool) {
        let changed = self.held.send_if_modified(|held| std::mem::replace(held, holds) != holds);
        if changed {
            self.store.set_holds_lease(holds);
            let lease = &self.name;
            if holds {
                tracing::info!(lease, "has the lease: writes statuses");
            } else {
                tracing::info!(lease, "has the lease no longer: writes no statuses");
            }
        }
    }

    fn trouble(&self, error: &kube::Error, renewed: Instant) {
        match error {
            kube::Error::Api(status) => {
                self.store.server_well();
                let reason = Reason::Answer(status.code);
                self.store.lease_trouble(&self.name, reason, &told(error));
            }
            error => self.store.server_trouble(&told(error)),
        }
        self.lose_after(renewed);
    }

    fn lose_after(&self, renewed: Instant) {
        if renewed.elapsed() >= RENEW_DEADLINE {
            self.set(false);
        }
    }

    fn is_ours(&self, spec: &LeaseSpec) -> bool {
        spec.holder_identity.as_deref() == Some(&self.identity)
    }

    /// Takes or renews the lease; whether it is ours now.
    async fn hold(&self) -> Result<bool, kube::Error> {
        let Some(mut record) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let spec = Some(self.renewed(&LeaseSpec::default()));
            let record = Record { metadata, spec };
            return won(self.api.create(&PostParams::default(), &record).await);
        };
        let spec = record.spec.unwrap_or_default();
        if !self.is_ours(&spec) && !self.has_run_out(&spec) {
            return Ok(false);
        }
        record.spec = Some(self.renewed(&spec));
        // With its resourceVersion: whoever was faster has it.
        won(self.api.replace(&self.name, &PostParams::default(), &record).await)
    }

    fn has_run_out(&self, spec: &LeaseSpec) -> bool {
        if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
            return true;
        }
        let mut seen = self.seen.lock();
        let (_, since) = match seen.take() {
            Some((last, since)) if last == *spec => seen.insert((last, since)),
            _ => seen.insert((spec.clone(), Instant::now())),
        };
        let seconds = spec.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok());
        since.elapsed() > seconds.map_or(DURATION, Duration::from_secs)
    }

    fn renewed(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = Timestamp::try_from(picker::wall_clock()).map(MicroTime).ok();
        let mut spec = before.clone();
        if !self.is_ours(before) {
            let taken = before.lease_transitions.map_or(0, |times| times.saturating_add(1));
            spec.lease_transitions = Some(taken);
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = now;
        spec
    }
}

/// Whether a write came through; another's that came first is no error.
fn won(written: Result<Record, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
