//! Obeys: YAML objects in, what the picker should do and what to tell the user out.
//!
//! [`read`] turns files into [`Object`]s and [`Problem`]s, [`fold`] turns objects into
//! [`picker::Desired`] and statuses, [`watch`] reads again on change. [`Kubernetes`] follows the
//! objects of an API server instead and writes their statuses. Each step is whole: all
//! problems at once, all objects at once, so no order of events can leave half a configuration.
//!
//! Deliberately absent: defaults of our own configuration, listeners, health, anything that talks
//! to endpoints. Nobody outside sees YAML or the types of the Kubernetes API.
//!
//! - `yaml`: text to trees with lines; `fields`: trees to typed values, reporting what does not fit
//! - `object`, `resource`: the kinds and their specifications; `manifest`: text to objects
//! - `fold`: objects to desired state; `status`: conditions in the shape of each version
//! - `kubernetes`: the API server as a source, and its statuses as a destination
//! - `files`, `watch`: where texts come from; `direct`: a configuration without any
//! - `crd`: the kinds as definitions for Kubernetes
//! - `problem`, `spelling`: what to tell people, and what they meant

mod crd;
mod direct;
mod fields;
mod files;
mod fold;
mod kubernetes;
mod manifest;
mod object;
mod problem;
mod resource;
mod spelling;
mod status;
#[cfg(test)]
mod table;
mod watch;
mod yaml;

pub use crd::{Definition, definitions};
pub use direct::{EndpointUrl, endpoints_config, parse_endpoint_url};
pub use files::read;
pub use fold::{FoldOptions, Folded, fold};
pub use kubernetes::{Kubernetes, KubernetesOptions, Watched};
pub use manifest::{Contents, Manifests, read_text};
pub use object::{Kind, Object, ObjectKey};
pub use problem::{Place, Problem, Severity};
pub use status::{
    CONTROLLER_NAME, Condition, ConditionStatus, ObjectStatus, ParentRef, StatusShape, TargetRef,
    caution, stamp,
};
pub use watch::watch;
