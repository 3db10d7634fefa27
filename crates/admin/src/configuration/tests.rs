use std::time::Duration;

use picker::{
    AppProtocol, Desired, EndpointSpec, HostPattern, ListenerSpec, ModelSpec, PoolKey, PoolKind,
    PoolSpec, RouteMatch, RouteRule, RouteSpec, StringMatch, TargetModel, WeightedPool,
};
use scheduling::{EndpointId, Policy};
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
            key: pool.clone(),
            policy: Policy::RoundRobin,
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
