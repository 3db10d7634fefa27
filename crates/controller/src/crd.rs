//! CustomResourceDefinitions, for clusters that have none of these kinds yet.
//!
//! The types below `crd/` say what the reader in `resource` honours, once more and in the words of a
//! schema; a test holds the two together. They are never filled in: `schemars` reads them.
//!
//! Kinds of the Inference Extension are made so that objects written for upstream's own definitions
//! are accepted, and ours can later be replaced by those.

#![expect(dead_code, reason = "the types are read by schemars, never filled in")]

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Value, json};

use crate::object::{Kind, POOL_GROUP, POOL_GROUP_X};

mod asm;
mod inference;
mod pattern;
mod policy;
mod status;
mod structural;

/// One CustomResourceDefinition.
#[derive(Clone, Debug)]
pub struct Definition {
    /// `GROUP_PLURAL.yaml`, as generators of definitions name their files.
    pub file: String,
    pub manifest: Value,
}

/// Every definition, those of older groups after the newer.
pub fn definitions() -> Vec<Definition> {
    vec![
        pool(),
        pool_x(),
        model(),
        objective(),
        rewrite(),
        llm_route(),
        mesh_config(),
        inference_policy(),
    ]
}

/// What of a definition differs from kind to kind.
struct Parts {
    kind: Kind,
    group: &'static str,
    short_names: &'static [&'static str],
    versions: Vec<Version>,
}

struct Version {
    name: &'static str,
    schema: Schema,
    columns: Vec<Value>,
}

impl Version {
    fn new<T: JsonSchema>(name: &'static str, columns: Vec<Value>) -> Self {
        Self { name, schema: schema::<T>(), columns }
    }
}

fn schema<T: JsonSchema>() -> Schema {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    settings
        .with_transform(RecursiveTransform(structural::rewrite))
        .into_generator()
        .into_root_schema_for::<T>()
}

/// The first of the versions is the one objects are stored in.
fn definition(parts: Parts) -> Definition {
    let Parts { kind, group, short_names, versions } = parts;
    let singular = kind.name().to_ascii_lowercase();
    let plural = kind.plural();
    let versions = versions.into_iter().enumerate().map(|(index, version)| {
        json!({
            "name": version.name,
            "served": true,
            "storage": index == 0,
            "schema": { "openAPIV3Schema": version.schema },
            "subresources": { "status": {} },
            "additionalPrinterColumns": version.columns,
        })
    });
    let mut manifest = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "names": {
                "kind": kind.name(),
                "listKind": format!("{}List", kind.name()),
                "plural": plural,
                "singular": singular,
            },
            "scope": if kind.is_cluster_scoped() { "Cluster" } else { "Namespaced" },
            "versions": versions.collect::<Value>(),
        },
    });
    if !short_names.is_empty() {
        manifest["spec"]["names"]["shortNames"] = json!(short_names);
    }
    if group == POOL_GROUP {
        // Kubernetes wants to be told of its own groups where a definition comes from.
        let origin = "unapproved, a subset of gateway-api-inference-extension v1.6.0";
        manifest["metadata"]["annotations"] = json!({ "api-approved.kubernetes.io": origin });
    }
    Definition { file: format!("{group}_{plural}.yaml"), manifest }
}

fn pool() -> Definition {
    let mut columns = vec![column("Port", "integer", ".spec.targetPorts[0].number")];
    columns.extend(conditions(".status.parents[0].conditions"));
    definition(Parts {
        kind: Kind::InferencePool,
        group: POOL_GROUP,
        short_names: &["infpool"],
        versions: vec![Version::new::<inference::InferencePool>("v1", columns)],
    })
}

/// Both versions have one schema, so that nothing is lost when one is read as the other.
fn pool_x() -> Definition {
    let columns = |path| {
        let mut columns = vec![column("Port", "integer", ".spec.targetPortNumber")];
        columns.extend(conditions(path));
        columns
    };
    let second = columns(".status.parent[0].conditions");
    let first = columns(".status.conditions");
    definition(Parts {
        kind: Kind::InferencePool,
        group: POOL_GROUP_X,
        short_names: &["xinfpool"],
        versions: vec![
            Version::new::<inference::InferencePoolX>("v1alpha2", second),
            Version::new::<inference::InferencePoolX>("v1alpha1", first),
        ],
    })
}

fn model() -> Definition {
    let columns = || {
        let mut columns = vec![
            column("Model", "string", ".spec.modelName"),
            column("Pool", "string", ".spec.poolRef.name"),
            column("Criticality", "string", ".spec.criticality"),
        ];
        columns.extend(conditions(".status.conditions"));
        columns
    };
    definition(Parts {
        kind: Kind::InferenceModel,
        group: POOL_GROUP_X,
        short_names: &[],
        versions: vec![
            Version::new::<inference::InferenceModel>("v1alpha2", columns()),
            Version::new::<inference::InferenceModel>("v1alpha1", columns()),
        ],
    })
}

fn objective() -> Definition {
    let mut columns = vec![
        column("Pool", "string", ".spec.poolRef.name"),
        column("Priority", "integer", ".spec.priority"),
    ];
    columns.extend(conditions(".status.conditions"));
    definition(Parts {
        kind: Kind::InferenceObjective,
        group: POOL_GROUP_X,
        short_names: &[],
        versions: vec![Version::new::<inference::InferenceObjective>("v1alpha2", columns)],
    })
}

fn rewrite() -> Definition {
    let mut columns = vec![column("Pool", "string", ".spec.poolRef.name")];
    columns.extend(conditions(".status.conditions"));
    definition(Parts {
        kind: Kind::InferenceModelRewrite,
        group: POOL_GROUP_X,
        short_names: &[],
        versions: vec![Version::new::<inference::InferenceModelRewrite>("v1alpha2", columns)],
    })
}

fn llm_route() -> Definition {
    let columns = || {
        let mut columns = vec![
            column("Host", "string", ".spec.host"),
            column("Gateways", "string", ".spec.gateways"),
        ];
        columns.extend(conditions(".status.conditions"));
        columns
    };
    definition(Parts {
        kind: Kind::LLMRoute,
        group: "istio.alibabacloud.com",
        short_names: &[],
        versions: vec![
            Version::new::<asm::LLMRoute>("v1", columns()),
            Version::new::<asm::LLMRoute>("v1beta1", columns()),
        ],
    })
}

fn mesh_config() -> Definition {
    let path = ".spec.gatewayAPIInferenceExtension.enabled";
    let columns = || vec![column("Inference", "boolean", path), age()];
    definition(Parts {
        kind: Kind::ASMMeshConfig,
        group: "istio.alibabacloud.com",
        short_names: &[],
        versions: vec![
            Version::new::<asm::ASMMeshConfig>("v1", columns()),
            Version::new::<asm::ASMMeshConfig>("v1beta1", columns()),
        ],
    })
}

fn inference_policy() -> Definition {
    let mut columns = vec![
        column("Pool", "string", ".spec.targetRef.name"),
        column("Policy", "string", ".spec.loadBalancing.policy"),
    ];
    columns.extend(conditions(".status.ancestors[0].conditions"));
    definition(Parts {
        kind: Kind::InferencePolicy,
        group: "tokenweir.dev",
        short_names: &[],
        versions: vec![Version::new::<policy::InferencePolicy>("v1alpha1", columns)],
    })
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path })
}

/// What the conditions at this path say, and the age.
fn conditions(path: &str) -> Vec<Value> {
    let status =
        |name: &str| column(name, "string", &format!("{path}[?(@.type==\"{name}\")].status"));
    vec![status("Accepted"), status("ResolvedRefs"), age()]
}

fn age() -> Value {
    column("Age", "date", ".metadata.creationTimestamp")
}

#[cfg(test)]
mod tests;
