//! Traces with a JSON object a line, whose prompts are rows of numbered blocks: Mooncake, Bailian.

use serde_json::{Map, Value};

use super::builder::{Builder, Line, both, lines, nanos, tokens};
use super::shown;

/// How a file of this kind says what there is.
#[derive(Debug)]
pub(super) struct Format {
    /// Its name, for advice.
    name: &'static str,
    /// Unit of the times.
    unit: &'static str,
    unit_seconds: f64,
}

/// Mooncake's traces.
pub(super) const MOONCAKE: Format =
    Format { name: "mooncake", unit: "milliseconds", unit_seconds: 1e-3 };

/// Traces of Alibaba's Bailian.
pub(super) const BAILIAN: Format = Format { name: "bailian", unit: "seconds", unit_seconds: 1.0 };

const FIELDS: [&str; 4] = ["timestamp", "input_length", "output_length", "hash_ids"];

/// Reads all rows of a file whose blocks have this many tokens.
pub(super) fn read(format: &Format, block: u32, text: &str, into: &mut Builder) {
    let mut ids = Vec::new();
    let mut any = false;
    for (number, line) in lines(text) {
        any = true;
        match row(format, block, (number, line), &mut ids) {
            Ok(row) => into.row(&row, &ids, block),
            Err(what) => into.problem(number, what),
        }
    }
    if !any {
        let what = format!("the file is empty; a JSON object a line is expected, with {}", all());
        into.problem(1, what);
    }
}

fn all() -> String {
    FIELDS.join(", ")
}

fn row(
    format: &Format,
    block: u32,
    (number, line): (u32, &str),
    ids: &mut Vec<u64>,
) -> Result<Line, String> {
    let [time, input, output, hashes] = fields(line, FIELDS)?;
    let at =
        time.as_f64().and_then(|value| nanos(value, format.unit_seconds)).ok_or_else(|| {
            let found = shown(&time.to_string());
            format!("timestamp is {found}; {} are expected, such as 1500", format.unit)
        })?;
    let (prompt_tokens, output_tokens) =
        both((FIELDS[1], length(FIELDS[1], &input)), (FIELDS[2], length(FIELDS[2], &output)))?;
    read_ids(&hashes, ids)?;
    check_count(format.name, block, prompt_tokens, ids.len())?;
    Ok(Line { number, at, prompt_tokens, output_tokens })
}

/// These fields of the object in this line.
pub(crate) fn fields<const N: usize>(line: &str, names: [&str; N]) -> Result<[Value; N], String> {
    let mut object: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
        let why = error.to_string();
        let why = why.split(" at line ").next().unwrap_or_default();
        format!("column {}: {why}; a JSON object a line is expected", error.column())
    })?;
    let missing: Vec<&str> =
        names.iter().filter(|name| !object.contains_key(**name)).copied().collect();
    if missing.is_empty() {
        return Ok(names.map(|name| object.get_mut(name).map(Value::take).unwrap_or_default()));
    }
    let found: Vec<String> = object.keys().take(20).map(|name| shown(name)).collect();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    let (noun, verb) = if missing.len() == 1 { ("field", "is") } else { ("fields", "are") };
    Err(format!("the {noun} {} {verb} missing, found {found}", missing.join(", ")))
}

/// A number of tokens.
pub(crate) fn length(name: &str, value: &Value) -> Result<u32, String> {
    tokens(name, &value.to_string())
}

fn read_ids(value: &Value, ids: &mut Vec<u64>) -> Result<(), String> {
    ids.clear();
    let Some(values) = value.as_array() else {
        return Err(format!(
            "hash_ids is {}; a list of whole numbers is expected",
            shown(&value.to_string())
        ));
    };
    for (at, value) in values.iter().enumerate() {
        let signed = || value.as_i64().map(i64::cast_unsigned);
        let Some(id) = value.as_u64().or_else(signed) else {
            let found = shown(&value.to_string());
            return Err(format!("hash_ids[{at}] is {found}; a whole number is expected"));
        };
        ids.push(id);
    }
    Ok(())
}

/// Blocks of another length would say that other tokens are shared. The last block may have no id if it is not full.
fn check_count(name: &str, block: u32, prompt_tokens: u32, ids: usize) -> Result<(), String> {
    let full = (prompt_tokens / block) as usize;
    let all = prompt_tokens.div_ceil(block) as usize;
    if ids >= full && ids <= all {
        return Ok(());
    }
    let few = if full == all { String::new() } else { format!("{full} or ") };
    Err(format!(
        "there are {ids} hash_ids for {prompt_tokens} tokens, {few}{all} are expected if a block has {block}; if its \
         blocks have N, read the file as {name}@N:FILE"
    ))
}
