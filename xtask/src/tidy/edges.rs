//! Which room may know which, and what a manifest may not name.

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use super::{Finding, root};

/// The rooms that talk: they know the rooms below them and never each other.
const TALK: &[&str] = &["admin", "controller", "datalayer", "extproc", "proxy", "sim"];

/// What each room may depend on. A new room or edge needs a page in `docs/adr/` and a line here.
pub(super) fn allowed(room: &str) -> Option<Vec<&'static str>> {
    match room {
        "http1" | "openai" | "scheduling" => Some(vec![]),
        "picker" => Some(vec!["openai", "scheduling"]),
        "tokenweir" => Some([&["openai", "picker", "scheduling"], TALK].concat()),
        "datalayer" | "proxy" => Some(vec!["http1", "openai", "picker", "scheduling"]),
        _ if TALK.contains(&room) => Some(vec!["openai", "picker", "scheduling"]),
        _ => None,
    }
}

/// What a room's manifest must not name outside its tests, and why.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("openai", &["tokio", "hyper"], "it parses bytes and never waits"),
    ("scheduling", &["tokio", "hyper"], "it decides and never waits"),
    ("scheduling", &["serde"], "wire formats stay in the rooms that talk"),
    ("picker", &["serde"], "wire formats stay in the rooms that talk"),
];

/// One direct dependency of a room.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) for_tests: bool,
}

/// The members of the workspace.
pub(super) fn packages() -> Vec<Package> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec();
    metadata.expect("cargo metadata").packages
}

pub(super) fn rooms(packages: &[Package]) -> Vec<String> {
    let of_rooms = packages.iter().filter(|p| p.manifest_path.as_str().contains("/crates/"));
    of_rooms.map(|package| package.name.to_string()).collect()
}

pub(super) fn edges(packages: &[Package]) -> Vec<Edge> {
    let of_package = |package: &Package| {
        let from = package.name.to_string();
        let edge = move |dependency: &cargo_metadata::Dependency| Edge {
            from: from.clone(),
            to: dependency.name.clone(),
            for_tests: dependency.kind == DependencyKind::Development,
        };
        package.dependencies.iter().map(edge).collect::<Vec<_>>()
    };
    packages.iter().flat_map(of_package).collect()
}

/// Rooms that nobody drew.
pub(super) fn unknown_rooms(rooms: &[String]) -> Vec<Finding> {
    let unknown = rooms.iter().filter(|room| allowed(room).is_none());
    let advice = "a new room needs a page in docs/adr/ and a line in xtask/src/tidy/edges.rs";
    unknown.map(|room| Finding::new(&manifest(room), 1, advice)).collect()
}

/// Edges between rooms that nobody drew.
pub(super) fn undrawn_edges(edges: &[Edge], rooms: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for edge in edges.iter().filter(|edge| rooms.contains(&edge.to)) {
        if edge.for_tests && edge.from == "xtask" {
            // What it measures is no part of it.
            continue;
        }
        let mut may = allowed(&edge.from).unwrap_or_default();
        if edge.for_tests && TALK.contains(&edge.from.as_str()) {
            may.push("sim");
        }
        if !may.contains(&edge.to.as_str()) {
            let advice = format!(
                "`{}` must not know `{}` (it may know: {}); pass what it needs through `picker`, \
                 or wire it in `tokenweir`",
                edge.from,
                edge.to,
                may.join(", ")
            );
            findings.push(Finding::new(&manifest(&edge.from), 1, advice));
        }
    }
    findings
}

/// Dependencies that would let a pure room wait or know a wire format.
pub(super) fn refused_dependencies(edges: &[Edge]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for edge in edges.iter().filter(|edge| !edge.for_tests) {
        for (room, refused, why) in REFUSED {
            let family = |name: &&&str| {
                edge.to == ***name || edge.to.starts_with(&format!("{name}-")) // tokio-util
                    || edge.to.starts_with(&format!("{name}_")) // serde_json
            };
            if edge.from == *room && refused.iter().any(|name| family(&name)) {
                let advice = format!("`{room}` must not depend on `{}`: {why}", edge.to);
                findings.push(Finding::new(&manifest(room), 1, advice));
            }
        }
    }
    findings
}

fn manifest(room: &str) -> String {
    format!("crates/{room}/Cargo.toml")
}

/// `[lints] workspace = true` in a member's manifest.
pub(super) fn inherits_lints(path: &str, manifest: &str) -> Option<Finding> {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    let inherits = lines
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.split_whitespace().collect::<String>() == "workspace=true");
    (!inherits).then(|| Finding::new(path, 1, "add `[lints]` with `workspace = true`"))
}
