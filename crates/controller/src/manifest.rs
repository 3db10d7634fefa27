//! Text to objects, with everything that is wrong with it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::{
    fields::{Fields, Item, Report},
    object::{Kind, Object, Spec},
    problem::{Place, Problem, Severity},
    resource, spelling, yaml,
};

/// How many objects one reading may hold.
pub(crate) const OBJECTS_MAX: usize = 10_000;

/// How many problems one reading tells.
const PROBLEMS_MAX: usize = 1_000;

/// Namespace of objects that name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// What a reading of files found.
#[derive(Debug, Default)]
pub struct Manifests {
    /// In the order of the files. Objects with errors are left out.
    pub objects: Vec<Object>,
    pub problems: Vec<Problem>,
    /// Tells one reading from another.
    pub contents: Contents,
}

impl Manifests {
    /// Whether something is so wrong that the configuration should not be applied.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Equal for equal files with equal contents.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Contents(u64);

/// Reads a text as if it were a file of that name.
pub fn read_text(file: &str, text: &str) -> Manifests {
    let mut reading = Reading::default();
    reading.add(file, text);
    reading.finish()
}

type Identity = (Kind, &'static str, Arc<str>, Arc<str>);

/// Adds up files.
#[derive(Default)]
pub(crate) struct Reading {
    objects: Vec<Object>,
    problems: Vec<Problem>,
    /// By kind, group, namespace and name.
    places: BTreeMap<Identity, Place>,
    /// Counts objects that cannot be used as well.
    seen: usize,
    hasher: DefaultHasher,
}

impl Reading {
    pub(crate) fn add(&mut self, file: &str, text: &str) {
        (file, text).hash(&mut self.hasher);
        let file: Arc<str> = file.into();
        let first = self.problems.len();
        let parsed = yaml::parse(text);
        for fault in parsed.faults {
            let place = Place { file: Arc::clone(&file), line: fault.line };
            let mut problem = place.problem(Severity::Error, fault.message);
            problem.hint = Some(fault.hint.to_owned());
            self.problems.push(problem);
        }
        for document in &parsed.documents {
            self.document(&file, document);
        }
        self.problems[first..].sort_by_key(|problem| problem.line);
    }

    pub(crate) fn problem(&mut self, problem: Problem) {
        problem.to_string().hash(&mut self.hasher);
        self.problems.push(problem);
    }

    pub(crate) fn finish(mut self) -> Manifests {
        if self.seen > OBJECTS_MAX {
            let place = Place { file: "configuration".into(), line: 0 };
            let message = format!("{} objects, more than {OBJECTS_MAX}", self.seen);
            self.problems
                .insert(0, Problem { line: None, ..place.problem(Severity::Error, message) });
        }
        if self.problems.len() > PROBLEMS_MAX {
            // The worst first, so that what is cut off matters least.
            self.problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
            let more = self.problems.len() - PROBLEMS_MAX;
            self.problems.truncate(PROBLEMS_MAX);
            if let Some(last) = self.problems.last_mut() {
                last.hint = Some(format!("and {more} more problems like these"));
            }
        }
        Manifests {
            objects: self.objects,
            problems: self.problems,
            contents: Contents(self.hasher.finish()),
        }
    }

    fn document(&mut self, file: &Arc<str>, node: &yaml::Node) {
        let text = |key| match &node.get(key)?.node.value {
            yaml::Value::Text(text) => Some(text.as_str()),
            _ => None,
        };
        if text("kind") == Some("List")
            && let Some(items) = node.get("items")
        {
            match &items.node.value {
                yaml::Value::List(items) => {
                    for item in items {
                        self.document(file, item);
                    }
                }
                yaml::Value::Null => {}
                _ => {
                    let report = Report::new(Arc::clone(file), None);
                    Item::root(&items.node, &report).expected("a list of objects in items", "");
                    self.problems.extend(report.into_problems());
                }
            }
            return;
        }
        self.seen += 1;
        if self.seen > OBJECTS_MAX {
            return;
        }
        let name = node.get("metadata").and_then(|metadata| metadata.node.get("name"));
        let name = name.and_then(|name| match &name.node.value {
            yaml::Value::Text(text) => Some(text.as_str()),
            _ => None,
        });
        let namespace = || {
            let entry = node.get("metadata")?.node.get("namespace")?;
            match &entry.node.value {
                yaml::Value::Text(text) => Some(text.as_str()),
                _ => None,
            }
        };
        let label = text("kind").map(|kind| match name {
            Some(name) if is_cluster_scoped(kind) => format!("{kind} {name}"),
            Some(name) => format!("{kind} {}/{name}", namespace().unwrap_or(DEFAULT_NAMESPACE)),
            None => kind.to_owned(),
        });
        let report = Report::new(Arc::clone(file), label);
        let object = object(file, node, &report);
        let usable = !report.has_errors();
        self.problems.extend(report.into_problems());
        if let Some(object) = object
            && self.is_first(&object)
            && usable
        {
            let created = self.seen as u64;
            self.objects.push(Object { created, ..object });
        }
    }

    /// Whether the object is new; if not, says so.
    fn is_first(&mut self, object: &Object) -> bool {
        let (namespace, name) = (Arc::clone(&object.namespace), Arc::clone(&object.name));
        let key = (object.kind, object.group, namespace, name);
        if let Some(first) = self.places.get(&key) {
            let message = format!("given twice, first at {first}");
            let mut problem = object.place.problem(Severity::Error, message);
            problem.object = Some(object.to_string());
            problem.hint = Some("keep one of them".to_owned());
            self.problems.push(problem);
            return false;
        }
        self.places.insert(key, object.place.clone());
        true
    }
}

/// Reads one object. Nothing comes back for kinds that are not ours.
pub(crate) fn object(file: &Arc<str>, node: &yaml::Node, report: &Report) -> Option<Object> {
    let root = Item::root(node, report);
    if !root.is_map() {
        root.expected("an object with apiVersion, kind, metadata and spec", "");
        return None;
    }
    root.fields(|fields| {
        fields.skip(&["metadata", "spec", "status"]);
        let version = fields.need("apiVersion", "a group and version such as v1");
        let kind = fields.need("kind", "a kind such as InferencePool");
        let (version, kind) = (version.and_then(|item| item.word()), kind?.word()?);
        let Some((kind, group, version)) = classify(&fields.item, &version?, &kind) else {
            // Its fields are its own.
            fields.skip_all();
            return None;
        };
        let metadata = fields.need("metadata", "metadata with a name");
        let metadata = metadata.and_then(|item| item.fields(|fields| metadata_of(fields, kind))?);
        let namespace =
            metadata.as_ref().map_or(DEFAULT_NAMESPACE.into(), |meta| Arc::clone(&meta.namespace));
        let spec = if kind == Kind::Pod {
            // What matters of a Pod is all over the object.
            Some(Spec::Pod(resource::pod(fields)))
        } else {
            let spec = fields.need("spec", "a specification");
            spec.and_then(|item| {
                item.fields(|fields| resource::read(kind, group, &namespace, version, fields))?
            })
        };
        let metadata = metadata?;
        Some(Object {
            kind,
            group,
            version,
            namespace,
            name: metadata.name,
            generation: metadata.generation,
            created: 0,
            place: Place { file: Arc::clone(file), line: node.line },
            manifest: ["metadata", "spec"]
                .into_iter()
                .filter_map(|key| Some((key.to_owned(), node.get(key)?.node.to_json())))
                .collect(),
            labels: metadata.labels,
            spec: spec?,
        })
    })?
}

/// What of an object's metadata matters here.
struct Metadata {
    namespace: Arc<str>,
    name: Arc<str>,
    generation: u64,
    labels: BTreeMap<String, String>,
}

fn metadata_of(fields: &mut Fields<'_>, kind: Kind) -> Option<Metadata> {
    let name = fields.need("name", "a name");
    let name = name.and_then(|item| dns_name(&item, 253));
    let namespace = fields.get("namespace").and_then(|item| dns_name(&item, 63));
    let labels = fields.get("labels").map(|item| item.labels()).unwrap_or_default();
    let generation = fields.get("generation");
    let generation =
        generation.and_then(|item| item.integer(0..=i64::MAX, "a generation number", ""));
    fields.skip(&[
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]);
    let namespace = match namespace {
        _ if kind.is_cluster_scoped() => "".into(),
        Some(namespace) => namespace.into(),
        None => DEFAULT_NAMESPACE.into(),
    };
    let generation = generation.and_then(|number| number.try_into().ok()).unwrap_or(1);
    Some(Metadata { namespace, name: name?.into(), generation, labels })
}

/// A name of an object; what Kubernetes would refuse is used and warned of.
fn dns_name(item: &Item<'_>, letters_max: usize) -> Option<String> {
    let name = item.word()?;
    let lower_case = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= letters_max
        && name.starts_with(lower_case)
        && name.ends_with(lower_case)
        && name.chars().all(|c| lower_case(c) || c == '-' || (c == '.' && letters_max > 63));
    if name.contains('/') {
        item.expected("a name without /", "");
        return None;
    }
    if !fits {
        item.warn(
            format_args!("Kubernetes would refuse {name:?}"),
            "use lower-case letters, digits and hyphens",
        );
    }
    Some(name)
}

type Classified = (Kind, &'static str, &'static str);

fn is_cluster_scoped(kind: &str) -> bool {
    Kind::ALL.iter().any(|known| known.is_cluster_scoped() && known.name() == kind)
}

/// Which of our kinds an object is; says why if it is none.
fn classify(item: &Item<'_>, api_version: &str, kind: &str) -> Option<Classified> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let Some(known) = known else {
        let of_group = Kind::ALL.into_iter().filter(|kind| groups(*kind).any(|own| own == group));
        match spelling::closest(kind, of_group.map(Kind::name), 2) {
            Some(meant) => item.error(
                format_args!("{} has no kind {kind}", group_name(group)),
                &format!("did you mean {meant}?"),
            ),
            None => pass_over(item, api_version, kind),
        }
        return None;
    };
    let Some((group, versions)) = known.served().iter().find(|(own, _)| *own == group) else {
        // Service is also a kind of others; only a slip in our own group is an error.
        match spelling::closest(group, groups(known), 4) {
            Some(meant) => item.error(
                format_args!("expected apiVersion {}, found {api_version:?}", served(known)),
                &format!("did you mean group {meant}?"),
            ),
            None => pass_over(item, api_version, kind),
        }
        return None;
    };
    let Some(version) = versions.iter().find(|own| **own == version) else {
        item.error(
            format_args!("expected apiVersion {}, found {api_version:?}", served(known)),
            "",
        );
        return None;
    };
    Some((known, group, version))
}

fn groups(kind: Kind) -> impl Iterator<Item = &'static str> {
    kind.served().iter().map(|(group, _)| *group)
}

fn group_name(group: &str) -> &str {
    if group.is_empty() { "v1" } else { group }
}

fn pass_over(item: &Item<'_>, api_version: &str, kind: &str) {
    let what = if api_version.starts_with("gateway.networking.k8s.io/") {
        "is not served yet"
    } else {
        "means nothing to the gateway"
    };
    item.info(format_args!("passed over: {api_version} {kind} {what}"), "");
}

/// Every apiVersion of a kind: `a/v1, a/v1beta1 or b/v1`.
fn served(kind: Kind) -> String {
    let all: Vec<String> = kind
        .served()
        .iter()
        .flat_map(|(group, versions)| {
            versions.iter().map(move |version| match *group {
                "" => (*version).to_owned(),
                group => format!("{group}/{version}"),
            })
        })
        .collect();
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
