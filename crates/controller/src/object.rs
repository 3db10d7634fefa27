//! Objects: what a manifest describes, read and checked.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Value, json};

use crate::{
    problem::Place,
    resource::{
        DestinationRule, Gateway, InferenceModel, InferenceModelRewrite, InferenceObjective,
        InferencePolicy, InferencePool, Route, Service, WorkloadEntry,
    },
};

/// The kinds of objects the gateway obeys.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    Gateway,
    LLMRoute,
    VirtualService,
    DestinationRule,
    InferencePool,
    InferenceModel,
    InferenceModelRewrite,
    InferenceObjective,
    InferencePolicy,
    Service,
    WorkloadEntry,
    ASMMeshConfig,
}

const ISTIO: (&str, &[&str]) = ("networking.istio.io", &["v1", "v1beta1", "v1alpha3"]);
const ASM: (&str, &[&str]) = ("istio.alibabacloud.com", &["v1", "v1beta1"]);

/// Group of InferencePools as the Gateway API working group released them.
pub(crate) const POOL_GROUP: &str = "inference.networking.k8s.io";
/// Group of everything that came before that release.
pub(crate) const POOL_GROUP_X: &str = "inference.networking.x-k8s.io";
const LLM_D: (&str, &[&str]) = ("llm-d.ai", &["v1alpha2"]);

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Gateway,
        Self::LLMRoute,
        Self::VirtualService,
        Self::DestinationRule,
        Self::InferencePool,
        Self::InferenceModel,
        Self::InferenceModelRewrite,
        Self::InferenceObjective,
        Self::InferencePolicy,
        Self::Service,
        Self::WorkloadEntry,
        Self::ASMMeshConfig,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::LLMRoute => "LLMRoute",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::InferencePool => "InferencePool",
            Self::InferenceModel => "InferenceModel",
            Self::InferenceModelRewrite => "InferenceModelRewrite",
            Self::InferenceObjective => "InferenceObjective",
            Self::InferencePolicy => "InferencePolicy",
            Self::Service => "Service",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::ASMMeshConfig => "ASMMeshConfig",
        }
    }

    /// The API groups of this kind and the versions served of each.
    pub fn served(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Gateway | Self::VirtualService | Self::DestinationRule | Self::WorkloadEntry => {
                &[ISTIO]
            }
            Self::LLMRoute | Self::ASMMeshConfig => &[ASM],
            Self::InferencePool => {
                &[(POOL_GROUP_X, &["v1alpha1", "v1alpha2"]), (POOL_GROUP, &["v1"])]
            }
            Self::InferenceModel => &[(POOL_GROUP_X, &["v1alpha1", "v1alpha2"])],
            Self::InferenceObjective | Self::InferenceModelRewrite => {
                &[(POOL_GROUP_X, &["v1alpha2"]), LLM_D]
            }
            Self::InferencePolicy => &[("tokenweir.dev", &["v1alpha1"])],
            Self::Service => &[("", &["v1"])],
        }
    }

    /// Not in any namespace.
    pub fn is_cluster_scoped(self) -> bool {
        self == Self::ASMMeshConfig
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
    Gateway(Gateway),
    /// An LLMRoute or a VirtualService.
    Route(Route),
    DestinationRule(DestinationRule),
    InferencePool(InferencePool),
    InferenceModel(InferenceModel),
    InferenceModelRewrite(InferenceModelRewrite),
    InferenceObjective(InferenceObjective),
    InferencePolicy(InferencePolicy),
    Service(Service),
    WorkloadEntry(WorkloadEntry),
    /// Whether the inference extension is on.
    MeshConfig(bool),
}

impl Object {
    /// `namespace/name`, the way Istio writes references.
    pub fn path(&self) -> String {
        if self.namespace.is_empty() {
            return self.name.to_string();
        }
        format!("{}/{}", self.namespace, self.name)
    }
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
