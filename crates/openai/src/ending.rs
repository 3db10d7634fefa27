//! The end of a stream whose usage the gateway asked for on its own account. vLLM names its build
//! (`system_fingerprint`) in every chunk that ends a choice, but where usage was asked for, in the
//! usage event instead. A client that did not ask gets the former: from the first chunk that ends a
//! choice on, the stream is held back until the usage event tells what to put in.
//!
//! The price: between that chunk and the usage event nothing reaches the client. With one choice
//! nothing but the usage event follows, and that at once. With several (`n`), the tokens of the
//! others wait from the moment the first one has ended, until all have or [`HELD_BYTES_MAX`] are
//! waiting.

use bytes::{Bytes, BytesMut};

use crate::stream::EVENT_BYTES_MAX;

/// Most bytes that wait for the usage event, the beginning of an event whose end has not come
/// included. Beyond, they are let go as they came.
pub(crate) const HELD_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// What waits for the usage event.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    phase: Phase,
    held: BytesMut,
    /// Where in `held` the fingerprint belongs: the last brace of each chunk that ended a choice.
    stamps: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No choice has ended.
    #[default]
    Before,
    Holding,
    /// What was held back was let go; nothing is, any more.
    Over,
    /// As `Over`; the server sends usage to everybody, so that no usage event is a trace of the
    /// gateway's asking.
    UsageForced,
}

impl Ending {
    /// Whether everything that comes now is to be held back.
    pub(crate) fn is_holding(&self) -> bool {
        self.phase == Phase::Holding
    }

    /// Whether the server sends usage to everybody.
    pub(crate) fn is_usage_forced(&self) -> bool {
        self.phase == Phase::UsageForced
    }

    /// Whether so many more bytes may be held back, where anything is.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        !self.is_holding() || self.held.len() + more <= HELD_BYTES_MAX
    }

    /// The event that is held back next ends a choice; the fingerprint goes to byte `at` of it.
    /// Holding begins with the first one.
    pub(crate) fn choice_ends(&mut self, at: usize) {
        if matches!(self.phase, Phase::Before | Phase::Holding) {
            self.phase = Phase::Holding;
            self.stamps.push(self.held.len() + at);
        }
    }

    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// No usage event will tell the fingerprint: what was held back, as it came.
    pub(crate) fn release(&mut self) -> Bytes {
        if self.phase != Phase::UsageForced {
            self.phase = Phase::Over;
        }
        self.stamps = Vec::new();
        std::mem::take(&mut self.held).freeze()
    }

    /// The server sends usage to everybody: what was held back, as it came.
    pub(crate) fn force_usage(&mut self) -> Bytes {
        self.phase = Phase::UsageForced;
        self.release()
    }

    /// The usage event came: what was held back, each chunk that ended a choice with the
    /// fingerprint as its last field. `fingerprint`: the inside of the string, as written.
    pub(crate) fn stamp(&mut self, fingerprint: Option<&[u8]>) -> Bytes {
        let stamps = std::mem::take(&mut self.stamps);
        let held = self.release();
        let Some(fingerprint) = fingerprint.filter(|_| !stamps.is_empty()) else { return held };
        let field = [&br#","system_fingerprint":""#[..], fingerprint, b"\""].concat();
        let mut stamped = BytesMut::with_capacity(held.len() + stamps.len() * field.len());
        let mut copied = 0;
        for at in stamps {
            stamped.extend_from_slice(&held[copied..at]);
            stamped.extend_from_slice(&field);
            copied = at;
        }
        stamped.extend_from_slice(&held[copied..]);
        stamped.freeze()
    }
}
