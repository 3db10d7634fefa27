use scheduling::Policy;

use super::*;
use crate::report::Report;

fn outcome(means: &[f64]) -> Outcome {
    let figures = means.iter().map(|mean| {
        let mut figures = Figures::new(1);
        figures.ttft.record(*mean);
        figures
    });
    Outcome::new(Placement::Oracle, figures.collect())
}

fn check(means: &[f64], expected: f64) {
    let half = outcome(means).ci95_ttft_mean().unwrap();
    assert!((half - expected).abs() < 1e-3 * expected.max(1e-9), "{means:?}: {half}");
}

/// t · s / √n, with t of the tables for n − 1 degrees of freedom.
#[test]
fn the_interval_is_students() {
    check(&[1.0, 3.0], 12.706 * 2f64.sqrt() / 2f64.sqrt());
    check(&[1.0, 2.0, 3.0], 4.303 / 3f64.sqrt());
    check(&[2.0, 4.0, 4.0, 6.0], 3.182 * (8f64 / 3.0).sqrt() / 2.0);
    check(&[5.0; 6], 0.0);
    let many: Vec<f64> = (0..40).map(|seed| f64::from(seed % 2)).collect();
    check(&many, 1.96 * (10f64 / 39.0).sqrt() / 40f64.sqrt());
}

#[test]
fn one_seed_has_no_interval() {
    assert_eq!(outcome(&[1.0]).ci95_ttft_mean(), None);
    assert_eq!(outcome(&[]).ci95_ttft_mean(), None);
}

#[test]
fn variation_is_the_deviation_over_the_mean() {
    for (values, expected) in [
        (&[1.0, 1.0, 1.0][..], Some(0.0)),
        (&[0.0, 2.0], Some(1.0)),
        (&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], Some(0.4)),
        (&[0.0, 0.0], None),
        (&[], None),
    ] {
        assert_eq!(variation(values), expected, "{values:?}");
    }
}

fn plan(threads: usize) -> Plan {
    let scenario = Scenario { requests: 150, ..Scenario::named("S2").unwrap() };
    let policies = [Policy::Predicted, Policy::GieDefault, Policy::LoraChain];
    let placements = policies.map(Placement::Policy).into_iter().chain([Placement::Oracle]);
    Plan { scenario, placements: placements.collect(), seeds: 3, threads }
}

fn json(plan: &Plan) -> String {
    let report = Report {
        staged: false,
        scenario: plan.scenario.name.clone(),
        title: plan.scenario.title.clone(),
        workload: plan.scenario.workload.name().to_owned(),
        rate: plan.rate(),
        lambda_star: plan.capacity(),
        seeds: plan.seeds,
        requests: plan.requests(),
        outcomes: plan.run(&|_| true),
        sweep: Vec::new(),
    };
    report.json().to_string()
}

#[test]
fn equal_plans_give_equal_bytes_on_however_many_threads() {
    let one = json(&plan(1));
    assert!(one == json(&plan(1)) && one == json(&plan(2)) && one == json(&plan(64)));
}

#[test]
fn outcomes_come_in_the_order_asked_for_each_of_all_seeds() {
    let plan = plan(2);
    let outcomes = plan.run(&|_| true);
    let placements: Vec<Placement> = outcomes.iter().map(|outcome| outcome.placement).collect();
    assert_eq!(placements, plan.placements);
    for outcome in &outcomes {
        let counted = 3 * (150 - 150 / WARMUP_SHARE);
        assert_eq!(outcome.ttft.count() + outcome.refused() + outcome.cut(), counted);
        assert_eq!(outcome.runs.len(), 3);
        let ended: f64 = outcome.runs.iter().map(|run| run.floor).sum();
        assert!((ended / 3.0 - outcome.floor()).abs() < 1e-9);
    }
}
