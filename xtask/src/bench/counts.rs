//! Instructions of the hot functions, counted by callgrind.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::example;
use crate::Places;

/// Rounds of the second run; the first has one. What is made before the rounds is in both.
const ROUNDS: u64 = 101;
/// More than this over its baseline is a failure. Compilers differ by less, most changes that matter by more.
const GROWTH_MAX_PERCENT: f64 = 5.0;

pub(super) fn run(places: &Places, save: bool) -> anyhow::Result<()> {
    let hot = example(places, "hot");
    let valgrind = Command::new("valgrind").arg("--version").output();
    if !valgrind.is_ok_and(|output| output.status.success()) {
        bail!(
            "valgrind is not there, which counts the instructions; install it (Debian: apt-get install valgrind), or \
             measure only under load: cargo xtask bench --load"
        );
    }
    let cases = Command::new(&hot).output().context("cannot run the example `hot`")?;
    let cases = String::from_utf8(cases.stdout)?;
    let mut counts = BTreeMap::new();
    for case in cases.lines() {
        let (once, often) = (instructions(&hot, case, 1)?, instructions(&hot, case, ROUNDS)?);
        counts.insert(case.to_owned(), often.saturating_sub(once) / (ROUNDS - 1));
    }
    let path = baseline_path(places);
    let baseline = read(&path)?;
    print!("{}", table(&counts, &baseline));
    if save {
        std::fs::write(&path, written(&counts)).with_context(|| path.display().to_string())?;
        println!("kept in {}", path.display());
        return Ok(());
    }
    let grown: Vec<&str> = grown(&counts, &baseline).collect();
    if !grown.is_empty() {
        bail!(
            "more than {GROWTH_MAX_PERCENT} % over the baseline: {}; find out why, or keep the new counts: \
             cargo xtask bench --counts --save",
            grown.join(", ")
        );
    }
    Ok(())
}

fn baseline_path(places: &Places) -> PathBuf {
    places.root.join("xtask/instructions.txt")
}

fn instructions(hot: &Path, case: &str, rounds: u64) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let output = command.arg(hot).arg(case).arg(rounds.to_string()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.with_context(|| format!("callgrind counted nothing of {case:?}: {said}"))
}

/// A case a line, its count behind a tab.
fn read(path: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let pair =
            line.split_once('\t').and_then(|(case, count)| Some((case, count.parse().ok()?)));
        pair.map(|(case, count)| (case.to_owned(), count)).with_context(|| {
            format!("{}: no case and count: {line:?}; write it anew with --save", path.display())
        })
    });
    pairs.collect()
}

fn written(counts: &BTreeMap<String, u64>) -> String {
    let mut text =
        "# Instructions a round. Written by: cargo xtask bench --counts --save\n".to_owned();
    for (case, count) in counts {
        let _infallible = writeln!(text, "{case}\t{count}");
    }
    text
}

fn grown<'a>(
    counts: &'a BTreeMap<String, u64>,
    baseline: &'a BTreeMap<String, u64>,
) -> impl Iterator<Item = &'a str> {
    let is_grown = |(case, count): &(&String, &u64)| {
        let before = baseline.get(*case);
        before.is_some_and(|before| percent(**count, *before) > GROWTH_MAX_PERCENT)
    };
    counts.iter().filter(is_grown).map(|(case, _)| case.as_str())
}

#[expect(clippy::cast_precision_loss, reason = "a percentage is rounded")]
fn percent(count: u64, before: u64) -> f64 {
    (count as f64 / before as f64 - 1.0) * 100.0
}

fn table(counts: &BTreeMap<String, u64>, baseline: &BTreeMap<String, u64>) -> String {
    let mut text =
        format!("\n{:<40} {:>12} {:>12} {:>8}\n", "instructions", "baseline", "now", "change");
    for (case, count) in counts {
        let (before, change) = match baseline.get(case) {
            Some(before) => (before.to_string(), format!("{:+.1} %", percent(*count, *before))),
            None => ("-".to_owned(), "new".to_owned()),
        };
        let _infallible = writeln!(text, "{case:<40} {before:>12} {count:>12} {change:>8}");
    }
    text
}

#[cfg(test)]
mod tests;
