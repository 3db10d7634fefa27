//! Any bytes an endpoint may call its load are read without a panic, into sane values.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Some(report) = openai::LoadReport::parse(value) else { return };
    if let Some(usage) = report.kv_usage {
        assert!((0.0..=1.0).contains(&usage), "KV use of {usage}");
    }
});
