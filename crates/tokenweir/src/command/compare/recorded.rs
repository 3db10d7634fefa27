//! `compare --recorded`: the simulator against a run of a real server.

use std::path::Path;

use serde_json::{Value, json};
use sim::{
    EngineConfig,
    recorded::{Comparison, Figures, Recording},
};

use super::{limit, write};
use crate::{
    args::CompareArgs,
    outcome::{Failed, Outcome, say},
    profile::profile,
};

pub(super) fn run(folder: &Path, args: &CompareArgs) -> Outcome {
    let recording = read(folder).map_err(Failed::Usage)?;
    let name = args.pool.profile.as_deref().unwrap_or_default();
    let profile = profile(name).map_err(|wrong| Failed::usage(format!("--profile: {wrong}")))?;
    let mut config =
        recording.limits.applied_to(EngineConfig { profile, ..EngineConfig::default() });
    limit(&mut config.profile, &args.pool);
    let replayed = recording.replay(config);
    let comparison = recording.compare(&replayed);
    write(args.json.as_deref(), || format!("{:#}\n", written(&comparison)))?;
    say(&format!(
        "{} requests of {}, replayed on {name}",
        recording.requests.len(),
        folder.display()
    ));
    show(&comparison);
    if comparison.refused > 0 {
        return Err(Failed::run(format!(
            "{} requests do not fit the simulated server; give it more with --kv-blocks or --max-model-len",
            comparison.refused
        )));
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Recording, Vec<String>> {
    let text = |name: &str| {
        let path = folder.join(name);
        let read = std::fs::read_to_string(&path);
        let shown = path.display().to_string();
        read.map_err(|error| (error.kind(), format!("cannot read {shown}: {error}")))
            .map(|text| (shown, text))
    };
    let (path, requests) = text("requests.jsonl").map_err(|(_, error)| {
        vec![format!("{error}; --recorded wants a folder with requests.jsonl and meta.json")]
    })?;
    let meta = match text("meta.json") {
        Ok(meta) => Some(meta),
        Err((std::io::ErrorKind::NotFound, _)) => None,
        Err((_, error)) => return Err(vec![error]),
    };
    let meta = meta.as_ref().map(|(path, text)| (path.as_str(), text.as_str()));
    Recording::parse(&path, &requests, meta).map_err(|error| vec![error.to_string()])
}

fn show(comparison: &Comparison) {
    say(&format!("{:<12} {:>12} {:>12} {:>9}", "", "recorded", "simulated", "error"));
    let pairs = comparison.recorded.times().into_iter().zip(comparison.simulated.times());
    for ((name, recorded), (_, simulated)) in pairs {
        let error = (simulated / recorded - 1.0) * 100.0;
        say(&format!("{name:<12} {recorded:>12.5} {simulated:>12.5} {error:>+8.2}%"));
    }
    let count = |figures: &Figures| {
        figures.preemptions.map_or_else(|| "not told".to_owned(), |count| count.to_string())
    };
    let (recorded, simulated) = (count(&comparison.recorded), count(&comparison.simulated));
    say(&format!("{:<12} {recorded:>12} {simulated:>12}", "preemptions"));
}

fn written(comparison: &Comparison) -> Value {
    let figures = |figures: &Figures| {
        let mut object: serde_json::Map<String, Value> = figures
            .times()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        object.insert("preemptions".to_owned(), json!(figures.preemptions));
        Value::Object(object)
    };
    json!({
        "recorded": figures(&comparison.recorded),
        "simulated": figures(&comparison.simulated),
    })
}
