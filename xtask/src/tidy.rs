//! The rules of the house, as plain tests: one test a rule, in `tests.rs`.
//!
//! A rule is a pure function from a file's path and text (or from `cargo metadata`) to findings, so
//! that each can be shown to fail; `tests.rs` also runs every rule over this repository. A finding
//! says where and what to do about it. Exceptions are lists in the rules, each with its reason.
//!
//! - [`edges`]: which room may know which, and what no room's manifest may name
//! - [`source`]: module docs, sizes of files and functions, re-exports
//! - [`names`]: words that have a better one here
//! - [`prose`]: links, places of this machine, the change log, sizes of tracked files

mod edges;
mod names;
mod prose;
mod source;
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One violation: where, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    advice: String,
}

impl Finding {
    fn new(path: &str, line: usize, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// A file of the repository, tracked or about to be; paths are relative to its root.
#[derive(Debug)]
struct File {
    path: String,
    bytes: Vec<u8>,
}

impl File {
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    fn is_kind(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Code of a room or of this package, as opposed to `tests/`, `benches/`, `fuzz/`.
    fn is_source(&self) -> bool {
        self.is_kind("rs")
            && (self.path.starts_with("crates/") || self.path.starts_with("xtask/"))
            && self.path.contains("/src/")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
            || self.path.contains("/tests/")
    }

    /// `proxy` for `crates/proxy/src/relay.rs`.
    fn room(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Every file git knows or would take, as it stands in the working tree.
fn files() -> Vec<File> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files of the repository");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let read = |path: &str| {
        // A file deleted but not yet committed is still listed.
        let bytes = std::fs::read(root().join(path)).ok()?;
        Some(File { path: path.to_owned(), bytes })
    };
    let mut files: Vec<File> = names.split_terminator('\0').filter_map(read).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
