//! The outcome of scheduling: an ordered list, and why.

use smallvec::SmallVec;

/// How many endpoints a decision names at most: the choice, and where to go should it fail.
pub const CHOICES_MAX: usize = 3;

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
pub struct Cost(pub SmallVec<[Term; 7]>);

impl Cost {
    pub fn of(terms: impl IntoIterator<Item = (&'static str, f64)>) -> Self {
        Self(terms.into_iter().map(|(name, value)| Term { name, value }).collect())
    }

    pub fn total(&self) -> f64 {
        self.0.iter().map(|term| term.value).sum()
    }
}

/// Where to send a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// At least one, best first.
    pub choices: Choices,
    pub reason: Reason,
    /// The cost of every candidate, in the candidates' order.
    pub costs: Vec<Cost>,
    /// Indices of those that were no candidates, since they are in trouble or just beginning; ascending. They have no cost.
    pub left_out: Vec<usize>,
}
