//! Conditions into a status that is not ours alone: what others wrote stays as it is.
//!
//! Pure: the status as it stands and what we have to say in, the change out. What says the same
//! already is no change, so that nothing is written without need.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    object::GATEWAY_API_GROUP,
    status::{CONTROLLER_NAME, ObjectStatus, StatusShape},
};

/// How many entries the lists of a status may hold, in the narrowest of their definitions.
const ENTRIES_MAX: usize = 16;

/// Entries this process has written, as `Reference`s: in versions whose entries name no controller
/// they are known by nothing else.
pub(super) type Written = BTreeSet<Reference>;

/// Whom an entry of a status is about: group, kind, namespace, name, section and port.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Reference([String; 6]);

/// The fields of `status` that have to change, and to what. `None` when all is said already.
pub(super) fn patch(
    standing: &Value,
    wanted: &ObjectStatus,
    written: &Written,
    now: &str,
) -> Option<Value> {
    let Value::Object(fields) = wanted.status_json() else { return None };
    let mut changed = Map::new();
    for (key, value) in fields {
        let ours = value.as_array().map_or(&[][..], Vec::as_slice);
        let before = standing[&key].as_array().map_or(&[][..], Vec::as_slice);
        let after = match key.as_str() {
            "conditions" => conditions(before, ours, now),
            "listeners" => listeners(before, ours, now),
            "addresses" => ours.to_vec(),
            _ => entries(&key, before, ours, &wanted.namespace, written, now),
        };
        if after != before {
            changed.insert(key, after.into());
        }
    }
    // Upstream's definitions of v1alpha2 drop them: they are sent along, and never by themselves as
    // long as they are not there.
    let dropped =
        matches!(wanted.shape, StatusShape::Parent(_)) && standing["conditions"].is_null();
    let worth = changed.keys().any(|key| key != "conditions" || !dropped);
    worth.then_some(Value::Object(changed))
}

/// What the entries of this status are about.
pub(super) fn references(wanted: &ObjectStatus) -> Written {
    let Value::Object(fields) = wanted.status_json() else { return Written::new() };
    let lists = fields.iter().filter(|(key, _)| is_entries(key));
    let entries = lists.flat_map(|(key, list)| {
        list.as_array().into_iter().flatten().map(|entry| (key.as_str(), entry))
    });
    entries.map(|(key, entry)| Reference::of(key, entry, &wanted.namespace)).collect()
}

fn is_entries(key: &str) -> bool {
    matches!(key, "parent" | "parents" | "ancestors")
}

impl Reference {
    /// With the defaults that the API server fills in.
    fn of(key: &str, entry: &Value, own_namespace: &str) -> Self {
        let reference = &entry[if key == "ancestors" { "ancestorRef" } else { "parentRef" }];
        let text = |field: &str, usual: &str| match &reference[field] {
            Value::String(text) => text.clone(),
            Value::Null => usual.to_owned(),
            other => other.to_string(),
        };
        // v1alpha2's earlier definitions have no group there, and drop ours.
        let group = if key == "parent" { String::new() } else { text("group", GATEWAY_API_GROUP) };
        Self([
            group,
            text("kind", "Gateway"),
            text("namespace", own_namespace),
            text("name", ""),
            text("sectionName", ""),
            text("port", ""),
        ])
    }

    /// What v1alpha2's definition puts there until a controller comes.
    fn is_placeholder(&self) -> bool {
        self.0[1] == "Status" && self.0[3] == "default"
    }
}

/// Our entries replaced, the others untouched.
fn entries(
    key: &str,
    before: &[Value],
    ours: &[Value],
    namespace: &str,
    written: &Written,
    now: &str,
) -> Vec<Value> {
    let reference = |entry: &Value| Reference::of(key, entry, namespace);
    let wanted: Vec<(Reference, &Value)> =
        ours.iter().map(|entry| (reference(entry), entry)).collect();
    let is_wanted = |about: &Reference| wanted.iter().any(|(wanted, _)| wanted == about);
    let is_ours = |entry: &Value| {
        if let Some(name) = entry["controllerName"].as_str() {
            return name == CONTROLLER_NAME;
        }
        let about = reference(entry);
        is_wanted(&about) || about.is_placeholder() || written.contains(&about)
    };
    let mut after = Vec::new();
    let mut told = BTreeSet::new();
    for entry in before {
        let about = reference(entry);
        if !is_ours(entry) {
            after.push(entry.clone());
            continue;
        }
        let found = wanted.iter().find(|(wanted, _)| *wanted == about);
        if let Some((_, ours)) = found.filter(|_| told.insert(about)) {
            after.push(merged(entry, ours, now));
        }
    }
    for (about, entry) in &wanted {
        if !told.contains(about) && after.len() < ENTRIES_MAX {
            after.push(merged(&json!({}), entry, now));
        }
    }
    after
}

/// An entry of ours, brought up to date.
fn merged(before: &Value, ours: &Value, now: &str) -> Value {
    let mut after = ours.clone();
    let list = |entry: &Value| entry["conditions"].as_array().cloned().unwrap_or_default();
    after["conditions"] = conditions(&list(before), &list(ours), now).into();
    // A version that knows no controllerName has dropped ours, and would again.
    let mut comparable = after.clone();
    if before["controllerName"].is_null()
        && let Some(fields) = comparable.as_object_mut()
    {
        fields.remove("controllerName");
    }
    let keeps = |key: &str| before[key] == comparable[key];
    // The reference may have been filled in with defaults; it means the same.
    if keeps("conditions") && keeps("controllerName") {
        return before.clone();
    }
    after
}

/// Listeners are the Gateway's controller's alone, that is ours.
fn listeners(before: &[Value], ours: &[Value], now: &str) -> Vec<Value> {
    let one = |listener: &Value| {
        let mut after = listener.clone();
        let same = before.iter().find(|other| other["name"] == listener["name"]);
        let standing = same.and_then(|same| same["conditions"].as_array());
        let standing = standing.map_or(&[][..], Vec::as_slice);
        let wanted = listener["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        after["conditions"] = conditions(standing, wanted, now).into();
        after
    };
    ours.iter().map(one).collect()
}

/// Our conditions replaced where they stand, those of other types kept.
fn conditions(before: &[Value], ours: &[Value], now: &str) -> Vec<Value> {
    let mut after: Vec<Value> = Vec::new();
    let find = |name: &Value| ours.iter().find(|condition| condition["type"] == *name);
    for condition in before {
        match find(&condition["type"]) {
            Some(wanted) => after.push(updated(condition, wanted, now)),
            None if is_placeholder(condition) => {}
            None => after.push(condition.clone()),
        }
    }
    for wanted in ours {
        if !before.iter().any(|condition| condition["type"] == wanted["type"]) {
            after.push(updated(&Value::Null, wanted, now));
        }
    }
    after
}

/// `wanted`, dated: a condition whose status is as it was keeps its date.
fn updated(before: &Value, wanted: &Value, now: &str) -> Value {
    let same = |key: &str| before[key] == wanted[key];
    if same("status") && same("reason") && same("message") && same_generation(before, wanted) {
        return before.clone();
    }
    let mut after = wanted.clone();
    let since = before["lastTransitionTime"].as_str().filter(|_| same("status"));
    after["lastTransitionTime"] = json!(since.unwrap_or(now));
    after
}

/// Istio's definitions take numbers and strings.
fn same_generation(before: &Value, wanted: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    number(&before["observedGeneration"]) == number(&wanted["observedGeneration"])
}

/// What a definition puts there until a controller comes: nobody says it.
fn is_placeholder(condition: &Value) -> bool {
    condition["status"] == "Unknown"
        && condition["reason"] == "Pending"
        && condition["lastTransitionTime"].as_str().is_some_and(|time| time.starts_with("1970-"))
}

#[cfg(test)]
mod tests;
