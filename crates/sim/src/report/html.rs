//! A comparison as one page: no request to anywhere, no script, light or dark as the reader likes.

use std::fmt::Write as _;
use std::ops::Range;

use crate::comparison::Outcome;
use crate::distribution::Distribution;
use crate::world::{Placement, Series};

use super::plot::{Axis, Mark, Plot, escape, heat, mean};
use super::{COLUMNS, KNEE_SLOWDOWN, NONE, Report, palette, seconds, some_seconds};

/// Endpoints drawn as lines; more would hide each other.
const LINES_MAX: usize = 16;
/// Points of a line of KV use.
const SMOOTH_MAX: usize = 96;
/// Policies whose endpoints are shown without being asked for.
const OPEN_MAX: usize = 4;
/// Columns of the table, the first ones after the name, in which less is better.
const LESS_IS_BETTER: Range<usize> = 1..5;

const CSS: &str = include_str!("page.css");

impl Report {
    /// A page for people. Equal comparisons give equal bytes.
    pub fn html(&self) -> String {
        let title = escape(&format!("{}: {}", self.scenario, self.title));
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <style>\n{CSS}{}</style>\n</head>\n<body>\n<main>\n",
            palette::css()
        );
        let _ = writeln!(page, "<header>\n<h1>{title}</h1>\n{}</header>", self.facts());
        page += &self.results();
        page += &self.first_tokens();
        page += &self.load_sweep();
        page += &self.over_time();
        page += "</main>\n</body>\n</html>\n";
        page
    }

    fn facts(&self) -> String {
        let mut facts = vec![
            ("workload", self.workload.clone()),
            ("load", self.load()),
            ("λ*, the most any policy can do", format!("{:.3} requests/s", self.lambda_star)),
            ("runs of each policy", format!("{} seeds × {} requests", self.seeds, self.requests)),
        ];
        if let Some(first) = self.outcomes.first() {
            facts.push(("idle floor (L1) of mean TTFT", seconds(first.floor())));
        }
        let mut html = "<dl class=\"facts\">\n".to_owned();
        for (name, fact) in facts {
            let _ = writeln!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&fact));
        }
        html += "</dl>\n";
        for warning in self.warnings() {
            let _ = writeln!(html, "<p class=\"warning\">{}</p>", escape(&warning));
        }
        html
    }

    fn results(&self) -> String {
        let rows = Report::rows(&self.outcomes);
        let best = LESS_IS_BETTER.map(|column| self.best(&rows, column)).collect::<Vec<_>>();
        let class = |row: usize, column: usize| {
            let index = column.checked_sub(LESS_IS_BETTER.start);
            let best = index.and_then(|index| best.get(index)?.as_ref());
            let stands =
                best.is_some_and(|best| self.competes(row) && rows[row + 1][column] == *best);
            if stands { "best" } else { "" }
        };
        let caption = "What each policy came to; the best but for the oracle is marked.";
        let mut html = section("Results", "");
        html += &table(&rows, caption, class);
        html += "<details>\n<summary>What the columns mean</summary>\n<dl class=\"columns\">\n";
        for (name, meaning) in COLUMNS {
            let _ = writeln!(html, "<dt>{name}</dt><dd>{meaning}</dd>");
        }
        html + "</dl>\n</details>\n</section>\n"
    }

    /// Whether an outcome may be the best one.
    fn competes(&self, index: usize) -> bool {
        let outcome = &self.outcomes[index];
        outcome.placement != Placement::Oracle && !outcome.stopped && outcome.ttft.count() > 0
    }

    /// What is written in the best cell of a column, if there is a competition.
    fn best(&self, rows: &[Vec<String>], column: usize) -> Option<String> {
        let value = |index: usize| match (column, &self.outcomes[index].ttft) {
            (1, ttft) => ttft.mean(),
            (2, ttft) => ttft.quantile(0.5),
            (3, ttft) => ttft.quantile(0.9),
            (_, ttft) => ttft.quantile(0.99),
        };
        let competing = (0..self.outcomes.len()).filter(|index| self.competes(*index));
        let competing: Vec<_> =
            competing.filter_map(|index| Some((index, value(index)?))).collect();
        let (best, _) = competing.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        (competing.len() > 1).then(|| rows[best + 1][column].clone())
    }

    fn first_tokens(&self) -> String {
        let curves = self.broken_last().filter(|(_, outcome)| outcome.ttft.count() > 0);
        let curves: Vec<_> = curves.map(|(_, outcome)| (outcome, visible(&outcome.ttft))).collect();
        let times = curves.iter().flat_map(|(_, points)| points.iter().map(|point| point.0));
        let Some(times) = extent(times) else { return String::new() };
        let line = |(outcome, points): &(&Outcome, Vec<(f64, f64)>)| {
            let color = palette::of_policy(outcome.placement.name()).light;
            Mark::Line { points: points.clone(), color, width: 4 }
        };
        let plot = Plot {
            size: (1120, 400),
            x: Axis::logarithmic(&times, tick_seconds).titled("time to first token"),
            y: Axis::linear(0.0..1.0, 5, percent),
            marks: curves.iter().map(line).collect(),
            label: format!(
                "Share of requests whose first token came within a time: {}",
                self.names()
            ),
        };
        let note = "The share of requests whose first token had come by a time. Further left is better; \
                    the axis of time is logarithmic.";
        section("Time to first token", note) + &self.legend() + &wide(&plot) + "</section>\n"
    }

    fn load_sweep(&self) -> String {
        if self.sweep.is_empty() {
            return String::new();
        }
        let mut html = section(
            "Load",
            "Mean time to first token over the rate. The knee is the highest rate up to which it stays within ten \
             times the idle floor, the thin line across; hollow dots are of runs that were stopped because requests \
             only piled up.",
        );
        html += &self.legend();
        html += &self.sweep_plot().as_ref().map(wide).unwrap_or_default();
        let header = ["policy", "knee", "of λ*"].map(str::to_owned).to_vec();
        let knee = |(index, outcome): (usize, &Outcome)| {
            let knee = self.knee(index);
            let dash = || NONE.to_owned();
            vec![
                outcome.placement.name().to_owned(),
                knee.map_or_else(dash, |knee| format!("{knee:.3} requests/s")),
                knee.map_or_else(dash, |knee| format!("{:.0} %", knee / self.lambda_star * 100.0)),
            ]
        };
        let knees = self.outcomes.iter().enumerate().map(knee);
        let rows: Vec<_> = std::iter::once(header).chain(knees).collect();
        html += &table(&rows, "The load each policy bears", |_, _| "");
        html += "<details>\n<summary>All rates</summary>\n";
        html += &table(&self.sweep_rows(), "Mean time to first token", |_, _| "");
        html + "</details>\n</section>\n"
    }

    fn sweep_plot(&self) -> Option<Plot> {
        let bound = self.outcomes.first().map(|first| KNEE_SLOWDOWN * first.floor());
        let means =
            self.sweep.iter().flat_map(|point| &point.outcomes).filter_map(|o| o.ttft.mean());
        let means = extent(means.chain(bound).filter(|mean| *mean > 0.0))?;
        let rates = extent(self.sweep.iter().map(|point| point.rate).chain([self.lambda_star]))?;
        let y = Axis::logarithmic(&means, tick_seconds);
        let x = Axis::linear(widened(&rates), 10, plain).titled("requests/s");
        let ((left, right), (bottom, top)) = (x.ends(), y.ends());
        let aside = (right - left) * 0.005;
        let mut marks = vec![
            Mark::Rule { ends: [(self.lambda_star, bottom), (self.lambda_star, top)] },
            Mark::Note { at: (self.lambda_star + aside, top), text: "λ*".to_owned() },
        ];
        if let Some(bound) = bound {
            let text = format!("{KNEE_SLOWDOWN} × idle floor");
            marks.push(Mark::Rule { ends: [(left, bound), (right, bound)] });
            marks.push(Mark::Note { at: (left + aside, bound), text });
        }
        for (index, outcome) in self.broken_last() {
            let color = palette::of_policy(outcome.placement.name()).light;
            let of = |stopped: Option<bool>| {
                let points = self.sweep.iter().filter_map(|point| {
                    let outcome = point.outcomes.get(index)?;
                    let wanted = stopped.is_none_or(|stopped| outcome.stopped == stopped);
                    let mean = outcome.ttft.mean().filter(|mean| wanted && *mean > 0.0)?;
                    Some((point.rate, mean))
                });
                points.collect::<Vec<_>>()
            };
            marks.push(Mark::Line { points: of(None), color, width: 4 });
            marks.push(Mark::Dots { points: of(Some(false)), color, hollow: false });
            marks.push(Mark::Dots { points: of(Some(true)), color, hollow: true });
        }
        let label = format!("Mean time to first token over requests a second: {}", self.names());
        Some(Plot { size: (1120, 400), x, y, marks, label })
    }

    fn over_time(&self) -> String {
        let shown = || self.outcomes.iter().filter(|outcome| !outcome.series.seconds.is_empty());
        let endpoints = shown().map(|outcome| outcome.series.kv_usage.len()).max();
        let Some(endpoints) = endpoints else { return String::new() };
        let until = shown().filter_map(|outcome| outcome.series.seconds.last()).copied();
        let most = shown().flat_map(|outcome| outcome.series.waiting.iter().flatten()).copied();
        let (until, most) = (until.fold(0.0, f64::max), most.fold(0.0, f64::max));
        let mut html = section(
            "Endpoints over time",
            "The first seed. Where a policy herds, one endpoint's queue rises while another's is empty; an even one \
             keeps the lines together. All policies have the same scales. The oracle queues before the endpoints, so \
             little waits in them.",
        );
        html += &endpoint_legend(endpoints);
        for (index, outcome) in shown().enumerate() {
            let open = if index < OPEN_MAX { " open" } else { "" };
            let name = outcome.placement.name();
            let look = palette::of_policy(name).key();
            let _ = writeln!(
                html,
                "<details{open}>\n<summary>{look}{} <span>mean TTFT {}, KV CoV {:.3}</span></summary>",
                escape(name),
                some_seconds(outcome.ttft.mean()),
                outcome.kv_cov()
            );
            let (moments, kv_usage) = smooth(&outcome.series);
            let kv = small(&moments, &kv_usage, 1.0, until, percent);
            let Series { seconds: moments, waiting, .. } = &outcome.series;
            let waiting = small(moments, waiting, most.max(1.0), until, plain);
            html += "<div class=\"pair\">\n";
            html += &figure(
                "KV in use, smoothed",
                &format!("KV in use of each endpoint under {name}"),
                kv,
            );
            let label = format!("requests waiting in each endpoint under {name}");
            html += &figure("requests waiting", &label, waiting);
            html += "</div>\n</details>\n";
        }
        html + "</section>\n"
    }

    /// Outcomes in the order of drawing: where two policies come to the same, both lines are seen.
    fn broken_last(&self) -> impl Iterator<Item = (usize, &Outcome)> {
        let mut order: Vec<_> = self.outcomes.iter().enumerate().collect();
        order.sort_by_key(|(_, outcome)| palette::of_policy(outcome.placement.name()).is_broken());
        order.into_iter()
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.outcomes.iter().map(|o| o.placement.name()).collect();
        names.join(", ")
    }

    fn legend(&self) -> String {
        let item = |outcome: &Outcome| {
            let name = outcome.placement.name();
            (palette::of_policy(name).key(), name.to_owned())
        };
        legend(self.outcomes.iter().map(item))
    }
}

/// The beginning of a section.
fn section(title: &str, note: &str) -> String {
    let note =
        if note.is_empty() { String::new() } else { format!("<p class=\"note\">{note}</p>\n") };
    format!("<section>\n<h2>{title}</h2>\n{note}")
}

/// A table whose first row and first column are headings; `class` is asked of each other cell.
fn table(
    rows: &[Vec<String>],
    caption: &str,
    class: impl Fn(usize, usize) -> &'static str,
) -> String {
    let Some((header, body)) = rows.split_first() else { return String::new() };
    let mut html = format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n\
         <table>\n<caption>{caption}</caption>\n"
    );
    let heading = |cell: &String| format!("<th scope=\"col\">{}</th>", escape(cell));
    let _ = writeln!(
        html,
        "<thead><tr>{}</tr></thead>\n<tbody>",
        header.iter().map(heading).collect::<String>()
    );
    for (row, cells) in body.iter().enumerate() {
        html += "<tr>";
        for (column, cell) in cells.iter().enumerate() {
            let cell = escape(cell);
            let _ = match (column, class(row, column)) {
                (0, _) => write!(html, "<th scope=\"row\">{cell}</th>"),
                (_, "") => write!(html, "<td>{cell}</td>"),
                (_, class) => write!(html, "<td class=\"{class}\">{cell}</td>"),
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table>\n</div>\n"
}

fn legend(items: impl Iterator<Item = (String, String)>) -> String {
    let item = |(key, name): (String, String)| format!("<li>{key}{}</li>\n", escape(&name));
    format!("<ul class=\"legend\">\n{}</ul>\n", items.map(item).collect::<String>())
}

fn endpoint_legend(endpoints: usize) -> String {
    if endpoints > LINES_MAX {
        return format!(
            "<p class=\"note\">A row for each of the {endpoints} endpoints; the stronger its colour, the more.</p>\n"
        );
    }
    let item = |index| (palette::of_endpoint(index).key(), format!("endpoint {index}"));
    legend((0..endpoints).map(item))
}

/// A plot that small screens scroll, for its words would be too small there.
fn wide(plot: &Plot) -> String {
    format!("<div class=\"wide\" tabindex=\"0\">\n{}</div>\n", plot.svg())
}

fn figure(caption: &str, label: &str, plot: Plot) -> String {
    let svg = Plot { label: label.to_owned(), ..plot }.svg();
    format!("<figure>\n<figcaption>{caption}</figcaption>\n{svg}</figure>\n")
}

/// One value of every endpoint over time, up to `most` and until `until`.
fn small(
    moments: &[f64],
    values: &[Vec<f64>],
    most: f64,
    until: f64,
    write: fn(f64) -> String,
) -> Plot {
    let x = Axis::linear(0.0..until.max(1.0), 5, |at| format!("{at:.0} s"));
    let (size, label) = ((540, 190), String::new());
    if values.len() > LINES_MAX {
        let marks = heat(moments, values, most, palette::HEAT.light);
        return Plot { size, x, y: Axis::rows(values.len()), marks, label };
    }
    let line = |(index, values): (usize, &Vec<f64>)| Mark::Line {
        points: moments.iter().copied().zip(values.iter().copied()).collect(),
        color: palette::of_endpoint(index).light,
        width: 2,
    };
    let marks = values.iter().enumerate().map(line).collect();
    Plot { size, x, y: Axis::linear(0.0..most, 5, write), marks, label }
}

/// Moments and KV use, of which the ups and downs of single requests would hide everything else: means of neighbours.
fn smooth(series: &Series) -> (Vec<f64>, Vec<Vec<f64>>) {
    let width = series.seconds.len().div_ceil(SMOOTH_MAX).max(1);
    let means = |values: &Vec<f64>| values.chunks(width).map(mean).collect();
    (means(&series.seconds), series.kv_usage.iter().map(means).collect())
}

/// Shares up to a time, which the page cannot show below a microsecond.
fn visible(times: &Distribution) -> Vec<(f64, f64)> {
    times.cumulated().into_iter().map(|(time, share)| (time.max(1e-6), share)).collect()
}

/// From the least to the most; `None` of none.
fn extent(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let extent = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    (extent.0 <= extent.1).then_some(extent.0..extent.1)
}

fn widened(range: &Range<f64>) -> Range<f64> {
    let room = ((range.end - range.start) * 0.04).max(range.end * 0.01);
    (range.start - room).max(0.0)..range.end + room
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A number as short as it is.
fn plain(value: f64) -> String {
    ((value * 1e6).round() / 1e6).to_string()
}

/// A round time.
fn tick_seconds(value: f64) -> String {
    match value {
        v if v >= 0.9999 => format!("{} s", plain(v)),
        v if v >= 0.000_999_9 => format!("{} ms", plain(v * 1e3)),
        v => format!("{} µs", plain(v * 1e6)),
    }
}
