//! Any bytes as a configuration file: reading and folding never panic, and what was read can be shown.

#![no_main]

use controller::{FoldOptions, fold, read_text, stamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let manifests = read_text("fuzz.yaml", &text);
    for problem in &manifests.problems {
        assert!(!problem.to_string().is_empty());
    }
    let mut folded = fold(&manifests.objects, &FoldOptions::default());
    stamp(&mut folded.statuses, &[], "2026-01-01T00:00:00Z");
    for status in &folded.statuses {
        let object = manifests.objects.iter().find(|object| status.is_of(object));
        status.to_json(object.expect("every status is of an object"));
    }
});
