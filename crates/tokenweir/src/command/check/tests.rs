//! What is said of a pool.

use controller::{FoldOptions, fold, read_text};

use super::{quantity, settings_of};

/// What is said of a pool with this policy.
fn check(policy: &str, expected: &[&str]) {
    let text = format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: InferencePool
metadata: {{name: p}}
spec: {{targetPortNumber: 8000, selector: {{app: a}}}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {{name: batch}}
spec: {{priority: -1, poolRef: {{name: p}}}}
---
apiVersion: tokenweir.dev/v1alpha1
kind: InferencePolicy
metadata: {{name: i}}
spec: {{targetRef: {{name: p}}, {policy}}}
"
    );
    let manifests = read_text("x.yaml", &text);
    assert!(!manifests.has_errors(), "{:?}", manifests.problems);
    let folded = fold(&manifests.objects, &FoldOptions::default());
    let said = settings_of(&folded.desired.pools[0]);
    assert_eq!(said[0], "objective batch (priority -1)");
    assert_eq!(said[1..], *expected, "{policy}");
}

#[test]
fn what_a_pool_has_of_its_own_is_said() {
    check("", &[]);
    check("timeouts: {idle: 120s, firstToken: 0s}", &[]);
    check(
        "flowControl: {lateBinding: true, maxRequests: 10, maxBytes: 1536Ki}",
        &["requests wait in the gateway: up to 10, bodies up to 1536Ki, each up to 60s"],
    );
    check(
        "outlierDetection: {consecutiveFailures: 5}",
        &[
            "endpoints are left out after 5 failures in a row, for 1s and up to 30s, at most 50 % of \
           them",
        ],
    );
    check(
        "retries: {attempts: 1}, timeouts: {request: 10m, firstToken: 500ms, idle: 5s}, limits: \
         {maxBodyBytes: 1Mi}",
        &[
            "endpoints tried for a request: up to 1",
            "timeout of a whole answer, if the route has none: 600s",
            "timeout of the first token: 500ms",
            "timeout of silence inside an answer: 5s",
            "request bodies: up to 1Mi",
        ],
    );
}

#[test]
fn bytes_are_said_in_whole_units() {
    let cases = [(0, "0"), (1023, "1023"), (1024, "1Ki"), (3 << 29, "1536Mi"), (1 << 40, "1Ti")];
    for (bytes, expected) in cases {
        assert_eq!(quantity(bytes), expected);
    }
}
