//! `tokenweir check`: what is wrong with a configuration, or what it will do.

use controller::{Problem, Severity, read};
use picker::{Desired, HostPattern, RouteRule, RouteSpec};

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
            let targets: Vec<String> =
                model.targets.iter().map(|t| format!("{} (weight {})", t.name, t.weight)).collect();
            say(&format!("  model {name} -> {}", targets.join(", ")));
        }
    }
    say("the configuration is good");
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
