//! The checks of `cargo xtask test`, in the order in which they fail fastest.

#[cfg(test)]
mod tests;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{Places, e2e, generated};

/// One check. The order of the variants is the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Formatting
    Fmt,
    /// Lints, warnings denied
    Clippy,
    /// Unit, property and integration tests of every room; the tidy rules
    Test,
    /// The fuzz targets compile
    Fuzz,
    /// The shipped binary
    Build,
    /// The generated pages of the documentation are current
    Generated,
    /// The shipped binary under the official clients
    E2e,
    /// The shipped binary on a double of the Kubernetes API server
    Kubernetes,
}

impl Step {
    const ALL: &[Self] = &[
        Self::Fmt,
        Self::Clippy,
        Self::Test,
        Self::Fuzz,
        Self::Build,
        Self::Generated,
        Self::E2e,
        Self::Kubernetes,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Test => "test",
            Self::Fuzz => "fuzz",
            Self::Build => "build",
            Self::Generated => "generated",
            Self::E2e => "e2e",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// What cargo is asked; the end-to-end suites are not cargo's.
    fn cargo_arguments(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Fmt => Some(&["fmt", "--all", "--check"]),
            Self::Clippy => {
                Some(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
            }
            Self::Test => Some(&["test", "--workspace"]),
            Self::Fuzz => {
                Some(&["check", "--manifest-path", "fuzz/Cargo.toml", "--no-default-features"])
            }
            Self::Build => Some(&["build", "--release", "--bin", "tokenweir"]),
            Self::Generated | Self::E2e | Self::Kubernetes => None,
        }
    }

    fn suite(self) -> e2e::Suite {
        if self == Self::Kubernetes { e2e::KUBERNETES } else { e2e::STANDALONE }
    }

    fn run(self, places: &Places, pytest: &[String]) -> anyhow::Result<()> {
        if self == Self::Fuzz && !places.root.join("fuzz/Cargo.toml").exists() {
            println!("no fuzz/Cargo.toml: there are no fuzz targets to check");
            return Ok(());
        }
        if self == Self::Generated {
            return generated::check(places);
        }
        let Some(arguments) = self.cargo_arguments() else {
            return e2e::run(places, self.suite(), pytest);
        };
        let mut command = Command::new(&places.cargo);
        command.args(arguments).current_dir(&places.root);
        if self == Self::Fuzz {
            // `fuzz` is a workspace of its own; its products stay below the one target directory.
            command.arg("--target-dir").arg(places.target.join("fuzz"));
        }
        run_shown(&mut command)
    }
}

/// Prints a command as one could type it, runs it with our output, and turns failure into an error.
pub(crate) fn run_shown(command: &mut Command) -> anyhow::Result<()> {
    let line = shown(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(key, value)| {
        Some(format!("{}={}", key.to_string_lossy(), quoted(&value?.to_string_lossy())))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| quoted(&word.to_string_lossy()));
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

pub(crate) fn list(places: &Places) {
    for step in Step::ALL {
        let command = match step.cargo_arguments() {
            Some(words) => format!("cargo {}", words.join(" ")),
            None if *step == Step::Generated => "tokenweir reference; tokenweir crds".to_owned(),
            None => e2e::summary(places, step.suite()),
        };
        println!("{:<10} {command}", step.name());
    }
}

/// The steps to run, in their own order whatever the order asked.
fn chosen(only: &[Step]) -> impl Iterator<Item = Step> {
    Step::ALL.iter().copied().filter(move |step| only.is_empty() || only.contains(step))
}

pub(crate) fn run(places: &Places, only: &[Step], pytest: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut table: Vec<(Step, Duration)> = Vec::new();
    let mut failure = None;
    for step in chosen(only) {
        println!("\n=== {} ===", step.name());
        let step_started = Instant::now();
        let outcome = step.run(places, pytest);
        let took = step_started.elapsed();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("--- {}: {word} in {}", step.name(), seconds(took));
        table.push((step, took));
        if let Err(error) = outcome {
            failure = Some((step, error));
            break;
        }
    }
    println!("\n=== summary ===");
    for (step, took) in table {
        let failed = failure.as_ref().is_some_and(|(at, _)| *at == step);
        let word = if failed { "FAILED" } else { "ok" };
        println!("{:<10} {word:<7} {:>9}", step.name(), seconds(took));
    }
    println!("{:<10} {:<7} {:>9}", "total", "", seconds(started.elapsed()));
    match failure {
        Some((step, error)) => Err(error.context(format!("step {} failed", step.name()))),
        None => Ok(()),
    }
}

pub(crate) fn tidy(places: &Places) -> anyhow::Result<()> {
    let mut command = Command::new(&places.cargo);
    command.args(["test", "--quiet", "--package", "xtask", "tidy"]).current_dir(&places.root);
    // The findings name the places; where the test panicked is of no interest.
    run_shown(command.env("RUST_BACKTRACE", "0"))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
