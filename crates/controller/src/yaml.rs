//! Text to trees whose every node knows its line.
//!
//! Each document is parsed for itself, so a syntax error in one does not hide what is wrong with
//! the others. Nesting and the number of nodes are bounded, aliases counted as if written out.

use granit_parser::{Event, Parser, ScalarStyle, Tag};

mod build;

/// How deep lists and maps may be nested.
pub(crate) const DEPTH_MAX: usize = 64;

/// How many values one file may hold once its aliases are written out.
pub(crate) const NODES_MAX: usize = 500_000;

/// A value and where it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) value: Value,
}

/// What a node holds. Numbers other than integers keep their spelling.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, its value and the line of the key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u32,
    pub(crate) node: Node,
}

/// Something that is not right with the text itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

/// Everything in a file.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// Empty documents are left out.
    pub(crate) documents: Vec<Node>,
    pub(crate) faults: Vec<Fault>,
}

impl Node {
    /// The value as JSON, for showing the object as it was given.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => number.into(),
                _ => text.as_str().into(),
            },
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// How the value is named in a message: `"abc"`, `8000`, `a list`.
    pub(crate) fn describe(&self) -> String {
        const LETTERS_MAX: usize = 40;
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(text) => text.clone(),
            Value::Text(text) if text.chars().count() > LETTERS_MAX => {
                format!("{:?}…", text.chars().take(LETTERS_MAX).collect::<String>())
            }
            Value::Text(text) => format!("{text:?}"),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a map".into(),
        }
    }
}

/// Reads every document of a YAML or JSON text.
pub(crate) fn parse(text: &str) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parsed = Parsed::default();
    let mut nodes_left = Some(NODES_MAX);
    for (first_line, chunk) in chunks(text) {
        parse_chunk(first_line, chunk, &mut nodes_left, &mut parsed);
        if nodes_left.is_none() {
            break;
        }
    }
    parsed.documents.retain(|node| node.value != Value::Null);
    parsed
}

/// The text cut before each `---` line, with the number of each piece's first line. YAML allows
/// no such line inside a scalar.
fn chunks(text: &str) -> Vec<(u32, &str)> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if at > start && marker.is_some_and(|rest| rest.trim_start().len() < rest.len()) {
            chunks.push((start_line, &text[start..at]));
            start = at;
            start_line = u32::try_from(index + 1).unwrap_or(u32::MAX);
        }
        at += line.len();
    }
    chunks.push((start_line, &text[start..]));
    chunks.retain(|(_, chunk)| {
        chunk.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with(['#', '%']))
    });
    chunks
}

fn parse_chunk(first_line: u32, chunk: &str, nodes_left: &mut Option<usize>, parsed: &mut Parsed) {
    let options = granit_parser::options! {
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
        emit_comments: false,
    };
    let line_of = |line: usize| {
        first_line.saturating_add(u32::try_from(line).unwrap_or(u32::MAX).saturating_sub(1))
    };
    let mut builder = build::Builder::new(nodes_left);
    for event in Parser::new_from_str_with_options(chunk, options) {
        let outcome = match event {
            Ok((event, span)) => builder.take(event, line_of(span.start.line())),
            Err(error) => Err(syntax_fault(line_of(error.marker().line()), &error.info())),
        };
        if let Err(fault) = outcome {
            parsed.faults.push(fault);
            // Whatever is built so far is half an object, and would only breed more faults.
            parsed.faults.append(&mut builder.faults);
            return;
        }
    }
    parsed.faults.append(&mut builder.faults);
    parsed.documents.append(&mut builder.roots);
}

fn syntax_fault(line: u32, info: &str) -> Fault {
    if info.contains("recursion limit") {
        return build::too_deep(line);
    }
    let hint = if info.contains("tab") {
        "indent with spaces"
    } else {
        "check the indentation, quotes and brackets here and on the lines above"
    };
    Fault { line, message: format!("not valid YAML: {info}"), hint }
}

/// What a scalar means in YAML 1.2's core schema; `yes` and `on` are text.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    match tag.and_then(Tag::core_suffix) {
        Some("str") => Value::Text(text.to_owned()),
        Some("int" | "float" | "bool" | "null") => plain(text),
        _ if tag.is_some() || style != ScalarStyle::Plain => Value::Text(text.to_owned()),
        _ => plain(text),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return Value::Text(text.to_owned());
    }
    let number = match text.get(..2) {
        Some("0x") => i64::from_str_radix(&text[2..], 16),
        Some("0o") => i64::from_str_radix(&text[2..], 8),
        _ => text.parse(),
    };
    if let Ok(number) = number {
        return Value::Int(number);
    }
    let is_number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    if text.chars().all(is_number) && text.parse::<f64>().is_ok() {
        return Value::Float(text.to_owned());
    }
    Value::Text(text.to_owned())
}

#[cfg(test)]
mod tests;
