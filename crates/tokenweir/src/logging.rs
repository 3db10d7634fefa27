//! The log, on stderr; stdout is the access log's.

use std::io::IsTerminal;

use proxy::LogFormat;
use tracing_subscriber::EnvFilter;

/// Level directives, e.g. `info,proxy=debug`.
const VARIABLE: &str = "TOKENWEIR_LOG";

/// Starts logging. Called once, before anything is logged.
#[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
pub(crate) fn start(format: LogFormat) {
    let wanted = std::env::var(VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&wanted);
    let wrong = filter.as_ref().err().map(ToString::to_string);
    let builder = tracing_subscriber::fmt()
        // A reader of the log that has gone costs log lines, not the process.
        .log_internal_errors(false)
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    if let Err(error) = started {
        crate::outcome::say_error(&format!("no log: {error}"));
    }
    if let Some(error) = wrong {
        tracing::warn!("{VARIABLE}={wanted:?} is not understood ({error}); logging at info");
    }
}
