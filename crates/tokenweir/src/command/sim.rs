//! `tokenweir sim`: simulated vLLM servers.

use sim::{Fleet, FleetError, Profile, SimConfig};

use crate::{
    args::SimArgs,
    outcome::{Failed, Outcome, say},
    signals::stop_requested,
};

pub(crate) fn run(args: &SimArgs) -> Outcome {
    let config = config(args)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failed::run)?;
    runtime.block_on(async {
        let bound = Fleet::bind(config, args.listen, args.replicas).await;
        let fleet = bound.map_err(|error: FleetError| Failed::usage(error))?;
        for addr in fleet.addrs() {
            say(&format!("simulated vLLM ({}) on http://{addr}", args.profile));
        }
        fleet.run(async { drop(stop_requested().await) }).await;
        Ok(())
    })
}

fn config(args: &SimArgs) -> Result<SimConfig, Failed> {
    let profile = Profile::named(&args.profile).ok_or_else(|| {
        let names = Profile::NAMES.join(", ");
        Failed::usage(format!("no profile is called {:?}; use one of {names}", args.profile))
    })?;
    let base = SimConfig::default();
    Ok(SimConfig {
        profile,
        model: args.model.clone().unwrap_or(base.model),
        loras: if args.loras.is_empty() { base.loras } else { args.loras.clone() },
        max_loras: args.max_loras.unwrap_or(base.max_loras),
        speedup: args.speedup,
        seed: args.seed,
        legacy_metrics: args.legacy_metrics,
        ..SimConfig::default()
    })
}
