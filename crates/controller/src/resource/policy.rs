//! Reads InferencePolicy.

use std::{ops::RangeInclusive, sync::Arc};

use picker::Delivery;
use scheduling::{CHOICES_MAX, FlowControl, OutlierDetection, Policy};

use super::{InferencePolicy, pool_and_group};
use crate::fields::{Fields, Item};

/// Requests that may be let wait at once.
const REQUESTS_MAX: i64 = 1_000_000;
/// What the bodies of those may take.
const WAITING_BYTES_MAX: &str = "1Ti";
/// A larger body would not fit into the room the proxy has for all of them.
const BODY_BYTES_MAX: &str = "1Gi";
const FAILURES_MAX: i64 = 1_000;

pub(super) fn read(spec: &mut Fields<'_>, namespace: &Arc<str>) -> Option<InferencePolicy> {
    let target = spec.need("targetRef", "the InferencePool it is for");
    let target = target.and_then(|item| pool_and_group(&item, namespace));
    let policy = spec.get("loadBalancing").and_then(|item| {
        item.fields(|fields| fields.get("policy").and_then(|item| named(&item)))?
    });
    let flow_control =
        spec.get("flowControl").and_then(|item| item.fields(|fields| flow_control(fields, policy)));
    let outlier_detection =
        spec.get("outlierDetection").and_then(|item| item.fields(outlier_detection));
    let delivery = delivery(spec);
    let (pool, pool_group) = target?;
    Some(InferencePolicy {
        pool,
        pool_group,
        policy,
        flow_control: flow_control.unwrap_or_default(),
        outlier_detection: outlier_detection.unwrap_or_default(),
        delivery,
    })
}

fn named(item: &Item<'_>) -> Option<Policy> {
    let name = item.word()?;
    let policy = name.parse().ok();
    if policy.is_none() {
        item.one_of(&Policy::ALL.map(Policy::name));
    }
    policy
}

fn flow_control(fields: &mut Fields<'_>, policy: Option<Policy>) -> FlowControl {
    let mut flow = FlowControl::default();
    let late_binding = fields.get("lateBinding");
    flow.late_binding = late_binding.and_then(|item| item.boolean());
    let (requests, bytes, wait) =
        (fields.get("maxRequests"), fields.get("maxBytes"), fields.get("maxWait"));
    // Without a policy here the gateway's own setting decides, which is not known here.
    let waits = policy.is_none_or(|policy| flow.is_on(policy)) && flow.late_binding != Some(false);
    if !waits {
        for item in [&requests, &bytes, &wait].into_iter().flatten() {
            item.warn("no request waits in the gateway", "write lateBinding: true");
        }
    }
    let requests = requests.and_then(|item| number(&item, 1..=REQUESTS_MAX, "a number", ""));
    set(&mut flow.requests_max, requests);
    set(&mut flow.bytes_max, bytes.and_then(|item| item.bytes(WAITING_BYTES_MAX)));
    set(&mut flow.wait_max, wait.and_then(|item| item.time(false)));
    flow
}

fn outlier_detection(fields: &mut Fields<'_>) -> OutlierDetection {
    let mut outliers = OutlierDetection::default();
    let failures = fields.get("consecutiveFailures").and_then(|item| {
        // Whoever writes zero, or more than may be, wants none taken out.
        let hint = "to take no endpoint out, write maxEjectionPercent: 0";
        number(&item, 1..=FAILURES_MAX, "a number of failures", hint)
    });
    set(&mut outliers.consecutive_failures, failures);
    let base = fields.get("baseEjectionTime").and_then(|item| item.time(false));
    let longest = fields.get("maxEjectionTime");
    let most = longest.as_ref().and_then(|item| item.time(false));
    if let (Some(item), Some(base), Some(most)) = (longest, base, most)
        && most < base
    {
        item.expected("no less than baseEjectionTime", "");
    }
    // Where only one of them is given, the other keeps to it.
    let (base_default, most_default) = (outliers.base_ejection, outliers.max_ejection);
    outliers.base_ejection =
        base.unwrap_or_else(|| most.map_or(base_default, |most| base_default.min(most)));
    outliers.max_ejection = most.unwrap_or(most_default.max(outliers.base_ejection));
    let percent = fields.get("maxEjectionPercent");
    let percent = percent.and_then(|item| number(&item, 0..=100, "a percentage", ""));
    set(&mut outliers.max_ejection_percent, percent);
    outliers
}

/// `retries`, `timeouts` and `limits`.
fn delivery(spec: &mut Fields<'_>) -> Delivery {
    let mut delivery = Delivery::default();
    if let Some(item) = spec.get("retries") {
        item.fields(|fields| {
            let attempts = fields.get("attempts").and_then(|item| {
                let range = 1..=i64::try_from(CHOICES_MAX).unwrap_or(i64::MAX);
                number(&item, range, "a number of endpoints to try", "the first one counts")
            });
            set(&mut delivery.attempts_max, attempts);
        });
    }
    if let Some(item) = spec.get("timeouts") {
        item.fields(|fields| {
            // As in an HTTPRoute, zero is none.
            let mut time = |key| fields.get(key)?.time(true).filter(|time| !time.is_zero());
            delivery.timeout = time("request");
            delivery.first_token_timeout = time("firstToken");
            set(&mut delivery.idle_timeout, fields.get("idle").and_then(|item| item.time(false)));
        });
    }
    if let Some(item) = spec.get("limits") {
        item.fields(|fields| {
            let bytes = fields.get("maxBodyBytes").and_then(|item| item.bytes(BODY_BYTES_MAX));
            set(&mut delivery.body_bytes_max, bytes.and_then(|bytes| bytes.try_into().ok()));
        });
    }
    delivery
}

/// What is not given stays as it is.
fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

fn number<T: TryFrom<i64>>(
    item: &Item<'_>,
    range: RangeInclusive<i64>,
    what: &str,
    hint: &str,
) -> Option<T> {
    item.integer(range, what, hint)?.try_into().ok()
}
