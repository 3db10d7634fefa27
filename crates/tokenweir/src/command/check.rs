//! `tokenweir check`: what is wrong with a configuration, or what it will do.

use controller::{Problem, Severity, read};
use picker::{Desired, HostPattern, ObjectiveSpec, PoolSpec, RouteRule, RouteSpec};

use crate::{
    args::CheckArgs,
    configuration::fold_all,
    outcome::{Failed, Outcome, say, say_error},
    settings::Settings,
};

pub(crate) fn run(args: &CheckArgs) -> Outcome {
    let settings = Settings::read(&args.settings, Settings::default());
    let manifests = read(&args.files);
    let folded = fold_all(&manifests, settings.as_ref().unwrap_or(&Settings::default()));
    // An object that is not accepted, or whose references lead nowhere, stops a check, not a
    // gateway: what it lacks may come later.
    let (unfit, others): (Vec<&Problem>, Vec<&Problem>) =
        manifests.problems.iter().partition(|problem| problem.severity == Severity::Error);
    let errors = unfit.into_iter().chain(&folded.problems);
    for problem in others {
        let word = if problem.severity == Severity::Warning { "warning" } else { "note" };
        say_error(&format!("{word}: {problem}"));
    }
    let mut problems: Vec<String> = settings.err().unwrap_or_default();
    problems.extend(errors.map(ToString::to_string));
    if !problems.is_empty() {
        return Err(Failed::Usage(problems));
    }
    describe(&folded.desired);
    if folded.desired.listeners.is_empty() {
        say_error("warning: no Gateway gives a port to listen on; nothing would be served");
    }
    Ok(())
}

/// What the gateway will do, in words.
fn describe(desired: &Desired) {
    for listener in &desired.listeners {
        say(&format!("port {} ({})", listener.port, listener.gateways.join(", ")));
        for route in desired.routes.iter().filter(|route| route.port == listener.port) {
            let hosts: Vec<String> = route.hosts.iter().map(shown_host).collect();
            say(&format!("  host {} -> {}", hosts.join(", "), route.name));
            describe_rules(route);
        }
    }
    for pool in &desired.pools {
        let endpoints: Vec<String> =
            pool.endpoints.iter().map(|endpoint| endpoint.id.to_string()).collect();
        say(&format!("{} ({}): {}", pool.key, pool.policy, endpoints.join(", ")));
        for model in &pool.models {
            let name = model.model.as_deref().unwrap_or("any other model");
            let priority = match model.priority {
                0 => String::new(),
                priority => format!(" (priority {priority})"),
            };
            let targets: Vec<String> =
                model.targets.iter().map(|t| format!("{} (weight {})", t.name, t.weight)).collect();
            say(&format!("  model {name}{priority} -> {}", targets.join(", ")));
        }
        for line in settings_of(pool) {
            say(&format!("  {line}"));
        }
    }
    say("the configuration is good");
}

/// What a pool has of its own, by its policy and objectives, and not as all pools have it.
fn settings_of(pool: &PoolSpec) -> Vec<String> {
    let usual = PoolSpec::new(pool.key.clone(), pool.policy);
    let objective =
        |one: &ObjectiveSpec| format!("objective {} (priority {})", one.name, one.priority);
    let mut lines: Vec<String> = pool.objectives.iter().map(objective).collect();
    let flow = &pool.flow_control;
    if *flow != usual.flow_control {
        lines.push(if flow.is_on(pool.policy) {
            format!(
                "requests wait in the gateway: up to {}, bodies up to {}, each up to {:?}",
                flow.requests_max,
                quantity(flow.bytes_max),
                flow.wait_max
            )
        } else {
            "requests do not wait in the gateway".to_owned()
        });
    }
    let outliers = &pool.outlier_detection;
    if *outliers != usual.outlier_detection {
        lines.push(format!(
            "endpoints are left out after {} failures in a row, for {:?} and up to {:?}, at most \
             {} % of them",
            outliers.consecutive_failures,
            outliers.base_ejection,
            outliers.max_ejection,
            outliers.max_ejection_percent
        ));
    }
    let (own, usual) = (&pool.delivery, &usual.delivery);
    if own.attempts_max != usual.attempts_max {
        lines.push(format!("endpoints tried for a request: up to {}", own.attempts_max));
    }
    if let Some(timeout) = own.timeout {
        lines.push(format!("timeout of a whole answer, if the route has none: {timeout:?}"));
    }
    if let Some(timeout) = own.first_token_timeout {
        lines.push(format!("timeout of the first token: {timeout:?}"));
    }
    if own.idle_timeout != usual.idle_timeout {
        lines.push(format!("timeout of silence inside an answer: {:?}", own.idle_timeout));
    }
    if own.body_bytes_max != usual.body_bytes_max {
        lines.push(format!("request bodies: up to {}", quantity(own.body_bytes_max as u64)));
    }
    lines
}

/// Bytes as Kubernetes writes them, in the largest unit that leaves nothing over.
fn quantity(bytes: u64) -> String {
    let units = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

fn describe_rules(route: &RouteSpec) {
    for rule in &route.rules {
        let RouteRule { name, matches, pools, .. } = rule;
        let when = if matches.is_empty() { "everything" } else { "what matches" };
        let to: Vec<String> =
            pools.iter().map(|pool| format!("{} (weight {})", pool.pool, pool.weight)).collect();
        let name = name.as_deref().map_or_else(String::new, |name| format!("{name}: "));
        say(&format!("    {name}{when} -> {}", to.join(", ")));
    }
}

fn shown_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
        HostPattern::Any => "*".to_owned(),
    }
}

#[cfg(test)]
mod tests;
