//! `tokenweir demo`: the tutorial with nothing installed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use controller::read_text;
use http::Method;
use serde_json::json;
use sim::{Fleet, SimConfig};
use tokio::task::JoinSet;

use crate::{
    app::App,
    args::DemoArgs,
    command::serve::stop,
    fetch::fetch,
    logging,
    outcome::{Failed, Outcome, say},
    settings::Settings,
};

/// The tutorial's own manifests.
const MANIFESTS: [&str; 5] = [
    include_str!("../../../../examples/seed/gateway.yaml"),
    include_str!("../../../../examples/seed/inferencepool.yaml"),
    include_str!("../../../../examples/seed/inferencemodel.yaml"),
    include_str!("../../../../examples/seed/llmroute.yaml"),
    include_str!("../../../../examples/seed/vllm-service.yaml"),
];
/// The port the tutorial's Gateway names.
const GATEWAY_PORT: &str = "number: 8080";
const ENDPOINTS: u16 = 3;
/// Mean pause between requests of the gentle load.
const LOAD_PAUSE: Duration = Duration::from_millis(700);
/// Requests of the gentle load under way at once.
const LOAD_REQUESTS_MAX: usize = 32;

pub(crate) fn run(args: &DemoArgs) -> Outcome {
    let here = Ipv4Addr::LOCALHOST;
    let base = Settings {
        bind: here.into(),
        health: SocketAddr::from((here, 15021)),
        stats: SocketAddr::from((here, 15090)),
        ..Settings::default()
    };
    let settings = Settings::read(&args.settings, base).map_err(Failed::Usage)?;
    logging::start(settings.log_format);
    let runtime = tokio::runtime::Runtime::new().map_err(Failed::run)?;
    let config = SimConfig { speedup: args.speedup, ..SimConfig::default() };
    let any_port = SocketAddr::from((here, 0));
    let fleet = runtime.block_on(Fleet::bind(config, any_port, ENDPOINTS)).map_err(Failed::run)?;
    let manifests = read_text("demo.yaml", &manifests(args.port, &fleet.addrs()));
    if manifests.has_errors() {
        return Err(Failed::Usage(manifests.problems.iter().map(ToString::to_string).collect()));
    }
    let addrs = fleet.addrs();
    runtime.spawn(fleet.run(std::future::pending()));
    if args.load {
        runtime.spawn(load(args.port));
    }
    let app = App::new(settings.clone())?;
    app.configuration().take(manifests);
    let outcome = app.run(stop, std::future::pending(), || welcome(args, &settings, &addrs));
    runtime.shutdown_background();
    outcome
}

/// The tutorial's objects, with endpoints where the servers are.
fn manifests(port: u16, addrs: &[SocketAddr]) -> String {
    let port = format!("number: {port}");
    let entry = |(index, addr): (usize, &SocketAddr)| {
        json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": { "name": format!("vllm-{index}") },
            "spec": {
                "address": addr.ip().to_string(),
                "labels": { "app": "vllm-llama2-7b-pool" },
                "ports": { "http": addr.port() },
            },
        })
        .to_string()
    };
    let entries = addrs.iter().enumerate().map(entry);
    let manifests = MANIFESTS.iter().map(|text| text.replace(GATEWAY_PORT, &port));
    manifests.chain(entries).collect::<Vec<_>>().join("\n---\n")
}

fn welcome(args: &DemoArgs, settings: &Settings, addrs: &[SocketAddr]) {
    let port = args.port;
    let endpoints: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    say(&format!(
        r#"
Tokenweir is in front of three simulated vLLM servers ({endpoints}).
Try it:

  curl -H "host: test.com" -H "Content-Type: application/json" \
    http://127.0.0.1:{port}/v1/completions \
    -d '{{"model": "tweet-summary", "prompt": "Write as if you were a critic: San Francisco", "max_tokens": 100, "temperature": 0}}'

  http://{admin}/                             the dashboard
  {program} top --admin http://{admin}        its table of endpoints, in this terminal
  curl http://{admin}/endpoints               what is known of each endpoint
  curl http://{admin}/decisions               where the last requests went, and why
  curl http://{stats}/stats/prometheus        metrics
  {program} get inferencepool --admin http://{admin}   objects and their status

Access log lines follow, one a request. Ctrl-C ends it."#,
        endpoints = endpoints.join(", "),
        admin = settings.admin,
        program = std::env::args().next().unwrap_or_else(|| "tokenweir".to_owned()),
        stats = settings.stats,
    ));
}

/// A request now and then, of every adapter and many lengths. Ends when dropped.
async fn load(port: u16) {
    let adapters = SimConfig::default().loras;
    let authority = format!("127.0.0.1:{port}");
    let mut running = JoinSet::new();
    loop {
        while running.len() >= LOAD_REQUESTS_MAX {
            running.join_next().await;
        }
        tokio::time::sleep(LOAD_PAUSE.mul_f64(fastrand::f64() * 2.0)).await;
        let Some(model) = fastrand::choice(&adapters) else { return };
        let body = json!({
            "model": model,
            "prompt": "All work and no play makes a dull gateway. ".repeat(fastrand::usize(1..60)),
            "max_tokens": fastrand::u32(16..200),
            "stream": fastrand::bool(),
        });
        let authority = authority.clone();
        let body = Bytes::from(body.to_string());
        let request = async move {
            let sent = fetch(&authority, "test.com", Method::POST, "/v1/completions", body).await;
            if let Err(error) = sent {
                tracing::debug!("load: {error:#}");
            }
        };
        running.spawn(request);
        while running.try_join_next().is_some() {}
    }
}
