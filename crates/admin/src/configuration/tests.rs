use std::time::Duration;

use picker::{
    AppProtocol, Delivery, Desired, EndpointSpec, HostPattern, ListenerSpec, ModelSpec,
    ObjectiveSpec, PoolKey, PoolKind, PoolSpec, RouteMatch, RouteRule, RouteSpec, StringMatch,
    TargetModel, WeightedPool,
};
use scheduling::{EndpointId, FlowControl, Policy};
use serde_json::json;

use super::desired;

fn state() -> Desired {
    let pool = PoolKey {
        kind: PoolKind::InferencePool,
        namespace: "default".into(),
        name: "llama".into(),
        port: 0,
    };
    let service = PoolKey { kind: PoolKind::Service, port: 8000, ..pool.clone() };
    Desired {
        listeners: vec![ListenerSpec { port: 8080, gateways: vec!["default/gw".into()] }],
        pools: vec![PoolSpec {
            endpoints: vec![EndpointSpec {
                id: EndpointId::new("10.0.0.1:8000"),
                workload: "vllm-0".into(),
                host: "10.0.0.1".into(),
                port: 8000,
                protocol: AppProtocol::H2c,
            }],
            models: vec![ModelSpec {
                model: None,
                priority: 1,
                targets: vec![TargetModel { name: "lora".into(), weight: 3 }],
            }],
            objectives: vec![ObjectiveSpec { name: "batch".into(), priority: -1 }],
            flow_control: FlowControl { late_binding: Some(true), ..FlowControl::default() },
            delivery: Delivery {
                timeout: Some(Duration::from_millis(2500)),
                first_token_timeout: Some(Duration::from_secs(9)),
                ..Delivery::default()
            },
            ..PoolSpec::new(pool.clone(), Policy::RoundRobin)
        }],
        routes: vec![RouteSpec {
            name: "default/route".into(),
            port: 8080,
            hosts: vec![
                HostPattern::Exact("a.example".into()),
                HostPattern::Suffix(".b.example".into()),
                HostPattern::Any,
            ],
            rules: vec![RouteRule {
                name: Some("rule".into()),
                matches: vec![RouteMatch {
                    path: Some(StringMatch::Prefix("/v1".into())),
                    headers: vec![
                        ("x-user".into(), None),
                        ("x-tier".into(), Some(StringMatch::regex("gold|silver").expect("valid"))),
                    ],
                }],
                pools: vec![WeightedPool { pool: service, weight: 1 }],
                timeout: Some(Duration::from_millis(1500)),
            }],
        }],
    }
}

#[test]
fn the_desired_state_is_spelled_as_its_users_would() {
    let pool = json!({ "name": "llama", "namespace": "default", "kind": "InferencePool" });
    let service =
        json!({ "name": "llama", "namespace": "default", "kind": "Service", "port": 8000 });
    let expected = json!({
        "listeners": [{ "port": 8080, "gateways": ["default/gw"] }],
        "pools": [{
            "pool": pool,
            "policy": "round-robin",
            "endpoints": [{
                "endpoint": "10.0.0.1:8000",
                "workload": "vllm-0",
                "host": "10.0.0.1",
                "port": 8000,
                "protocol": "h2c",
            }],
            "models": [{ "priority": 1, "targets": [{ "name": "lora", "weight": 3 }] }],
            "objectives": [{ "name": "batch", "priority": -1 }],
            "flow_control": {
                "late_binding": true,
                "requests_max": 4096,
                "bytes_max": 256 << 20,
                "wait_max_seconds": 60.0,
            },
            "outlier_detection": {
                "consecutive_failures": 3,
                "base_ejection_seconds": 1.0,
                "max_ejection_seconds": 30.0,
                "max_ejection_percent": 50,
            },
            "delivery": {
                "attempts_max": 3,
                "body_bytes_max": 32 << 20,
                "idle_timeout_seconds": 120.0,
                "timeout_seconds": 2.5,
                "first_token_timeout_seconds": 9.0,
            },
        }],
        "routes": [{
            "name": "default/route",
            "port": 8080,
            "hosts": ["a.example", "*.b.example", "*"],
            "rules": [{
                "name": "rule",
                "matches": [{
                    "path": { "prefix": "/v1" },
                    "headers": {
                        "x-user": { "present": true },
                        "x-tier": { "regex": "gold|silver" },
                    },
                }],
                "pools": [{ "pool": service, "weight": 1 }],
                "timeout_seconds": 1.5,
            }],
        }],
    });
    assert_eq!(desired(&state()), expected);
}
