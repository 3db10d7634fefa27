//! Objects to desired state: a pure fold, the same for files and for watches.
//!
//! It needs all objects and nothing else, so there is no order of events to get wrong. Where
//! two objects want the same thing the oldest has it, and the other's conditions say so.

use std::collections::{BTreeMap, BTreeSet};

use picker::{Desired, ListenerSpec};
use scheduling::Policy;

use crate::{
    object::{Kind, Object, Spec},
    problem::{Problem, Severity},
    status::{ObjectStatus, Verdict},
};

mod gateway_api;
mod gateways;
mod http_routes;
mod models;
mod policies;
mod pools;
mod routes;
mod workloads;

use routes::Routes;
use workloads::Workloads;
pub(crate) use workloads::endpoint_id;

/// What a fold needs to know beyond the objects.
#[derive(Clone, Debug)]
pub struct FoldOptions {
    /// What the selectors of Gateways match.
    pub labels: BTreeMap<String, String>,
    /// For InferencePools without a policy of their own.
    pub default_policy: Policy,
    /// Objects come from an API server. Pods then come and go all the time, and conditions that
    /// counted them would be written again and again.
    pub kubernetes: bool,
    /// `namespace/name` of the Service through which clients reach the Gateways.
    pub publish_service: Option<String>,
    /// Ports the process listens on for itself, and what for: no Gateway can have them.
    pub own_ports: BTreeMap<u16, &'static str>,
}

impl Default for FoldOptions {
    fn default() -> Self {
        let labels = [("istio".to_owned(), "ingressgateway".to_owned())];
        Self {
            labels: labels.into(),
            default_policy: Policy::default(),
            kubernetes: false,
            publish_service: None,
            own_ports: BTreeMap::new(),
        }
    }
}

/// What the objects come to.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    pub desired: Desired,
    /// Of every object that has conditions, by kind, namespace and name.
    pub statuses: Vec<ObjectStatus>,
    /// Every condition that is not true, and what no condition can tell.
    pub problems: Vec<Problem>,
}

/// What the objects come to together. Equal objects give equal results.
pub fn fold<'o>(objects: impl IntoIterator<Item = &'o Object>, options: &'o FoldOptions) -> Folded {
    let mut oldest_first: Vec<&Object> = objects.into_iter().collect();
    oldest_first.sort_by(|a, b| age(a).cmp(&age(b)));
    let workloads = Workloads::of(&oldest_first);
    // There are many, and nothing else is made of them.
    oldest_first.retain(|object| !matches!(object.spec, Spec::Pod(_)));
    let mut world = World {
        objects: oldest_first,
        options,
        verdicts: Vec::new(),
        problems: Vec::new(),
        extension_on: true,
    };
    world.extension_on = world.mesh_config();

    let gateways = gateways::find(&mut world);
    let mut api_gateways = gateway_api::find(&mut world);
    let mut pools = pools::find(&mut world, workloads);
    let mut routes = routes::fold(&mut world, &gateways, &mut pools);
    http_routes::fold(&mut world, &mut api_gateways, &mut pools, &mut routes);
    let mut listeners = gateways.listeners(options);
    api_gateways.add_listeners(&mut listeners);
    api_gateways.judge(&mut world);
    pools.forget_unused(&routes.uses);
    models::fold(&mut world, &mut pools);
    policies::fold(&mut world, &mut pools);
    pools::judge(&mut world, &pools, &routes);

    let Routes { specs, uses } = routes;
    let mut desired =
        Desired { listeners, pools: pools.into_specs(), routes: routes::in_order(specs) };
    desired.listeners.sort_by_key(|listener: &ListenerSpec| listener.port);
    desired.pools.sort_by(|a, b| a.key.cmp(&b.key));
    world.finish(desired, &uses)
}

impl FoldOptions {
    /// Why no Gateway can have this port, if none can.
    fn port_taken(&self, port: u16) -> Option<String> {
        let purpose = self.own_ports.get(&port)?;
        Some(format!("port {port} is the gateway's own, for {purpose}; use another"))
    }
}

/// Orders objects from the oldest to the youngest, in the same way every time.
fn age(object: &Object) -> impl Ord + use<'_> {
    (object.created, object.kind, &object.namespace, &object.name, object.group)
}

/// The objects but Pods, oldest first, and what has been found out about them.
struct World<'o> {
    objects: Vec<&'o Object>,
    options: &'o FoldOptions,
    verdicts: Vec<Verdict<'o>>,
    problems: Vec<Problem>,
    /// Whether InferencePools may be served.
    extension_on: bool,
}

/// Reason of everything that has to do with InferencePools while they are switched off.
const DISABLED: &str = "InferenceExtensionDisabled";
const DISABLED_MESSAGE: &str =
    "ASMMeshConfig default has spec.gatewayAPIInferenceExtension.enabled: false";

impl<'o> World<'o> {
    /// The objects whose specification `pick` takes, oldest first.
    fn all<T>(&self, pick: impl Fn(&'o Spec) -> Option<&'o T>) -> Vec<(&'o Object, &'o T)> {
        self.objects.iter().filter_map(|object| Some((*object, pick(&object.spec)?))).collect()
    }

    fn warn(&mut self, object: &Object, field: &str, message: String) {
        let mut problem = object.place.problem(Severity::Warning, message);
        problem.object = Some(object.to_string());
        problem.field = (!field.is_empty()).then(|| field.to_owned());
        self.problems.push(problem);
    }

    fn mesh_config(&mut self) -> bool {
        let configs = self.all(|spec| match spec {
            Spec::MeshConfig(enabled) => Some(enabled),
            _ => None,
        });
        let mut on = true;
        for (object, enabled) in configs {
            let mut verdict = Verdict::new(object);
            if &*object.name == "default" {
                on = *enabled;
            } else {
                let message = "only the ASMMeshConfig named default is looked at".to_owned();
                verdict.refuse("NameNotDefault", "metadata.name", message);
            }
            self.verdicts.push(verdict);
        }
        on
    }

    fn finish(mut self, desired: Desired, uses: &routes::Uses) -> Folded {
        for verdict in &self.verdicts {
            if self.options.kubernetes && verdict.is_foreign() {
                continue;
            }
            let mut told = BTreeSet::new();
            for (field, message) in verdict.objections() {
                if !told.insert(message) {
                    continue;
                }
                let place = &verdict.object.place;
                let mut problem = place.problem(Severity::Warning, message.to_owned());
                problem.object = Some(verdict.object.to_string());
                problem.field = (!field.is_empty()).then(|| field.to_owned());
                self.problems.push(problem);
            }
        }
        let mut statuses: Vec<ObjectStatus> = self.verdicts.iter().map(Verdict::status).collect();
        for status in &mut statuses {
            if status.kind == Kind::InferencePool {
                uses.name_parents(status);
            }
        }
        statuses.sort_by(|a, b| {
            (a.kind, &a.namespace, &a.name, a.group).cmp(&(b.kind, &b.namespace, &b.name, b.group))
        });
        self.problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        Folded { desired, statuses, problems: self.problems }
    }
}

#[cfg(test)]
mod tests;
