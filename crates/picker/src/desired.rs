//! What the configuration asks for: listeners, pools, routes. The controller writes it, the picker
//! applies it as one.

use std::{fmt, sync::Arc, time::Duration};

use scheduling::{CHOICES_MAX, EndpointId, FlowControl, OutlierDetection, Policy};

/// The whole desired state; it replaces the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    pub listeners: Vec<ListenerSpec>,
    pub pools: Vec<PoolSpec>,
    /// In order of precedence: among routes with equally specific hosts the first wins.
    pub routes: Vec<RouteSpec>,
}

/// A port to listen on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerSpec {
    pub port: u16,
    /// `namespace/name` of the Gateways that ask for it, for logs.
    pub gateways: Vec<String>,
}

/// What a pool was made from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PoolKind {
    InferencePool,
    /// A Service port, balanced the traditional way.
    Service,
}

/// Names a pool.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolKey {
    pub kind: PoolKind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// 0 for an InferencePool, the Service's port for a Service.
    pub port: u16,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            PoolKind::InferencePool => {
                write!(f, "InferencePool {}/{}", self.namespace, self.name)
            }
            PoolKind::Service => {
                write!(f, "Service {}/{} port {}", self.namespace, self.name, self.port)
            }
        }
    }
}

impl PoolKey {
    /// The pool in metrics: its name where that says all, which is how the objects of most users
    /// are named, and what tells it from its like where it does not.
    pub fn label(&self) -> String {
        let name = match &*self.namespace {
            "default" => self.name.to_string(),
            namespace => format!("{namespace}/{}", self.name),
        };
        match self.kind {
            PoolKind::InferencePool => name,
            PoolKind::Service => format!("{name}:{}", self.port),
        }
    }

    /// The name Istio and Envoy would give this destination.
    pub fn service(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }
}

/// A set of endpoints that can answer the same requests.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    pub key: PoolKey,
    pub policy: Policy,
    pub endpoints: Vec<EndpointSpec>,
    pub models: Vec<ModelSpec>,
    pub objectives: Vec<ObjectiveSpec>,
    pub flow_control: FlowControl,
    pub outlier_detection: OutlierDetection,
    pub delivery: Delivery,
}

impl PoolSpec {
    /// A pool without endpoints or models.
    pub fn new(key: PoolKey, policy: Policy) -> Self {
        Self {
            key,
            policy,
            endpoints: Vec::new(),
            models: Vec::new(),
            objectives: Vec::new(),
            flow_control: FlowControl::default(),
            outlier_detection: OutlierDetection::default(),
            delivery: Delivery::default(),
        }
    }
}

/// How much of a request is taken, how often it is tried, and how long its answer may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    pub body_bytes_max: usize,
    /// Endpoints tried for a request, the first included.
    pub attempts_max: usize,
    /// Total time for an answer, where the route gives none.
    pub timeout: Option<Duration>,
    /// Time from sending a request to its first token; none by default, since a queue may be long.
    pub first_token_timeout: Option<Duration>,
    /// Silence inside an answer, from its head on.
    pub idle_timeout: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 * 1024 * 1024,
            attempts_max: CHOICES_MAX,
            timeout: None,
            first_token_timeout: None,
            idle_timeout: Duration::from_mins(2),
        }
    }
}

/// Where an endpoint is and how to talk to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointSpec {
    /// `host:port`.
    pub id: EndpointId,
    /// Name of the Pod or WorkloadEntry.
    pub workload: Arc<str>,
    /// IP address or DNS name.
    pub host: Arc<str>,
    pub port: u16,
    pub protocol: AppProtocol,
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AppProtocol {
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    H2c,
}

/// What becomes of requests for a model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ModelSpec {
    /// `None` matches every model that has no entry of its own.
    pub model: Option<String>,
    /// Higher goes first; below zero may be shed.
    pub priority: i32,
    pub targets: Vec<TargetModel>,
}

/// What requests may ask for by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObjectiveSpec {
    pub name: Arc<str>,
    /// Goes before that of the model.
    pub priority: i32,
}

/// A model name to send on, and its share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetModel {
    pub name: Arc<str>,
    pub weight: u32,
}

/// Which requests go to which pools.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// `namespace/name` of the object, for logs.
    pub name: Arc<str>,
    pub port: u16,
    pub hosts: Vec<HostPattern>,
    pub rules: Vec<RouteRule>,
}

/// A host to match, without port, lower case.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.com` as `.example.com`.
    Suffix(String),
    Any,
}

/// One rule: the first whose matches hold is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteRule {
    pub name: Option<Arc<str>>,
    /// Any of these; none at all matches everything.
    pub matches: Vec<RouteMatch>,
    pub pools: Vec<WeightedPool>,
    /// Total time for an answer.
    pub timeout: Option<Duration>,
}

/// All of these must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteMatch {
    pub path: Option<StringMatch>,
    /// Lower-case header names; `None` asks only for presence.
    pub headers: Vec<(String, Option<StringMatch>)>,
}

/// Istio's `StringMatch`.
#[derive(Clone, Debug)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    /// Matches the whole string, as in Istio.
    Regex(regex_lite::Regex),
}

impl PartialEq for StringMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Exact(_) | Self::Prefix(_) | Self::Regex(_), _) => false,
        }
    }
}

impl StringMatch {
    /// A regular expression that has to match the whole of a string.
    pub fn regex(pattern: &str) -> Result<Self, regex_lite::Error> {
        regex_lite::Regex::new(&format!("^(?:{pattern})$")).map(Self::Regex)
    }

    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A pool and its share of a rule's requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WeightedPool {
    pub pool: PoolKey,
    pub weight: u32,
}
