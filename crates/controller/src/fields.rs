//! Reads typed values out of a tree and reports everything that does not fit, never stopping at
//! the first.
//!
//! A wrong value is an error. An unknown key, or one we know and do not honour, is a warning, as
//! it is in Kubernetes.

use std::{
    cell::RefCell, cmp::Ordering, collections::BTreeMap, fmt::Display, ops::RangeInclusive,
    sync::Arc, time::Duration,
};

use crate::{
    problem::{Problem, Severity},
    spelling,
    yaml::{Entry, Node, Value},
};

mod text;

pub(crate) use text::{bytes, duration, gateway_duration};

/// The longest time that can be asked for, as for the gateway's own settings.
const TIME_MAX: Duration = Duration::from_hours(24);

/// Collects the problems of one object.
pub(crate) struct Report {
    file: Arc<str>,
    object: Option<String>,
    problems: RefCell<Vec<Problem>>,
}

/// How many problems of one object are told.
const PROBLEMS_MAX: usize = 100;

impl Report {
    pub(crate) fn new(file: Arc<str>, object: Option<String>) -> Self {
        Self { file, object, problems: RefCell::default() }
    }

    pub(crate) fn say(
        &self,
        severity: Severity,
        line: u32,
        field: &str,
        message: impl Display,
        hint: &str,
    ) {
        let mut problems = self.problems.borrow_mut();
        let (severity, message, hint) = match problems.len().cmp(&PROBLEMS_MAX) {
            Ordering::Less => (severity, message.to_string(), hint),
            // An error, whatever comes: nobody can say what else is wrong with this object.
            Ordering::Equal => {
                (Severity::Error, format!("more than {PROBLEMS_MAX} problems, the rest untold"), "")
            }
            Ordering::Greater => return,
        };
        problems.push(Problem {
            severity,
            file: Arc::clone(&self.file),
            line: (line > 0).then_some(line),
            object: self.object.clone(),
            field: (!field.is_empty()).then(|| field.to_owned()),
            message,
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        });
    }

    fn is_full(&self) -> bool {
        self.problems.borrow().len() > PROBLEMS_MAX
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// A value, where it is, and whom to tell about it.
#[derive(Clone)]
pub(crate) struct Item<'a> {
    node: &'a Node,
    /// The key's line where there is one: that is where people look.
    pub(crate) line: u32,
    path: String,
    report: &'a Report,
}

impl<'a> Item<'a> {
    pub(crate) fn root(node: &'a Node, report: &'a Report) -> Self {
        Self { node, line: node.line, path: String::new(), report }
    }

    pub(crate) fn error(&self, message: impl Display, hint: &str) {
        self.report.say(Severity::Error, self.line, &self.path, message, hint);
    }

    pub(crate) fn warn(&self, message: impl Display, hint: &str) {
        self.report.say(Severity::Warning, self.line, &self.path, message, hint);
    }

    pub(crate) fn info(&self, message: impl Display, hint: &str) {
        self.report.say(Severity::Info, self.line, &self.path, message, hint);
    }

    /// Reports a value of the wrong type.
    pub(crate) fn expected(&self, what: &str, hint: &str) {
        self.error(format_args!("expected {what}, found {}", self.node.describe()), hint);
    }

    /// The value as it was given.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        self.node.to_json()
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The value if it is a string, without a word if it is not.
    pub(crate) fn as_text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A string, possibly empty.
    pub(crate) fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) => return Some(text.clone()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let found = self.node.describe();
                self.expected("a string", &format!("put it in quotes: \"{found}\""));
            }
            Value::Null | Value::List(_) | Value::Map(_) => self.expected("a string", ""),
        }
        None
    }

    /// A string with something in it.
    pub(crate) fn word(&self) -> Option<String> {
        let text = self.text()?;
        if text.is_empty() {
            self.expected("a string that is not empty", "");
            return None;
        }
        Some(text)
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        if let Value::Bool(value) = &self.node.value {
            return Some(*value);
        }
        self.expected("true or false", "write it without quotes");
        None
    }

    pub(crate) fn integer(
        &self,
        range: RangeInclusive<i64>,
        what: &str,
        hint: &str,
    ) -> Option<i64> {
        if let Value::Int(value) = &self.node.value
            && range.contains(value)
        {
            return Some(*value);
        }
        let quoted = self.as_text().and_then(|text| text.parse().ok());
        let quoted = quoted.is_some_and(|number| range.contains(&number));
        let hint = if quoted { "write it without quotes" } else { hint };
        let to = if *range.start() < 0 { " to " } else { "-" };
        self.expected(&format!("{what} {}{to}{}", range.start(), range.end()), hint);
        None
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.integer(1..=65535, "a port number", "write e.g. 8000")?.try_into().ok()
    }

    pub(crate) fn weight(&self) -> Option<u32> {
        self.integer(0..=1_000_000, "a weight", "write e.g. 100")?.try_into().ok()
    }

    pub(crate) fn duration(&self) -> Option<Duration> {
        let found = self.as_text().and_then(duration);
        if found.is_none() {
            self.expected("a duration", "write e.g. 5s, 1.5s or 300ms");
        }
        found
    }

    /// A duration as the Gateway API writes it.
    pub(crate) fn time(&self, may_be_zero: bool) -> Option<Duration> {
        let found = self.as_text().and_then(gateway_duration);
        let found = found.filter(|time| *time <= TIME_MAX && (may_be_zero || !time.is_zero()));
        if found.is_none() {
            let least = if may_be_zero { "0s" } else { "1ms" };
            let what = format!("a duration {least}-24h");
            self.expected(&what, "write e.g. 500ms, 60s or 1m30s");
        }
        found
    }

    /// A number of bytes, from one to `most`, as Kubernetes writes quantities.
    pub(crate) fn bytes(&self, most: &str) -> Option<u64> {
        let found = match &self.node.value {
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::Text(text) => bytes(text),
            _ => None,
        };
        let found = found.filter(|found| *found > 0 && Some(*found) <= bytes(most));
        if found.is_none() {
            self.expected(&format!("a number of bytes 1-{most}"), "write e.g. 32Mi");
        }
        found
    }

    /// One of a closed set of words.
    pub(crate) fn one_of(&self, words: &[&'static str]) -> Option<&'static str> {
        let found = self.as_text().unwrap_or_default();
        let known = words.iter().copied().find(|word| *word == found);
        if known.is_none() {
            let hint = match spelling::closest(found, words.iter().copied(), 3) {
                Some(meant) => format!("did you mean {meant}?"),
                None => String::new(),
            };
            let one_of = if words.len() == 1 { "" } else { "one of " };
            self.expected(&format!("{one_of}{}", words.join(", ")), &hint);
        }
        known
    }

    pub(crate) fn list(&self) -> Vec<Item<'a>> {
        let Value::List(nodes) = &self.node.value else {
            self.expected("a list", "begin each item with \"- \"");
            return Vec::new();
        };
        let item = |(index, node): (usize, &'a Node)| Item {
            node,
            line: node.line,
            path: format!("{}[{index}]", self.path),
            report: self.report,
        };
        nodes.iter().enumerate().map(item).collect()
    }

    pub(crate) fn words(&self) -> Vec<String> {
        self.list().iter().filter_map(Item::word).collect()
    }

    /// A map with free keys.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Item<'a>)> {
        let Value::Map(entries) = &self.node.value else {
            self.expected("a map", "write keys and values, one \"key: value\" a line");
            return Vec::new();
        };
        entries.iter().map(|entry| (entry.key.as_str(), self.under(entry))).collect()
    }

    /// A map of strings.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.entries()
            .into_iter()
            .filter_map(|(key, item)| Some((key.to_owned(), item.text()?)))
            .collect()
    }

    /// A map with known keys. Keys that `read` did not ask for are reported after it.
    pub(crate) fn fields<T>(&self, read: impl FnOnce(&mut Fields<'a>) -> T) -> Option<T> {
        let Value::Map(entries) = &self.node.value else {
            self.expected("a map", "");
            return None;
        };
        let mut fields = Fields { item: self.clone(), entries, known: Vec::new() };
        let value = read(&mut fields);
        fields.report_unknown();
        Some(value)
    }

    fn under(&self, entry: &'a Entry) -> Item<'a> {
        let path = match self.path.as_str() {
            "" => entry.key.clone(),
            path => format!("{path}.{}", entry.key),
        };
        Item { node: &entry.node, line: entry.line, path, report: self.report }
    }
}

/// The keys of a map, some of which have been asked for.
pub(crate) struct Fields<'a> {
    pub(crate) item: Item<'a>,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The field's value, if it has one; null is none, as in Kubernetes.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (entry.node.value != Value::Null).then(|| self.item.under(entry))
    }

    /// The same for a field that has to be there.
    pub(crate) fn need(&mut self, key: &'static str, what: &str) -> Option<Item<'a>> {
        let found = self.get(key);
        if found.is_none() {
            let path = match self.item.path.as_str() {
                "" => key.to_owned(),
                path => format!("{path}.{key}"),
            };
            // Written but empty: point at it rather than at the map around it.
            let written = self.entries.iter().find(|entry| entry.key == key);
            let line = written.map_or(self.item.line, |entry| entry.line);
            self.item.report.say(
                Severity::Error,
                line,
                &path,
                format_args!("expected {what}, found nothing"),
                "",
            );
        }
        found
    }

    /// Fields that say nothing to us and may be there.
    pub(crate) fn skip(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Nothing here is for us to judge.
    pub(crate) fn skip_all(&mut self) {
        self.entries = &[];
    }

    /// Fields we know and do not honour.
    pub(crate) fn unserved(&mut self, keys: &[&'static str], hint: &str) {
        for key in keys {
            if let Some(item) = self.get(key) {
                item.warn("known, but not honoured yet", hint);
            }
        }
    }

    fn report_unknown(&self) {
        for entry in self.entries {
            if self.item.report.is_full() {
                return;
            }
            if self.known.contains(&entry.key.as_str()) {
                continue;
            }
            let hint = match spelling::closest(&entry.key, self.known.iter().copied(), 2) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.item.under(entry).warn("unknown field, ignored", &hint);
        }
    }
}

#[cfg(test)]
mod tests;
