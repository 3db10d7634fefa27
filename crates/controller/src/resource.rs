//! The specifications of every kind, and how each is read.
//!
//! LLMRoute and VirtualService are read into one [`Route`]: what they can say about traffic here
//! differs only in spelling.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use picker::{AppProtocol, Delivery, HostPattern, RouteMatch, StringMatch};
use scheduling::{FlowControl, OutlierDetection, Policy};

use crate::{
    fields::{Fields, Item},
    object::{GATEWAY_API_GROUP, Kind, POOL_GROUP, POOL_GROUP_X, Path, Spec},
    status::Address,
};

mod asm;
mod gateway_api;
mod inference;
mod istio;
mod pod;
mod policy;
mod service;
mod strings;
mod virtual_service;

pub(crate) use pod::{Pod, active_ports, read as pod};
pub(crate) use service::addresses;
pub(crate) use strings::is_dns_name;

/// Labels that have to be there, each with its value.
pub(crate) type Selector = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub(crate) struct InferencePool {
    pub(crate) selector: Selector,
    pub(crate) ports: Vec<u16>,
    pub(crate) protocol: AppProtocol,
}

#[derive(Clone, Debug)]
pub(crate) struct InferenceModel {
    pub(crate) pool: Path,
    pub(crate) model: String,
    pub(crate) priority: i32,
    pub(crate) targets: Vec<Target>,
}

/// A name to send on instead, and its share.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) weight: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct InferenceModelRewrite {
    pub(crate) pool: Path,
    pub(crate) rules: Vec<RewriteRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct RewriteRule {
    /// None at all matches every model.
    pub(crate) models: Vec<String>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Clone, Debug)]
pub(crate) struct InferenceObjective {
    pub(crate) pool: Path,
    pub(crate) priority: i32,
}

#[derive(Clone, Debug)]
pub(crate) struct InferencePolicy {
    pub(crate) pool: Path,
    /// Group of the pool, as the policy has it.
    pub(crate) pool_group: &'static str,
    pub(crate) policy: Option<Policy>,
    pub(crate) flow_control: FlowControl,
    pub(crate) outlier_detection: OutlierDetection,
    pub(crate) delivery: Delivery,
}

#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    /// What the labels of a proxy have to include.
    pub(crate) selector: Selector,
    /// Those that can be served.
    pub(crate) servers: Vec<Server>,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) hosts: Vec<ServerHost>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServerHost {
    /// The only namespace whose routes may use it, if not all.
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) host: HostPattern,
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug)]
pub(crate) struct ApiGateway {
    /// Name of its GatewayClass.
    pub(crate) class: String,
    pub(crate) listeners: Vec<ApiListener>,
}

#[derive(Clone, Debug)]
pub(crate) struct ApiListener {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) host: HostPattern,
    /// Only plain HTTP can be served so far; any other protocol by its name.
    pub(crate) unserved: Option<String>,
    pub(crate) from: AllowedFrom,
    /// Whether HTTPRoutes may be attached.
    pub(crate) takes_http: bool,
}

/// Of which namespaces routes may be attached to a listener.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum AllowedFrom {
    #[default]
    Same,
    All,
    /// By labels of namespaces, which nobody looks at yet: the Gateway's own only.
    Selector,
    None,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpRoute {
    /// None at all stands for every host of the listeners.
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) parents: Vec<HttpParent>,
    pub(crate) rules: Vec<HttpRule>,
}

/// A Gateway the route asks to be attached to.
#[derive(Clone, Debug)]
pub(crate) struct HttpParent {
    pub(crate) gateway: Path,
    pub(crate) section: Option<String>,
    pub(crate) port: Option<u16>,
    /// As given, which is how the status has to repeat it.
    pub(crate) reference: serde_json::Value,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpRule {
    pub(crate) name: Option<String>,
    /// Any of these.
    pub(crate) matches: Vec<HttpMatch>,
    pub(crate) backends: Vec<HttpBackend>,
    /// It has filters, which nobody applies.
    pub(crate) filtered: bool,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpMatch {
    pub(crate) path: HttpPath,
    /// Lower-case names.
    pub(crate) headers: Vec<(String, StringMatch)>,
}

#[derive(Clone, Debug)]
pub(crate) enum HttpPath {
    Exact(String),
    /// Matches whole elements: `/a` takes `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    Regex(StringMatch),
}

#[derive(Clone, Debug)]
pub(crate) struct HttpBackend {
    pub(crate) target: HttpTarget,
    /// The group it is of, in which alone it is looked for.
    pub(crate) group: String,
    /// It has filters, which nobody applies.
    pub(crate) filtered: bool,
    pub(crate) weight: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum HttpTarget {
    Known(BackendTarget),
    /// Of a kind nobody serves.
    Unknown(String),
}

/// Lets objects of other namespaces refer to those of its own.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceGrant {
    /// Namespaces of HTTPRoutes; nothing else here refers to what is elsewhere.
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<Granted>,
}

#[derive(Clone, Debug)]
pub(crate) struct Granted {
    /// An InferencePool, or else a Service.
    pub(crate) pool: bool,
    /// The only one, if not all.
    pub(crate) name: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) gateways: Vec<Path>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: Option<String>,
    pub(crate) matches: Vec<Match>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(crate) struct Match {
    /// Only traffic of these gateways; none means of all.
    pub(crate) gateways: Vec<Path>,
    pub(crate) condition: RouteMatch,
}

#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) target: BackendTarget,
    pub(crate) weight: u32,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum BackendTarget {
    Pool(Path),
    /// No port means the only one it has.
    Service(Path, Option<u16>),
    /// A host outside; it is not served yet.
    Outside(String),
}

#[derive(Clone, Debug)]
pub(crate) struct DestinationRule {
    pub(crate) host: BackendTarget,
    pub(crate) policy: Option<Policy>,
}

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) selector: Selector,
    pub(crate) ports: Vec<ServicePort>,
    /// Where it can be reached, as its status tells; from an API server alone.
    pub(crate) addresses: Vec<Address>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    pub(crate) name: Option<String>,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
    pub(crate) protocol: AppProtocol,
}

#[derive(Clone, Debug)]
pub(crate) enum TargetPort {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug)]
pub(crate) struct WorkloadEntry {
    /// IP address or DNS name.
    pub(crate) address: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ports: BTreeMap<String, u16>,
}

/// Reads the fields below `spec`. Nothing comes back, or something incomplete, only when an error
/// was reported.
pub(crate) fn read(
    kind: Kind,
    group: &str,
    namespace: &Arc<str>,
    version: &str,
    spec: &mut Fields<'_>,
) -> Option<Spec> {
    Some(match kind {
        Kind::GatewayClass => Spec::GatewayClass(gateway_api::class(spec)?),
        Kind::Gateway if group == GATEWAY_API_GROUP => {
            Spec::ApiGateway(gateway_api::gateway(spec)?)
        }
        Kind::Gateway => Spec::Gateway(istio::gateway(spec, namespace)?),
        Kind::HTTPRoute => Spec::HttpRoute(gateway_api::http_route(spec, namespace)),
        Kind::ReferenceGrant => Spec::ReferenceGrant(gateway_api::reference_grant(spec)),
        Kind::DestinationRule => Spec::DestinationRule(istio::destination_rule(spec, namespace)?),
        Kind::WorkloadEntry => Spec::WorkloadEntry(istio::workload_entry(spec)?),
        Kind::VirtualService => Spec::Route(virtual_service::read(spec, namespace)),
        Kind::LLMRoute => Spec::Route(asm::llm_route(spec, namespace)),
        Kind::ASMMeshConfig => Spec::MeshConfig(asm::mesh_config(spec)),
        Kind::InferencePool => Spec::InferencePool(inference::pool(spec, version)?),
        Kind::InferenceModel => Spec::InferenceModel(inference::model(spec, namespace)?),
        Kind::InferenceModelRewrite => {
            Spec::InferenceModelRewrite(inference::rewrite(spec, namespace)?)
        }
        Kind::InferenceObjective => {
            Spec::InferenceObjective(inference::objective(spec, namespace)?)
        }
        Kind::InferencePolicy => Spec::InferencePolicy(policy::read(spec, namespace)?),
        Kind::Service => Spec::Service(service::read(spec)),
        // Read as a whole, not below `spec`.
        Kind::Pod => return None,
    })
}

/// A reference to a pool in the same namespace: `{group, kind, name}`.
fn pool_ref(item: &Item<'_>, namespace: &Arc<str>) -> Option<Path> {
    pool_and_group(item, namespace).map(|(path, _)| path)
}

/// The same, and the group the pool is said to be of.
fn pool_and_group(item: &Item<'_>, namespace: &Arc<str>) -> Option<(Path, &'static str)> {
    item.fields(|fields| {
        let group = check_pool_group(fields).unwrap_or(POOL_GROUP);
        if let Some(kind) = fields.get("kind") {
            kind.one_of(&["InferencePool"]);
        }
        let name = fields.need("name", "the name of an InferencePool")?.word()?;
        Some((Path::new(Arc::clone(namespace), name), group))
    })?
}

/// Old and new group name the same pools; objects are moved one at a time.
fn check_pool_group(fields: &mut Fields<'_>) -> Option<&'static str> {
    fields.get("group")?.one_of(&[POOL_GROUP_X, POOL_GROUP])
}

/// `name` in this namespace or `namespace/name`.
fn gateway_refs(item: &Item<'_>, namespace: &Arc<str>) -> Vec<Path> {
    item.words()
        .into_iter()
        .map(|word| match word.split_once('/') {
            Some((".", name)) => Path::new(Arc::clone(namespace), name),
            Some((other, name)) => Path::new(other, name),
            None => Path::new(Arc::clone(namespace), word),
        })
        .collect()
}

/// The gateway name that stands for the sidecars of a mesh.
pub(crate) const MESH: &str = "mesh";
