//! Any bytes an endpoint may call its metrics page are read without a panic, into sane values.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    let Some(signals) = datalayer::parse_metrics(page, Duration::ZERO) else { return };
    if let Some(usage) = signals.kv_usage {
        assert!((0.0..=1.0).contains(&usage.value), "KV use of {}", usage.value);
    }
    if let Some(adapters) = signals.running_adapters {
        assert!(adapters.len() <= datalayer::ADAPTERS_MAX);
    }
});
