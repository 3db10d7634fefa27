use std::collections::BTreeSet;

use regex_lite::Regex;

/// What the alert on refusals leaves out, since the client is to blame.
fn left_out() -> BTreeSet<&'static str> {
    let rules = include_str!("../../../../deploy/prometheus/rules.yml");
    let (_, rule) = rules.split_once("alert: TokenweirRefusals\n").unwrap();
    let (_, reasons) = rule.split_once("tokenweir_refusals_total{reason!~\"").unwrap();
    reasons.split_once('"').unwrap().0.split('|').collect()
}

#[test]
fn the_alert_on_refusals_leaves_out_what_is_the_clients_fault_and_nothing_else() {
    // The table itself is read: a list of all refusals in a test could lack one as well.
    let source = include_str!("../refusal.rs");
    let row = Regex::new(r#"\(\d+, "(\w+)", Fault::(\w+), "#).unwrap();
    let rows: Vec<_> = row.captures_iter(source).map(|row| row.extract::<2>().1).collect();
    assert_eq!(rows.len(), source.matches(" Fault::").count(), "a row that reads otherwise");
    let reasons = |of_client: bool| {
        let whose = rows.iter().filter(move |[_, fault]| (*fault == "Client") == of_client);
        whose.map(|[reason, _]| *reason).collect::<BTreeSet<&str>>()
    };
    assert_eq!(left_out(), reasons(true));
    assert!(left_out().is_disjoint(&reasons(false)));
}
