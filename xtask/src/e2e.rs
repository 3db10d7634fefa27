//! What the end-to-end suites need: a Python environment, made once and remade when its pins change, and programs.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::Places;
use crate::steps::run_shown;

/// Written into the environment after everything was installed: the pins it was made from.
const STAMP: &str = "installed-requirements.txt";

/// A suite of its own: what it collects, as arguments for pytest.
pub(crate) type Suite = &'static [&'static str];

/// The binary as it is used without Kubernetes.
pub(crate) const STANDALONE: Suite = &["e2e", "--ignore=e2e/kubernetes"];
/// The binary as it follows an API server.
pub(crate) const KUBERNETES: Suite = &["e2e/kubernetes"];

/// Programs of outside that the suite runs, and the packages that have them.
const PROGRAMS: [(&str, &str); 4] = [
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
];

/// One line for `cargo xtask test --list`.
pub(crate) fn summary(places: &Places, suite: Suite) -> String {
    format!("pytest {}, in {}", suite.join(" "), environment(places).display())
}

/// Runs a suite against the release binary.
pub(crate) fn run(places: &Places, suite: Suite, arguments: &[String]) -> anyhow::Result<()> {
    let binary = places.binary();
    ensure!(
        binary.exists(),
        "{} is missing; run `cargo xtask test --only build` first",
        binary.display()
    );
    let python = prepare(places)?;
    if suite == STANDALONE {
        find_programs()?;
    }
    run_shown(
        Command::new(python)
            .args(["-m", "pytest"])
            .args(suite)
            .args(arguments)
            .env("TOKENWEIR_BIN", binary)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(&places.root),
    )
}

/// Installs what is missing, by Debian's packages, since none of it is ours to bundle.
fn find_programs() -> anyhow::Result<()> {
    let missing = PROGRAMS.iter().filter(|(program, _)| !runs(program));
    let mut missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        println!("{} are here already", PROGRAMS.map(|(program, _)| program).join(", "));
        return Ok(());
    }
    let needs = "the end-to-end tests need a browser and Prometheus \
                 (Debian: apt install chromium chromium-driver prometheus)";
    run_shown(Command::new("apt-get").arg("update")).context(needs)?;
    let install = ["install", "--yes", "--no-install-recommends"];
    run_shown(Command::new("apt-get").args(install).args(missing)).context(needs)
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn environment(places: &Places) -> PathBuf {
    places.target.join("e2e-venv")
}

/// The Python of an environment that has exactly the pins of `e2e/requirements.txt`.
fn prepare(places: &Places) -> anyhow::Result<PathBuf> {
    let requirements = places.root.join("e2e/requirements.txt");
    let pins = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let environment = environment(places);
    let python = environment.join("bin/python");
    if is_current(&environment, &pins) && starts(&python) {
        println!("{} has these pins already", environment.display());
        return Ok(python);
    }
    if environment.exists() {
        fs::remove_dir_all(&environment)
            .with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    run_shown(Command::new("python3").args(["-m", "venv"]).arg(&environment)).context(
        "the end-to-end tests need Python 3 with its venv module (Debian: apt install python3-venv)",
    )?;
    run_shown(
        Command::new(&python)
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--requirement"])
            .arg(&requirements),
    )
    .context("the end-to-end tests need the packages of e2e/requirements.txt")?;
    fs::write(environment.join(STAMP), pins)?;
    Ok(python)
}

fn is_current(environment: &Path, pins: &str) -> bool {
    fs::read_to_string(environment.join(STAMP)).is_ok_and(|stamp| stamp == pins)
}

/// False when the interpreter the environment was made from is gone.
fn starts(python: &Path) -> bool {
    let mut command = Command::new(python);
    command
        .args(["-c", "import pytest, openai, httpx, h2, yaml, opentelemetry.proto"])
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
