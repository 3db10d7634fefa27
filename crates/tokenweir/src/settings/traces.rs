//! The section `traces` of the settings file, and OpenTelemetry's variables of the environment, which count where the file is
//! silent.

use http::Uri;
use picker::Sampling;
use serde::{Deserialize, Serialize};

use super::{Reader, Written};

/// Where a collector takes spans, below its address.
const PATH: &str = "/v1/traces";
const SAMPLERS: &str = "always_on, always_off, traceidratio, parentbased_always_on, \
                        parentbased_always_off or parentbased_traceidratio";

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TraceSettings {
    /// Of the collector, with its path. Nothing is traced without one.
    pub(crate) endpoint: Option<String>,
    pub(crate) service_name: String,
    pub(crate) sampling: Sampling,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            service_name: "tokenweir".to_owned(),
            sampling: Sampling { parent_based: true, ratio: 1.0 },
        }
    }
}

/// The section as it is written; all optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawTraces {
    endpoint: Option<Written>,
    service_name: Option<Written>,
    sampler: Option<Written>,
    sampler_ratio: Option<Written>,
}

impl RawTraces {
    /// `variable` reads the environment.
    pub(super) fn read(
        &self,
        reader: &mut Reader,
        variable: impl Fn(&str) -> Option<String>,
    ) -> TraceSettings {
        let base = TraceSettings::from_environment(reader, variable);
        let text = |key: &Option<Written>, base| key.as_ref().map_or(base, |key| key.value.clone());
        let ratio = reader.read(
            "traces.sampler-ratio",
            None,
            self.sampler_ratio.as_ref(),
            base.sampling.ratio,
            ratio,
        );
        TraceSettings {
            endpoint: reader.read(
                "traces.endpoint",
                None,
                self.endpoint.as_ref(),
                base.endpoint,
                |text| endpoint(text, "").map(Some),
            ),
            service_name: text(&self.service_name, base.service_name),
            sampling: reader.read(
                "traces.sampler",
                None,
                self.sampler.as_ref(),
                Sampling { ratio, ..base.sampling },
                |name| sampling(name, ratio),
            ),
        }
    }

    /// As the admin port shows them.
    pub(super) fn shown(settings: &TraceSettings) -> impl Serialize + use<> {
        let Sampling { parent_based, ratio } = settings.sampling;
        serde_json::json!({
            "endpoint": settings.endpoint.as_deref().map(without_secrets),
            "service-name": settings.service_name,
            "sampler": if parent_based { "parentbased_traceidratio" } else { "traceidratio" },
            "sampler-ratio": ratio,
        })
    }
}

impl TraceSettings {
    fn from_environment(reader: &mut Reader, variable: impl Fn(&str) -> Option<String>) -> Self {
        let base = Self::default();
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_off = variable("OTEL_SDK_DISABLED")
            .is_some_and(|it| it.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
        if is_off {
            return base;
        }
        let mut environment = Environment { variable, problems: &mut reader.problems };
        let own = environment.read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", |it| endpoint(it, ""));
        let shared = environment.read("OTEL_EXPORTER_OTLP_ENDPOINT", |it| endpoint(it, PATH));
        let ratio = environment.read("OTEL_TRACES_SAMPLER_ARG", ratio);
        let ratio = ratio.unwrap_or(base.sampling.ratio);
        let sampling = environment.read("OTEL_TRACES_SAMPLER", |name| sampling(name, ratio));
        Self {
            endpoint: own.or(shared),
            service_name: (environment.variable)("OTEL_SERVICE_NAME").unwrap_or(base.service_name),
            sampling: sampling.unwrap_or(Sampling { ratio, ..base.sampling }),
        }
    }
}

/// Variables that are set to something.
struct Environment<'a, F> {
    variable: F,
    problems: &'a mut Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Environment<'_, F> {
    /// A value that fits, or none; notes what does not.
    fn read<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = (self.variable)(name)?;
        let problem = |error| format!("environment: {name}: {text:?}: {error}");
        parse(&text).map_err(|error| self.problems.push(problem(error))).ok()
    }
}

/// A collector's address without the parts that may hold a key.
fn without_secrets(endpoint: &str) -> String {
    let uri = endpoint.parse::<Uri>().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("http://{host}{}", uri.path())
}

/// A collector's address, with `path` behind it.
fn endpoint(text: &str, path: &str) -> Result<String, String> {
    let wanted = "expected the http:// address of a collector that takes OTLP over HTTP, such as \
                  http://127.0.0.1:4318/v1/traces; for TLS, run a collector beside the gateway";
    let text = format!("{}{path}", if path.is_empty() { text } else { text.trim_end_matches('/') });
    let uri = text.parse::<Uri>().map_err(|_| wanted.to_owned())?;
    let fits = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    if fits { Ok(text) } else { Err(wanted.to_owned()) }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

fn sampling(name: &str, ratio: f64) -> Result<Sampling, String> {
    let (parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio,
        _ => return Err(format!("expected {SAMPLERS}")),
    };
    Ok(Sampling { parent_based, ratio })
}

#[cfg(test)]
mod tests;
