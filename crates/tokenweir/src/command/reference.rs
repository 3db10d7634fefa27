//! `tokenweir reference`: the generated pages of the documentation, from what they describe.

use clap::CommandFactory;
use picker::{MetricReference, Metrics, Workload};

use crate::{
    args::{Args, Page, ReferenceArgs},
    outcome::{Failed, Outcome, say},
};

/// Columns of the help texts, whatever terminal this runs in.
const WIDTH: usize = 100;

pub(crate) fn run(args: &ReferenceArgs) -> Outcome {
    let page = match args.page {
        Page::Cli => cli(),
        Page::Metrics => metrics()?,
    };
    say(page.trim_end());
    Ok(())
}

fn cli() -> String {
    let mut program = Args::command().term_width(WIDTH).max_term_width(WIDTH);
    program.build();
    let commands = program
        .get_subcommands_mut()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help");
    let sections = commands.map(|command| {
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        format!("## {}\n\n```text\n{}\n```\n", command.get_name(), lines.join("\n").trim_end())
    });
    let head = "# Commands\n\nWhat `tokenweir COMMAND --help` prints.\n".to_owned();
    std::iter::once(head).chain(sections).collect::<Vec<_>>().join("\n")
}

fn metrics() -> Result<String, Failed> {
    let workload = Workload { name: String::new(), namespace: String::new() };
    let metrics = Metrics::new(workload).map_err(Failed::run)?;
    let head = "# Metrics\n\n| name | kind | labels | meaning |\n|---|---|---|---|".to_owned();
    let row = |metric: &MetricReference| {
        let MetricReference { name, kind, labels, help } = metric;
        format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
    };
    Ok(std::iter::once(head)
        .chain(metrics.reference().iter().map(row))
        .collect::<Vec<_>>()
        .join("\n"))
}
