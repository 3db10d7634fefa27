//! Settings: raw words from flags and the settings file, believed only once all are checked.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    str::FromStr,
    time::Duration,
};

use proxy::{Limits, LogFormat};
use scheduling::Policy;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::args::SettingArgs;

mod limits;
mod traces;

use limits::RawLimits;
use traces::RawTraces;
pub(crate) use traces::TraceSettings;

/// Longest time a setting can name.
const TIME_MAX: Duration = Duration::from_hours(24);
/// Shortest scrape interval: reading a vLLM's metrics more often costs it throughput.
const SCRAPE_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The gateway's settings; every default stands here and in the help text only.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) bind: IpAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) stats: SocketAddr,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) policy: Policy,
    pub(crate) drain_timeout: Duration,
    pub(crate) log_format: LogFormat,
    pub(crate) scrape_interval: Duration,
    pub(crate) endpoint_header: bool,
    pub(crate) traces: TraceSettings,
    pub(crate) limits: Limits,
    pub(crate) kubernetes: KubernetesSettings,
}

/// Settings that `--kubernetes` alone asks for.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesSettings {
    pub(crate) namespace: Option<ObjectName>,
    pub(crate) lease_name: ObjectName,
    pub(crate) lease_namespace: Option<ObjectName>,
    pub(crate) publish_service: Option<ServiceName>,
}

impl Default for Settings {
    fn default() -> Self {
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            bind: everywhere,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 15000)),
            health: SocketAddr::new(everywhere, 15021),
            stats: SocketAddr::new(everywhere, 15090),
            labels: [("istio".to_owned(), "ingressgateway".to_owned())].into(),
            policy: Policy::default(),
            drain_timeout: Duration::from_mins(1),
            log_format: LogFormat::Json,
            scrape_interval: Duration::from_secs(1),
            endpoint_header: true,
            traces: TraceSettings::default(),
            limits: Limits::default(),
            kubernetes: KubernetesSettings {
                namespace: None,
                lease_name: ObjectName("tokenweir".to_owned()),
                lease_namespace: None,
                publish_service: None,
            },
        }
    }
}

/// A name that Kubernetes takes for a namespace or an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ObjectName(pub(crate) String);

impl FromStr for ObjectName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        const LETTERS_MAX: usize = 63;
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=LETTERS_MAX).contains(&text.len())
            && text.starts_with(alphanumeric)
            && text.ends_with(alphanumeric)
            && text.chars().all(|c| alphanumeric(c) || c == '-');
        if fits { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

/// `NAME`, or `NAMESPACE/NAME`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServiceName(pub(crate) String);

impl FromStr for ServiceName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (namespace, name) = text.split_once('/').map_or((None, text), |(a, b)| (Some(a), b));
        namespace.map(ObjectName::from_str).transpose()?;
        ObjectName::from_str(name)?;
        Ok(Self(text.to_owned()))
    }
}

/// The settings file: the flags' names as keys, all optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSettings {
    bind: Option<Written>,
    admin: Option<Written>,
    health: Option<Written>,
    stats: Option<Written>,
    labels: Option<BTreeMap<String, String>>,
    policy: Option<Written>,
    drain_timeout: Option<Written>,
    log_format: Option<Written>,
    scrape_interval: Option<Written>,
    endpoint_header: Option<Written>,
    limits: Option<RawLimits>,
    traces: Option<RawTraces>,
    namespace: Option<Written>,
    lease_name: Option<Written>,
    lease_namespace: Option<Written>,
    publish_service: Option<Written>,
}

/// A value and its line. All are read as text, so that one of the wrong kind hides no other.
type Written = Spanned<String>;

impl Settings {
    /// Flags over file over `base`. All problems at once.
    pub(crate) fn read(args: &SettingArgs, base: Self) -> Result<Self, Vec<String>> {
        let (raw, mut reader) = Reader::begin(args.config.as_deref());
        let labels = raw.labels.clone().unwrap_or(base.labels);
        let settings = Self {
            bind: reader.parsed(
                "bind",
                args.bind.as_deref(),
                raw.bind.as_ref(),
                base.bind,
                "an IP address",
            ),
            admin: reader.parsed(
                "admin",
                args.admin.as_deref(),
                raw.admin.as_ref(),
                base.admin,
                ADDR,
            ),
            health: reader.parsed(
                "health",
                args.health.as_deref(),
                raw.health.as_ref(),
                base.health,
                ADDR,
            ),
            stats: reader.parsed(
                "stats",
                args.stats.as_deref(),
                raw.stats.as_ref(),
                base.stats,
                ADDR,
            ),
            labels: reader.labels(args.labels.as_deref(), labels),
            policy: reader.policy(args.policy.as_deref(), raw.policy.as_ref(), base.policy),
            drain_timeout: reader.time(
                "drain-timeout",
                args.drain_timeout.as_deref(),
                raw.drain_timeout.as_ref(),
                base.drain_timeout,
                Duration::ZERO,
            ),
            log_format: reader.log_format(
                args.log_format.as_deref(),
                raw.log_format.as_ref(),
                base.log_format,
            ),
            scrape_interval: reader.time(
                "scrape-interval",
                args.scrape_interval.as_deref(),
                raw.scrape_interval.as_ref(),
                base.scrape_interval,
                SCRAPE_INTERVAL_MIN,
            ),
            endpoint_header: reader.parsed(
                "endpoint-header",
                args.endpoint_header.as_deref(),
                raw.endpoint_header.as_ref(),
                base.endpoint_header,
                "true or false",
            ),
            kubernetes: KubernetesSettings::read(args, &raw, base.kubernetes, &mut reader),
            limits: raw.limits.unwrap_or_default().read(&mut reader, base.limits),
            traces: raw.traces.unwrap_or_default().read(&mut reader, variable),
        };
        if reader.problems.is_empty() { Ok(settings) } else { Err(reader.problems) }
    }

    /// As the admin port shows them.
    pub(crate) fn shown(&self) -> impl Serialize + use<> {
        let format = if self.log_format == LogFormat::Json { "json" } else { "text" };
        serde_json::json!({
            "bind": self.bind.to_string(),
            "admin": self.admin.to_string(),
            "health": self.health.to_string(),
            "stats": self.stats.to_string(),
            "labels": self.labels,
            "policy": self.policy.name(),
            "drain-timeout": format!("{:?}", self.drain_timeout),
            "log-format": format,
            "scrape-interval": format!("{:?}", self.scrape_interval),
            "endpoint-header": self.endpoint_header,
            "traces": RawTraces::shown(&self.traces),
            "limits": limits::shown(&self.limits),
            "namespace": self.kubernetes.namespace.as_ref().map(|name| &name.0),
            "lease-name": self.kubernetes.lease_name.0,
            "lease-namespace": self.kubernetes.lease_namespace.as_ref().map(|name| &name.0),
            "publish-service": self.kubernetes.publish_service.as_ref().map(|name| &name.0),
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl KubernetesSettings {
    fn read(args: &SettingArgs, raw: &RawSettings, base: Self, reader: &mut Reader) -> Self {
        Self {
            namespace: reader.optional(
                "namespace",
                args.namespace.as_deref(),
                raw.namespace.as_ref(),
                base.namespace,
                OBJECT_NAME,
            ),
            lease_name: reader.parsed(
                "lease-name",
                args.lease_name.as_deref(),
                raw.lease_name.as_ref(),
                base.lease_name,
                OBJECT_NAME,
            ),
            lease_namespace: reader.optional(
                "lease-namespace",
                args.lease_namespace.as_deref(),
                raw.lease_namespace.as_ref(),
                base.lease_namespace,
                OBJECT_NAME,
            ),
            publish_service: reader.optional(
                "publish-service",
                args.publish_service.as_deref(),
                raw.publish_service.as_ref(),
                base.publish_service,
                "the name of a Service, or its namespace and name such as infra/gateway",
            ),
        }
    }
}

const OBJECT_NAME: &str = "a name of lower-case letters, digits and hyphens";
const ADDR: &str = "an address and port such as 127.0.0.1:15000";

fn read_file(path: &Path) -> Result<RawSettings, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{shown}: cannot be read: {error}; check the path"))?;
    if text.trim().is_empty() {
        return Ok(RawSettings::default());
    }
    serde_saphyr::from_str(&text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!(":{}", at.line()));
        let what = error.without_snippet().to_string();
        let what = what.lines().next().unwrap_or_default();
        format!("{shown}{place}: {what}; keys are the flags of `tokenweir serve --help`")
    })
}

/// Reads words into values and notes what does not fit.
struct Reader {
    file: String,
    problems: Vec<String>,
}

impl Reader {
    /// Reads the file, if there is one; without it, or if it is no good, nothing is set.
    fn begin(path: Option<&Path>) -> (RawSettings, Self) {
        let file = path.map(|path| path.display().to_string()).unwrap_or_default();
        let mut reader = Self { file, problems: Vec::new() };
        let raw = path.map_or_else(|| Ok(RawSettings::default()), read_file);
        let raw = raw.unwrap_or_else(|problem| {
            reader.problems.push(problem);
            RawSettings::default()
        });
        (raw, reader)
    }

    fn parsed<T: FromStr>(
        &mut self,
        name: &str,
        flag: Option<&str>,
        key: Option<&Written>,
        base: T,
        wanted: &str,
    ) -> T {
        self.read(name, flag, key, base, |text| {
            text.parse().map_err(|_| format!("expected {wanted}"))
        })
    }

    fn time(
        &mut self,
        name: &str,
        flag: Option<&str>,
        key: Option<&Written>,
        base: Duration,
        least: Duration,
    ) -> Duration {
        self.read(name, flag, key, base, |text| {
            let time = text.parse::<jiff::SignedDuration>().ok();
            let time = time.and_then(|time| Duration::try_from(time).ok());
            time.filter(|time| (least..=TIME_MAX).contains(time)).ok_or_else(|| {
                format!("expected a time between {least:?} and {TIME_MAX:?}, such as 1s or 500ms")
            })
        })
    }

    fn policy(&mut self, flag: Option<&str>, key: Option<&Written>, base: Policy) -> Policy {
        self.read("policy", flag, key, base, |text| {
            text.parse().map_err(|error: scheduling::UnknownPolicy| error.to_string())
        })
    }

    fn log_format(
        &mut self,
        flag: Option<&str>,
        key: Option<&Written>,
        base: LogFormat,
    ) -> LogFormat {
        self.read("log-format", flag, key, base, |text| match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("expected json or text".to_owned()),
        })
    }

    fn optional<T: FromStr>(
        &mut self,
        name: &str,
        flag: Option<&str>,
        key: Option<&Written>,
        base: Option<T>,
        wanted: &str,
    ) -> Option<T> {
        self.read(name, flag, key, base, |text| {
            text.parse().map(Some).map_err(|_| format!("expected {wanted}"))
        })
    }

    fn labels(
        &mut self,
        flag: Option<&str>,
        base: BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        self.read("labels", flag, None, base, |text| {
            text.split(',')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    let key = key.trim();
                    (!key.is_empty()).then(|| (key.to_owned(), value.trim().to_owned()))
                })
                .collect::<Option<_>>()
                .ok_or_else(|| "expected key=value,key=value".to_owned())
        })
    }

    fn read<T>(
        &mut self,
        name: &str,
        flag: Option<&str>,
        key: Option<&Written>,
        base: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let (place, text) = match (flag, key) {
            (Some(text), _) => ("--".to_owned(), text),
            (None, Some(key)) => {
                (format!("{}:{}: ", self.file, key.referenced.line()), key.value.as_str())
            }
            (None, None) => return base,
        };
        match parse(text) {
            Ok(value) => value,
            Err(error) => {
                let problem = format!("{place}{name}: {text:?}: {error}");
                self.problems.push(problem);
                base
            }
        }
    }
}

#[cfg(test)]
mod tests;
