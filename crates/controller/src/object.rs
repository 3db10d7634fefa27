//! Objects: what a manifest describes, read and checked.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Value, json};

use crate::{
    problem::Place,
    resource::{
        ApiGateway, DestinationRule, Gateway, HttpRoute, InferenceModel, InferenceModelRewrite,
        InferenceObjective, InferencePolicy, InferencePool, Pod, ReferenceGrant, Route, Selector,
        Service, WorkloadEntry,
    },
};

/// The kinds of objects the gateway obeys.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    GatewayClass,
    /// Istio's, and the Gateway API's: their groups tell them apart.
    Gateway,
    HTTPRoute,
    ReferenceGrant,
    LLMRoute,
    VirtualService,
    DestinationRule,
    InferencePool,
    InferenceModel,
    InferenceModelRewrite,
    InferenceObjective,
    InferencePolicy,
    Service,
    Pod,
    WorkloadEntry,
    ASMMeshConfig,
}

/// Group of Istio's traffic management.
pub(crate) const ISTIO_GROUP: &str = "networking.istio.io";
const ISTIO: (&str, &[&str]) = (ISTIO_GROUP, &["v1", "v1beta1", "v1alpha3"]);
/// Group of the Gateway API.
pub(crate) const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";
const GATEWAY_API: (&str, &[&str]) = (GATEWAY_API_GROUP, &["v1", "v1beta1"]);
const ASM: (&str, &[&str]) = ("istio.alibabacloud.com", &["v1", "v1beta1"]);

/// Group of InferencePools as the Gateway API working group released them.
pub(crate) const POOL_GROUP: &str = "inference.networking.k8s.io";
/// Group of everything that came before that release.
pub(crate) const POOL_GROUP_X: &str = "inference.networking.x-k8s.io";
const LLM_D: (&str, &[&str]) = ("llm-d.ai", &["v1alpha2"]);

impl Kind {
    pub const ALL: [Self; 16] = [
        Self::GatewayClass,
        Self::Gateway,
        Self::HTTPRoute,
        Self::ReferenceGrant,
        Self::LLMRoute,
        Self::VirtualService,
        Self::DestinationRule,
        Self::InferencePool,
        Self::InferenceModel,
        Self::InferenceModelRewrite,
        Self::InferenceObjective,
        Self::InferencePolicy,
        Self::Service,
        Self::Pod,
        Self::WorkloadEntry,
        Self::ASMMeshConfig,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::HTTPRoute => "HTTPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::LLMRoute => "LLMRoute",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::InferencePool => "InferencePool",
            Self::InferenceModel => "InferenceModel",
            Self::InferenceModelRewrite => "InferenceModelRewrite",
            Self::InferenceObjective => "InferenceObjective",
            Self::InferencePolicy => "InferencePolicy",
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::ASMMeshConfig => "ASMMeshConfig",
        }
    }

    /// The API groups of this kind and the versions served of each.
    pub fn served(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Gateway => &[ISTIO, GATEWAY_API],
            Self::GatewayClass | Self::HTTPRoute | Self::ReferenceGrant => &[GATEWAY_API],
            Self::VirtualService | Self::DestinationRule | Self::WorkloadEntry => &[ISTIO],
            Self::LLMRoute | Self::ASMMeshConfig => &[ASM],
            Self::InferencePool => {
                &[(POOL_GROUP_X, &["v1alpha1", "v1alpha2"]), (POOL_GROUP, &["v1"])]
            }
            Self::InferenceModel => &[(POOL_GROUP_X, &["v1alpha1", "v1alpha2"])],
            Self::InferenceObjective | Self::InferenceModelRewrite => {
                &[(POOL_GROUP_X, &["v1alpha2"]), LLM_D]
            }
            Self::InferencePolicy => &[("tokenweir.dev", &["v1alpha1"])],
            Self::Service | Self::Pod => &[("", &["v1"])],
        }
    }

    /// The kind's name in addresses of the Kubernetes API and on kubectl's command line.
    pub fn plural(self) -> String {
        let name = self.name().to_ascii_lowercase();
        match name.strip_suffix('y') {
            Some(stem) if !stem.ends_with('a') => format!("{stem}ies"),
            None if name.ends_with('s') => format!("{name}es"),
            _ => format!("{name}s"),
        }
    }

    /// Not in any namespace.
    pub fn is_cluster_scoped(self) -> bool {
        matches!(self, Self::ASMMeshConfig | Self::GatewayClass)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One object of the configuration.
#[derive(Clone, Debug)]
pub struct Object {
    pub kind: Kind,
    pub group: &'static str,
    pub version: &'static str,
    /// Empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub generation: u64,
    /// Lower is older, and the oldest wins a clash: a timestamp, or the position in the files.
    pub created: u64,
    pub place: Place,
    /// `metadata` and `spec` as given.
    pub(crate) manifest: serde_json::Map<String, Value>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) spec: Spec,
}

/// What the object asks for.
#[derive(Clone, Debug)]
pub(crate) enum Spec {
    /// The name of the controller whose Gateways are of this class.
    GatewayClass(String),
    Gateway(Gateway),
    ApiGateway(ApiGateway),
    HttpRoute(HttpRoute),
    ReferenceGrant(ReferenceGrant),
    /// An LLMRoute or a VirtualService.
    Route(Route),
    DestinationRule(DestinationRule),
    InferencePool(InferencePool),
    InferenceModel(InferenceModel),
    InferenceModelRewrite(InferenceModelRewrite),
    InferenceObjective(InferenceObjective),
    InferencePolicy(InferencePolicy),
    Service(Service),
    Pod(Pod),
    WorkloadEntry(WorkloadEntry),
    /// Whether the inference extension is on.
    MeshConfig(bool),
}

/// Tells one object from all others: kind, group, namespace and name.
pub type ObjectKey<'o> = (Kind, &'static str, &'o str, &'o str);

impl Spec {
    /// The labels by which it selects Pods, if it does.
    pub(crate) fn selector(&self) -> Option<&Selector> {
        match self {
            Self::InferencePool(pool) => Some(&pool.selector),
            Self::Service(service) => Some(&service.selector),
            _ => None,
        }
    }
}

impl Object {
    pub fn key(&self) -> ObjectKey<'_> {
        (self.kind, self.group, &self.namespace, &self.name)
    }

    /// `namespace/name`, the way Istio writes references.
    pub fn path(&self) -> String {
        path(&self.namespace, &self.name)
    }
}

pub(crate) fn path(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

impl Object {
    /// The object as given, with its namespace.
    pub fn to_json(&self) -> Value {
        let api_version = match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        };
        let mut whole = json!({ "apiVersion": api_version, "kind": self.kind.name() });
        for (key, value) in &self.manifest {
            whole[key] = value.clone();
        }
        if !self.namespace.is_empty() {
            whole["metadata"]["namespace"] = json!(*self.namespace);
        }
        whole["metadata"]["generation"] = json!(self.generation);
        whole
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path())
    }
}

/// Namespace and name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Path {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Path {
    pub(crate) fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(object: &Object) -> Self {
        Self::new(Arc::clone(&object.namespace), Arc::clone(&object.name))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
