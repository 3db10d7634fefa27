//! The repository's own commands: `cargo xtask test`, `cargo xtask tidy` and `cargo xtask bench`.
//!
//! `test` is the one command that says whether a change is good: it runs every check there is, in
//! the order in which they fail fastest, and stops at the first that fails. `tidy` runs only the
//! rules of the house, which are plain tests of this package (`src/tidy.rs`).
//!
//! Deliberately absent: anything the shipped binary needs. A stranger can build and use Tokenweir
//! with `cargo build` alone.
//!
//! - [`steps`]: the checks, their order, and the runner that times them
//! - [`bench`]: what a request costs
//! - [`e2e`]: the end-to-end suites, their Python environment and browser
//! - [`generated`], [`definitions`]: pages and files written from what the binary prints
//! - `tidy` (tests only): the rules of the house

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool: its output is its purpose"
)]
#![expect(clippy::disallowed_methods, reason = "a tool may read the clock and the environment")]

mod bench;
mod definitions;
mod e2e;
mod generated;
mod steps;
#[cfg(test)]
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use cargo_metadata::MetadataCommand;
use clap::{Parser, Subcommand};

use crate::steps::Step;

/// The repository's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every check; stop at the first that fails
    Test {
        /// Run only this step (may be given several times)
        #[arg(long, value_name = "STEP")]
        only: Vec<Step>,
        /// Name the steps and their commands, run nothing
        #[arg(long)]
        list: bool,
        /// Arguments for pytest, such as `-- -k abort`
        #[arg(last = true, value_name = "PYTEST ARGUMENT")]
        pytest: Vec<String>,
    },
    /// Run only the rules of the house
    Tidy,
    /// Write the generated pages of the documentation and the CustomResourceDefinitions anew
    Generate,
    /// Measure what a request costs
    Bench(bench::Arguments),
}

/// Where things are: every command runs in `root`, every product goes below `target`.
#[derive(Debug)]
struct Places {
    cargo: PathBuf,
    root: PathBuf,
    target: PathBuf,
}

impl Places {
    /// Asks cargo, which knows `CARGO_TARGET_DIR` and every configuration file.
    fn find() -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        let metadata = MetadataCommand::new()
            .cargo_path(&cargo)
            .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .no_deps()
            .exec()
            .context("cargo metadata")?;
        let (root, target) = (metadata.workspace_root.into(), metadata.target_directory.into());
        Ok(Self { cargo, root, target })
    }

    /// The shipped binary, as the `build` step leaves it.
    fn binary(&self) -> PathBuf {
        self.target.join("release").join(format!("tokenweir{}", std::env::consts::EXE_SUFFIX))
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Causes in one line, and no backtrace: what failed has said why, further up.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let places = Places::find()?;
    match command {
        Command::Test { list: true, .. } => {
            steps::list(&places);
            Ok(())
        }
        Command::Test { only, list: false, pytest } => steps::run(&places, &only, &pytest),
        Command::Tidy => steps::tidy(&places),
        Command::Generate => generated::write(&places),
        Command::Bench(arguments) => bench::run(&places, &arguments),
    }
}
