//! Objects of an API server: from its JSON to what is kept of them.

use std::{collections::BTreeMap, sync::Arc};

use kube::{
    Resource,
    api::{ApiResource, DynamicObject, ObjectMeta},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    fields::Report,
    manifest,
    object::{GATEWAY_API_GROUP, ISTIO_GROUP, Kind, Object, POOL_GROUP, Path, Spec},
    problem::{Place, Problem, Severity},
    resource::{self, Pod},
    status::{Condition, ConditionStatus, ObjectStatus, RouteParent, StatusShape, TargetRef},
    yaml::{Entry as Pair, Node, Value as NodeValue},
};

/// A kind of one API group, in the version it is watched in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) group: &'static str,
    pub(super) version: &'static str,
}

impl Source {
    /// How the API server calls it.
    pub(super) fn resource(self) -> ApiResource {
        let api_version = match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        };
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version,
            kind: self.kind.name().to_owned(),
            plural: self.kind.plural(),
        }
    }

    /// `inferencepools.inference.networking.k8s.io`.
    pub(super) fn name(self) -> String {
        match self.group {
            "" => self.kind.plural(),
            group => format!("{}.{group}", self.kind.plural()),
        }
    }
}

/// One object as the API server last told of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) resource_version: String,
    pub(super) generation: u64,
    /// As it stands in the API server.
    pub(super) status: Value,
    pub(super) read: Read,
    pub(super) problems: Vec<Problem>,
    /// Whether it means anything here; of Pods, those that can be selected.
    pub(super) counts: bool,
}

/// What reading an object came to.
#[derive(Debug)]
pub(super) enum Read {
    Object(Arc<Object>),
    Unreadable(Box<Unreadable>),
    /// It means nothing to the gateway.
    Ignored,
}

/// An object that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unreadable {
    /// Says why. Of an HTTPRoute it has every parent that is a Gateway.
    pub(super) status: ObjectStatus,
    /// The Gateways a route names, as far as it could be read.
    pub(super) gateways: Vec<Path>,
}

impl Entry {
    /// Whether the same things follow from both, whatever their statuses are.
    pub(super) fn means_the_same(&self, other: &Self) -> bool {
        match (&self.read, &other.read) {
            (Read::Object(a), Read::Object(b)) => match (&a.spec, &b.spec) {
                (Spec::Pod(pod), Spec::Pod(other)) => pod == other && a.labels == b.labels,
                (Spec::Service(service), Spec::Service(other)) => {
                    a.manifest == b.manifest && service.addresses == other.addresses
                }
                _ => a.generation == b.generation && a.manifest == b.manifest,
            },
            (Read::Unreadable(a), Read::Unreadable(b)) => a == b,
            (Read::Ignored, Read::Ignored) => true,
            _ => false,
        }
    }
}

/// A Pod without what does not matter here: a whole one is a hundred times as large.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodSpec {
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default)]
    conditions: Vec<PodCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodCondition {
    #[serde(rename = "type")]
    name: String,
    status: String,
}

impl Resource for WatchedPod {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(kind: &ApiResource) -> std::borrow::Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> std::borrow::Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> std::borrow::Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> std::borrow::Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

pub(super) type Labels = BTreeMap<String, String>;

/// What an API server sends of one kind.
pub(super) trait Sent: Resource<DynamicType = ApiResource> {
    /// `labels`: what the selectors of Gateways match.
    fn into_entry(self, source: Source, labels: &Labels) -> Entry;

    fn path(&self) -> Path {
        let meta = self.meta();
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        Path::new(namespace.unwrap_or_default(), name.unwrap_or_default())
    }
}

impl Sent for WatchedPod {
    fn into_entry(self, source: Source, _: &Labels) -> Entry {
        let path = self.path();
        let Self { metadata, spec, status } = self;
        let annotations = metadata.annotations.unwrap_or_default();
        let named = spec.containers.into_iter().flat_map(|container| container.ports);
        let pod = Pod {
            address: status.pod_ip.filter(|address| !address.is_empty()),
            ready: status.conditions.iter().any(|one| one.name == "Ready" && one.status == "True"),
            leaving: metadata.deletion_timestamp.is_some(),
            ports: named.filter_map(|port| Some((port.name?, port.container_port))).collect(),
            active_ports: resource::active_ports(&annotations),
        };
        let labels = metadata.labels.unwrap_or_default();
        let ready = if pod.ready { "True" } else { "False" };
        let manifest = json!({
            "metadata": { "name": *path.name, "labels": labels },
            "status": {
                "podIP": pod.address,
                "conditions": [{ "type": "Ready", "status": ready }],
            },
        });
        let Value::Object(manifest) = manifest else { unreachable!("it is written above") };
        let object = Object {
            kind: source.kind,
            group: source.group,
            version: source.version,
            place: place(&path),
            namespace: path.namespace,
            name: path.name,
            generation: 1,
            created: seconds(metadata.creation_timestamp.as_ref()),
            manifest,
            labels,
            spec: Spec::Pod(pod),
        };
        Entry {
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: 1,
            status: Value::Null,
            read: Read::Object(Arc::new(object)),
            problems: Vec::new(),
            counts: true,
        }
    }
}

impl Sent for DynamicObject {
    fn into_entry(mut self, source: Source, labels: &Labels) -> Entry {
        let path = self.path();
        let meta = &mut self.metadata;
        // Nobody here asks who wrote what, and they change whenever anything does.
        meta.managed_fields = None;
        if let Some(annotations) = &mut meta.annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        let resource_version = meta.resource_version.take().unwrap_or_default();
        let generation = meta.generation.and_then(|number| number.try_into().ok()).unwrap_or(1);
        let created = seconds(meta.creation_timestamp.as_ref());
        let status = self.data.get_mut("status").map(Value::take).unwrap_or_default();
        let whole = json!({
            "apiVersion": source.resource().api_version,
            "kind": source.kind.name(),
            "metadata": self.metadata,
            "spec": self.data.get_mut("spec").map(Value::take),
        });
        let label = format!("{} {}", source.kind, shown(&path));
        let report = Report::new(shown(&path).into(), Some(label));
        let node = node(&whole);
        let object = manifest::object(&shown(&path).into(), &node, &report);
        let usable = !report.has_errors();
        let problems = report.into_problems();
        let read = match object {
            Some(object) if usable => {
                let mut object = Object { created, generation, place: place(&path), ..object };
                if let Spec::Service(service) = &mut object.spec {
                    service.addresses = resource::addresses(&whole["spec"], &status);
                }
                Read::Object(Arc::new(object))
            }
            None if usable => Read::Ignored,
            read => {
                let foreign = is_foreign(source, &whole, labels);
                let status = unreadable(source, &path, generation, &whole, &problems);
                let status = ObjectStatus { foreign, ..status };
                let spec = read.map(|object| object.spec);
                Read::Unreadable(Box::new(Unreadable::new(status, spec.as_ref())))
            }
        };
        Entry { resource_version, generation, status, read, problems, counts: true }
    }
}

impl Unreadable {
    fn new(mut status: ObjectStatus, spec: Option<&Spec>) -> Self {
        let gateways = match spec {
            Some(Spec::HttpRoute(route)) => {
                let parents = route.parents.iter().map(|parent| RouteParent {
                    reference: parent.reference.clone(),
                    refused: None,
                });
                status.shape = StatusShape::RouteParents(parents.collect());
                route.parents.iter().map(|parent| parent.gateway.clone()).collect()
            }
            Some(Spec::Route(route)) => route.gateways.clone(),
            _ => Vec::new(),
        };
        Self { status, gateways }
    }
}

/// Age in the API server's own order: whole seconds.
fn seconds(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> u64 {
    time.and_then(|time| time.0.as_second().try_into().ok()).unwrap_or(u64::MAX)
}

fn place(path: &Path) -> Place {
    Place { file: shown(path).into(), line: 0 }
}

fn shown(path: &Path) -> String {
    match &*path.namespace {
        "" => path.name.to_string(),
        _ => path.to_string(),
    }
}

/// JSON as the tree that files are read into, without lines.
fn node(value: &Value) -> Node {
    let value = match value {
        Value::Null => NodeValue::Null,
        Value::Bool(value) => NodeValue::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => NodeValue::Int(number),
            None => NodeValue::Float(number.to_string()),
        },
        Value::String(text) => NodeValue::Text(text.clone()),
        Value::Array(items) => NodeValue::List(items.iter().map(node).collect()),
        Value::Object(entries) => {
            let pair = |(key, value): (&String, &Value)| Pair {
                key: key.clone(),
                line: 0,
                node: node(value),
            };
            NodeValue::Map(entries.iter().map(pair).collect())
        }
    };
    Node { line: 0, value }
}

/// The status of an object that cannot be used.
fn unreadable(
    source: Source,
    path: &Path,
    generation: u64,
    whole: &Value,
    problems: &[Problem],
) -> ObjectStatus {
    const ERRORS_MAX: usize = 8;
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let errors: Vec<String> = errors.take(ERRORS_MAX).map(Problem::without_place).collect();
    // The Gateway API has a word of its own for its routes.
    let reason = if source.kind == Kind::HTTPRoute { "UnsupportedValue" } else { "Invalid" };
    let condition = |name, status, message| Condition {
        name,
        status,
        reason,
        message,
        observed_generation: generation,
        last_transition: None,
    };
    let why = errors.join("; ");
    let mut conditions = vec![condition("Accepted", ConditionStatus::False, why.clone())];
    // Whatever was said of it before is no longer so.
    match (source.kind, source.group) {
        (Kind::GatewayClass, _) => {}
        (Kind::Gateway, GATEWAY_API_GROUP) => {
            conditions.push(condition("Programmed", ConditionStatus::False, why));
        }
        _ => {
            let message = "the object cannot be read".to_owned();
            conditions.push(condition("ResolvedRefs", ConditionStatus::Unknown, message));
        }
    }
    let shape = match (source.kind, source.version) {
        (Kind::InferencePool, "v1") => StatusShape::Parents(Vec::new()),
        (Kind::InferencePool, "v1alpha2") => StatusShape::Parent(Vec::new()),
        (Kind::InferencePolicy, _) => StatusShape::Ancestors(TargetRef {
            group: POOL_GROUP,
            namespace: Arc::clone(&path.namespace),
            name: whole["spec"]["targetRef"]["name"].as_str().unwrap_or("unknown").into(),
        }),
        (Kind::HTTPRoute, _) => StatusShape::RouteParents(Vec::new()),
        _ => StatusShape::Flat,
    };
    ObjectStatus {
        kind: source.kind,
        group: source.group,
        version: source.version,
        namespace: Arc::clone(&path.namespace),
        name: Arc::clone(&path.name),
        generation,
        conditions,
        shape,
        foreign: false,
    }
}

/// Whether an object that cannot be read has to be taken for another controller's.
fn is_foreign(source: Source, whole: &Value, labels: &Labels) -> bool {
    match source.kind {
        Kind::Gateway if source.group == ISTIO_GROUP => {
            let selector = whole["spec"]["selector"].as_object();
            let fits = |(key, value): (&String, &Value)| {
                labels.get(key).is_some_and(|own| Some(own.as_str()) == value.as_str())
            };
            !selector.is_some_and(|selector| selector.iter().all(fits))
        }
        // Of these most are for others, and what this one is for cannot be read.
        Kind::GatewayClass
        | Kind::Gateway
        | Kind::HTTPRoute
        | Kind::ReferenceGrant
        | Kind::VirtualService
        | Kind::DestinationRule
        | Kind::WorkloadEntry
        | Kind::Service
        | Kind::Pod => true,
        Kind::LLMRoute
        | Kind::InferencePool
        | Kind::InferenceModel
        | Kind::InferenceModelRewrite
        | Kind::InferenceObjective
        | Kind::InferencePolicy
        | Kind::ASMMeshConfig => false,
    }
}

/// The objects of one source.
pub(super) type Entries = BTreeMap<Path, Entry>;
