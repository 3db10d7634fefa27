//! What endpoints are made of: WorkloadEntries, and Pods that are ready.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv6Addr,
};

use scheduling::EndpointId;

use crate::{
    object::{Object, Spec},
    resource::{Pod, Selector, ServicePort, TargetPort, WorkloadEntry},
};

/// Something that can answer requests.
pub(super) enum Workload<'o> {
    Entry(&'o WorkloadEntry),
    Pod(&'o Pod, &'o str),
}

/// Every workload, oldest first, and where each label is that a selector asks for.
#[derive(Default)]
pub(super) struct Workloads<'o> {
    all: Vec<(&'o Object, Workload<'o>)>,
    /// The keys selectors ask for: a Pod has many more labels.
    keys: BTreeSet<&'o str>,
    /// By namespace, key and value: there may be thousands of Pods and hundreds of selectors.
    labelled: HashMap<(&'o str, &'o str, &'o str), Vec<usize>>,
}

impl<'o> Workloads<'o> {
    pub(super) fn of(objects: &[&'o Object]) -> Self {
        let selectors = objects.iter().filter_map(|object| object.spec.selector());
        let keys = selectors.flat_map(Selector::keys).map(String::as_str).collect();
        let mut workloads = Self { keys, ..Self::default() };
        for object in objects {
            let workload = match &object.spec {
                Spec::WorkloadEntry(entry) => Workload::Entry(entry),
                Spec::Pod(pod) if pod.serves() => {
                    Workload::Pod(pod, pod.address.as_deref().unwrap_or_default())
                }
                _ => continue,
            };
            workloads.add(object, workload);
        }
        workloads
    }

    fn add(&mut self, object: &'o Object, workload: Workload<'o>) {
        let place = self.all.len();
        let own = object.labels.iter();
        // As in Istio the object's own labels go before those in its spec.
        let further = match &workload {
            Workload::Entry(entry) => Some(&entry.labels),
            Workload::Pod(..) => None,
        };
        let further = further.into_iter().flatten();
        let further = further.filter(|(key, _)| !object.labels.contains_key(*key));
        for (key, value) in own.chain(further) {
            if self.keys.contains(key.as_str()) {
                let label = (&*object.namespace, key.as_str(), value.as_str());
                self.labelled.entry(label).or_default().push(place);
            }
        }
        self.all.push((object, workload));
    }

    /// Those with all of these labels, oldest first. As in Kubernetes, no selector selects
    /// nothing.
    pub(super) fn selected<'s>(
        &'s self,
        namespace: &'s str,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'s (&'o Object, Workload<'o>)> {
        let mut labelled: Vec<&[usize]> = selector
            .iter()
            .map(|(key, value)| self.labelled.get(&(namespace, key.as_str(), value.as_str())))
            .map(|places| places.map_or(&[][..], Vec::as_slice))
            .collect();
        labelled.sort_by_key(|places| places.len());
        let fewest = labelled.first().copied().unwrap_or_default();
        // Places ascend: they were given in that order.
        let has_all = move |place: &&usize| {
            labelled.iter().skip(1).all(|places| places.binary_search(place).is_ok())
        };
        fewest.iter().filter(has_all).map(|place| &self.all[*place])
    }
}

impl Workload<'_> {
    /// IP address or DNS name.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Entry(entry) => &entry.address,
            Self::Pod(_, address) => address,
        }
    }

    /// Where it takes the traffic of a pool with these target ports.
    pub(super) fn pool_ports(&self, ports: &[u16]) -> Vec<u16> {
        match self {
            Self::Entry(entry) => match entry.ports.get("http") {
                Some(port) => vec![*port],
                None => ports.to_vec(),
            },
            Self::Pod(Pod { active_ports: Some(active), .. }, _) => {
                ports.iter().copied().filter(|port| active.contains(port)).collect()
            }
            Self::Pod(..) => ports.to_vec(),
        }
    }

    /// Where it takes the traffic of a Service's port.
    pub(super) fn service_port(&self, port: &ServicePort, only: bool) -> Option<u16> {
        let entry = match self {
            Self::Entry(entry) => entry,
            Self::Pod(pod, _) => {
                return match &port.target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(name) => pod.ports.get(name).copied(),
                };
            }
        };
        // Istio looks for the port's name in the workload's own ports first.
        let named = |name: &str| entry.ports.get(name).copied();
        if let Some(found) = port.name.as_deref().and_then(named) {
            return Some(found);
        }
        if let TargetPort::Name(name) = &port.target
            && let Some(found) = named(name)
        {
            return Some(found);
        }
        // A Service with one port has often no name for it.
        if let Some(found) = named("http").filter(|_| only) {
            return Some(found);
        }
        match port.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        }
    }
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn endpoint_id(host: &str, port: u16) -> EndpointId {
    if host.contains(':') && host.parse::<Ipv6Addr>().is_ok() {
        return EndpointId::new(format!("[{host}]:{port}"));
    }
    EndpointId::new(format!("{host}:{port}"))
}
