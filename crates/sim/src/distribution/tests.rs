use super::*;

#[test]
fn quantiles_are_near_and_the_rest_is_exact() {
    let mut times = Distribution::of_seconds();
    for step in 1..=1000 {
        times.record(f64::from(step) / 1000.0);
    }
    let near = |value: Option<f64>, expected: f64| {
        let value = value.unwrap();
        assert!((value - expected).abs() <= expected * 1e-3, "{value} is not near {expected}");
    };
    near(times.quantile(0.5), 0.5);
    near(times.quantile(0.99), 0.99);
    near(times.mean(), 0.5005);
    near(times.deviation(), 0.288_819);
    assert_eq!((times.min(), times.max(), times.count()), (Some(0.001), Some(1.0), 1000));
    assert_eq!(times.quantile(1.0), Some(1.0));
}

#[test]
fn of_nothing_nothing_is_known() {
    let none = Distribution::of_counts();
    assert_eq!(
        (none.mean(), none.quantile(0.5), none.min(), none.deviation()),
        (None, None, None, None)
    );
}

#[test]
fn odd_values_do_no_harm() {
    let mut rates = Distribution::of_rates();
    for value in [f64::NAN, -1.0, f64::INFINITY, 1e18] {
        rates.record(value);
    }
    assert_eq!((rates.count(), rates.min(), rates.max()), (4, Some(0.0), Some(1e18)));
}

#[test]
fn what_is_merged_or_scaled_is_as_if_measured_so() {
    let of = |values: &[f64]| {
        let mut all = Distribution::of_seconds();
        for value in values {
            all.record(*value);
        }
        all
    };
    let mut merged = of(&[0.5, 1.5]);
    merged.merge(&of(&[0.25, 4.0, 0.125]));
    merged.merge(&of(&[]));
    for (all, whole) in [
        (merged, of(&[0.5, 1.5, 0.25, 4.0, 0.125])),
        (of(&[0.5, 1.5, 0.25]).scaled(10.0), of(&[5.0, 15.0, 2.5])),
    ] {
        assert_eq!(
            (all.count(), all.sum(), all.mean()),
            (whole.count(), whole.sum(), whole.mean())
        );
        assert_eq!((all.min(), all.max()), (whole.min(), whole.max()));
        assert!((all.deviation().unwrap() - whole.deviation().unwrap()).abs() < 1e-9);
        for share in [0.0, 0.5, 0.9, 1.0] {
            let error = all.quantile(share).unwrap() / whole.quantile(share).unwrap() - 1.0;
            assert!(error.abs() < 2e-3, "{share}: {error}");
        }
    }
}
