//! Server-sent events: each open page gets the latest tick.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::channel::{Channel, Sender};
use tokio::{sync::watch, time::timeout};

use super::{Dashboard, PAGES_MAX};
use crate::answer::{self, Answer};

/// A page that takes nothing for so long is given up; it may come again.
const STALLED_MAX: Duration = Duration::from_secs(30);
/// A page has to come again after this: before the server ends its connection without a word.
const STREAM_LIFE_MAX: Duration = Duration::from_mins(9);
/// Ticks written and not yet taken by the connection.
const UNREAD_MAX: usize = 1;

/// Answers a page that wants to be kept up to date.
pub(crate) fn events(dashboard: &Arc<Dashboard>) -> Answer {
    let Ok(place) = Arc::clone(&dashboard.places).try_acquire_owned() else {
        let message = format!("{PAGES_MAX} dashboards are open, and more may not be; close one");
        return answer::refusal(StatusCode::SERVICE_UNAVAILABLE, &message);
    };
    let (sender, body) = Channel::new(UNREAD_MAX);
    let ticks = dashboard.ticks.subscribe();
    dashboard.asked.notify_one();
    let stopping = dashboard.tasks.stopping();
    dashboard.tasks.spawn("dashboard stream", async move {
        tokio::select! {
            // How a page leaves is its own business.
            _ = timeout(STREAM_LIFE_MAX, tell(ticks, sender)) => {}
            () = stopping => {}
        }
        drop(place);
    });
    answer::events(body)
}

/// Sends each tick, or the latest if the page reads more slowly than they come.
async fn tell(mut ticks: watch::Receiver<Bytes>, mut page: Sender<Bytes>) {
    while ticks.changed().await.is_ok() {
        let tick = ticks.borrow_and_update().clone();
        match timeout(STALLED_MAX, page.send_data(tick)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
