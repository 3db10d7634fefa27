//! `/objects`: the configuration's objects, narrowed down.

use serde_json::Value;

use crate::query::parameter;

/// Keeps the objects of a kind (in any case, plural too), name and namespace, as far as given.
pub(crate) fn filter(objects: Value, query: &str) -> Value {
    let Value::Array(objects) = objects else { return objects };
    let wanted = |name| parameter(query, name).filter(|value| !value.is_empty());
    let (kind, name, namespace) = (wanted("kind"), wanted("name"), wanted("namespace"));
    let keep = |object: &Value| {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let named = |field| text(field).unwrap_or_default();
        kind.as_deref().is_none_or(|kind| is_kind(named("/kind"), kind))
            && name.as_deref().is_none_or(|name| named("/metadata/name") == name)
            // Cluster-scoped objects are in no namespace, hence in every.
            && namespace.as_deref().is_none_or(|wanted| {
                text("/metadata/namespace").is_none_or(|namespace| namespace == wanted)
            })
    };
    objects.into_iter().filter(keep).collect()
}

fn is_kind(kind: &str, wanted: &str) -> bool {
    let (kind, wanted) = (kind.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    let plural = |stem: &str, ending: &str| {
        wanted.strip_prefix(stem).is_some_and(|rest| !stem.is_empty() && rest == ending)
    };
    wanted == kind
        || plural(&kind, "s")
        || kind.strip_suffix('y').is_some_and(|stem| plural(stem, "ies"))
}

#[cfg(test)]
mod tests;
