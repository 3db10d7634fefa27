use super::*;

/// (profile, batch, lowest and highest milliseconds expected): the idle numbers the coefficient sets were checked with.
#[test]
fn idle_numbers_are_those_the_sets_were_checked_with() {
    let prefill = |n: f64| Batch {
        tokens: n,
        sequences: 1.0,
        decode_context: 0.0,
        prefill_pairs: n * n / 2.0,
    };
    let decode = |context: f64| Batch {
        tokens: 1.0,
        sequences: 1.0,
        decode_context: context,
        prefill_pairs: 0.0,
    };
    let table = [
        ("a10-llama2-7b", prefill(550.0), 94.0, 98.0),
        ("a10-llama2-7b", decode(600.0), 30.5, 31.5),
        ("h100-llama3-8b", prefill(550.0), 15.0, 17.0),
        ("h100-llama3-8b", decode(600.0), 6.4, 6.6),
        ("a100-llama3-8b", prefill(550.0), 43.0, 45.0),
        ("a100-llama3-8b", decode(600.0), 10.4, 10.7),
        ("h100x4-llama3-70b", decode(9000.0), 19.9, 20.3),
    ];
    for (name, batch, low, high) in table {
        let millis = Profile::named(name).unwrap().cost.duration(&batch).as_secs_f64() * 1e3;
        assert!(low <= millis && millis <= high, "{name}: {millis} ms");
    }
}

#[test]
fn every_name_finds_its_profile_and_no_other_does() {
    for name in Profile::NAMES {
        assert_eq!(Profile::named(name).unwrap().name, name);
    }
    assert_eq!(Profile::named("a11-llama2-7b"), None);
    assert_eq!(Profile::default().name, "a10-llama2-7b");
}

#[test]
fn every_profile_can_hold_its_longest_request() {
    for name in Profile::NAMES {
        let profile = Profile::named(name).unwrap();
        assert!(profile.usable_blocks() * profile.block_tokens >= profile.max_model_len, "{name}");
    }
}
