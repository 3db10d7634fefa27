//! The kinds of the Inference Extension, as far as the gateway honours them.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{
    pattern::PoolRef,
    status::{Conditions, PoolStatus, PoolStatusX},
};

/// A set of endpoints that serve the same models.
#[derive(JsonSchema)]
pub(super) struct InferencePool {
    spec: PoolSpec,
    status: Option<PoolStatus>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct PoolSpec {
    selector: LabelSelector,
    /// Ports on which each Pod serves; every port of every Pod is an endpoint.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(one, self.exists_one(other, one.number == other.number))",
        "message": "port number must be unique",
    }]))]
    target_ports: Vec<Port>,
    /// What the endpoints speak.
    app_protocol: Option<AppProtocol>,
    /// Not used: the gateway picks endpoints itself.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "(has(self.kind) && self.kind != 'Service') || has(self.port)",
        "message": "port is required when kind is 'Service' or unspecified (defaults to 'Service')",
    }]))]
    endpoint_picker_ref: Option<EndpointPickerRef>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct LabelSelector {
    /// Labels a Pod has to have.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    match_labels: BTreeMap<String, String>,
}

#[derive(JsonSchema)]
struct Port {
    #[schemars(range(min = 1, max = 65535))]
    number: i32,
}

#[derive(JsonSchema)]
enum AppProtocol {
    #[schemars(rename = "http")]
    Http,
    #[schemars(rename = "kubernetes.io/h2c")]
    H2c,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct EndpointPickerRef {
    #[schemars(length(max = 253))]
    group: Option<String>,
    #[schemars(length(min = 1, max = 63))]
    kind: Option<String>,
    #[schemars(length(min = 1, max = 253))]
    name: String,
    port: Option<Port>,
    failure_mode: Option<FailureMode>,
}

#[derive(JsonSchema)]
enum FailureMode {
    FailOpen,
    FailClose,
}

/// A set of endpoints that serve the same models.
#[derive(JsonSchema)]
pub(super) struct InferencePoolX {
    spec: PoolSpecX,
    status: Option<PoolStatusX>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct PoolSpecX {
    /// Labels a Pod has to have.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    selector: BTreeMap<String, String>,
    /// Port on which each Pod serves.
    #[schemars(range(min = 1, max = 65535))]
    target_port_number: i32,
    /// Not used: the gateway picks endpoints itself.
    extension_ref: Option<ExtensionRef>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ExtensionRef {
    #[schemars(length(max = 253))]
    group: Option<String>,
    #[schemars(length(min = 1, max = 63))]
    kind: Option<String>,
    #[schemars(length(min = 1, max = 253))]
    name: String,
    /// Its name in v1alpha2.
    #[schemars(range(min = 1, max = 65535))]
    port_number: Option<i32>,
    /// Its name in v1alpha1.
    #[schemars(range(min = 1, max = 65535))]
    target_port_number: Option<i32>,
    failure_mode: Option<FailureMode>,
}

/// A model's name in requests, how much it matters, and what it is called where it is served.
#[derive(JsonSchema)]
pub(super) struct InferenceModel {
    spec: ModelSpec,
    status: Option<Conditions>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ModelSpec {
    /// The model's name in requests; the oldest InferenceModel of a pool has it.
    #[schemars(length(min = 1, max = 256))]
    model_name: String,
    /// Standard if it is not given.
    criticality: Option<Criticality>,
    /// Names to send on instead, chosen by weight; none keeps the model's name.
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(target, has(target.weight)) || self.all(target, !has(target.weight))",
        "message": "a weight on all targets or on none",
    }]))]
    target_models: Option<Vec<TargetModel>>,
    pool_ref: PoolRef,
}

#[derive(JsonSchema)]
enum Criticality {
    Critical,
    Standard,
    Sheddable,
}

#[derive(JsonSchema)]
struct TargetModel {
    #[schemars(length(min = 1, max = 253))]
    name: String,
    #[schemars(range(min = 0, max = 1_000_000))]
    weight: Option<i32>,
}

/// How much the requests that name it matter.
#[derive(JsonSchema)]
pub(super) struct InferenceObjective {
    spec: ObjectiveSpec,
    status: Option<Conditions>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ObjectiveSpec {
    /// Higher goes first; below zero may be shed; 0 if it is not given.
    #[schemars(range(min = -2_147_483_648, max = 2_147_483_647))]
    priority: Option<i32>,
    pool_ref: PoolRef,
}

/// Other names for the models of requests.
#[derive(JsonSchema)]
pub(super) struct InferenceModelRewrite {
    spec: RewriteSpec,
    status: Option<Conditions>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct RewriteSpec {
    pool_ref: PoolRef,
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    rules: Vec<RewriteRule>,
}

#[derive(JsonSchema)]
struct RewriteRule {
    /// Any of these; none matches every model.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    matches: Option<Vec<RewriteMatch>>,
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(target, has(target.weight)) || self.all(target, !has(target.weight))",
        "message": "a weight on all targets or on none",
    }]))]
    targets: Vec<RewriteTarget>,
}

#[derive(JsonSchema)]
struct RewriteMatch {
    model: ModelMatch,
}

#[derive(JsonSchema)]
struct ModelMatch {
    r#type: Option<MatchType>,
    #[schemars(length(min = 1, max = 256))]
    value: String,
}

#[derive(JsonSchema)]
enum MatchType {
    Exact,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct RewriteTarget {
    #[schemars(length(min = 1, max = 253))]
    model_rewrite: String,
    #[schemars(range(min = 0, max = 1_000_000))]
    weight: Option<i32>,
}
