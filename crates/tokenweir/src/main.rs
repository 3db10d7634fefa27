//! Wires: arguments and settings in, rooms connected, a process that starts, serves and stops.
//!
//! The only room that reads the environment and the command line, and the only `main`.
//!
//! Deliberately absent: everything else. What a command does is in the rooms.

use std::process::ExitCode;

use clap::Parser;

mod app;
mod args;
mod command;
mod configuration;
mod crew;
mod fetch;
mod logging;
mod open_files;
mod outcome;
mod profile;
mod settings;
mod signals;
mod traces;

use args::{Args, Command};
use outcome::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Demo(args) => command::demo::run(&args),
        Command::Serve(args) => command::serve::run(&args),
        Command::Check(args) => command::check::run(&args),
        Command::Get(args) => command::get::run(&args),
        Command::Top(args) => command::top::run(&args),
        Command::Sim(args) => command::sim::run(&args),
        Command::Bench(args) => command::bench::run(&args),
        Command::Compare(args) => command::compare::run(&args),
        Command::Crds => command::crds::run(),
        Command::Reference(args) => command::reference::run(&args),
    };
    logging::flush();
    outcome.report()
}
