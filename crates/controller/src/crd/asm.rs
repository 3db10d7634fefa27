//! LLMRoute and ASMMeshConfig, of which no definition is published.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::status::Conditions;

/// From Gateways to InferencePools and Services.
#[derive(JsonSchema)]
pub(super) struct LLMRoute {
    spec: RouteSpec,
    status: Option<Conditions>,
}

#[derive(JsonSchema)]
struct RouteSpec {
    /// The host of the requests: a name, one such as *.example.com, or *.
    #[schemars(length(min = 1, max = 253))]
    host: String,
    /// Gateways that take the requests: NAME of the same namespace, or NAMESPACE/NAME.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    gateways: Option<Vec<GatewayName>>,
    /// Tried in order; the first that matches decides.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    rules: Vec<Rule>,
}

#[derive(JsonSchema)]
struct GatewayName(#[schemars(length(min = 1, max = 317))] String);

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Rule {
    #[schemars(length(min = 1, max = 253))]
    name: Option<String>,
    /// Any of these; none matches everything.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    matches: Option<Vec<Match>>,
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    backend_refs: Vec<LLMBackendRef>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Match {
    /// Conditions on headers, by name; all have to hold.
    #[schemars(extend("maxProperties" = 32))]
    headers: Option<BTreeMap<String, StringMatch>>,
    /// Accepted and not evaluated: the match holds whatever workload a request comes from.
    source_labels: Option<BTreeMap<String, String>>,
    /// Only requests of these Gateways.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    gateways: Option<Vec<GatewayName>>,
}

/// Empty asks only that there is a value.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.exact), has(self.prefix), has(self.regex)].filter(given, given).size() <= 1",
    "message": "one of exact, prefix and regex",
}]))]
struct StringMatch {
    #[schemars(length(max = 1024))]
    exact: Option<String>,
    #[schemars(length(max = 1024))]
    prefix: Option<String>,
    /// It has to match the whole value.
    #[schemars(length(max = 1024))]
    regex: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", extend("x-kubernetes-validations" = [{
    "rule": "has(self.backendRef) != has(self.providerHost)",
    "message": "one of backendRef and providerHost",
}]))]
struct LLMBackendRef {
    backend_ref: Option<BackendRef>,
    /// Share of the requests; 1 if it is not given.
    #[schemars(range(min = 0, max = 1_000_000))]
    weight: Option<i32>,
    /// Host of an LLMProvider; not served yet.
    #[schemars(length(min = 1, max = 253))]
    provider_host: Option<String>,
    /// Accepted and not honoured yet.
    #[schemars(length(max = 253))]
    host_rewrite: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.kind) || self.kind != 'Service' || has(self.port)",
        "message": "port is required when kind is 'Service'",
    },
    {
        "rule": "!has(self.group) || (has(self.kind) && self.kind == 'Service') == (self.group == '')",
        "message": "a Service has the group \"\", an InferencePool one of its own",
    },
]))]
struct BackendRef {
    group: Option<BackendGroup>,
    /// InferencePool if it is not given.
    kind: Option<BackendKind>,
    #[schemars(length(min = 1, max = 253))]
    name: String,
    /// The route's own if it is not given.
    #[schemars(length(min = 1, max = 63))]
    namespace: Option<String>,
    /// Of a Service; an InferencePool knows its own.
    #[schemars(range(min = 1, max = 65535))]
    port: Option<i32>,
}

#[derive(JsonSchema)]
enum BackendGroup {
    #[schemars(rename = "")]
    Core,
    #[schemars(rename = "inference.networking.x-k8s.io")]
    Extension,
    #[schemars(rename = "inference.networking.k8s.io")]
    Released,
}

#[derive(JsonSchema)]
enum BackendKind {
    InferencePool,
    Service,
}

/// Switches of the mesh; the one that counts is named default.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.metadata.name == 'default'",
    "message": "the one ASMMeshConfig is named default",
}]))]
pub(super) struct ASMMeshConfig {
    spec: Option<MeshSpec>,
    status: Option<Conditions>,
}

#[derive(JsonSchema)]
struct MeshSpec {
    #[schemars(rename = "gatewayAPIInferenceExtension")]
    inference: Option<InferenceExtension>,
}

#[derive(JsonSchema)]
struct InferenceExtension {
    /// Whether InferencePools are served; they are if it is not given.
    enabled: Option<bool>,
}
