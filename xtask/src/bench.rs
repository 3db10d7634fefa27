//! What a request costs: `cargo xtask bench`.
//!
//! - [`counts`]: instructions of the functions that every request passes through, against a kept baseline. They are the
//!   same on every machine with the same compiler, however busy it is.
//! - [`load`]: the gateway under load beside a bare relay: CPU time, latency, memory. Only the ratios of one run mean
//!   anything.

mod counts;
mod load;

use anyhow::Context as _;
use clap::Args;

use crate::{Places, steps::run_shown};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only count instructions
    #[arg(long)]
    counts: bool,
    /// Only put load on the gateway
    #[arg(long, conflicts_with = "counts")]
    load: bool,
    /// Keep the counts as the new baseline
    #[arg(long)]
    save: bool,
    /// Rounds of load, whose medians are told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

pub(crate) fn run(places: &Places, arguments: &Arguments) -> anyhow::Result<()> {
    let mut build = std::process::Command::new(&places.cargo);
    build.args(["build", "--release", "--package", "xtask", "--examples"]);
    run_shown(build.current_dir(&places.root))?;
    if !arguments.load {
        counts::run(places, arguments.save)?;
    }
    if !arguments.counts {
        let mut build = std::process::Command::new(&places.cargo);
        build.args(["build", "--release", "--bin", "tokenweir"]);
        run_shown(build.current_dir(&places.root))?;
        load::run(places, arguments.rounds.max(1)).context("load")?;
    }
    Ok(())
}

/// Where cargo puts an example.
fn example(places: &Places, name: &str) -> std::path::PathBuf {
    places.target.join("release/examples").join(name)
}
