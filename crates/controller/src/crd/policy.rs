//! InferencePolicy, a kind of our own.

use scheduling::{CHOICES_MAX, Policy};
use schemars::{JsonSchema, Schema};
use serde_json::json;

use super::{
    pattern::{PoolRef, duration, quantity, time},
    status::PolicyStatus,
};

/// How requests of an InferencePool are balanced, how they wait, and what happens to slow and failing ones.
#[derive(JsonSchema)]
pub(super) struct InferencePolicy {
    spec: PolicySpec,
    status: Option<PolicyStatus>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct PolicySpec {
    target_ref: PoolRef,
    load_balancing: Option<LoadBalancing>,
    flow_control: Option<FlowControl>,
    outlier_detection: Option<OutlierDetection>,
    retries: Option<Retries>,
    timeouts: Option<Timeouts>,
    limits: Option<Limits>,
}

#[derive(JsonSchema)]
struct LoadBalancing {
    /// Name of a policy.
    #[schemars(transform = policies)]
    policy: Option<String>,
}

fn policies(schema: &mut Schema) {
    schema.insert("enum".to_owned(), json!(Policy::ALL.map(Policy::name)));
}

/// Requests wait in the gateway while every endpoint would make them wait.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct FlowControl {
    late_binding: Option<bool>,
    /// Requests waiting at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_requests: Option<i32>,
    /// What the bodies of those take together.
    #[schemars(transform = quantity)]
    max_bytes: Option<String>,
    /// Longest wait of one.
    #[schemars(transform = time)]
    max_wait: Option<String>,
}

/// When an endpoint that fails is left out for a while.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", extend("x-kubernetes-validations" = [{
    "rule": "!has(self.baseEjectionTime) || !has(self.maxEjectionTime) || duration(self.baseEjectionTime) <= duration(self.maxEjectionTime)",
    "message": "maxEjectionTime is no less than baseEjectionTime",
}]))]
struct OutlierDetection {
    #[schemars(range(min = 1, max = 1_000))]
    consecutive_failures: Option<i32>,
    #[schemars(transform = time)]
    base_ejection_time: Option<String>,
    #[schemars(transform = time)]
    max_ejection_time: Option<String>,
    /// Share of the pool that may be left out at once; 0 leaves nobody out.
    #[schemars(range(min = 0, max = 100))]
    max_ejection_percent: Option<i32>,
}

#[derive(JsonSchema)]
struct Retries {
    /// Endpoints to try, the first one counted.
    #[schemars(range(min = 1, max = CHOICES_MAX))]
    attempts: Option<i32>,
}

/// 0s is none.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Timeouts {
    /// Of a whole request.
    #[schemars(transform = duration)]
    request: Option<String>,
    /// Until the first token.
    #[schemars(transform = duration)]
    first_token: Option<String>,
    /// Silence inside an answer.
    #[schemars(transform = time)]
    idle: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Limits {
    /// Largest body of a request.
    #[schemars(transform = quantity)]
    max_body_bytes: Option<String>,
}
