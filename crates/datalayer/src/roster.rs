//! One scraper for every endpoint the picker knows: started when it comes, ended when it goes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use picker::{Endpoint, Metrics, PoolView, PoolWriter, Tasks};
use scheduling::EndpointId;
use tokio::sync::{Semaphore, watch};

use crate::scraper::{PoolNames, Scraper, Shared};

/// Scrapes at one moment, over all endpoints.
const ROUNDS_MAX: usize = 256;
/// Shortest interval, whatever was asked for.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How often to ask.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// From one scrape of an endpoint to the next.
    pub interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1) }
    }
}

/// Keeps the picker informed about every endpoint.
pub struct Datalayer {
    shared: Shared,
    view: PoolView,
    scrapers: BTreeMap<EndpointId, Running>,
}

/// A scraper at work. Dropping this ends it.
struct Running {
    endpoint: Arc<Endpoint>,
    pools: watch::Sender<PoolNames>,
}

impl std::fmt::Debug for Datalayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datalayer").field("scrapers", &self.scrapers.len()).finish_non_exhaustive()
    }
}

impl Datalayer {
    pub fn new(
        writer: PoolWriter,
        view: PoolView,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Self {
        let interval = options.interval.max(INTERVAL_MIN);
        let rounds = Arc::new(Semaphore::new(ROUNDS_MAX));
        let shared = Shared { writer, metrics, interval, rounds };
        Self { shared, view, scrapers: BTreeMap::new() }
    }

    /// Works until `tasks` are stopping. Dropping the future ends every scraper.
    pub async fn run(mut self, tasks: Tasks) {
        let mut changes = self.shared.writer.subscribe();
        loop {
            changes.mark_unchanged();
            self.follow(&tasks);
            tokio::select! {
                news = changes.changed() => if news.is_err() { return },
                () = tasks.stopping() => return,
            }
        }
    }

    /// Makes the scrapers those of the endpoints there are.
    fn follow(&mut self, tasks: &Tasks) {
        let mut wanted: BTreeMap<EndpointId, (Arc<Endpoint>, Vec<Arc<str>>)> = BTreeMap::new();
        for (pool, members) in self.view.pools() {
            let label: Arc<str> = pool.label().into();
            for member in members {
                let id = member.endpoint.spec.id.clone();
                let (_, pools) = wanted.entry(id).or_insert((member.endpoint, Vec::new()));
                pools.push(Arc::clone(&label));
            }
        }
        // An endpoint that left and came back, or changed its address, is another one, though it
        // may have the same name.
        self.scrapers.retain(|id, running| {
            wanted.get(id).is_some_and(|(now, _)| Arc::ptr_eq(now, &running.endpoint))
        });
        for (id, (endpoint, pools)) in wanted {
            let pools = PoolNames::from(pools);
            if let Some(running) = self.scrapers.get(&id) {
                // Whoever is sent something wakes up.
                running.pools.send_if_modified(|known| {
                    let changed = *known != pools;
                    *known = pools;
                    changed
                });
            } else {
                let running = self.start(endpoint, pools, tasks);
                self.scrapers.insert(id, running);
            }
        }
    }

    fn start(&self, endpoint: Arc<Endpoint>, pools: PoolNames, tasks: &Tasks) -> Running {
        let (sender, receiver) = watch::channel(pools);
        let shared = self.shared.clone();
        let scraper = Scraper::new(shared, Arc::clone(&endpoint), receiver, tasks.clone());
        tasks.spawn("scraper", scraper.run(tasks.clone()));
        Running { endpoint, pools: sender }
    }
}
