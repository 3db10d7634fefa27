//! The measuring rig of `cargo xtask bench`: what stands before and behind the gateway while its cost is measured, and
//! the rod it is measured with. Each part is one thread, and as cheap as can be.
//!
//! - `rig mock PORT…`: answers like vLLM servers, one on each port, at once or at a pace
//! - `rig load …`: sends requests, times their answers and meters the CPU time of the process under test
//! - `rig relay PORT TO…`: the rod, a bare relay that understands nothing

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool: its output is its purpose"
)]
#![expect(clippy::expect_used, reason = "a measurement that cannot be made is to end loudly")]
#![expect(
    clippy::disallowed_methods,
    reason = "no part of the gateway: nobody waits for its tasks, and its clock is the wall's"
)]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are rounded"
)]

mod load;
mod meter;
mod mock;
mod relay;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Answer like vLLM servers
    Mock(mock::Arguments),
    /// Send requests and meter
    Load(load::Arguments),
    /// Pass requests on, and nothing else
    Relay(relay::Arguments),
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = async {
        match Arguments::parse().part {
            Part::Mock(arguments) => mock::run(arguments).await,
            Part::Load(arguments) => load::run(arguments).await,
            Part::Relay(arguments) => relay::run(arguments).await,
        }
    };
    match runtime.and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
