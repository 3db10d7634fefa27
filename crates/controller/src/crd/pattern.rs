//! Strings, quantities and references that several kinds have.

use schemars::{JsonSchema, Schema};
use serde_json::json;

/// A number of bytes, such as 1048576 or 32Mi.
pub(super) fn quantity(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.remove("type");
    object.insert("x-kubernetes-int-or-string".to_owned(), json!(true));
    let pattern = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$";
    object.insert("pattern".to_owned(), json!(pattern));
    object.insert("example".to_owned(), json!("32Mi"));
}

/// A duration of the Gateway API, up to a day.
pub(super) fn duration(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.insert("pattern".to_owned(), json!("^([0-9]{1,5}(h|m|s|ms)){1,4}$"));
    object.insert("maxLength".to_owned(), json!(32));
    object.insert("example".to_owned(), json!("1m30s"));
    let rule = "duration(self) <= duration('24h')";
    let message = "no longer than 24h";
    object.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{ "rule": rule, "message": message }]),
    );
}

/// The same, but not zero.
pub(super) fn time(schema: &mut Schema) {
    duration(schema);
    let rules = json!([
        {
            "rule": "duration(self) > duration('0s') && duration(self) <= duration('24h')",
            "message": "longer than zero, no longer than 24h",
        },
    ]);
    schema.insert("x-kubernetes-validations".to_owned(), rules);
}

/// Reference to an InferencePool in the same namespace.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub(super) struct PoolRef {
    /// Group of the pool.
    group: Option<PoolGroup>,
    kind: Option<PoolKind>,
    /// Name of the pool.
    #[schemars(length(min = 1, max = 253))]
    name: String,
}

#[derive(JsonSchema)]
pub(super) enum PoolGroup {
    #[schemars(rename = "inference.networking.x-k8s.io")]
    Extension,
    #[schemars(rename = "inference.networking.k8s.io")]
    Released,
}

#[derive(JsonSchema)]
pub(super) enum PoolKind {
    InferencePool,
}
