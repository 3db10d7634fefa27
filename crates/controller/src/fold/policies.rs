//! How each pool is balanced, where an object says so.

use std::collections::BTreeMap;

use super::{World, models, pools::Pools};
use crate::{
    object::{Object, Path, Spec},
    resource::BackendTarget,
    status::Verdict,
};

pub(super) fn fold<'o>(world: &mut World<'o>, pools: &mut Pools<'o>) {
    inference_policies(world, pools);
    destination_rules(world, pools);
}

fn inference_policies<'o>(world: &mut World<'o>, pools: &mut Pools<'o>) {
    let mut attached: BTreeMap<&Path, &Object> = BTreeMap::new();
    for (object, policy) in world.all(|spec| match spec {
        Spec::InferencePolicy(policy) => Some(policy),
        _ => None,
    }) {
        let mut verdict = Verdict::new(object);
        models::find_pool(world, &mut verdict, pools, &policy.pool, "spec.targetRef");
        if verdict.lacks_references() {
            let message = format!("there is no InferencePool {}", policy.pool);
            verdict.refuse("TargetNotFound", "spec.targetRef", message);
        }
        if let Some(first) = attached.get(&policy.pool) {
            let message = format!("{first} is attached to InferencePool {} already", policy.pool);
            verdict.refuse("Conflicted", "spec.targetRef", message);
        } else {
            attached.insert(&policy.pool, object);
            let spec = pools.get_mut(&Pools::key(&policy.pool));
            if let Some(spec) = spec {
                spec.policy = policy.policy.unwrap_or(spec.policy);
                spec.flow_control = policy.flow_control;
                spec.outlier_detection = policy.outlier_detection;
                spec.delivery = policy.delivery;
                verdict
                    .remark(format!("balances InferencePool {} by {}", policy.pool, spec.policy));
            }
        }
        world.verdicts.push(verdict);
    }
}

fn destination_rules<'o>(world: &mut World<'o>, pools: &mut Pools<'o>) {
    let mut attached: BTreeMap<&Path, &Object> = BTreeMap::new();
    for (object, rule) in world.all(|spec| match spec {
        Spec::DestinationRule(rule) => Some(rule),
        _ => None,
    }) {
        let mut verdict = Verdict::new(object);
        // Nobody but Istio is expected to write there.
        verdict.leave_to_others();
        match &rule.host {
            BackendTarget::Service(path, _) if !pools.has_service(path) => {
                let message = format!("there is no Service {path}");
                verdict.unresolved("ServiceNotFound", "spec.host", message);
            }
            BackendTarget::Service(path, _) => {
                if let Some(first) = attached.get(path) {
                    let message = format!("{first} is for Service {path} already");
                    verdict.refuse("Conflicted", "spec.host", message);
                } else {
                    attached.insert(path, object);
                    let specs = pools.of_service_mut(path);
                    specs.for_each(|spec| spec.policy = rule.policy.unwrap_or(spec.policy));
                }
            }
            BackendTarget::Outside(host) => {
                let message = format!("{host} is outside, which is not served yet");
                verdict.unresolved("UnsupportedBackend", "spec.host", message);
            }
            BackendTarget::Pool(_) => {}
        }
        world.verdicts.push(verdict);
    }
}
