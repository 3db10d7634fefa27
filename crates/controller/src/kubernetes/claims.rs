//! What is ours in statuses that others write to as well, and which objects are.
//!
//! It follows from the Gateways that are served here. What it cannot show is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{entry::Unreadable, patch::Reference};
use crate::{
    object::{GATEWAY_API_GROUP, ISTIO_GROUP, Kind, Path},
    status::{ObjectStatus, StatusShape},
};

/// The Gateways that are served here, each with its API groups.
#[derive(Debug, Default)]
pub(super) struct Gateways(BTreeMap<Path, BTreeSet<&'static str>>);

impl Gateways {
    /// Those among the objects.
    pub(super) fn served(statuses: &[ObjectStatus]) -> Self {
        let mut gateways = Self::default();
        for status in statuses {
            if status.kind == Kind::Gateway && !status.foreign {
                let path = Path::new(Arc::clone(&status.namespace), Arc::clone(&status.name));
                gateways.0.entry(path).or_default().insert(status.group);
            }
        }
        gateways
    }

    fn has(&self, group: &str, path: &Path) -> bool {
        self.0.get(path).is_some_and(|groups| groups.contains(group))
    }
}

/// What of other objects' statuses can be ours.
#[derive(Debug, Default)]
pub(super) struct Domain {
    pub(super) gateways: Gateways,
    /// The only namespace that is followed, if not all.
    pub(super) namespace: Option<String>,
}

impl Domain {
    /// Whether it can be told from here what becomes of that Gateway. Another installation may
    /// serve what is not followed here, and has our name.
    pub(super) fn sees(&self, about: &Reference) -> bool {
        self.namespace.as_ref().is_none_or(|own| own == about.namespace())
    }

    /// Whether the entry is about a Gateway of ours, of which nobody else has anything to say.
    pub(super) fn serves(&self, about: &Reference) -> bool {
        let Some((group, path)) = about.gateway() else { return false };
        match group {
            // The definition keeps none.
            "" => self.gateways.0.contains_key(&path),
            group => self.gateways.has(group, &path),
        }
    }
}

impl Unreadable {
    /// What is said of the object: it is ours if it names a Gateway of ours.
    pub(super) fn status(self, gateways: &Gateways) -> ObjectStatus {
        let Self { mut status, gateways: named } = self;
        let group = match status.kind {
            Kind::HTTPRoute => GATEWAY_API_GROUP,
            Kind::VirtualService => ISTIO_GROUP,
            _ => return status,
        };
        let mut served = named.iter().map(|path| gateways.has(group, path));
        if let StatusShape::RouteParents(parents) = &mut status.shape {
            parents.retain(|_| served.next().unwrap_or(false));
            status.foreign = parents.is_empty();
        } else {
            status.foreign = !served.any(|served| served);
        }
        status
    }
}

#[cfg(test)]
mod tests;
