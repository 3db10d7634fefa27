//! Plots as SVG text, to stand inside a page.
//!
//! Colours are written as they look on a light page; the page's style sheet finds them by attribute and puts its own in
//! their place, which is how they follow the reader's choice of light or dark. [`INK`] so becomes the colour of text.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::drawing::{DrawingAreaErrorKind, IntoDrawingArea as _};
use plotters::element::{Circle, Rectangle, Text};
use plotters::prelude::{ChartBuilder, SVGBackend};
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, RGBAColor, RGBColor, TextStyle};

use crate::distribution::precise;

/// Stands for the colour of the page's text.
pub(super) const INK: RGBColor = RGBColor(1, 2, 3);

/// Plotters draws on whole pixels, which shows in flat curves; so it draws this many times larger.
const SCALE: u32 = 4;
/// Plotters gives fonts a size that browsers make this much smaller.
const FONT: f64 = 12.0 * 1.24;
/// Columns of a heat map; there are more moments than anyone could tell apart.
const COLUMNS_MAX: usize = 160;
/// Shades of a heat map.
const SHADES: f64 = 8.0;

/// One axis: where it begins and ends, and what is written beside it.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    range: Range<f64>,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
    title: &'static str,
}

impl Axis {
    /// About so many even steps; `label` writes what stands beside each.
    pub(super) fn linear(range: Range<f64>, steps: u32, label: impl Fn(f64) -> String) -> Axis {
        let ticks = even_ticks(&range, steps).into_iter().map(|tick| (tick, label(tick))).collect();
        Axis { range, logarithmic: false, ticks, title: "" }
    }

    /// Even factors, with a little room at both ends. Both ends are positive.
    pub(super) fn logarithmic(range: &Range<f64>, label: impl Fn(f64) -> String) -> Axis {
        let room = (range.end / range.start).powf(0.03).max(1.02);
        let range = range.start / room..range.end * room;
        let ticks = factor_ticks(&range).into_iter().map(|tick| (tick, label(tick))).collect();
        Axis { range, logarithmic: true, ticks, title: "" }
    }

    /// Numbers the middle of each of so many rows, from above.
    pub(super) fn rows(rows: usize) -> Axis {
        let end = precise(rows as u64);
        let rows = even_ticks(&(0.0..end), 5).into_iter().filter(|row| *row < end);
        let ticks = rows.map(|row| (row + 0.5, format!("{row:.0}"))).collect();
        Axis { range: end..0.0, logarithmic: false, ticks, title: "" }
    }

    /// From where to where it reaches.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.range.start, self.range.end)
    }

    pub(super) fn titled(self, title: &'static str) -> Axis {
        Axis { title, ..self }
    }

    fn place(&self, value: f64) -> f64 {
        if self.logarithmic { value.log10() } else { value }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (start, end) = (self.place(self.range.start), self.place(self.range.end));
        let share = (self.place(*value) - start) / (end - start);
        pixel(f64::from(limit.0) + share * f64::from(limit.1 - limit.0))
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let bold = !hint.weight().allow_light_points();
        self.ticks.iter().filter(|_| bold).map(|(tick, _)| *tick).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let label = self.ticks.iter().find(|(tick, _)| tick.total_cmp(value).is_eq());
        label.map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a place on the page; others saturate")]
fn pixel(place: f64) -> i32 {
    place.round() as i32
}

/// About so many round numbers in a range.
fn even_ticks(range: &Range<f64>, about: u32) -> Vec<f64> {
    let raw = (range.end - range.start).max(f64::MIN_POSITIVE) / f64::from(about);
    let decade = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = step.into_iter().find(|step| *step >= raw * 0.999).unwrap_or(raw);
    let first = (range.start / step).ceil();
    let ticks = (0..=2 * about).map(|index| (first + f64::from(index)) * step);
    ticks.take_while(|tick| *tick <= range.end + step * 1e-6).collect()
}

/// Powers of ten, with their double and half where there is room.
fn factor_ticks(range: &Range<f64>) -> Vec<f64> {
    const DECADES: Range<i32> = -9..10;
    let factors: &[f64] = if range.end / range.start < 1e4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all = DECADES.flat_map(|decade| factors.iter().map(move |f| f * 10f64.powi(decade)));
    let inside: Vec<f64> = all.filter(|tick| (range.start..=range.end).contains(tick)).collect();
    if inside.len() < 3 { even_ticks(range, 4) } else { inside }
}

/// Something drawn over the axes.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    /// Points, joined.
    Line { points: Vec<(f64, f64)>, color: RGBColor, width: u32 },
    /// A dot each; hollow ones are not to be relied on.
    Dots { points: Vec<(f64, f64)>, color: RGBColor, hollow: bool },
    /// A rectangle between two corners, so strongly coloured.
    Cell { corners: [(f64, f64); 2], color: RGBColor, strength: f64 },
    /// A straight line that measures the others.
    Rule { ends: [(f64, f64); 2] },
    /// Words, beginning at a point, below and to the right of it.
    Note { at: (f64, f64), text: String },
}

/// Axes and what they measure.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// In pixels of the page.
    pub(super) size: (u32, u32),
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) marks: Vec<Mark>,
    /// For those who do not see it.
    pub(super) label: String,
}

type Failure<'a> =
    DrawingAreaErrorKind<<SVGBackend<'a> as plotters::backend::DrawingBackend>::ErrorType>;

impl Plot {
    /// An `svg` element, or a paragraph that says why there is none.
    pub(super) fn svg(&self) -> String {
        let mut drawn = String::new();
        if let Err(failure) = self.draw(&mut drawn) {
            return format!("<p>not drawn: {}</p>\n", escape(&failure.to_string()));
        }
        // Plotters' own first tag fixes the size; the page is to decide it.
        let inside = drawn.split_once('>').map_or("", |(_, inside)| inside);
        let (width, height) = (self.size.0 * SCALE, self.size.1 * SCALE);
        let label = escape(&self.label);
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">{inside}"
        )
    }

    fn draw<'a>(&self, into: &'a mut String) -> Result<(), Failure<'a>> {
        let size = (self.size.0 * SCALE, self.size.1 * SCALE);
        let area = SVGBackend::with_string(into, size).into_drawing_area();
        let below = if self.x.title.is_empty() { 22 } else { 40 };
        let mut chart = ChartBuilder::on(&area)
            .margin_top(8 * SCALE)
            .margin_right(16 * SCALE)
            .x_label_area_size(below * SCALE)
            .y_label_area_size(56 * SCALE)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        let text = TextStyle::from(("sans-serif", FONT * f64::from(SCALE)).into_font()).color(&INK);
        chart
            .configure_mesh()
            .light_line_style(RGBAColor(0, 0, 0, 0.0))
            .bold_line_style(INK.mix(0.14).stroke_width(SCALE))
            .axis_style(INK.mix(0.5).stroke_width(SCALE))
            .label_style(text.clone())
            .axis_desc_style(text.clone())
            .x_desc(self.x.title)
            .draw()?;
        for mark in &self.marks {
            match mark {
                Mark::Line { points, color, width } => {
                    let style = color.stroke_width(width * SCALE / 2);
                    chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
                }
                Mark::Rule { ends } => {
                    let style = INK.mix(0.6).stroke_width(SCALE);
                    chart.draw_series(LineSeries::new(*ends, style))?;
                }
                Mark::Dots { points, color, hollow } => {
                    let style = color.stroke_width(SCALE * 3 / 2);
                    let style = if *hollow { style } else { style.filled() };
                    let dot = |point: &(f64, f64)| Circle::new(*point, 3 * SCALE, style);
                    chart.draw_series(points.iter().map(dot))?;
                }
                Mark::Cell { corners, color, strength } => {
                    let style = color.mix(*strength).filled();
                    chart.draw_series([Rectangle::new(*corners, style)])?;
                }
                Mark::Note { at: point, text: words } => {
                    let style = text.clone().pos(Pos::new(HPos::Left, VPos::Top));
                    chart.draw_series([Text::new(words.clone(), *point, style)])?;
                }
            }
        }
        area.present()
    }
}

/// Rows of values over time as rows of shades: the most there is anywhere is the strongest. Neighbours of one shade
/// are one rectangle.
pub(super) fn heat(seconds: &[f64], rows: &[Vec<f64>], most: f64, color: RGBColor) -> Vec<Mark> {
    let width = seconds.len().div_ceil(COLUMNS_MAX).max(1);
    let columns = seconds.len().div_ceil(width);
    let start = |column: usize| seconds.get(column * width).or(seconds.last()).copied();
    let mut marks = Vec::new();
    for (top, values) in (0u32..).map(f64::from).zip(rows) {
        let shades: Vec<f64> =
            values.chunks(width).take(columns).map(|chunk| shade(chunk, most)).collect();
        let mut column = 0;
        for run in shades.chunk_by(|a, b| a.total_cmp(b).is_eq()) {
            let ends = (start(column), start(column + run.len()));
            column += run.len();
            if let ((Some(from), Some(until)), true) = (ends, run[0] > 0.0) {
                let corners = [(from, top + 0.06), (until, top + 0.94)];
                marks.push(Mark::Cell { corners, color, strength: run[0] });
            }
        }
    }
    marks
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / precise(values.len().max(1) as u64)
}

fn shade(values: &[f64], most: f64) -> f64 {
    let mean = mean(values);
    if most > 0.0 { (mean / most * SHADES).ceil().clamp(0.0, SHADES) / SHADES } else { 0.0 }
}

/// A colour as plotters writes it.
pub(super) fn hex(color: RGBColor) -> String {
    format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2)
}

/// Text that is not taken for markup.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
