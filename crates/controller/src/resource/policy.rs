//! Reads InferencePolicy.

use std::sync::Arc;

use scheduling::Policy;

use super::{InferencePolicy, pool_ref};
use crate::fields::{Fields, Item};

pub(super) fn read(spec: &mut Fields<'_>, namespace: &Arc<str>) -> Option<InferencePolicy> {
    let target = spec.need("targetRef", "the InferencePool it is for");
    let pool = target.and_then(|item| pool_ref(&item, namespace));
    let policy = spec.get("loadBalancing").and_then(|item| {
        item.fields(|fields| fields.get("policy").and_then(|item| named(&item)))?
    });
    spec.unserved(&["flowControl", "retries", "timeouts", "outlierDetection", "limits"], "");
    Some(InferencePolicy { pool: pool?, policy })
}

fn named(item: &Item<'_>) -> Option<Policy> {
    let name = item.word()?;
    let policy = name.parse().ok();
    if policy.is_none() {
        item.one_of(&Policy::ALL.map(Policy::name));
    }
    policy
}
