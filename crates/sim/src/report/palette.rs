//! Colours of policies and endpoints, the same in every report.
//!
//! Those of two policies differ in hue or lightness for eyes that do not tell red from green, or else in the kind of
//! line. Each has one shade for a light page and one for a dark one.

#![expect(
    clippy::unreadable_literal,
    reason = "a colour is two digits each of red, green and blue"
)]

use std::fmt::Write as _;

use plotters::style::RGBColor;

use super::plot::{INK, hex};

/// How one thing is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// On a light page; unlike every other, for the style sheet knows the line by it.
    pub(super) light: RGBColor,
    dark: RGBColor,
    line: Stroke,
}

#[derive(Clone, Copy, Debug)]
enum Stroke {
    Solid,
    Dashed,
    Dotted,
}

const fn look(light: u32, dark: u32, line: Stroke) -> Look {
    Look { light: rgb(light), dark: rgb(dark), line }
}

const fn rgb(color: u32) -> RGBColor {
    let [_, red, green, blue] = color.to_be_bytes();
    RGBColor(red, green, blue)
}

const POLICIES: [(&str, Look); 10] = [
    ("predicted", look(0x0072b2, 0x4aa3ff, Stroke::Solid)),
    ("queue-kv", look(0xd55e00, 0xff7f2a, Stroke::Solid)),
    ("queue-kv-local", look(0x009e73, 0x1fc795, Stroke::Solid)),
    ("round-robin", look(0x882255, 0xd1568f, Stroke::Solid)),
    ("random", look(0x999933, 0xb9b94a, Stroke::Dotted)),
    ("least-request", look(0xe08bb5, 0xf7b3d3, Stroke::Dotted)),
    ("prefix-hash", look(0xc98b00, 0xf0c040, Stroke::Dashed)),
    ("gie-default", look(0x44aadd, 0x9adcff, Stroke::Dashed)),
    ("lora-chain", look(0x6a4fb5, 0xa78bfa, Stroke::Dotted)),
    ("oracle", look(0x707070, 0x9a9a9a, Stroke::Dashed)),
];

/// Of a policy without a colour of its own.
const OTHER: Look = Look { light: INK, dark: INK, line: Stroke::Solid };

/// Of endpoints; further ones begin again.
const ENDPOINTS: [Look; 8] = [
    look(0x1f77b4, 0x58a6ff, Stroke::Solid),
    look(0xe8710a, 0xff9142, Stroke::Solid),
    look(0x17936b, 0x35c99a, Stroke::Solid),
    look(0xc2298a, 0xf06ac0, Stroke::Solid),
    look(0xb59a00, 0xe3c93a, Stroke::Solid),
    look(0x4dafd6, 0x9be0ff, Stroke::Solid),
    look(0x7a4fc0, 0xb794ff, Stroke::Solid),
    look(0x7d6b5d, 0xb8a696, Stroke::Solid),
];

/// Of heat maps.
pub(super) const HEAT: Look = look(0x0b5fa5, 0x6cb6ff, Stroke::Solid);

pub(super) fn of_policy(name: &str) -> Look {
    POLICIES.iter().find(|(known, _)| *known == name).map_or(OTHER, |(_, look)| *look)
}

pub(super) fn of_endpoint(index: usize) -> Look {
    ENDPOINTS[index % ENDPOINTS.len()]
}

fn all() -> impl Iterator<Item = Look> {
    POLICIES.into_iter().map(|(_, look)| look).chain(ENDPOINTS).chain([HEAT])
}

impl Look {
    /// The name the style sheet has for the colour.
    fn variable(self) -> String {
        let RGBColor(red, green, blue) = self.light;
        format!("--c{red:02x}{green:02x}{blue:02x}")
    }

    /// Whether one sees through the line what lies beneath it.
    pub(super) fn is_broken(self) -> bool {
        !matches!(self.line, Stroke::Solid)
    }

    /// A short piece of the line, for a legend.
    pub(super) fn key(self) -> String {
        if self.light == INK {
            return "<i class=\"key\"></i>".to_owned();
        }
        let style = match self.line {
            Stroke::Solid => "solid",
            Stroke::Dashed => "dashed",
            Stroke::Dotted => "dotted",
        };
        format!("<i class=\"key\" style=\"border-top:3px {style} var({})\"></i>", self.variable())
    }
}

/// The part of the style sheet that gives plots their colours.
pub(super) fn css() -> String {
    let (mut light, mut dark, mut rules) = (String::new(), String::new(), String::new());
    for look in all() {
        let (variable, written) = (look.variable(), hex(look.light));
        let _ = write!(light, "{variable}:{written};");
        let _ = write!(dark, "{variable}:{};", hex(look.dark));
        let dashes = match look.line {
            Stroke::Solid => "",
            Stroke::Dashed => "stroke-dasharray:28 22;stroke-linecap:butt",
            Stroke::Dotted => "stroke-dasharray:2 14",
        };
        let _ = writeln!(rules, "svg [stroke=\"{written}\"]{{stroke:var({variable})}}");
        let _ = writeln!(rules, "svg [fill=\"{written}\"]{{fill:var({variable})}}");
        if !dashes.is_empty() {
            let _ = writeln!(rules, "svg polyline[stroke=\"{written}\"]{{{dashes}}}");
        }
    }
    let ink = hex(INK);
    format!(
        ":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{rules}\
         svg [stroke=\"{ink}\"]{{stroke:currentColor}}\nsvg [fill=\"{ink}\"]{{fill:currentColor}}\n"
    )
}
