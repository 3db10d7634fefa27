use proptest::prelude::*;

use super::*;

/// (as given, as shown)
#[test]
fn every_form_is_read_and_shown() {
    let table = [
        ("none", "none"),
        ("refuse", "refuse"),
        ("hang", "hang"),
        ("reset:5", "reset:5"),
        ("die:0", "die:0"),
        ("stall", "stall"),
        (" stall:0.5\n", "stall:0.5"),
        ("status:503", "status:503"),
        ("status:500@.25", "status:500@0.25"),
        ("status:500@1", "status:500@1"),
        ("unhealthy", "unhealthy"),
        ("metrics-slow:2.50", "metrics-slow:2.5"),
        ("metrics-hang", "metrics-hang"),
        ("metrics-garbage", "metrics-garbage"),
        ("metrics-status:404", "metrics-status:404"),
        ("metrics-frozen", "metrics-frozen"),
        ("metrics-old", "metrics-old"),
        ("crash", "crash:5"),
        ("crash:0", "crash:0"),
    ];
    for (given, shown) in table {
        assert_eq!(given.parse::<Fault>().unwrap().to_string(), shown, "{given}");
    }
    for form in FAULT_FORMS {
        let name = form.split(':').next().unwrap();
        assert!(table.iter().any(|(_, shown)| shown.starts_with(name)), "{form} is in the table");
    }
}

/// (as given, the complaint's beginning)
#[test]
fn what_is_no_fault_is_answered_with_the_forms() {
    let table = [
        ("", "\"\" is no fault; "),
        ("Stall", "\"Stall\" is no fault; "),
        ("reset", "\"reset\" is no fault; "),
        ("hang:1", "\"hang:1\" is no fault; "),
        ("reset:-1", "\"-1\" is no number of tokens; "),
        ("stall:-1", "\"-1\" is no number of seconds from 0 to 86400; "),
        ("crash:inf", "\"inf\" is no number of seconds"),
        ("metrics-slow:NaN", "\"NaN\" is no number of seconds"),
        ("crash:86401", "\"86401\" is no number of seconds"),
        ("status:200", "\"200\" is no status from 400 to 599; "),
        ("status:600", "\"600\" is no status"),
        ("status:five", "\"five\" is no status"),
        ("status:500@2", "\"2\" is no share from 0 to 1; "),
        ("status:500@", "\"\" is no share"),
        ("status:500@NaN", "\"NaN\" is no share"),
    ];
    for (given, complaint) in table {
        let error = given.parse::<Fault>().unwrap_err().to_string();
        assert!(error.starts_with(complaint), "{given}: {error}");
        assert!(FAULT_FORMS.iter().all(|form| error.contains(form)), "{given}: {error}");
    }
}

fn faults() -> impl Strategy<Value = Fault> {
    let status = || (400_u16..600).prop_map(|code| StatusCode::from_u16(code).unwrap());
    let time = || (0_u64..86_400_000_000_000).prop_map(Duration::from_nanos);
    let share = (0.0..=1.0).prop_map(|share| Share::new(share).unwrap());
    prop_oneof![
        Just(Fault::None),
        Just(Fault::Refuse),
        Just(Fault::Hang),
        Just(Fault::Freeze),
        Just(Fault::Unhealthy),
        Just(Fault::MetricsHang),
        Just(Fault::MetricsGarbage),
        Just(Fault::MetricsFrozen),
        Just(Fault::MetricsOld),
        any::<u32>().prop_map(Fault::CutAfter),
        any::<u32>().prop_map(Fault::DieAfter),
        time().prop_map(Fault::FreezeFor),
        time().prop_map(Fault::MetricsSlow),
        time().prop_map(Fault::Crash),
        status().prop_map(Fault::Status),
        status().prop_map(Fault::MetricsStatus),
        (status(), share).prop_map(|(status, share)| Fault::StatusShare(status, share)),
    ]
}

proptest! {
    #[test]
    fn what_is_shown_is_read_as_the_same(fault in faults()) {
        prop_assert_eq!(fault.to_string().parse(), Ok(fault));
    }

    #[test]
    fn any_text_is_a_fault_or_an_error(text in ".{0,40}") {
        // What matters is that it returns.
        let _ = text.parse::<Fault>();
    }
}

#[test]
fn a_share_is_about_that_share_and_the_same_for_equal_seeds() {
    let share = Share::new(0.3).unwrap();
    let hits = |seed| (1..=10_000).filter(|number| share.has(seed, *number)).collect::<Vec<u64>>();
    for seed in 0..10 {
        assert!((2_800..3_200).contains(&hits(seed).len()), "{}", hits(seed).len());
    }
    assert_eq!(hits(1), hits(1));
    assert_ne!(hits(1), hits(2));
    assert!((0..1000).all(|number| Share::new(1.0).unwrap().has(7, number)));
    assert!((0..1000).all(|number| !Share::new(0.0).unwrap().has(7, number)));
}
