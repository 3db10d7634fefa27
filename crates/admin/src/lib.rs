//! Shows: health, metrics, and what the gateway knows and decided, over three small HTTP servers.
//!
//! Everything is read from the picker, or asked from functions that the main crate hands in; all
//! that can be changed here is to begin a drain, and the levels of the log.
//!
//! Deliberately absent: TLS and passwords (the admin port is for loopback, and refuses what a
//! browser may be tricked into sending), configuration by HTTP.
//!
//! Modules:
//! - `server`: the accept loop and its limits
//! - `ports`: which port answers which path
//! - `answer`: responses
//! - `guard`: what the admin port refuses, for browsers' sake
//! - `query`: parameters of a request
//! - `logging`: levels of the log, shown and changed
//! - `endpoints`, `decisions`, `configuration`, `objects`: the JSON views
//! - `dashboard`: what the page at `/` is kept up to date with
//! - `assets`: the files of that page

use std::sync::Arc;

use picker::{PoolView, Tasks};
use serde_json::Value;
use tokio::net::TcpListener;

mod answer;
mod assets;
mod configuration;
mod dashboard;
mod decisions;
mod endpoints;
mod guard;
mod logging;
mod objects;
mod ports;
mod query;
mod server;

use dashboard::Dashboard;
pub use dashboard::PAGES_MAX;
pub use server::CONNECTIONS_MAX;

/// Where everything shown comes from. The functions are called on the server's tasks: they must not
/// block.
pub struct Views {
    pub view: PoolView,
    /// Array of the objects of the configuration, each whole, with its status.
    pub objects: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Effective settings and the story of the configuration: an object, to which the desired
    /// state is added.
    pub config: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Whether to send traffic here; if not, why not.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Begins to drain. May be called again.
    pub drain: Arc<dyn Fn() + Send + Sync>,
    /// The levels of the log: an object.
    pub levels: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Changes them, by names and levels; says what is wrong with these.
    pub set_levels: SetLevels,
}

/// How levels of the log are changed.
pub type SetLevels = Arc<dyn Fn(&[(String, String)]) -> Result<(), String> + Send + Sync>;

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").finish_non_exhaustive()
    }
}

/// Answers health checks until `tasks` are stopping. Dropping the future closes the listener;
/// connections stay until they are idle or `tasks` are stopping.
pub async fn serve_health(listener: TcpListener, views: Arc<Views>, tasks: Tasks) {
    server::serve(listener, tasks, move |request| ports::health(&views, request)).await;
}

/// Answers Prometheus until `tasks` are stopping. Dropping the future is as for [`serve_health`].
pub async fn serve_stats(listener: TcpListener, views: Arc<Views>, tasks: Tasks) {
    server::serve(listener, tasks, move |request| ports::stats(&views, request)).await;
}

/// Answers the operator until `tasks` are stopping, and samples what the dashboard shows. Dropping the future is as for
/// [`serve_health`]; open dashboards get no news any more.
pub async fn serve_admin(listener: TcpListener, views: Arc<Views>, tasks: Tasks) {
    let dashboard = Arc::new(Dashboard::new(tasks.clone()));
    let (sampled, shown) = (Arc::clone(&views), Arc::clone(&dashboard));
    tokio::select! {
        () = server::serve(listener, tasks, move |request| ports::admin(&views, &shown, request)) => {}
        () = dashboard.run(&sampled) => {}
    }
}
