use scheduling::{EndpointId, Ledger};

use super::*;

fn slots<const N: usize>() -> [Slot; N] {
    let mut ledger = Ledger::default();
    std::array::from_fn(|at| ledger.add(&EndpointId::new(at.to_string())))
}

/// What is known at a second of three endpoints: the first two have no "m" as of 0 s, the second none as of 20 s either.
fn check(second: u64, model: &str, expected: &[usize]) {
    let (absences, slots) = (Absences::default(), slots::<3>());
    let at = Duration::from_secs;
    let (m, n) = (Feature::model("m"), Feature::model("n"));
    absences.note(m, slots[1], at(0));
    absences.note(m, slots[0], at(0));
    absences.note(n, slots[2], at(1));
    absences.note(m, slots[1], at(20));
    let expected: Vec<Slot> = expected.iter().map(|index| slots[*index]).collect();
    assert_eq!(absences.of(Some(model), None, at(second))[..], expected, "{model} at {second} s");
}

#[test]
fn an_absence_is_believed_for_half_a_minute_of_its_model_alone() {
    check(20, "m", &[0, 1]);
    check(20, "n", &[2]);
    check(20, "o", &[]);
    check(29, "m", &[0, 1]);
    check(30, "m", &[1]);
    check(30, "n", &[2]);
    check(31, "n", &[]);
    check(50, "m", &[]);
}

#[test]
fn of_too_many_the_latest_are_known() {
    let (absences, [slot]) = (Absences::default(), slots());
    for model in 0..=ABSENCES_MAX {
        absences.note(Feature::model(&model.to_string()), slot, Duration::ZERO);
    }
    assert_eq!(absences.told.lock().len(), ABSENCES_MAX);
    assert!(absences.of(Some("0"), None, Duration::ZERO).is_empty());
    assert_eq!(absences.of(Some("1"), None, Duration::ZERO)[..], [slot]);
    absences.forget();
    assert!(absences.of(Some("1"), None, Duration::ZERO).is_empty());
}

#[test]
fn who_lacks_the_model_or_the_operation_is_absent() {
    let (absences, slots) = (Absences::default(), slots::<3>());
    absences.note(Feature::Operation(Operation::Responses), slots[2], Duration::ZERO);
    absences.note(Feature::model("m"), slots[0], Duration::ZERO);
    let of = |model, operation| absences.of(model, operation, Duration::ZERO);
    assert_eq!(of(Some("m"), Some(Operation::Responses))[..], [slots[0], slots[2]]);
    assert_eq!(of(None, Some(Operation::Responses))[..], [slots[2]]);
    assert_eq!(of(Some("m"), Some(Operation::Messages))[..], [slots[0]]);
    assert!(of(None, None).is_empty());
}
