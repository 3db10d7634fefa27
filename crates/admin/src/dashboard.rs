//! The dashboard's side of the server: samples what is known once a second, and tells every open page.
//!
//! - `history`: what was sampled, for an hour
//! - `window`: counts over the latest times, and their quantiles
//! - `tick`: what a page is told
//! - `stream`: to whom it is told

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use picker::{Tasks, monotonic};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{Views, query::parameter};

mod history;
mod stream;
mod tick;
mod window;

use history::{HistoryJson, Of, SharedHistory};
pub(crate) use stream::events;

/// Between samples, and between what a page is told.
const TICK: Duration = Duration::from_secs(1);
/// Pages that are open at once; each holds a connection of the admin port.
pub const PAGES_MAX: usize = 64;

/// What the dashboard shows.
pub(crate) struct Dashboard {
    history: SharedHistory,
    /// The latest tick as it goes over the wire: one for all pages, and the last one only. Who reads slowly skips some.
    ticks: watch::Sender<Bytes>,
    /// A page was opened, and should not have to wait.
    asked: Notify,
    places: Arc<Semaphore>,
    tasks: Tasks,
    started: Duration,
}

impl Dashboard {
    pub(crate) fn new(tasks: Tasks) -> Self {
        Self {
            history: SharedHistory::default(),
            ticks: watch::Sender::default(),
            asked: Notify::new(),
            places: Arc::new(Semaphore::new(PAGES_MAX)),
            tasks,
            started: monotonic(),
        }
    }

    /// Samples for ever. Dropping it ends that; pages that are open are told nothing more.
    pub(crate) async fn run(&self, views: &Views) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                // Nobody is told of a time before the first sample.
                biased;
                _ = ticks.tick() => self.history.lock().sample(&views.view, monotonic()),
                () = self.asked.notified() => {}
            }
            if self.ticks.receiver_count() > 0 {
                self.tell(views);
            }
        }
    }

    fn tell(&self, views: &Views) {
        let uptime = monotonic().saturating_sub(self.started);
        match tick::write(views, &self.history.lock(), uptime) {
            Ok(event) => drop(self.ticks.send_replace(event)),
            Err(error) => tracing::error!(%error, "the dashboard's state could not be written"),
        }
    }

    /// The points of one series, or how many requests each had; of all of them if the query asks for none.
    pub(crate) fn history(&self, query: &str) -> Result<HistoryJson, &'static str> {
        let name = parameter(query, "name").unwrap_or_default();
        let of = match parameter(query, "of").as_deref() {
            None => return Ok(self.history.lock().overview()),
            Some("all") => Of::All,
            Some("pool") => Of::Pool(name),
            Some("model") => Of::Model(name),
            Some(_) => return Err("of is all, pool or model; the latter two want a name as well"),
        };
        let history = self.history.lock();
        history.points(&of).ok_or("nothing of this name was counted; /history lists what was")
    }
}
