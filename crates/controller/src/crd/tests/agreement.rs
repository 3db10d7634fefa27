//! The reader and the schemas know the same fields.
//!
//! The reader is asked: objects with every field a schema has, and with a field nobody has in every
//! map, make it say which fields it knows there.

use super::*;

/// Far from every field's name, so that the reader lists what it knows instead of guessing.
const INTRUDER: &str = "zzzzzzzzzzzz";

/// Fields by the path of the map they are in.
type Known = BTreeMap<String, BTreeSet<String>>;

fn sample(schema: &Value) -> Value {
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    match schema["type"].as_str().unwrap() {
        "string" => json!("word"),
        "integer" => json!(schema["minimum"].as_i64().unwrap_or(1)),
        "boolean" => json!(true),
        "array" => json!([sample(&schema["items"])]),
        _ => match schema["properties"].as_object() {
            Some(properties) => {
                let mut object: Map<String, Value> =
                    properties.iter().map(|(name, below)| (name.clone(), sample(below))).collect();
                object.insert(INTRUDER.to_owned(), json!(1));
                Value::Object(object)
            }
            None => json!({ "key": sample(&schema["additionalProperties"]) }),
        },
    }
}

/// The object, and it without each of its fields: some exclude others, and hide what is below them.
fn variants(object: &Value) -> Vec<Value> {
    fn pointers(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (name, below) in fields {
                    found.push((at.to_owned(), name.clone()));
                    pointers(below, &format!("{at}/{}", name.replace('/', "~1")), found);
                }
            }
            Value::Array(items) => pointers(&items[0], &format!("{at}/0"), found),
            _ => {}
        }
    }
    let mut found = Vec::new();
    pointers(object, "", &mut found);
    let mut variants = vec![object.clone()];
    for (at, name) in found.into_iter().filter(|(_, name)| name != INTRUDER) {
        let mut variant = object.clone();
        variant.pointer_mut(&at).unwrap().as_object_mut().unwrap().remove(&name);
        variants.push(variant);
    }
    variants
}

fn read_by_the_reader(api_version: &str, kind: &str, spec: &Value) -> Known {
    let mut known = Known::new();
    for spec in variants(spec) {
        let object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": { "name": "default" },
            "spec": spec,
        });
        for problem in read_text("sample", &object.to_string()).problems {
            let field = problem.field.unwrap_or_default();
            let Some(path) = field.strip_suffix(INTRUDER) else { continue };
            // In a map with free keys it is an entry like any other.
            let Some(names) =
                problem.hint.as_deref().and_then(|hint| hint.strip_prefix("known here: "))
            else {
                continue;
            };
            let path = path.trim_end_matches('.').replace("[0]", "[]").replace(".key", ".*");
            known.entry(path).or_default().extend(names.split(", ").map(str::to_owned));
        }
    }
    known
}

fn written_in_the_schema(schema: &Value) -> Known {
    let mut known = Known::new();
    walk(&schema["properties"]["spec"], "spec", &mut |path, schema| {
        if let Some(properties) = schema["properties"].as_object() {
            known.insert(path.to_owned(), properties.keys().cloned().collect());
        }
    });
    known
}

/// Fields of other versions, which the reader takes so that an object can be moved between them in a
/// file. An API server has no use for them.
fn of_other_versions(api_version: &str, path: &str) -> &'static [&'static str] {
    match (api_version, path) {
        ("inference.networking.k8s.io/v1", "spec") => &["targetPortNumber", "extensionRef"],
        (
            "inference.networking.x-k8s.io/v1alpha1" | "inference.networking.x-k8s.io/v1alpha2",
            "spec",
        ) => &["targetPorts", "appProtocol", "endpointPickerRef"],
        _ => &[],
    }
}

/// Maps whose fields the reader takes as they are.
const UNREAD: [&str; 4] =
    ["spec.endpointPickerRef", "spec.endpointPickerRef.port", "spec.extensionRef", "spec.selector"];

#[test]
fn schemas_and_reader_know_the_same_fields() {
    for ((api_version, kind), schema) in schemas() {
        let mut read =
            read_by_the_reader(&api_version, &kind, &sample(&schema["properties"]["spec"]));
        let mut written = written_in_the_schema(&schema);
        for (path, fields) in &mut read {
            if kind == "InferencePool" {
                for other in of_other_versions(&api_version, path) {
                    assert!(
                        fields.remove(*other),
                        "{api_version} {kind} {path}: {other} is not read"
                    );
                }
            }
        }
        if kind == "InferencePool" {
            written.retain(|path, _| !UNREAD.contains(&path.as_str()));
        }
        assert_eq!(read, written, "{api_version} {kind}: the reader's, then the schema's");
    }
}
