//! Which Pods can be selected: of a cluster's many, the others are nobody's business here.

use std::collections::{HashMap, HashSet};

use crate::{object::Object, resource::Selector};

/// The selectors of InferencePools and Services.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    /// By namespace and the first label asked for, as there may be hundreds.
    by_label: HashMap<(String, String, String), Vec<Selector>>,
    /// The keys of those labels: a Pod has many more.
    keys: HashSet<String>,
}

impl Selectors {
    pub(super) fn of<'o>(objects: impl Iterator<Item = &'o Object>) -> Self {
        let mut selectors = Self::default();
        for object in objects {
            let Some(selector) = object.spec.selector() else { continue };
            // As in Kubernetes, no selector selects nothing.
            let Some((key, value)) = selector.first_key_value() else { continue };
            selectors.keys.insert(key.clone());
            let label = (object.namespace.to_string(), key.clone(), value.clone());
            selectors.by_label.entry(label).or_default().push(selector.clone());
        }
        selectors
    }

    /// Whether any of them selects it.
    pub(super) fn select(&self, pod: &Object) -> bool {
        let mut asked = pod.labels.iter().filter(|(key, _)| self.keys.contains(*key));
        asked.any(|(key, value)| {
            let label = (pod.namespace.to_string(), key.clone(), value.clone());
            let selectors = self.by_label.get(&label).map_or(&[][..], Vec::as_slice);
            selectors.iter().any(|selector| {
                selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
            })
        })
    }
}
