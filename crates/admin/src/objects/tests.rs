use serde_json::{Value, json};

use super::filter;

fn objects() -> Value {
    let object = |kind: &str, namespace: Option<&str>, name: &str| match namespace {
        Some(namespace) => {
            json!({ "kind": kind, "metadata": { "name": name, "namespace": namespace } })
        }
        None => json!({ "kind": kind, "metadata": { "name": name } }),
    };
    json!([
        object("InferencePool", Some("default"), "a"),
        object("InferencePool", Some("other"), "b"),
        object("InferencePolicy", Some("default"), "c"),
        object("Gateway", Some("default"), "d"),
        object("ASMMeshConfig", None, "default"),
        "not an object",
    ])
}

#[test]
fn objects_are_found_by_kind_name_and_namespace() {
    let table = [
        ("kind=InferencePool", "a b"),
        ("kind=inferencepools", "a b"),
        ("kind=INFERENCEPOOLS&namespace=other", "b"),
        ("kind=inferencepolicies", "c"),
        ("kind=inferencepolicys", "c"),
        ("kind=gateways", "d"),
        ("kind=s", ""),
        ("kind=pool", ""),
        ("name=d", "d"),
        ("namespace=default", "a c d default not"),
        ("namespace=none", "default not"),
        ("kind=asmmeshconfig&namespace=other", "default"),
        ("kind=&name=&namespace=", "a b c d default not"),
        ("", "a b c d default not"),
    ];
    for (query, expected) in table {
        let found = filter(objects(), query);
        let names: Vec<&str> = found
            .as_array()
            .expect("an array")
            .iter()
            .map(|object| object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("not"))
            .collect();
        assert_eq!(names.join(" "), expected, "{query}");
    }
}
