//! `tokenweir top`: the endpoints of a running gateway, kept up to date.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{
    args::{SortBy, TopArgs},
    fetch::ask_admin,
    outcome::{Failed, Outcome, say_error},
    signals::stop_requested,
};

mod fleet;
mod screen;
mod table;

use fleet::{Fleet, Pool};
use screen::{Key, Screen};

/// Between two readings.
const REFRESH: Duration = Duration::from_secs(1);

/// Column and direction.
#[derive(Clone, Copy, Debug)]
struct Order {
    by: SortBy,
    reverse: bool,
}

pub(crate) fn run(args: &TopArgs) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::run)?;
    runtime.block_on(async {
        let mut fleet = Fleet::default();
        // What is wrong at the start will not come right by itself; what goes wrong later may.
        fleet.take(ask(args).await?, Instant::now());
        if args.once {
            print(&table::lines(&fleet, order(args))).map_err(Failed::run)
        } else if std::io::stdout().is_terminal() {
            on_screen(args, fleet).await
        } else {
            in_lines(args, fleet).await
        }
    })
}

fn order(args: &TopArgs) -> Order {
    Order { by: args.sort, reverse: args.reverse }
}

async fn ask(args: &TopArgs) -> Result<Vec<Pool>, Failed> {
    ask_admin(&args.admin, "/endpoints").await
}

fn refreshes() -> tokio::time::Interval {
    let mut refreshes = interval_at(Instant::now() + REFRESH, REFRESH);
    refreshes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refreshes
}

/// The table again and again, until whoever reads it has gone.
async fn in_lines(args: &TopArgs, mut fleet: Fleet) -> Outcome {
    let mut refreshes = refreshes();
    let mut stop = std::pin::pin!(stop_requested());
    while print(&table::lines(&fleet, order(args))).is_ok() {
        tokio::select! {
            _ = refreshes.tick() => {}
            stopped = &mut stop => return stopped.map_err(Failed::run),
        }
        match ask(args).await {
            Ok(pools) => fleet.take(pools, Instant::now()),
            Err(Failed::Run(problem)) => say_error(&problem),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn print(lines: &[String]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    out.flush()
}

/// The table in the terminal's place, until somebody has seen enough.
async fn on_screen(args: &TopArgs, mut fleet: Fleet) -> Outcome {
    let (mut screen, mut keys) = Screen::open().map_err(Failed::run)?;
    let mut order = order(args);
    let mut problem = None;
    let mut refreshes = refreshes();
    let mut stop = std::pin::pin!(stop_requested());
    loop {
        let lines = table::lines(&fleet, order);
        screen.show(&lines, problem.as_deref()).map_err(Failed::run)?;
        tokio::select! {
            _ = refreshes.tick() => match ask(args).await {
                Ok(pools) => {
                    fleet.take(pools, Instant::now());
                    problem = None;
                }
                Err(Failed::Run(what)) => problem = Some(what),
                Err(other) => return Err(other),
            },
            key = keys.recv() => match key {
                Some(Key::Sort) => order.by = table::after(order.by),
                Some(Key::Reverse) => order.reverse = !order.reverse,
                Some(Key::Scroll(by)) => screen.scroll(by),
                Some(Key::Redraw) => {}
                Some(Key::Quit) | None => return Ok(()),
            },
            stopped = &mut stop => return stopped.map_err(Failed::run),
        }
    }
}
