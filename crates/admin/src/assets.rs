//! The dashboard's files, as they are in the folder `dashboard` of the source tree.

/// A file as the admin port serves it.
pub(crate) struct Asset {
    pub(crate) path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the folder, served below `/dashboard/`.
macro_rules! asset {
    ($file:literal, $content_type:expr) => {
        Asset {
            path: concat!("/dashboard/", $file),
            content_type: $content_type,
            content: include_str!(concat!("../../../dashboard/", $file)),
        }
    };
}

const ASSETS: &[Asset] = &[
    Asset { path: "/", ..asset!("index.html", HTML) },
    asset!("dashboard.css", CSS),
    asset!("icon.svg", SVG),
    asset!("main.js", JS),
    asset!("stream.js", JS),
    asset!("dom.js", JS),
    asset!("format.js", JS),
    asset!("chart.js", JS),
    asset!("table.js", JS),
    asset!("traffic.js", JS),
    asset!("series.js", JS),
    asset!("endpoints.js", JS),
    asset!("decisions.js", JS),
    asset!("outcomes.js", JS),
    asset!("configuration.js", JS),
];

/// The file at this path.
pub(crate) fn at(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}
