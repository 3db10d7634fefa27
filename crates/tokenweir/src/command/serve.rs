//! `tokenweir serve`: the gateway.

use std::sync::Arc;

use controller::{
    EndpointUrl, Kubernetes, KubernetesOptions, Manifests, endpoints_config, parse_endpoint_url,
    read, watch,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    app::App,
    args::ServeArgs,
    logging, open_files,
    outcome::{Failed, Outcome},
    settings::{KubernetesSettings, Settings},
    signals::stop_requested,
};

pub(crate) fn run(args: &ServeArgs) -> Outcome {
    let (mut settings, source) = read_all(args).map_err(Failed::Usage)?;
    logging::start(settings.log_format);
    open_files::fit(&mut settings.limits);
    let app = App::new(settings.clone())?;
    let configuration = app.configuration();
    let ready = || tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    match source {
        Source::Files(manifests) => {
            let known = manifests.contents;
            configuration.take(manifests);
            let files = args.files.clone();
            let follow = watch(files, known, move |manifests| configuration.take(manifests));
            app.run(stop, follow, ready)
        }
        Source::Endpoints(urls) => {
            configuration.take_desired(endpoints_config(&urls, args.port, settings.policy));
            app.run(stop, std::future::pending(), ready)
        }
        Source::Kubernetes(kubernetes) => {
            let kubernetes = Arc::new(*kubernetes);
            configuration.wait_for(Arc::clone(&kubernetes));
            let apply = move |watched| configuration.take_watched(watched);
            let follow = Arc::clone(&kubernetes).follow(app.background(), apply);
            tracing::info!("the Kubernetes API server is asked for all objects");
            let outcome = app.run(stop, follow, ready);
            runtime().map_err(Failed::run)?.block_on(kubernetes.release());
            outcome
        }
    }
}

/// For what is asked of the API server before and after the gateway runs.
fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Where the API server is, and as whom it is asked.
fn read_kubernetes(settings: &Settings) -> Result<Box<Kubernetes>, String> {
    let KubernetesSettings { namespace, lease_name, lease_namespace, publish_service } =
        settings.kubernetes.clone();
    let options = KubernetesOptions {
        namespace: namespace.map(|name| name.0),
        labels: settings.labels.clone(),
        lease_name: lease_name.0,
        lease_namespace: lease_namespace.map(|name| name.0),
        identity: identity(),
        publish_service: publish_service.map(|name| name.0),
    };
    let runtime = runtime().map_err(|error| error.to_string())?;
    runtime.block_on(Kubernetes::read(options)).map(Box::new)
}

/// The Pod's name, and something no process before it in this Pod had.
#[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "tokenweir".to_owned());
    format!("{host}_{:08x}", fastrand::u32(..))
}

enum Source {
    Files(Manifests),
    Endpoints(Vec<EndpointUrl>),
    Kubernetes(Box<Kubernetes>),
}

/// Settings and objects, or everything that is wrong with them.
fn read_all(args: &ServeArgs) -> Result<(Settings, Source), Vec<String>> {
    let mut problems = Vec::new();
    let settings = Settings::read(&args.settings, Settings::default());
    let settings = settings.map_err(|wrong| problems.extend(wrong));
    let source = if args.kubernetes {
        let base = Settings::default();
        match read_kubernetes(settings.as_ref().unwrap_or(&base)) {
            Ok(kubernetes) => Source::Kubernetes(kubernetes),
            Err(problem) => {
                problems.push(problem);
                return Err(problems);
            }
        }
    } else if args.files.is_empty() {
        let urls = args.endpoints.iter().filter_map(|url| {
            parse_endpoint_url(url)
                .map_err(|wrong| problems.push(format!("--endpoint {wrong}")))
                .ok()
        });
        Source::Endpoints(urls.collect())
    } else {
        let manifests = read(&args.files);
        if manifests.has_errors() {
            problems.extend(manifests.problems.iter().map(ToString::to_string));
        }
        Source::Files(manifests)
    };
    match settings {
        Ok(settings) if problems.is_empty() => Ok((settings, source)),
        Ok(_) | Err(()) => Err(problems),
    }
}

/// Resolves when the process is asked to stop.
pub(crate) async fn stop() {
    if let Err(error) = stop_requested().await {
        tracing::error!(%error, "signals cannot be heard; stop the process by SIGKILL");
        std::future::pending::<()>().await;
    }
    tracing::info!("asked to stop");
}
