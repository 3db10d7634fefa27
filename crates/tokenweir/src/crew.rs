//! The threads that carry requests beside the one that listens: one for each further processor.

use std::{
    num::NonZero,
    thread::{Builder as Thread, JoinHandle, available_parallelism},
};

use picker::Tasks;
use tokio::runtime::{Builder, Handle};

use crate::{
    app::{TASKS_END_MAX, runtime},
    outcome::Failed,
};

/// Threads, each with a runtime of its own.
pub(crate) struct Crew(Vec<(Handle, JoinHandle<()>)>);

impl Crew {
    /// Starts them. They end when `background` is told to stop.
    pub(crate) fn start(background: &Tasks) -> Result<Self, Failed> {
        let threads = available_parallelism().map_or(1, NonZero::get);
        (1..threads).map(|_| start_one(background)).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        self.0.iter().map(|(runtime, _)| runtime.clone()).collect()
    }

    /// Waits for their end, which has to have been asked for.
    pub(crate) fn end(self) {
        for (_, thread) in self.0 {
            if thread.join().is_err() {
                tracing::error!("a thread that carries requests panicked: a bug");
            }
        }
    }
}

fn start_one(background: &Tasks) -> Result<(Handle, JoinHandle<()>), Failed> {
    let runtime = runtime(&mut Builder::new_current_thread(), "data")?;
    let handle = runtime.handle().clone();
    let stopping = background.stopping();
    let work = move || {
        runtime.block_on(stopping);
        runtime.shutdown_timeout(TASKS_END_MAX);
    };
    let thread = Thread::new().name("data".to_owned()).spawn(work).map_err(Failed::run)?;
    Ok((handle, thread))
}
