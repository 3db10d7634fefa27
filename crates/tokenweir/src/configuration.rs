//! The live configuration: what was read, what it came to, and whether the last change was good.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use controller::{
    FoldOptions, Folded, Kubernetes, Manifests, Object, ObjectStatus, Problem, Severity, Watched,
    caution, fold, stamp,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use picker::{Desired, ListenerSpec, Metrics, PoolKey, PoolWriter, RouteSpec, wall_clock};
use serde_json::{Value, json};

use crate::settings::Settings;

/// Keeps the picker's desired state and the objects' statuses in step with what is read.
#[derive(Debug)]
pub(crate) struct Configuration {
    options: FoldOptions,
    writer: PoolWriter,
    metrics: Arc<Metrics>,
    settings: Value,
    live: Mutex<Live>,
    /// Where objects come from by watch, and have to be waited for.
    kubernetes: OnceLock<Arc<Kubernetes>>,
}

#[derive(Debug, Default)]
struct Live {
    objects: Vec<Arc<Object>>,
    statuses: Vec<ObjectStatus>,
    problems: Vec<String>,
    /// Counts configurations applied.
    generation: u64,
    applied: Option<String>,
    /// What was wrong with the newest reading, if it was not applied.
    rejected: Vec<String>,
}

impl Configuration {
    pub(crate) fn new(settings: &Settings, writer: PoolWriter, metrics: Arc<Metrics>) -> Self {
        Self {
            options: fold_options(settings),
            writer,
            metrics,
            settings: serde_json::to_value(settings.shown()).unwrap_or_default(),
            live: Mutex::default(),
            kubernetes: OnceLock::new(),
        }
    }

    /// Objects come by watch, and nothing is known until the first of them are here.
    pub(crate) fn wait_for(&self, kubernetes: Arc<Kubernetes>) {
        self.kubernetes.set(kubernetes).ok();
    }

    /// Why the configuration is not known yet, if it is not.
    pub(crate) fn waiting_for(&self) -> Option<String> {
        self.kubernetes.get()?.waiting_for()
    }

    /// Applies what the API server tells and returns what became of each object. Each problem is
    /// logged when it comes up, and what is as it was is not applied again.
    pub(crate) fn take_watched(&self, watched: Watched) -> Vec<ObjectStatus> {
        let publish_service = self.kubernetes.get().and_then(|source| source.publish_service());
        let options = FoldOptions { kubernetes: true, publish_service, ..self.options.clone() };
        let mut folded = fold(watched.objects.iter().map(|object| &**object), &options);
        let now = now();
        let mut live = self.live.lock();
        caution(&mut folded.statuses, &watched.problems);
        stamp(&mut folded.statuses, &live.statuses, &now);
        let problems: Vec<&Problem> = watched.problems.iter().chain(&folded.problems).collect();
        let told: BTreeSet<&String> = live.problems.iter().collect();
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let new = problems.into_iter().zip(&texts).filter(|(_, text)| !told.contains(text));
        new.for_each(|(problem, _)| log_problem(problem));
        live.problems = texts;
        live.objects = watched.objects;
        live.statuses.clone_from(&folded.statuses);
        let first = live.generation == 0;
        let (before, desired) = (self.writer.view().desired(), Arc::new(folded.desired));
        if first || before != desired {
            live.accept(now);
            let generation = live.generation;
            // Endpoints come and go; that is no news.
            if first || outline(&before) != outline(&desired) {
                let summary = summary(&desired);
                tracing::info!(generation, summary, "configuration applied");
            } else {
                tracing::debug!(generation, "endpoints changed");
            }
            self.metrics.reloads.with_label_values(&["applied"]).inc();
            self.writer.apply(desired);
        }
        folded.statuses
    }

    /// Applies a reading, unless it has errors: then the last good configuration stays.
    pub(crate) fn take(&self, manifests: Manifests) {
        log_problems(&manifests.problems);
        if manifests.has_errors() {
            let errors: Vec<String> = manifests
                .problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .map(ToString::to_string)
                .collect();
            tracing::error!(
                errors = errors.len(),
                "the changed configuration has errors; the last good one stays in force"
            );
            self.metrics.reloads.with_label_values(&["rejected"]).inc();
            self.live.lock().rejected = errors;
            return;
        }
        let mut folded = fold(&manifests.objects, &self.options);
        log_problems(&folded.problems);
        let now = now();
        let mut live = self.live.lock();
        caution(&mut folded.statuses, &manifests.problems);
        stamp(&mut folded.statuses, &live.statuses, &now);
        let problems = manifests.problems.iter().chain(&folded.problems);
        live.problems = problems.map(ToString::to_string).collect();
        live.objects = manifests.objects.into_iter().map(Arc::new).collect();
        live.statuses = folded.statuses;
        live.accept(now);
        tracing::info!(
            generation = live.generation,
            summary = summary(&folded.desired),
            "configuration applied"
        );
        if folded.desired.listeners.is_empty() {
            tracing::warn!("no Gateway gives a port to listen on; nothing is served");
        }
        self.metrics.reloads.with_label_values(&["applied"]).inc();
        self.writer.apply(folded.desired);
    }

    /// Applies a desired state that was made without objects.
    pub(crate) fn take_desired(&self, desired: Desired) {
        self.live.lock().accept(now());
        self.writer.apply(desired);
    }

    /// Every object with its status, as `kubectl get -o json` would show it.
    pub(crate) fn objects(&self) -> Value {
        let live = self.live.lock();
        let statuses: HashMap<_, _> =
            live.statuses.iter().map(|status| (status.key(), status)).collect();
        let shown = |object: &Arc<Object>| {
            let status = statuses.get(&object.key());
            status.map_or_else(|| object.to_json(), |status| status.to_json(object))
        };
        live.objects.iter().map(shown).collect()
    }

    /// Settings and the story of the configuration.
    pub(crate) fn shown(&self) -> Value {
        let live = self.live.lock();
        json!({
            "settings": self.settings,
            "generation": live.generation,
            "applied": live.applied,
            "problems": live.problems,
            "rejected": live.rejected,
        })
    }
}

impl Live {
    fn accept(&mut self, now: String) {
        self.generation += 1;
        self.applied = Some(now);
        self.rejected.clear();
    }
}

pub(crate) fn fold_options(settings: &Settings) -> FoldOptions {
    let own = [
        (settings.admin, "its admin page"),
        (settings.health, "its health checks"),
        (settings.stats, "its metrics"),
    ];
    FoldOptions {
        labels: settings.labels.clone(),
        default_policy: settings.policy,
        own_ports: own.map(|(address, purpose)| (address.port(), purpose)).into(),
        ..FoldOptions::default()
    }
}

/// Reading and folding at once, for whoever wants all problems before anything starts.
pub(crate) fn fold_all(manifests: &Manifests, settings: &Settings) -> Folded {
    fold(&manifests.objects, &fold_options(settings))
}

fn summary(desired: &Desired) -> String {
    let endpoints: BTreeSet<_> = desired
        .pools
        .iter()
        .flat_map(|pool| &pool.endpoints)
        .map(|endpoint| &endpoint.id)
        .collect();
    let endpoints = endpoints.len();
    format!(
        "{} listeners, {} routes, {} pools, {endpoints} endpoints",
        desired.listeners.len(),
        desired.routes.len(),
        desired.pools.len(),
    )
}

/// Everything but the endpoints.
fn outline(desired: &Desired) -> (&[ListenerSpec], Vec<&PoolKey>, &[RouteSpec]) {
    let pools = desired.pools.iter().map(|pool| &pool.key).collect();
    (&desired.listeners, pools, &desired.routes)
}

fn log_problems(problems: &[Problem]) {
    problems.iter().for_each(log_problem);
}

fn log_problem(problem: &Problem) {
    match problem.severity {
        Severity::Error => tracing::error!("{problem}"),
        Severity::Warning => tracing::warn!("{problem}"),
        Severity::Info => tracing::info!("{problem}"),
    }
}

fn now() -> String {
    Timestamp::try_from(wall_clock()).map_or_else(|_| String::new(), |at| format!("{at:.0}"))
}
