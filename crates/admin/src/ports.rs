//! Which port answers which path.

use std::sync::Arc;

use http::{Method, StatusCode, request::Parts};
use serde_json::json;

use crate::{
    Views,
    answer::{self, Answer},
    assets, configuration,
    dashboard::{Dashboard, events},
    decisions, endpoints, guard, logging, objects,
};

const HEALTH_PATHS: [&str; 2] = ["/healthz/ready", "/healthz/live"];
const STATS_PATHS: [&str; 2] = ["/stats/prometheus", "/metrics"];
const ADMIN_PATHS: [&str; 9] = [
    "/",
    "/endpoints",
    "/decisions",
    "/config_dump",
    "/objects",
    "/history",
    EVENTS,
    "/logging",
    "/drain",
];
/// Never ends by itself.
pub(crate) const EVENTS: &str = "/events";

const READING: &str = "GET, HEAD";

fn is_reading(request: &Parts) -> bool {
    matches!(request.method, Method::GET | Method::HEAD)
}

pub(crate) fn health(views: &Views, request: &Parts) -> Answer {
    let path = request.uri.path();
    if !HEALTH_PATHS.contains(&path) {
        return answer::not_found(path, &HEALTH_PATHS);
    }
    if !is_reading(request) {
        return answer::not_allowed(READING);
    }
    if path == "/healthz/live" {
        return answer::text(StatusCode::OK, "live");
    }
    match (views.ready)() {
        Ok(()) => answer::text(StatusCode::OK, "ready"),
        Err(reason) => answer::text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

pub(crate) fn stats(views: &Views, request: &Parts) -> Answer {
    let path = request.uri.path();
    if !STATS_PATHS.contains(&path) {
        return answer::not_found(path, &STATS_PATHS);
    }
    if !is_reading(request) {
        return answer::not_allowed(READING);
    }
    let page = views.view.metrics_text();
    answer::of(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
}

pub(crate) fn admin(views: &Views, dashboard: &Arc<Dashboard>, request: &Parts) -> Answer {
    if let Err(message) = guard::check(request) {
        return answer::refusal(StatusCode::FORBIDDEN, message);
    }
    let path = request.uri.path();
    let asset = assets::at(path);
    if asset.is_none() && !ADMIN_PATHS.contains(&path) {
        return answer::not_found(path, &ADMIN_PATHS);
    }
    if path == "/drain" {
        return drain(views, request);
    }
    if path == "/logging" {
        return logging::answer(views, request);
    }
    if !is_reading(request) {
        return answer::not_allowed(READING);
    }
    if let Some(asset) = asset {
        return answer::of(StatusCode::OK, asset.content_type, asset.content);
    }
    let query = request.uri.query().unwrap_or_default();
    match path {
        "/endpoints" => answer::json(StatusCode::OK, &endpoints::list(&views.view)),
        "/decisions" => match decisions::list(&views.view, query) {
            Ok(decisions) => answer::json(StatusCode::OK, &decisions),
            Err(message) => answer::refusal(StatusCode::BAD_REQUEST, message),
        },
        "/history" => match dashboard.history(query) {
            Ok(history) => answer::numbers(&history),
            Err(message) => answer::refusal(StatusCode::BAD_REQUEST, message),
        },
        EVENTS => events(dashboard),
        "/config_dump" => {
            let desired = configuration::desired(&views.view.desired());
            let mut dump = (views.config)();
            dump["desired"] = desired;
            answer::json(StatusCode::OK, &dump)
        }
        _ => answer::json(StatusCode::OK, &objects::filter((views.objects)(), query)),
    }
}

fn drain(views: &Views, request: &Parts) -> Answer {
    if request.method != Method::POST {
        return answer::not_allowed("POST");
    }
    tracing::info!("asked to drain");
    (views.drain)();
    answer::json(StatusCode::OK, &json!({ "draining": true }))
}
