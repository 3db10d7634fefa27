use scheduling::Policy;

use super::plot::{INK, Mark, heat};
use super::{COLUMNS, Report, SweepPoint};
use crate::comparison::Plan;
use crate::scenario::Scenario;
use crate::workload::Pace;
use crate::world::Placement;

/// A short S1 at this share of λ*, on so many times its endpoints.
fn plan(load: f64, pools: usize) -> Plan {
    let scenario = Scenario::named("S1").unwrap();
    let endpoints = vec![scenario.endpoints; pools].concat();
    let scenario = Scenario { requests: 200, endpoints, ..Scenario::named("S1").unwrap() };
    let placements = vec![Placement::Oracle, Placement::Policy(Policy::RoundRobin)];
    let plan = Plan { scenario, placements, seeds: 2, threads: 2 };
    let pace = Pace::Poisson(load * plan.capacity());
    Plan { scenario: Scenario { pace, ..plan.scenario }, ..plan }
}

fn report(load: f64, pools: usize) -> Report {
    let plan = plan(load, pools);
    Report {
        staged: false,
        scenario: plan.scenario.name.clone(),
        title: plan.scenario.title.clone(),
        workload: "llmperf".to_owned(),
        rate: plan.rate(),
        lambda_star: plan.capacity(),
        seeds: plan.seeds,
        requests: plan.requests(),
        outcomes: plan.run(&|_| true),
        sweep: Vec::new(),
    }
}

fn swept() -> Report {
    let point = |load| {
        let plan = plan(load, 1);
        SweepPoint { rate: plan.rate().unwrap(), outcomes: plan.run(&|_| true) }
    };
    Report { sweep: [0.4, 0.8].map(point).to_vec(), ..report(0.8, 1) }
}

/// Names of elements that are opened and not closed in turn.
fn unbalanced(page: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split_once('>').expect("a tag ends").0;
        let name: String = tag.chars().take_while(|c| !c.is_whitespace()).collect();
        if let Some(closed) = name.strip_prefix('/') {
            if open.last().is_some_and(|last| last == closed) {
                open.pop();
            } else {
                open.push(name);
            }
        } else if !tag.ends_with('/') && !["!DOCTYPE", "meta"].contains(&name.as_str()) {
            open.push(name);
        }
    }
    open
}

#[test]
fn a_page_is_whole_and_asks_nobody_for_anything() {
    let page = swept().html();
    for name in ["oracle", "round-robin", "S1: the tutorial", "λ*", "80 % of λ*", "2 seeds × 200"]
    {
        assert!(page.contains(name), "{name}");
    }
    for outside in ["http:", "https:", "//", "url(", "@import", "<script", "src=", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(unbalanced(&page), Vec::<String>::new());
    // Latencies, sweep, and two plots of each policy; each says what it is.
    assert_eq!(page.matches("<svg ").count(), 6);
    assert_eq!(page.matches("role=\"img\" aria-label=\"").count(), 6);
    assert_eq!(page.matches("not drawn").count(), 0);
    assert_eq!(page.matches("<table").count(), page.matches("<caption>").count());
}

#[test]
fn equal_comparisons_give_equal_pages() {
    assert_eq!(swept().html(), swept().html());
}

#[test]
fn names_are_not_taken_for_markup() {
    let workload = "trace:<b>\"a\" & 'b'</b>".to_owned();
    let page = Report { workload, ..report(0.5, 1) }.html();
    assert!(page.contains("trace:&lt;b&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/b&gt;"));
    assert!(!page.contains("<b>"));
}

#[test]
fn a_page_warns_in_the_words_of_the_table() {
    let report = report(1.5, 1);
    let warning = "requests/s, 150 % of λ* is more than this pool can do";
    assert!(report.table().contains(warning));
    assert!(report.html().contains(warning));
}

#[test]
fn the_best_is_marked_where_there_is_a_choice() {
    let few = report(0.8, 1);
    assert!(!few.html().contains("class=\"best\""), "the oracle does not compete");
    let plan = plan(0.8, 1);
    let random = Plan { placements: vec![Placement::Policy(Policy::Random)], ..plan };
    let outcomes = [few.outcomes.clone(), random.run(&|_| true)].concat();
    let page = Report { outcomes, ..few }.html();
    assert!(page.matches("<td class=\"best\">").count() >= 4);
}

#[test]
fn many_endpoints_are_rows_of_shades() {
    let page = report(0.5, 6).html();
    assert!(page.contains("A row for each of the 18 endpoints"));
    assert!(page.contains("<rect "));
}

#[test]
fn an_empty_comparison_is_a_page_too() {
    let empty = Report { outcomes: Vec::new(), ..report(0.5, 1) };
    assert_eq!(unbalanced(&empty.html()), Vec::<String>::new());
}

#[test]
fn neighbours_of_one_shade_are_one_rectangle() {
    let seconds = [0.0, 1.0, 2.0, 3.0, 4.0];
    let marks = heat(&seconds, &[vec![1.0, 1.0, 0.0, 0.5, 0.5], vec![0.0; 5]], 1.0, INK);
    let cell = |mark: &Mark| match mark {
        Mark::Cell { corners: [from, until], strength, .. } => (from.0, until.0, *strength),
        other => panic!("{other:?}"),
    };
    let cells: Vec<_> = marks.iter().map(cell).collect();
    assert_eq!(cells, [(0.0, 2.0, 1.0), (3.0, 4.0, 0.5)]);
}

#[test]
fn a_table_has_a_line_for_every_policy_under_the_same_columns() {
    let table = swept().table();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("S1: the tutorial's pool"));
    let setting = lines.next().unwrap();
    assert!(setting.starts_with("llmperf · ") && setting.ends_with("2 seeds × 200 requests"));
    assert!(lines.next().unwrap().starts_with("idle floor (L1) of the mean TTFT: "));
    assert_eq!(lines.next(), Some(""));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let columns = COLUMNS.map(|(name, _)| name).join(" ");
    assert_eq!(words(lines.next().unwrap()), words(&columns));
    assert!(lines.next().unwrap().starts_with("oracle "));
    assert!(lines.next().unwrap().starts_with("round-robin "));
    assert!(table.contains("\nmean TTFT over the load\nreq/s  of λ*  oracle  round-robin\n"));
    assert!(table.trim_end().lines().last().unwrap().starts_with("knee "));
}

#[test]
fn programs_find_the_keys_they_were_promised() {
    let json = swept().json();
    for key in ["scenario", "workload", "rate", "lambda_star", "seeds", "results"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["policy"], "oracle");
    for result in results {
        for key in [
            "ttft_mean_s",
            "ttft_p50_s",
            "ttft_p90_s",
            "ttft_p99_s",
            "tpot_mean_s",
            "tpot_p99_s",
            "e2e_mean_s",
            "requests_per_s",
            "output_tokens_per_s",
            "prefix_hit_ratio",
            "kv_cov",
            "preemptions",
            "adapter_swaps",
            "refused",
            "ci95_ttft_mean_s",
        ] {
            assert!(result[key].is_number(), "{key} of {result}");
        }
    }
    assert_eq!(json["sweep"].as_array().unwrap().len(), 2);
    assert!(json["knees"]["round-robin"].is_number());
}
