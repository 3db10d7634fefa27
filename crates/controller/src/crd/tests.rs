use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::definitions;
use crate::{FoldOptions, Kind, fold, read_text, stamp, table::cases, yaml};

mod agreement;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every document of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    yaml::parse(text).documents.iter().map(yaml::Node::to_json).collect()
}

/// Schemas by `apiVersion` and kind.
fn schemas() -> BTreeMap<(String, String), Value> {
    let mut schemas = BTreeMap::new();
    for definition in definitions() {
        let spec = &definition.manifest["spec"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for version in spec["versions"].as_array().unwrap() {
            let api_version = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
            let key = (api_version, text(&spec["names"]["kind"]));
            schemas.insert(key, version["schema"]["openAPIV3Schema"].clone());
        }
    }
    schemas
}

fn schema_of(object: &Value) -> Option<Value> {
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    schemas().remove(&(text("apiVersion"), text("kind")))
}

/// Visits every schema below this one, with the path of the fields it is for.
fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &Value)) {
    see(path, schema);
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        walk(below, &format!("{path}.{name}"), see);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", ".*")] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}{suffix}"), see);
        }
    }
}

/// The schema in the words of JSON Schema, and with unknown fields refused rather than pruned.
fn strict(schema: &Value, is_root: bool) -> Value {
    let mut strict = schema.clone();
    let object = strict.as_object_mut().unwrap();
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for below in properties.values_mut() {
            *below = self::strict(below, false);
        }
        if !is_root {
            object.insert("additionalProperties".to_owned(), json!(false));
        }
    } else if let Some(below) = object.get("additionalProperties").filter(|below| below.is_object())
    {
        let below = self::strict(below, false);
        object.insert("additionalProperties".to_owned(), below);
    }
    if let Some(items) = object.get("items") {
        let items = self::strict(items, false);
        object.insert("items".to_owned(), items);
    }
    if object.contains_key("x-kubernetes-int-or-string") {
        object.insert("type".to_owned(), json!(["integer", "string"]));
    }
    strict
}

/// What an API server would say against the object: by its schema, then by its CEL rules.
fn refusals(object: &Value) -> Vec<String> {
    let schema = schema_of(object).unwrap_or_else(|| panic!("no definition of {object}"));
    let validator = jsonschema::validator_for(&strict(&schema, true)).unwrap();
    let told =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    let found: Vec<String> = validator.iter_errors(object).map(told).collect();
    if !found.is_empty() {
        return found;
    }
    match kube_cel::Validator::new().validate(&schema, object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn schemas_are_structural() {
    const WORDS: [&str; 24] = [
        "additionalProperties",
        "description",
        "enum",
        "example",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    const TYPES: [&str; 5] = ["array", "boolean", "integer", "object", "string"];
    for (key, schema) in schemas() {
        walk(&schema, "", &mut |path, schema| {
            for word in schema.as_object().unwrap().keys() {
                assert!(WORDS.contains(&word.as_str()), "{key:?} {path}: {word}");
            }
            let has_type = schema["type"].as_str().is_some_and(|name| TYPES.contains(&name));
            assert!(
                has_type || schema["x-kubernetes-int-or-string"] == true,
                "{key:?} {path}: {schema}"
            );
            let words = schema["enum"].as_array();
            assert!(words.is_none_or(|words| words.iter().all(Value::is_string)), "{key:?} {path}");
        });
    }
}

#[test]
fn every_rule_compiles() {
    for (key, schema) in schemas() {
        let compiled = kube_cel::compile_schema(&schema);
        let errors: Vec<String> =
            compiled.compilation_errors().iter().map(ToString::to_string).collect();
        assert!(errors.is_empty(), "{key:?}: {errors:?}");
    }
}

#[test]
fn definitions_are_named_as_their_files_and_store_one_version() {
    for definition in definitions() {
        let manifest = &definition.manifest;
        let spec = &manifest["spec"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
        assert_eq!(manifest["metadata"]["name"], format!("{plural}.{group}"));
        assert_eq!(definition.file, format!("{group}_{plural}.yaml"));
        let versions = spec["versions"].as_array().unwrap();
        let stored = versions.iter().filter(|version| version["storage"] == true).count();
        assert_eq!(stored, 1, "{plural}.{group}");
    }
}

#[test]
fn every_version_of_a_defined_kind_is_one_that_is_read() {
    for (api_version, kind) in schemas().into_keys() {
        let (group, version) = api_version.split_once('/').unwrap();
        let known = Kind::ALL.iter().any(|known| {
            let served = known.served().iter();
            known.name() == kind
                && served
                    .clone()
                    .any(|(name, versions)| *name == group && versions.contains(&version))
        });
        assert!(known, "{api_version} {kind}");
    }
}

#[test]
fn the_tutorial_and_every_example_are_accepted() {
    let mut seen = BTreeSet::new();
    for folder in fs::read_dir(repository().join("examples")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            for object in documents(&fs::read_to_string(&path).unwrap()) {
                if schema_of(&object).is_some() {
                    assert_eq!(refusals(&object), Vec::<String>::new(), "{}", path.display());
                    seen.insert(object["kind"].as_str().unwrap().to_owned());
                }
            }
        }
    }
    let tutorial = ["InferencePool", "InferenceModel", "LLMRoute"];
    assert!(tutorial.iter().all(|kind| seen.contains(*kind)), "{seen:?}");
}

#[test]
fn objects_of_the_extensions_releases_are_accepted() {
    for object in documents(include_str!("../../testdata/releases.yaml")) {
        assert_eq!(refusals(&object), Vec::<String>::new(), "{object}");
    }
}

#[test]
fn what_no_gateway_could_serve_is_refused() {
    let text = include_str!("../../testdata/refused.yaml");
    let objects = documents(text);
    assert!(objects.len() > 20);
    for object in objects {
        let wanted = object["metadata"]["annotations"]["refused"].as_str().unwrap();
        let found = refusals(&object);
        assert!(found.iter().any(|told| told.contains(wanted)), "{object}\n{found:?}");
    }
}

/// Every status the table of folds comes to, as it would be written.
#[test]
fn statuses_fit_their_schemas() {
    let mut seen = BTreeSet::new();
    for case in cases(include_str!("../../testdata/folds.txt")) {
        let objects = read_text("case", &case.text).objects;
        let mut folded = fold(&objects, &FoldOptions::default());
        stamp(&mut folded.statuses, &[], "2026-01-01T00:00:00Z");
        for object in &objects {
            let Some(status) = folded.statuses.iter().find(|status| status.is_of(object)) else {
                continue;
            };
            let whole = status.to_json(object);
            let Some(schema) = schema_of(&whole) else { continue };
            let below = strict(&schema["properties"]["status"], false);
            let validator = jsonschema::validator_for(&below).unwrap();
            let found: Vec<String> =
                validator.iter_errors(&whole["status"]).map(|error| error.to_string()).collect();
            assert!(found.is_empty(), "{}: {found:?}\n{}", case.title, whole["status"]);
            seen.insert((object.group, object.version, object.kind.name()));
        }
    }
    assert!(seen.len() >= 7, "{seen:?}");
}

/// The rules of a role as verbs by group and resource.
fn granted(role: &Value) -> BTreeMap<(String, String), BTreeSet<String>> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut granted: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                granted.entry((group.clone(), resource)).or_default().extend(words(&rule["verbs"]));
            }
        }
    }
    granted
}

/// Those whose conditions are written to them.
fn has_status(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Service
            | Kind::Pod
            | Kind::WorkloadEntry
            | Kind::DestinationRule
            | Kind::ReferenceGrant
    )
}

#[test]
fn the_shipped_permissions_are_those_of_the_kinds_that_are_followed() {
    let text = fs::read_to_string(repository().join("deploy/kustomize/gateway/rbac.yaml")).unwrap();
    let roles = documents(&text);
    let role = roles.iter().find(|role| role["kind"] == "ClusterRole").unwrap();
    let mut wanted: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for kind in Kind::ALL {
        let plural = kind.plural();
        for (group, _) in kind.served() {
            let mut allow = |resource: String, verbs: &[&str]| {
                let verbs = verbs.iter().map(|verb| (*verb).to_owned());
                wanted.entry(((*group).to_owned(), resource)).or_default().extend(verbs);
            };
            allow(plural.clone(), &["list", "watch"]);
            if has_status(kind) {
                allow(plural.clone(), &["get"]);
                allow(format!("{plural}/status"), &["patch"]);
            }
        }
    }
    assert_eq!(granted(role), wanted);
}
