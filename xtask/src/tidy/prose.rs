//! What is not Rust: links, places of one machine, the change log, sizes of tracked files.

use regex_lite::Regex;

use super::{File, Finding};

pub(super) const FILE_BYTES_MAX: usize = 256 * 1024;

/// Text that means nothing to whoever clones the repository. Put together here, so that this file
/// can be searched for it, too.
const ELSEWHERE: &[(&str, &str)] = &[
    (concat!("/", "work/"), "a path of one machine"),
    (concat!("/", "root/"), "a path of one machine"),
    (concat!("/", "farm/"), "a path of one machine"),
    (concat!("/tmp/", "bash_jobs"), "a path of one machine"),
    (concat!("../", "shared"), "a path outside the repository"),
    (concat!("pypi", ".org"), "a registry's host"),
    (concat!("crates", ".io/api"), "a registry's host"),
    (concat!("registry", ".npmjs"), "a registry's host"),
    (concat!("deb", ".debian.org"), "a registry's host"),
    (concat!("this ", "session"), "how it was written; say what is so"),
    (concat!("previous ", "session"), "how it was written; say what is so"),
    (concat!("next ", "session"), "how it was written; say what is so"),
    (concat!("sub", "agent"), "how it was written; say what is so"),
    (concat!("sub-", "agent"), "how it was written; say what is so"),
    (concat!("the ", "brief says"), "how it was written; say what is so"),
];

pub(super) fn elsewhere(file: &File) -> Vec<Finding> {
    if file.path.starts_with(".ci/") || file.path == "Cargo.lock" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, text) in numbered(file) {
        let lower = text.to_lowercase();
        for (needle, what) in ELSEWHERE.iter().filter(|(needle, _)| lower.contains(needle)) {
            let advice = format!("`{needle}`: {what}; a clone elsewhere cannot use it");
            findings.push(Finding::new(&file.path, line, advice));
        }
    }
    findings
}

fn numbered(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.text().unwrap_or_default().lines().enumerate().map(|(i, line)| (i + 1, line))
}

/// Links to local files; `exists` is asked for paths relative to the repository's root.
pub(super) fn links(file: &File, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let inline = Regex::new(r"\]\(\s*<?([^)\s>]+)").expect("a valid expression");
    let reference = Regex::new(r"^ {0,3}\[[^\]^][^\]]*\]:\s*<?([^\s>]+)").expect("a valid one");
    let code = Regex::new("`[^`]*`").expect("a valid expression");
    let mut findings = Vec::new();
    let mut fenced = false;
    for (line, text) in numbered(file) {
        if text.trim_start().starts_with("```") || text.trim_start().starts_with("~~~") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        let text = code.replace_all(text, "`code`");
        for found in inline.captures_iter(&text).chain(reference.captures_iter(&text)) {
            let target = &found[1];
            if let Some(path) = local(&file.path, target)
                && !exists(&path)
            {
                let advice = format!("the link to `{target}` leads nowhere: no `{path}`");
                findings.push(Finding::new(&file.path, line, advice));
            }
        }
    }
    findings
}

/// The path a link means, or `None` for other sites and for places within the page.
fn local(from: &str, target: &str) -> Option<String> {
    let target = target.split(['#', '?']).next().unwrap_or_default();
    let scheme = Regex::new("^([A-Za-z][A-Za-z0-9+.-]*:|//)").expect("a valid expression");
    if target.is_empty() || scheme.is_match(target) {
        return None;
    }
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let start = if target.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = start.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            // Above the root stays visible, and does not exist.
            ".." if parts.last().is_none_or(|last| *last == "..") => parts.push(".."),
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

pub(super) fn file_bytes(file: &File) -> Option<Finding> {
    let exempt = file.path == "Cargo.lock" || file.path.split('/').any(|part| part == "testdata");
    (!exempt && file.bytes.len() > FILE_BYTES_MAX).then(|| {
        let advice = format!(
            "{} KiB, at most {}; make it smaller, make it at build time, or move it to testdata/",
            file.bytes.len() / 1024,
            FILE_BYTES_MAX / 1024
        );
        Finding::new(&file.path, 1, advice)
    })
}

/// The first section of the change log is what the next release will have.
pub(super) fn changelog(path: &str, text: Option<&str>) -> Option<Finding> {
    let mut headings = text.unwrap_or_default().lines().filter(|line| line.starts_with("## "));
    let unreleased = headings.next().is_some_and(|line| line.trim_end() == "## Unreleased");
    (!unreleased).then(|| {
        Finding::new(path, 1, "the first section is `## Unreleased`: what users will notice")
    })
}

/// Complete standalone configurations to start from.
pub(super) fn examples(files: &[File]) -> Option<Finding> {
    let is_example = |file: &File| file.path.starts_with("examples/") && file.is_kind("yaml");
    (!files.iter().any(is_example))
        .then(|| Finding::new("examples/", 1, "add a complete configuration to start from"))
}
