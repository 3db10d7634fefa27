//! What became of an object, in the shape its version gives it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    object::{self, GATEWAY_API_GROUP, Kind, Object, ObjectKey, Spec},
    problem::{Problem, Severity},
};

/// Who we are in `status.parents[]` and `status.ancestors[]`.
pub const CONTROLLER_NAME: &str = "tokenweir.dev/gateway-controller";

/// The conditions of one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObjectStatus {
    pub kind: Kind,
    pub group: &'static str,
    pub version: &'static str,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub generation: u64,
    pub conditions: Vec<Condition>,
    pub shape: StatusShape,
    /// As far as can be told another controller obeys this object: what became of it is shown here
    /// and not written to it.
    pub foreign: bool,
}

/// Where in `status` the conditions go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StatusShape {
    /// `status.conditions[]`.
    Flat,
    /// `status.parent[]`, as InferencePool v1alpha2 has it: one entry for each Gateway, or one that
    /// stands for none yet. The same conditions are flat beside it, which is where `kubectl wait` and
    /// readers of v1alpha1 look, if the definition keeps them.
    Parent(Vec<ParentRef>),
    /// `status.parents[]`, as InferencePool v1 has it: one entry for each Gateway, and none as long
    /// as no route sends anything here.
    Parents(Vec<ParentRef>),
    /// `status.ancestors[]`, as the Gateway API has it for policies: one entry, for the target.
    Ancestors(TargetRef),
    /// `status.conditions[]`, and what the Gateway API has besides for Gateways.
    Gateway(GatewayStatus),
    /// `status.parents[]`, as the Gateway API has it for routes: one entry for each of the route's
    /// `parentRefs` that is a Gateway of ours.
    RouteParents(Vec<RouteParent>),
}

/// What a Gateway of the Gateway API has come to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GatewayStatus {
    /// `status.listeners[]`.
    pub listeners: Vec<ListenerStatus>,
    /// `status.addresses[]`; `None` where nobody has said which they are.
    pub addresses: Option<Vec<Address>>,
}

/// Where clients reach a Gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    Ip(String),
    Hostname(String),
}

/// A listener of a Gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerStatus {
    pub name: String,
    /// Routes that get requests through it.
    pub attached: u32,
    pub refused: Option<Refused>,
}

/// A Gateway a route asks to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteParent {
    /// As the route has it.
    pub reference: Value,
    pub refused: Option<Refused>,
}

/// Why a part of an object is not accepted, whatever becomes of the rest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    pub reason: &'static str,
    pub message: String,
}

/// The InferencePool a policy is attached to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetRef {
    pub group: &'static str,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A Gateway through which the object gets requests.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ParentRef {
    pub group: &'static str,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// One statement about an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs` or `Programmed`.
    pub name: &'static str,
    pub status: ConditionStatus,
    pub reason: &'static str,
    pub message: String,
    pub observed_generation: u64,
    /// Since when the status is what it is, in RFC 3339; [`stamp`] fills it in.
    pub last_transition: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Condition {
    fn to_json(&self) -> Value {
        let mut value = json!({
            "type": self.name,
            "status": self.status.name(),
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.observed_generation,
        });
        if let Some(since) = &self.last_transition {
            value["lastTransitionTime"] = json!(**since);
        }
        value
    }
}

/// Dates conditions: those whose status is as it was keep their date, the others get `now`.
pub fn stamp(statuses: &mut [ObjectStatus], previous: &[ObjectStatus], now: &str) {
    let now: Arc<str> = now.into();
    let before: BTreeMap<_, _> = previous.iter().map(|status| (status.key(), status)).collect();
    for status in statuses {
        let before = before.get(&status.key()).map_or(&[][..], |before| &before.conditions);
        for condition in &mut status.conditions {
            let same = before
                .iter()
                .find(|old| old.name == condition.name && old.status == condition.status);
            let since = same.and_then(|old| old.last_transition.clone());
            condition.last_transition = Some(since.unwrap_or_else(|| Arc::clone(&now)));
        }
    }
}

/// Adds to the message of each object that is accepted what of it is not obeyed, as was found while it
/// was read.
pub fn caution<'p>(statuses: &mut [ObjectStatus], problems: impl IntoIterator<Item = &'p Problem>) {
    let mut cautions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for problem in problems.into_iter().filter(|problem| problem.severity == Severity::Warning) {
        if let Some(object) = &problem.object {
            cautions.entry(object).or_default().push(problem.without_place());
        }
    }
    if cautions.is_empty() {
        return;
    }
    for status in statuses {
        let path = object::path(&status.namespace, &status.name);
        let Some(cautions) = cautions.get(format!("{} {path}", status.kind).as_str()) else {
            continue;
        };
        for accepted in status.conditions.iter_mut().filter(|one| one.name == "Accepted") {
            if accepted.status == ConditionStatus::True {
                let said = std::mem::take(&mut accepted.message);
                let said = Some(said).filter(|said| !said.is_empty()).into_iter();
                let sentences: Vec<String> = said.chain(cautions.iter().cloned()).collect();
                accepted.message = joined(&sentences);
            }
        }
    }
}

impl ObjectStatus {
    pub(crate) fn new(object: &Object, conditions: Vec<Condition>) -> Self {
        let shape = match (object.kind, object.version, &object.spec) {
            (Kind::InferencePool, "v1", _) => StatusShape::Parents(Vec::new()),
            (Kind::InferencePool, "v1alpha2", _) => StatusShape::Parent(Vec::new()),
            (_, _, Spec::InferencePolicy(policy)) => StatusShape::Ancestors(TargetRef {
                group: policy.pool_group,
                namespace: Arc::clone(&policy.pool.namespace),
                name: Arc::clone(&policy.pool.name),
            }),
            _ => StatusShape::Flat,
        };
        Self {
            kind: object.kind,
            group: object.group,
            version: object.version,
            namespace: Arc::clone(&object.namespace),
            name: Arc::clone(&object.name),
            generation: object.generation,
            conditions,
            shape,
            foreign: false,
        }
    }

    pub fn condition(&self, name: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.name == name)
    }

    /// That of its object.
    pub fn key(&self) -> ObjectKey<'_> {
        (self.kind, self.group, &self.namespace, &self.name)
    }

    /// Whether this is the status of that object.
    pub fn is_of(&self, object: &Object) -> bool {
        self.key() == object.key()
    }

    /// The object as `kubectl get -o json` shows it: as given, with namespace and status.
    pub fn to_json(&self, object: &Object) -> Value {
        let mut whole = object.to_json();
        whole["status"] = self.status_json();
        whole
    }

    /// `status` alone.
    pub(crate) fn status_json(&self) -> Value {
        let conditions: Value = self.conditions.iter().map(Condition::to_json).collect();
        match &self.shape {
            StatusShape::Flat => json!({ "conditions": conditions }),
            StatusShape::Parent(parents) => {
                let entry = |parent| json!({ "parentRef": parent, "conditions": conditions });
                // The one this version's definition puts there by default.
                let unused = || vec![entry(json!({ "kind": "Status", "name": "default" }))];
                let entries = parents.iter().map(|parent| entry(parent.to_json()));
                let entries = if parents.is_empty() { unused() } else { entries.collect() };
                json!({ "parent": entries, "conditions": conditions })
            }
            StatusShape::Parents(parents) => {
                let entry = |parent: &ParentRef| {
                    json!({
                        "parentRef": parent.to_json(),
                        "controllerName": CONTROLLER_NAME,
                        "conditions": conditions,
                    })
                };
                json!({ "parents": parents.iter().map(entry).collect::<Value>() })
            }
            StatusShape::Ancestors(target) => json!({
                "ancestors": [{
                    "ancestorRef": target.to_json(),
                    "controllerName": CONTROLLER_NAME,
                    "conditions": conditions,
                }]
            }),
            StatusShape::Gateway(GatewayStatus { listeners, addresses }) => {
                let mut status = json!({
                    "conditions": conditions,
                    "listeners": listeners.iter().map(|one| self.listener(one)).collect::<Value>(),
                });
                if let Some(addresses) = addresses {
                    status["addresses"] = addresses.iter().map(Address::to_json).collect();
                }
                status
            }
            StatusShape::RouteParents(parents) => {
                let entry = |parent: &RouteParent| {
                    json!({
                        "parentRef": parent.reference,
                        "controllerName": CONTROLLER_NAME,
                        "conditions": self.conditions_but(parent.refused.as_ref()),
                    })
                };
                json!({ "parents": parents.iter().map(entry).collect::<Value>() })
            }
        }
    }

    /// The conditions, but for a refusal that is about a part of the object alone.
    fn conditions_but(&self, refused: Option<&Refused>) -> Value {
        let one = |condition: &Condition| match refused {
            Some(refused) if condition.name == "Accepted" => {
                let (reason, message) = (refused.reason, refused.message.clone());
                let status = ConditionStatus::False;
                Condition { status, reason, message, ..condition.clone() }.to_json()
            }
            _ => condition.to_json(),
        };
        self.conditions.iter().map(one).collect()
    }

    fn listener(&self, listener: &ListenerStatus) -> Value {
        let since = self.conditions.first().and_then(|first| first.last_transition.clone());
        let condition = |name: &'static str, refused: Option<(&'static str, &str)>| {
            let status =
                if refused.is_some() { ConditionStatus::False } else { ConditionStatus::True };
            let (reason, message) = refused.unwrap_or((name, ""));
            let (observed_generation, last_transition) = (self.generation, since.clone());
            let message = message.to_owned();
            Condition { name, status, reason, message, observed_generation, last_transition }
                .to_json()
        };
        let refused = listener.refused.as_ref();
        let why = refused.map(|refused| (refused.reason, refused.message.as_str()));
        let invalid = refused.map(|refused| ("Invalid", refused.message.as_str()));
        json!({
            "name": listener.name,
            "attachedRoutes": listener.attached,
            "supportedKinds": [{ "group": GATEWAY_API_GROUP, "kind": "HTTPRoute" }],
            "conditions": [
                condition("Accepted", why),
                condition("Programmed", invalid),
                condition("ResolvedRefs", None),
            ],
        })
    }
}

impl Address {
    fn to_json(&self) -> Value {
        let (kind, value) = match self {
            Self::Ip(ip) => ("IPAddress", ip),
            Self::Hostname(name) => ("Hostname", name),
        };
        json!({ "type": kind, "value": value })
    }
}

impl TargetRef {
    fn to_json(&self) -> Value {
        json!({
            "group": self.group,
            "kind": "InferencePool",
            "namespace": *self.namespace,
            "name": *self.name,
        })
    }
}

impl ParentRef {
    fn to_json(&self) -> Value {
        json!({
            "group": self.group,
            "kind": "Gateway",
            "namespace": *self.namespace,
            "name": *self.name,
        })
    }
}

/// What is true of an object, as it is found out; then its conditions.
pub(crate) struct Verdict<'o> {
    pub(crate) object: &'o Object,
    accepted: Finding,
    resolved: Finding,
    cautions: Vec<(&'static str, String)>,
    foreign: bool,
    shape: Option<StatusShape>,
}

/// One condition in the making: true until somebody objects.
#[derive(Default)]
struct Finding {
    reason: Option<&'static str>,
    objections: Vec<String>,
    remarks: Vec<String>,
    fields: Vec<&'static str>,
}

impl<'o> Verdict<'o> {
    pub(crate) fn new(object: &'o Object) -> Self {
        Self {
            object,
            accepted: Finding::default(),
            resolved: Finding::default(),
            cautions: Vec::new(),
            foreign: false,
            shape: None,
        }
    }

    /// Where the conditions go, for kinds that do not say it themselves.
    pub(crate) fn put_into(&mut self, shape: StatusShape) {
        self.shape = Some(shape);
    }

    /// Another controller obeys the object, as far as can be told.
    pub(crate) fn leave_to_others(&mut self) {
        self.foreign = true;
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Accepted is False.
    pub(crate) fn refuse(&mut self, reason: &'static str, field: &'static str, message: String) {
        self.accepted.object_to(reason, field, message);
    }

    /// ResolvedRefs is False.
    pub(crate) fn unresolved(
        &mut self,
        reason: &'static str,
        field: &'static str,
        message: String,
    ) {
        self.resolved.object_to(reason, field, message);
    }

    /// Worth knowing of an object that is accepted.
    pub(crate) fn remark(&mut self, message: String) {
        self.accepted.remarks.push(message);
    }

    /// The object is accepted, but does not get all it asks for.
    pub(crate) fn caution(&mut self, field: &'static str, message: String) {
        self.accepted.remarks.push(message.clone());
        self.cautions.push((field, message));
    }

    pub(crate) fn lacks_references(&self) -> bool {
        self.resolved.reason.is_some()
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted.reason.is_none()
    }

    /// The objections and cautions, each with the field it is about.
    pub(crate) fn objections(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let objections = [&self.accepted, &self.resolved].into_iter().flat_map(|finding| {
            finding.fields.iter().copied().zip(finding.objections.iter().map(String::as_str))
        });
        let cautions = self.cautions.iter().map(|(field, message)| (*field, message.as_str()));
        objections.chain(cautions)
    }

    pub(crate) fn status(&self) -> ObjectStatus {
        let generation = self.object.generation;
        let mut conditions = vec![self.accepted.condition("Accepted", generation)];
        match (self.object.kind, self.object.group) {
            (Kind::GatewayClass, _) => {}
            (Kind::Gateway, GATEWAY_API_GROUP) => {
                conditions.push(self.accepted.condition("Programmed", generation));
            }
            _ => conditions.push(self.resolved.condition("ResolvedRefs", generation)),
        }
        let usual = ObjectStatus::new(self.object, conditions);
        let shape = self.shape.clone().unwrap_or(usual.shape);
        ObjectStatus { foreign: self.foreign, shape, ..usual }
    }
}

impl Finding {
    /// The first objection gives the reason, all of them the message.
    fn object_to(&mut self, reason: &'static str, field: &'static str, message: String) {
        self.reason.get_or_insert(reason);
        if !self.objections.contains(&message) {
            self.objections.push(message);
            self.fields.push(field);
        }
    }

    fn condition(&self, name: &'static str, observed_generation: u64) -> Condition {
        let (status, reason, message) = match self.reason {
            Some(reason) => (ConditionStatus::False, reason, joined(&self.objections)),
            None => (ConditionStatus::True, name, joined(&self.remarks)),
        };
        Condition { name, status, reason, message, observed_generation, last_transition: None }
    }
}

/// A condition's message has a maximum length in Kubernetes.
fn joined(sentences: &[String]) -> String {
    const SENTENCES_MAX: usize = 8;
    let told = &sentences[..sentences.len().min(SENTENCES_MAX)];
    match sentences.len() - told.len() {
        0 => told.join("; "),
        more => format!("{}; and {more} more", told.join("; ")),
    }
}

#[cfg(test)]
mod tests;
