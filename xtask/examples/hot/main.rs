//! The functions that every request or event passes through, each to be run alone under callgrind: `cargo xtask bench`
//! counts their instructions.
//!
//! `hot CASE ROUNDS` runs a case so many times; `hot` names the cases. What a case needs is made before, and the same for
//! any number of rounds: two runs tell what one round costs.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool: its output is its purpose"
)]
#![expect(clippy::expect_used, reason = "a measurement that cannot be made is to end loudly")]

mod cases;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            for (name, _) in cases::ALL {
                println!("{name}");
            }
            ExitCode::SUCCESS
        }
        [name, rounds] => {
            let case = cases::ALL.iter().find(|(known, _)| *known == name);
            let (Some((_, make)), Ok(rounds)) = (case, rounds.parse::<u32>()) else {
                eprintln!("no such case or number: {name} {rounds}");
                return ExitCode::FAILURE;
            };
            let mut run = make();
            for _ in 0..rounds {
                run();
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: hot [CASE ROUNDS]");
            ExitCode::FAILURE
        }
    }
}
