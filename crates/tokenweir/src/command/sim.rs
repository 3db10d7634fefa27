//! `tokenweir sim`: simulated vLLM servers.

use sim::{Fleet, FleetError, Handle, SimConfig};

use crate::{
    args::{PlacedFault, SimArgs},
    outcome::{Failed, Outcome, say},
    profile::profile,
    signals::stop_requested,
};

pub(crate) fn run(args: &SimArgs) -> Outcome {
    let config = config(args)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failed::run)?;
    runtime.block_on(async {
        let bound = Fleet::bind(config, args.listen, args.replicas).await;
        let mut fleet = bound.map_err(|error: FleetError| Failed::usage(error))?;
        break_servers(&fleet.handles(), &args.faults)?;
        if let Some(addr) = args.admin {
            let bound = fleet.controlled_at(addr).await;
            fleet = bound.map_err(|error: FleetError| Failed::usage(error))?;
        }
        for addr in fleet.addrs() {
            say(&format!("simulated vLLM ({}) on http://{addr}", args.profile));
        }
        if let Some(addr) = fleet.control_addr() {
            say(&format!("their faults on http://{addr}/faults"));
        }
        fleet.run(async { drop(stop_requested().await) }).await;
        Ok(())
    })
}

/// Gives every server its faults in the order of the command line, before the first one runs.
fn break_servers(servers: &[Handle], faults: &[PlacedFault]) -> Result<(), Failed> {
    for PlacedFault { index, fault } in faults {
        let broken = match index.map(usize::from) {
            None => servers,
            Some(index) => servers.get(index..=index).ok_or_else(|| {
                let last = servers.len() - 1;
                let problem = "there are only the servers from 0 to";
                Failed::usage(format!("--fault {index}={fault}: {problem} {last}"))
            })?,
        };
        for server in broken {
            server.set_fault(*fault);
        }
    }
    Ok(())
}

fn config(args: &SimArgs) -> Result<SimConfig, Failed> {
    let profile =
        profile(&args.profile).map_err(|wrong| Failed::usage(format!("--profile: {wrong}")))?;
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
