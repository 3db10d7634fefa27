//! Every rule over this repository; then, for each rule, something it must find.

use super::*;

/// Fails with all findings of a rule at once.
#[track_caller]
fn check(findings: impl IntoIterator<Item = Finding>) {
    let lines: Vec<String> = findings.into_iter().map(|finding| finding.to_string()).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

fn sources() -> Vec<File> {
    files().into_iter().filter(File::is_source).collect()
}

fn production() -> Vec<File> {
    sources().into_iter().filter(|file| !file.is_test()).collect()
}

fn file(path: &str, text: impl Into<String>) -> File {
    File { path: path.to_owned(), bytes: text.into().into_bytes() }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn every_module_says_what_it_is_for() {
    check(production().iter().filter_map(source::module_docs));
}

#[test]
fn production_files_are_short() {
    check(production().iter().filter_map(source::file_size));
}

#[test]
fn functions_are_short() {
    check(sources().iter().flat_map(source::function_sizes));
}

#[test]
fn rooms_know_only_whom_the_drawing_shows() {
    let packages = edges::packages();
    let rooms = edges::rooms(&packages);
    check(edges::unknown_rooms(&rooms));
    check(edges::undrawn_edges(&edges::edges(&packages), &rooms));
}

#[test]
fn pure_rooms_cannot_wait_and_know_no_wire_format() {
    check(edges::refused_dependencies(&edges::edges(&edges::packages())));
}

#[test]
fn every_package_inherits_the_lints() {
    let of_package = |package: &cargo_metadata::Package| {
        let text = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        edges::inherits_lints(&format!("{} (Cargo.toml)", package.name), &text)
    };
    check(edges::packages().iter().filter_map(of_package));
}

#[test]
fn no_room_is_known_through_another() {
    let rooms = edges::rooms(&edges::packages());
    check(sources().iter().flat_map(|file| source::reexports(file, &rooms)));
}

#[test]
fn things_have_the_fields_names() {
    check(sources().iter().flat_map(names::refused_names));
}

#[test]
fn links_in_documents_lead_somewhere() {
    let exists = |path: &str| root().join(path).exists();
    let documents: Vec<File> = files().into_iter().filter(|file| file.is_kind("md")).collect();
    check(documents.iter().flat_map(|file| prose::links(file, exists)));
}

#[test]
fn nothing_points_to_one_machine() {
    check(files().iter().flat_map(prose::elsewhere));
}

#[test]
fn there_are_examples() {
    check(prose::examples(&files()));
}

#[test]
fn the_change_log_begins_with_what_is_unreleased() {
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).ok();
    check(prose::changelog("CHANGELOG.md", text.as_deref()));
}

#[test]
fn tracked_files_are_small() {
    check(files().iter().filter_map(prose::file_bytes));
}

// From here on: each rule finds what it is for.

#[test]
fn finds_a_module_without_docs() {
    assert!(source::module_docs(&file("crates/a/src/b.rs", "//! Docs.\n")).is_none());
    assert!(source::module_docs(&file("crates/a/src/b.rs", "use a;\n//! Late.\n")).is_some());
    assert!(source::module_docs(&file("crates/a/src/b.rs", "")).is_some());
}

#[test]
fn finds_a_long_file() {
    let lines = |n| file("crates/a/src/b.rs", "//\n".repeat(n));
    assert!(source::file_size(&lines(source::FILE_LINES_MAX)).is_none());
    assert!(source::file_size(&lines(source::FILE_LINES_MAX + 1)).is_some());
}

#[test]
fn finds_a_long_function_and_counts_code_only() {
    let body = |code: usize| format!("fn f() {{\n{}\n// why\n\n}}\n", "g();\n".repeat(code));
    let found = |text: String| source::function_sizes(&file("crates/a/src/b.rs", text));
    assert_eq!(found(body(source::FUNCTION_LINES_MAX)), []);
    assert_eq!(found(body(source::FUNCTION_LINES_MAX + 1)).len(), 1);
    let method = format!("\nimpl A {{\n{}}}", body(source::FUNCTION_LINES_MAX + 1));
    assert_eq!(found(method)[0].line, 3, "the line the function begins on");
}

#[test]
fn finds_code_that_cannot_be_parsed() {
    let found = source::function_sizes(&file("crates/a/src/b.rs", "\nfn f( {"));
    assert_eq!(found.len(), 1);
    assert!(found[0].advice.contains("cannot be parsed"), "{}", found[0]);
}

#[test]
fn finds_an_edge_nobody_drew() {
    let rooms = names(&["admin", "openai", "picker", "proxy", "scheduling", "sim", "tokenweir"]);
    let found = |from: &str, to: &str, for_tests| {
        let edge = edges::Edge { from: from.to_owned(), to: to.to_owned(), for_tests };
        edges::undrawn_edges(&[edge], &rooms).len()
    };
    assert_eq!(found("proxy", "admin", false), 1, "edge rooms never know each other");
    assert_eq!(found("picker", "proxy", false), 1, "never upwards");
    assert_eq!(found("scheduling", "openai", false), 1, "pure rooms know nobody");
    assert_eq!(found("proxy", "sim", false), 1, "the simulator is for tests");
    assert_eq!(found("picker", "sim", true), 1, "and for tests of the edges");
    assert_eq!(found("xtask", "openai", false), 1, "tools know no room");
    assert_eq!(found("proxy", "sim", true), 0);
    assert_eq!(found("proxy", "picker", false), 0);
    assert_eq!(found("proxy", "hyper", false), 0, "not a room");
    assert_eq!(found("tokenweir", "sim", false), 0);
    assert_eq!(edges::unknown_rooms(&names(&["proxy", "cache"])).len(), 1);
}

#[test]
fn finds_a_pure_room_that_could_wait() {
    let found = |from: &str, to: &str, for_tests| {
        let edge = edges::Edge { from: from.to_owned(), to: to.to_owned(), for_tests };
        edges::refused_dependencies(&[edge]).len()
    };
    assert_eq!(found("scheduling", "tokio", false), 1);
    assert_eq!(found("scheduling", "tokio-util", false), 1);
    assert_eq!(found("openai", "hyper", false), 1);
    assert_eq!(found("picker", "serde_json", false), 1);
    assert_eq!(found("openai", "serde", false), 0, "wire types are its work");
    assert_eq!(found("picker", "tokio", false), 0);
    assert_eq!(found("scheduling", "serde_json", true), 0, "a test may read a fixture");
}

#[test]
fn finds_a_package_with_lints_of_its_own() {
    let found = |text: &str| edges::inherits_lints("Cargo.toml", text).is_some();
    assert!(!found("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
    assert!(found("[package]\nname = \"a\"\n"));
    assert!(found("[lints]\n[dependencies]\nworkspace = true\n"));
}

#[test]
fn finds_a_room_known_through_another() {
    let rooms = names(&["picker", "proxy"]);
    let found = |path: &str, text: &str| {
        source::reexports(&file(path, text), &rooms).first().map(|f| f.line)
    };
    assert_eq!(found("crates/proxy/src/lib.rs", "\npub use picker::Assignment;"), Some(2));
    assert_eq!(found("crates/proxy/src/lib.rs", "pub use {a::B, picker::C};"), Some(1));
    assert_eq!(found("crates/proxy/src/lib.rs", "mod m { pub use ::picker as p; }"), Some(1));
    assert_eq!(found("crates/proxy/src/lib.rs", "use picker::Assignment;"), None);
    assert_eq!(found("crates/proxy/src/lib.rs", "pub use relay::Relay;"), None);
}

#[test]
fn words_of_names() {
    let check = |name: &str, expected: &[&str]| assert_eq!(names::words(name), expected);
    check("backend_refs", &["backend", "refs"]);
    check("HTTPBackendRef", &["http", "backend", "ref"]);
    check("BACKENDS_MAX", &["backends", "max"]);
    check("v1Backend", &["v1", "backend"]);
    check("replicate", &["replicate"]);
}

#[test]
fn finds_refused_words_where_they_are_refused() {
    let found = |path: &str, text: &str| names::refused_names(&file(path, text)).len();
    assert_eq!(found("crates/proxy/src/a.rs", "struct WorkerPool;"), 1);
    assert_eq!(found("crates/proxy/src/a.rs", "struct A { backends: u8 }"), 1);
    assert_eq!(found("crates/proxy/src/a.rs", "enum A { Replica }"), 1);
    assert_eq!(found("crates/proxy/src/a.rs", "impl A { fn to_backend(&self) {} }"), 1);
    assert_eq!(found("crates/picker/src/a.rs", "struct Upstream;"), 1);
    assert_eq!(found("crates/picker/src/upstream.rs", ""), 1, "a file is a module");
    assert_eq!(found("crates/picker/src/utils.rs", ""), 1);
    assert_eq!(found("crates/picker/src/types/a.rs", ""), 1);
    assert_eq!(found("crates/picker/src/a.rs", "mod common;"), 1);
    assert_eq!(found("crates/proxy/src/upstream.rs", "struct Upstream;"), 0);
    assert_eq!(found("crates/controller/src/a.rs", "struct A { backend_refs: u8 }"), 0);
    assert_eq!(found("crates/sim/src/a.rs", "struct A { replicas: u8 }"), 0);
    assert_eq!(found("crates/picker/src/a.rs", "struct A { upstream_host: u8 }"), 0);
    assert_eq!(found("crates/picker/src/a.rs", "fn f() { let b = c.worker_threads(2); }"), 0);
}

#[test]
fn finds_links_that_lead_nowhere() {
    let found = |text: &str| {
        let exists = |path: &str| ["README.md", "docs/book/a.md", "docs/adr"].contains(&path);
        prose::links(&file("docs/book/b.md", text), exists).first().map(|f| f.line)
    };
    assert_eq!(found("\nsee [a](gone.md)"), Some(2));
    assert_eq!(found("[a]: gone.md"), Some(1));
    assert_eq!(found("[a](../../../README.md)"), Some(1), "above the repository");
    assert_eq!(found("[a](a.md) [b](./a.md#part) [c](../../README.md) [d](/docs/adr/)"), None);
    assert_eq!(found("[a](https://example.com/x.md) [b](#part) [c](mailto:a@example.com)"), None);
    assert_eq!(found("`[a](gone.md)`\n```\n[a](gone.md)\n```\n"), None, "code is not a link");
}

#[test]
fn finds_places_of_one_machine() {
    let found = |path: &str, text: &str| prose::elsewhere(&file(path, text)).len();
    assert_eq!(found("README.md", concat!("see /", "work/main")), 1);
    assert_eq!(found("README.md", concat!("from PyPI", ".org")), 1, "whatever the case");
    assert_eq!(found(".ci/run", concat!("cd /", "work/main")), 0);
    assert_eq!(found("README.md", "works on every machine"), 0);
}

#[test]
fn finds_a_change_log_without_a_head() {
    let found = |text| prose::changelog("CHANGELOG.md", text).is_some();
    assert!(!found(Some("# Changes\n\n## Unreleased\n\n## 0.1.0\n")));
    assert!(found(Some("# Changes\n\n## 0.1.0\n\n## Unreleased\n")));
    assert!(found(None));
}

#[test]
fn finds_large_files_and_missing_examples() {
    let large = |path| prose::file_bytes(&file(path, "x".repeat(prose::FILE_BYTES_MAX + 1)));
    assert!(large("docs/plot.svg").is_some());
    assert!(large("crates/sim/testdata/trace.csv").is_none());
    assert!(prose::examples(&[file("examples/README.md", "")]).is_some());
    assert!(prose::examples(&[file("examples/seed/gateway.yaml", "")]).is_none());
}
