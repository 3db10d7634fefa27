//! Gives an endpoint that is new among others its requests little by little: its caches are cold, and nobody knows yet how
//! it does. Like a new TCP connection: each answer lets one request more be there at once.

use std::time::Duration;

/// Requests of this gateway that may be on a new endpoint at once.
const WINDOW: u32 = 2;
/// After this long it is an endpoint like others.
const SLOW_START_MAX: Duration = Duration::from_secs(10);

/// How far an endpoint has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum SlowStart {
    /// No decision has seen it yet.
    #[default]
    New,
    /// It began when nobody had answered anything yet, and has not either. Such ones do not limit each other.
    Unproven,
    /// So many requests may be there at once.
    Ramping {
        since: Duration,
        window: u32,
    },
    Done,
}

impl SlowStart {
    /// A decision sees it, perhaps beside others that have proven themselves.
    pub(crate) fn begin(&mut self, among_others: bool, now: Duration) {
        if *self == Self::New {
            let ramping = Self::Ramping { since: now, window: WINDOW };
            *self = if among_others { ramping } else { Self::Unproven };
        }
    }

    /// It may get whatever there is.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Unproven | Self::Done)
    }

    /// It gave a first token or an answer.
    pub(crate) fn served(&mut self) {
        match self {
            Self::Ramping { window, .. } => *window = window.saturating_add(1),
            Self::Unproven => *self = Self::Done,
            Self::New | Self::Done => {}
        }
    }

    /// Whether no more should be sent, with so many there; `most` is what the busiest of those has that are done with it.
    pub(crate) fn limits(&mut self, in_flight: u32, most: Option<u32>, now: Duration) -> bool {
        let Self::Ramping { since, window } = *self else { return false };
        let proven = most.is_some_and(|most| window > WINDOW.max(most));
        if proven || now.saturating_sub(since) >= SLOW_START_MAX {
            *self = Self::Done;
            return false;
        }
        in_flight >= window
    }
}

#[cfg(test)]
mod tests;
