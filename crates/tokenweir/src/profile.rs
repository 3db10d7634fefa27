//! Profiles of machines: the named ones, and a user's own from a file.

use serde::Deserialize;
use sim::{Profile, profile::StepCost};

/// A profile as a file has it: what is not given is as in the profile it is based on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A named profile.
    #[serde(default = "default_base")]
    based_on: String,
    #[serde(default)]
    cost_ms: Cost,
    kv_blocks: Option<u32>,
    block_tokens: Option<u32>,
    max_num_seqs: Option<u32>,
    max_num_batched_tokens: Option<u32>,
    max_model_len: Option<u32>,
}

/// Coefficients of a step's time, as in the book.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    base: Option<f64>,
    s: Option<f64>,
    a: Option<f64>,
    b: Option<f64>,
    q: Option<f64>,
    k: Option<f64>,
    p: Option<f64>,
    h: Option<f64>,
}

fn default_base() -> String {
    Profile::NAMES[0].to_owned()
}

/// The profile of this name, or in this file.
pub(crate) fn profile(name_or_file: &str) -> Result<Profile, String> {
    if let Some(profile) = Profile::named(name_or_file) {
        return Ok(profile);
    }
    let unknown = |why: &str| {
        format!(
            "no profile is called {name_or_file:?}{why}; use one of {}, or a YAML file",
            Profile::NAMES.join(", ")
        )
    };
    if !std::path::Path::new(name_or_file).exists() {
        return Err(unknown(", and there is no such file"));
    }
    let text = std::fs::read_to_string(name_or_file)
        .map_err(|error| format!("cannot read {name_or_file}: {error}"))?;
    let written: Written =
        serde_saphyr::from_str(&text).map_err(|error| format!("{name_or_file}: {error}"))?;
    let base = Profile::named(&written.based_on).ok_or_else(|| {
        let names = Profile::NAMES.join(", ");
        format!(
            "{name_or_file}: based_on: no profile is called {:?}; use one of {names}",
            written.based_on
        )
    })?;
    checked(name_or_file, &written, &base)
}

fn checked(file: &str, written: &Written, base: &Profile) -> Result<Profile, String> {
    let cost = &written.cost_ms;
    let mut problems = Vec::new();
    let mut coefficient = |name: &str, value: Option<f64>, base: f64| match value {
        Some(value) if !value.is_finite() || value < 0.0 => {
            problems.push(format!("{file}: cost_ms.{name}: expected milliseconds of at least 0"));
            base
        }
        value => value.unwrap_or(base),
    };
    let of = base.cost;
    let cost = StepCost {
        base: coefficient("base", cost.base, of.base),
        s: coefficient("s", cost.s, of.s),
        a: coefficient("a", cost.a, of.a),
        b: coefficient("b", cost.b, of.b),
        q: coefficient("q", cost.q, of.q),
        k: coefficient("k", cost.k, of.k),
        p: coefficient("p", cost.p, of.p),
        h: coefficient("h", cost.h, of.h),
    };
    let mut count = |name: &str, value: Option<u32>, base: u32| match value {
        Some(0) => {
            problems.push(format!("{file}: {name}: expected a number above 0"));
            base
        }
        value => value.unwrap_or(base),
    };
    let profile = Profile {
        name: file.to_owned().into(),
        cost,
        blocks: count("kv_blocks", written.kv_blocks, base.blocks),
        block_tokens: count("block_tokens", written.block_tokens, base.block_tokens),
        max_num_seqs: count("max_num_seqs", written.max_num_seqs, base.max_num_seqs),
        max_num_batched_tokens: count(
            "max_num_batched_tokens",
            written.max_num_batched_tokens,
            base.max_num_batched_tokens,
        ),
        max_model_len: count("max_model_len", written.max_model_len, base.max_model_len),
    };
    if problems.is_empty() { Ok(profile) } else { Err(problems.join("\n")) }
}

#[cfg(test)]
mod tests;
