//! `tokenweir serve`: the gateway.

use controller::{EndpointUrl, Manifests, endpoints_config, parse_endpoint_url, read, watch};

use crate::{
    app::App,
    args::ServeArgs,
    logging, open_files,
    outcome::{Failed, Outcome},
    settings::Settings,
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
    }
}

enum Source {
    Files(Manifests),
    Endpoints(Vec<EndpointUrl>),
}

/// Settings and objects, or everything that is wrong with them.
fn read_all(args: &ServeArgs) -> Result<(Settings, Source), Vec<String>> {
    let mut problems = Vec::new();
    let settings = Settings::read(&args.settings, Settings::default());
    let settings = settings.map_err(|wrong| problems.extend(wrong));
    let source = if args.files.is_empty() {
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
