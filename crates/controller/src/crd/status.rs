//! Statuses, in the shapes the versions give them.

use schemars::JsonSchema;

/// What is known of the object.
#[derive(JsonSchema)]
pub(super) struct Conditions {
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    conditions: Option<Vec<Condition>>,
}

/// Of the pool as every Gateway sees it.
#[derive(JsonSchema)]
pub(super) struct PoolStatus {
    /// One entry for each Gateway through which the pool gets requests.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    parents: Option<Vec<ParentStatus>>,
}

/// Flat as in v1alpha1, or by Gateway as in v1alpha2.
#[derive(JsonSchema)]
pub(super) struct PoolStatusX {
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    conditions: Option<Vec<Condition>>,
    /// One entry for each Gateway through which the pool gets requests.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    parent: Option<Vec<ParentStatus>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ParentStatus {
    parent_ref: Reference,
    /// The controller that wrote this entry.
    #[schemars(length(min = 1, max = 253))]
    controller_name: Option<String>,
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    conditions: Option<Vec<Condition>>,
}

/// Of a policy at what it is attached to.
#[derive(JsonSchema)]
pub(super) struct PolicyStatus {
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    ancestors: Vec<AncestorStatus>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct AncestorStatus {
    ancestor_ref: Reference,
    /// The controller that wrote this entry.
    #[schemars(length(min = 1, max = 253))]
    controller_name: String,
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    conditions: Option<Vec<Condition>>,
}

#[derive(JsonSchema)]
struct Reference {
    #[schemars(length(max = 253))]
    group: Option<String>,
    #[schemars(length(max = 63))]
    kind: Option<String>,
    #[schemars(length(max = 63))]
    namespace: Option<String>,
    #[schemars(length(min = 1, max = 253))]
    name: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Condition {
    #[schemars(length(min = 1, max = 316))]
    r#type: String,
    status: ConditionStatus,
    #[schemars(length(min = 1, max = 1024))]
    #[schemars(regex(pattern = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"))]
    reason: String,
    #[schemars(length(max = 32768))]
    message: String,
    /// Since when the status is what it is.
    #[schemars(extend("format" = "date-time"))]
    last_transition_time: String,
    /// The object's generation that this is about.
    #[schemars(range(min = 0))]
    observed_generation: Option<i64>,
}

#[derive(JsonSchema)]
enum ConditionStatus {
    True,
    False,
    Unknown,
}
