//! Traces with a row a request and a header that names the columns: Azure, BurstGPT, lengths alone.

use super::builder::{Builder, Line, both, lines, nanos, tokens};
use super::{calendar, shown};

/// How a file of this kind says what there is.
#[derive(Debug)]
pub(super) struct Format {
    /// Column of the times, and how to read it.
    time: Option<(&'static str, Time)>,
    prompt: &'static str,
    output: &'static str,
    /// An answer of no tokens means that the request failed.
    zero_is_failed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Time {
    Calendar,
    Seconds,
}

/// Azure's LLM inference traces of 2023 and 2024.
pub(super) const AZURE: Format = Format {
    time: Some(("TIMESTAMP", Time::Calendar)),
    prompt: "ContextTokens",
    output: "GeneratedTokens",
    zero_is_failed: false,
};

/// BurstGPT, with the requests that failed or without.
pub(super) const BURSTGPT: Format = Format {
    time: Some(("Timestamp", Time::Seconds)),
    prompt: "Request tokens",
    output: "Response tokens",
    zero_is_failed: true,
};

/// Lengths as Vidur has them.
pub(super) const LENGTHS: Format = Format {
    time: None,
    prompt: "num_prefill_tokens",
    output: "num_decode_tokens",
    zero_is_failed: false,
};

/// Where the columns are.
struct Columns {
    time: Option<(usize, &'static str, Time)>,
    prompt: usize,
    output: usize,
    count: usize,
}

/// Reads all rows of a file.
pub(super) fn read(format: &Format, text: &str, into: &mut Builder) {
    let mut lines = lines(text);
    let (number, header) = lines.next().unwrap_or((1, ""));
    let columns = match columns(format, header) {
        Ok(columns) => columns,
        Err(what) => return into.problem(number, what),
    };
    for (number, line) in lines {
        match row(format, &columns, line) {
            Ok(Some((at, prompt_tokens, output_tokens))) => {
                into.row(&Line { number, at, prompt_tokens, output_tokens }, &[], 1);
            }
            Ok(None) => into.failed(),
            Err(what) => into.problem(number, what),
        }
    }
}

fn columns(format: &Format, header: &str) -> Result<Columns, String> {
    no_quotes(header)?;
    let found: Vec<&str> = header.split(',').map(str::trim).collect();
    let place = |name: &str| found.iter().position(|column| column.eq_ignore_ascii_case(name));
    let time_place = format.time.map(|(name, _)| (name, place(name)));
    let places = [(format.prompt, place(format.prompt)), (format.output, place(format.output))];
    let missing: Vec<&str> = time_place
        .iter()
        .chain(&places)
        .filter(|(_, place)| place.is_none())
        .map(|(name, _)| *name)
        .collect();
    match (format.time, time_place, places) {
        (time, at, [(_, Some(prompt)), (_, Some(output))]) if missing.is_empty() => Ok(Columns {
            time: at.and_then(|(_, at)| at).zip(time).map(|(at, (name, time))| (at, name, time)),
            prompt,
            output,
            count: found.len(),
        }),
        _ => {
            let found = if header.is_empty() { "nothing".into() } else { shown_all(&found) };
            let (noun, verb) =
                if missing.len() == 1 { ("column", "is") } else { ("columns", "are") };
            let missing = shown_all(&missing);
            Err(format!(
                "the {noun} {missing} {verb} missing, found {found}; a first line that names the columns is expected"
            ))
        }
    }
}

fn shown_all(names: &[&str]) -> String {
    names.iter().take(20).map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}

fn no_quotes(line: &str) -> Result<(), String> {
    if line.contains('"') {
        return Err("there is a quote; fields are expected without quotes: remove them".to_owned());
    }
    Ok(())
}

/// Time, prompt and answer; none if the request failed.
fn row(format: &Format, columns: &Columns, line: &str) -> Result<Option<(i64, u32, u32)>, String> {
    no_quotes(line)?;
    let (mut time, mut prompt, mut output, mut count) = ("", "", "", 0);
    for field in line.split(',').map(str::trim) {
        match count {
            at if at == columns.prompt => prompt = field,
            at if at == columns.output => output = field,
            at if columns.time.is_some_and(|(time, ..)| at == time) => time = field,
            _ => {}
        }
        count += 1;
    }
    if count != columns.count {
        return Err(format!(
            "the row has {count} fields, the first line names {} columns; one field a column is expected",
            columns.count
        ));
    }
    let at = match columns.time {
        None => 0,
        Some((_, name, Time::Calendar)) => calendar::nanos(time).ok_or_else(|| {
            let example = "2023-11-16 18:15:46.6805900";
            format!("{name} is {}; a time such as {example} is expected", shown(time))
        })?,
        Some((_, name, Time::Seconds)) => {
            time.parse().ok().and_then(|value| nanos(value, 1.0)).ok_or_else(|| {
                format!("{name} is {}; seconds are expected, such as 12.5", shown(time))
            })?
        }
    };
    let (prompt, output) = (tokens(format.prompt, prompt), tokens(format.output, output));
    if format.zero_is_failed && output == Ok(0) && prompt.is_ok() {
        return Ok(None);
    }
    let (prompt, output) = both((format.prompt, prompt), (format.output, output))?;
    Ok(Some((at, prompt, output)))
}
