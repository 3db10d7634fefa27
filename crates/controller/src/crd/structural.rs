//! From the schemas `schemars` makes to the structural ones Kubernetes takes.

use schemars::Schema;
use serde_json::{Map, Value};

/// One schema; those below it come each by itself.
pub(super) fn rewrite(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("title");
    unwrap_option(object);
    if let Some(Value::Array(types)) = object.get("type")
        && let Some(only) = types.iter().find(|name| *name != "null").cloned()
    {
        object.insert("type".to_owned(), only);
    }
    if let Some(Value::Array(words)) = object.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
}

/// A field that need not be there is one that is not required; null is never a value.
fn unwrap_option(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get("anyOf") else { return };
    let is_null = |choice: &&Value| choice["type"] == "null";
    if let [Value::Object(some), none] | [none, Value::Object(some)] = choices.as_slice()
        && is_null(&none)
    {
        let some = some.clone();
        object.remove("anyOf");
        for (key, value) in some {
            // What is said at the field wins over what is said at its type.
            object.entry(key).or_insert(value);
        }
    }
}
