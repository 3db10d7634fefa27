//! Conditions into a status that is not ours alone: what others wrote stays as it is.
//!
//! Pure: the status as it stands and what we have to say in, the change out. What says the same
//! already is no change, so that nothing is written without need.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::claims::Domain;
use crate::{
    object::{GATEWAY_API_GROUP, Path},
    status::{CONTROLLER_NAME, ObjectStatus, StatusShape},
};

/// How many entries `parents[]` and `parent[]` may hold, by their definitions.
const PARENTS_MAX: usize = 32;
/// And `ancestors[]`.
const ANCESTORS_MAX: usize = 16;

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
    domain: &Domain,
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
            _ => Entries { key: &key, own_namespace: &wanted.namespace, written, domain }
                .replaced(before, ours, now),
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

    pub(super) fn namespace(&self) -> &str {
        &self.0[2]
    }

    /// Group and path, if it is a Gateway.
    pub(super) fn gateway(&self) -> Option<(&str, Path)> {
        let [group, kind, namespace, name, ..] = &self.0;
        (kind == "Gateway").then(|| (&**group, Path::new(&**namespace, &**name)))
    }

    /// What v1alpha2's definition puts there until a controller comes.
    fn is_placeholder(&self) -> bool {
        self.0[1] == "Status" && self.0[3] == "default"
    }
}

/// A list of entries, each some controller's.
struct Entries<'a> {
    key: &'a str,
    own_namespace: &'a str,
    written: &'a Written,
    domain: &'a Domain,
}

impl Entries<'_> {
    /// Our entries replaced, the others untouched.
    fn replaced(&self, before: &[Value], ours: &[Value], now: &str) -> Vec<Value> {
        let wanted: Vec<(Reference, &Value)> =
            ours.iter().map(|entry| (self.reference(entry), entry)).collect();
        let mut after = Vec::new();
        let mut told = BTreeSet::new();
        for entry in before {
            let about = self.reference(entry);
            let found = wanted.iter().find(|(wanted, _)| *wanted == about);
            if !self.is_ours(entry, &about, found.is_some()) {
                after.push(entry.clone());
                continue;
            }
            if let Some((_, ours)) = found.filter(|_| told.insert(about)) {
                after.push(merged(entry, ours, now));
            }
        }
        let max = if self.key == "ancestors" { ANCESTORS_MAX } else { PARENTS_MAX };
        for (about, entry) in &wanted {
            if !told.contains(about) && after.len() < max {
                after.push(merged(&json!({}), entry, now));
            }
        }
        after
    }

    fn reference(&self, entry: &Value) -> Reference {
        Reference::of(self.key, entry, self.own_namespace)
    }

    fn is_ours(&self, entry: &Value, about: &Reference, wanted: bool) -> bool {
        if let Some(name) = entry["controllerName"].as_str() {
            return name == CONTROLLER_NAME && self.domain.sees(about);
        }
        wanted
            || about.is_placeholder()
            || self.written.contains(about)
            || self.domain.serves(about)
    }
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
