//! Objects and what they come to, in `testdata/folds.txt`.

use picker::{
    Desired, HostPattern, PoolKey, PoolKind, PoolSpec, RouteMatch, RouteRule, StringMatch,
};
use proptest::prelude::*;

use super::{FoldOptions, Folded, fold};
use crate::{
    Kind, Object, Severity, caution, read_text,
    table::{Case, cases},
};

const FOLDS: &str = include_str!("../../testdata/folds.txt");

fn objects(text: &str) -> Vec<Object> {
    let manifests = read_text("x.yaml", text);
    assert!(!manifests.has_errors(), "{text}\n{:#?}", manifests.problems);
    manifests.objects
}

/// Conditions, then warnings, then the desired state, a line each.
fn told(folded: &Folded) -> Vec<String> {
    let mut lines = Vec::new();
    for status in &folded.statuses {
        let path = match &*status.namespace {
            "" => status.name.to_string(),
            namespace => format!("{namespace}/{}", status.name),
        };
        for condition in &status.conditions {
            let (name, reason) = (condition.name, condition.reason);
            let state = condition.status.name();
            // What is fine without a word needs no line.
            if state != "True" || !condition.message.is_empty() {
                let message = &condition.message;
                lines.push(format!("{} {path}: {name}={state} {reason}: {message}", status.kind));
            }
        }
    }
    lines.extend(folded.problems.iter().map(|problem| format!("{:?} {problem}", problem.severity)));
    lines.extend(desired(&folded.desired));
    lines
}

fn desired(desired: &Desired) -> Vec<String> {
    let mut lines = Vec::new();
    for listener in &desired.listeners {
        lines.push(format!("listen {} for {}", listener.port, listener.gateways.join(" ")));
    }
    for pool in &desired.pools {
        let endpoints = pool.endpoints.iter().map(|one| {
            assert!(one.id.as_str().ends_with(&format!(":{}", one.port)));
            format!("{}@{}/{:?}", one.workload, one.id, one.protocol)
        });
        let endpoints: Vec<String> = endpoints.collect();
        lines.push(format!("pool {} {} {}", key(&pool.key), pool.policy, endpoints.join(" ")));
        // What is as it always is needs no line.
        let usual = PoolSpec::new(pool.key.clone(), pool.policy);
        if pool.flow_control != usual.flow_control {
            lines.push(format!("  {:?}", pool.flow_control));
        }
        if pool.outlier_detection != usual.outlier_detection {
            lines.push(format!("  {:?}", pool.outlier_detection));
        }
        if pool.delivery != usual.delivery {
            lines.push(format!("  {:?}", pool.delivery));
        }
        for objective in &pool.objectives {
            lines.push(format!("  objective {} {}", objective.name, objective.priority));
        }
        for model in &pool.models {
            let name = model.model.as_deref().unwrap_or("(any)");
            let shares: Vec<String> =
                model.targets.iter().map(|one| format!("{}*{}", one.name, one.weight)).collect();
            lines.push(format!("  model {name} {} {}", model.priority, shares.join(" ")));
        }
    }
    for route in &desired.routes {
        let hosts: Vec<String> = route
            .hosts
            .iter()
            .map(|host| match host {
                HostPattern::Exact(host) => host.clone(),
                HostPattern::Suffix(suffix) => format!("*{suffix}"),
                HostPattern::Any => "*".into(),
            })
            .collect();
        lines.push(format!("route {} {} {}", route.name, route.port, hosts.join(" ")));
        lines.extend(route.rules.iter().map(rule));
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

fn key(key: &PoolKey) -> String {
    match key.kind {
        PoolKind::InferencePool => format!("{}/{}", key.namespace, key.name),
        PoolKind::Service => format!("{}/{}:{}", key.namespace, key.name, key.port),
    }
}

fn rule(rule: &RouteRule) -> String {
    let mut line = format!("  rule {}", rule.name.as_deref().unwrap_or("-"));
    let string = |one: &StringMatch| match one {
        StringMatch::Exact(text) => format!("={text}"),
        StringMatch::Prefix(text) => format!("^{text}"),
        StringMatch::Regex(regex) => format!("~{regex}"),
    };
    let one_match = |one: &RouteMatch| {
        if *one == RouteMatch::default() {
            return "(any)".to_owned();
        }
        let path = one.path.iter().map(|path| format!("path{}", string(path)));
        let headers = one
            .headers
            .iter()
            .map(|(name, value)| format!("{name}{}", value.as_ref().map_or(String::new(), string)));
        path.chain(headers).collect::<Vec<_>>().join("&")
    };
    if !rule.matches.is_empty() {
        let matches: Vec<String> = rule.matches.iter().map(one_match).collect();
        line += " if ";
        line += &matches.join(" or ");
    }
    let pools = rule.pools.iter().map(|one| format!("{}*{}", key(&one.pool), one.weight));
    let timeout = rule.timeout.map(|timeout| format!("within {timeout:?}"));
    [line].into_iter().chain(pools).chain(timeout).collect::<Vec<_>>().join(" ")
}

/// With metrics at 15090.
fn options() -> FoldOptions {
    FoldOptions { own_ports: [(15090, "its metrics")].into(), ..FoldOptions::default() }
}

fn check(case: &Case) {
    let folded = fold(&objects(&case.text), &options());
    assert_eq!(told(&folded), case.expected, "{}\n{}", case.title, told(&folded).join("\n#> "));
}

#[test]
fn objects_come_to_what_the_table_says() {
    cases(FOLDS).iter().for_each(check);
}

/// Every reason users may see; the contract with their scripts.
#[test]
fn every_reason_is_in_the_table() {
    let reasons = [
        "BackendNotFound",
        "Conflicted",
        "GatewayNotAccepted",
        "GatewayNotFound",
        "HostInUse",
        "InferenceExtensionDisabled",
        "InvalidKind",
        "ListenersNotValid",
        "ModelNameInUse",
        "NameNotDefault",
        "NoGateways",
        "NoMatchingHost",
        "NoMatchingListenerHostname",
        "NoMatchingParent",
        "NoServedServer",
        "NotAllowedByListeners",
        "Pending",
        "PoolNameInUse",
        "PoolNotFound",
        "PortNotFound",
        "PortUnavailable",
        "RefNotPermitted",
        "SelectorMatchesNothing",
        "SelectorMismatch",
        "ServiceNotFound",
        "TargetNotFound",
        "UnsupportedBackend",
        "UnsupportedValue",
    ];
    let mut found: Vec<&str> = cases(FOLDS)
        .iter()
        .flat_map(|case| &case.expected)
        .filter_map(|line| line.split_once("=False ")?.1.split_once(':'))
        .map(|(reason, _)| reason)
        .collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, reasons);
}

#[test]
fn every_condition_that_is_not_true_is_a_warning_with_file_and_line() {
    for case in cases(FOLDS) {
        let folded = fold(&objects(&case.text), &FoldOptions::default());
        for problem in &folded.problems {
            assert_eq!(problem.severity, Severity::Warning, "{problem}");
            assert!(problem.line.is_some() && problem.object.is_some(), "{problem}");
        }
    }
}

#[test]
fn labels_and_default_policy_come_from_the_options() {
    let text = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: \
                {selector: {a: b}, servers: [{hosts: ['*'], port: {number: 1, protocol: HTTP}}]}}";
    let pool = "{apiVersion: inference.networking.x-k8s.io/v1alpha1, kind: InferencePool, \
                metadata: {name: p}, spec: {targetPortNumber: 1, selector: {a: b}}}";
    let options = FoldOptions {
        labels: [("a".to_owned(), "b".to_owned())].into(),
        default_policy: scheduling::Policy::Random,
        ..FoldOptions::default()
    };
    let folded = fold(&objects(&format!("{text}\n---\n{pool}")), &options);
    assert_eq!(desired(&folded.desired), ["listen 1 for default/g", "pool default/p random"]);
}

#[test]
fn a_listener_that_cannot_be_opened_says_so_itself() {
    let text = "
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: api}, spec: {gatewayClassName: tokenweir, \
    listeners: [{name: web, port: 81, protocol: HTTP}, {name: taken, port: 15090, protocol: HTTP}]}}
";
    let folded = fold(&objects(text), &options());
    let status = folded.statuses[0].status_json();
    let state = |kind: &str| {
        let conditions = status["listeners"][1]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        ["status", "reason"].map(|key| condition[key].as_str().unwrap().to_owned())
    };
    assert_eq!(state("Accepted"), ["False", "PortUnavailable"]);
    assert_eq!(state("Programmed")[0], "False");
}

#[test]
fn what_is_not_obeyed_is_said_at_the_object() {
    let text = "
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {\
    parentRefs: [{name: g}], rules: [{matches: [{method: GET}], retry: {}}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g}, spec: {gatewayClassName: tokenweir, \
    listeners: [{name: web, port: 81, protocol: HTTP}]}}
";
    let manifests = read_text("x.yaml", text);
    let mut folded = fold(&manifests.objects, &FoldOptions::default());
    caution(&mut folded.statuses, &manifests.problems);
    let route = folded.statuses.iter().find(|status| status.kind == Kind::HTTPRoute).unwrap();
    let message = &route.condition("Accepted").unwrap().message;
    assert!(message.contains("spec.rules[0].matches[0].method: not evaluated"), "{message}");
    assert!(message.contains("spec.rules[0].retry: known, but not honoured yet"), "{message}");
    let gateway = folded.statuses.iter().find(|status| status.kind == Kind::Gateway).unwrap();
    assert_eq!(gateway.condition("Accepted").unwrap().message, "listens on port 81");
}

#[test]
fn no_objects_come_to_nothing() {
    let folded = fold(&[] as &[Object], &FoldOptions::default());
    assert!(folded.statuses.is_empty() && folded.problems.is_empty());
    assert_eq!(folded.desired, Desired::default());
}

/// Objects of a case that have no clash in it to be decided by age.
fn peaceful() -> Vec<Vec<Object>> {
    let clash = ["InUse", "Conflicted", "counted once", "already"];
    cases(FOLDS)
        .iter()
        .filter(|case| {
            !case.expected.iter().any(|line| clash.iter().any(|word| line.contains(word)))
        })
        .map(|case| objects(&case.text))
        .collect()
}

fn every() -> Vec<Vec<Object>> {
    cases(FOLDS).iter().map(|case| objects(&case.text)).collect()
}

fn shuffle(all: Vec<Object>) -> impl Strategy<Value = (Vec<Object>, Vec<Object>)> {
    (Just(all.clone()), Just(all).prop_shuffle())
}

proptest! {
    #[test]
    fn the_order_of_objects_without_a_clash_does_not_matter(
        (given, mut shuffled) in prop::sample::select(peaceful()).prop_flat_map(shuffle),
    ) {
        for (created, object) in (1..).zip(&mut shuffled) {
            object.created = created;
        }
        let given = fold(&given, &FoldOptions::default());
        let shuffled = fold(&shuffled, &FoldOptions::default());
        prop_assert_eq!(given.desired, shuffled.desired);
        prop_assert_eq!(given.statuses, shuffled.statuses);
    }

    #[test]
    fn the_order_of_the_slice_does_not_matter_at_all(
        (given, shuffled) in prop::sample::select(every()).prop_flat_map(shuffle),
    ) {
        let given = fold(&given, &FoldOptions::default());
        let shuffled = fold(&shuffled, &FoldOptions::default());
        prop_assert_eq!(told(&given), told(&shuffled));
        prop_assert_eq!(given.desired, shuffled.desired);
    }
}
