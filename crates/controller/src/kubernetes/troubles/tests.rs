//! What is told, and when.

use super::{Reason, Troubles, Unwritten};
use crate::{
    kubernetes::{store::SourceKey, tests::POOLS},
    object::{Kind, Path},
};

const OF_POOLS: SourceKey = (POOLS.kind, POOLS.group);
const OF_MODELS: SourceKey = (Kind::InferenceModel, POOLS.group);

#[test]
fn reasons_that_take_turns_are_told_once_each() {
    let mut troubles = Troubles::default();
    let told: Vec<bool> = [429, 500, 429, 500]
        .map(|code| troubles.add(Reason::Answer(code), &format!("{code} at this time")))
        .into();
    assert_eq!(told, [true, true, false, false]);
    assert_eq!(troubles.last(), Some("500 at this time"));
    assert!(troubles.clear());
    assert!(!troubles.clear(), "it was well already");
    assert!(troubles.add(Reason::Answer(500), "500"), "it begins anew");
}

#[test]
fn a_kind_is_written_again_when_none_of_its_objects_waits() {
    let path = |name: &str| Path::new("default", name);
    let mut unwritten = Unwritten::default();
    let forbidden = Reason::Answer(403);
    assert!(unwritten.add(OF_POOLS, path("a"), forbidden, "not you"));
    assert!(!unwritten.add(OF_POOLS, path("b"), forbidden, "not you"), "the same of another");
    assert!(unwritten.add(OF_MODELS, path("a"), forbidden, "not you"), "another kind");
    assert!(!unwritten.written(OF_POOLS, &path("a")), "one waits still");
    assert!(!unwritten.written(OF_POOLS, &path("c")), "one waits still");
    assert!(unwritten.written(OF_POOLS, &path("b")));
    assert!(!unwritten.written(OF_POOLS, &path("b")), "that was told");
    assert!(!unwritten.forget(OF_MODELS, &path("a")), "none was written");
    assert!(!unwritten.add(OF_MODELS, path("b"), forbidden, "not you"), "it was never well");
    assert!(!unwritten.written(OF_MODELS, &path("c")), "one waits still");
    assert!(unwritten.forget(OF_MODELS, &path("b")), "others can be written, and none waits");
}
