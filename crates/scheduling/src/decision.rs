//! The outcome of scheduling: an ordered list, and why.

use smallvec::SmallVec;

/// How many endpoints a decision names at most: the choice, and where to go should it fail.
pub const CHOICES_MAX: usize = 3;
/// Candidates whose costs a decision tells; of a large pool, the cheapest and the one chosen.
pub const COSTS_MAX: usize = 32;

/// Indices into the candidates, best first.
pub type Choices = SmallVec<[usize; CHOICES_MAX]>;

/// What settled a decision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Least loaded.
    Load,
    /// It has more of the prompt cached than others.
    Prefix,
    /// It has the adapter.
    Adapter,
    /// There was one candidate.
    Only,
    /// Its turn.
    Turn,
    /// The dice.
    Random,
    /// The signals the policy wants were unknown; own counts decided.
    Fallback,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Prefix => "prefix",
            Self::Adapter => "adapter",
            Self::Only => "only",
            Self::Turn => "turn",
            Self::Random => "random",
            Self::Fallback => "fallback",
        }
    }
}

/// One part of a cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    pub name: &'static str,
    pub value: f64,
}

/// What choosing a candidate would cost, term by term. Costs are summed without weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    names: &'static [&'static str],
    values: SmallVec<[f64; 8]>,
}

impl Cost {
    /// The terms of these names, one value each.
    pub fn of(names: &'static [&'static str], values: &[f64]) -> Self {
        debug_assert_eq!(names.len(), values.len(), "a term without a name, or the reverse");
        Self { names, values: SmallVec::from_slice(values) }
    }

    pub fn terms(&self) -> impl Iterator<Item = Term> {
        self.names.iter().zip(&self.values).map(|(&name, &value)| Term { name, value })
    }

    pub fn total(&self) -> f64 {
        total(&self.values)
    }
}

/// The sum of a cost's terms.
pub(crate) fn total(terms: &[f64]) -> f64 {
    terms.iter().sum()
}

/// Where to send a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// At least one, best first.
    pub choices: Choices,
    pub reason: Reason,
    /// The costs of the cheapest candidates with their indices, cheapest first; at most [`COSTS_MAX`]. The first choice is
    /// among them: should it be dearer, such as one that is tried, it is the last.
    pub costs: Vec<(usize, Cost)>,
    /// Indices of those that were no candidates, since they are in trouble or just beginning; ascending. They have no cost.
    pub left_out: Vec<usize>,
}
