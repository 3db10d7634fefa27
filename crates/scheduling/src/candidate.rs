//! What a policy may know of an endpoint.

use crate::{
    EndpointId, Signals,
    outline::{Ask, Outline},
};

/// Endpoints that a decision is between. Each is described when it is looked at: of a thousand, descriptions that are kept
/// take longer to write and read than the decision does.
pub trait Candidates {
    fn len(&self) -> usize;

    /// Panics if there are not so many.
    fn get(&self, index: usize) -> Candidate<'_>;

    /// In short, for what is asked of many.
    #[inline]
    fn outline(&self, index: usize) -> (Outline, Ask) {
        let candidate = self.get(index);
        let outline = Outline::of(&candidate.load, &candidate.speed, candidate.in_flight);
        (outline, Ask::of(&candidate))
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn all(&self) -> impl Iterator<Item = Candidate<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl Candidates for [Candidate<'_>] {
    #[inline]
    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    #[inline]
    fn get(&self, index: usize) -> Candidate<'_> {
        self[index]
    }
}

/// Everything a policy may know of an endpoint that could answer. A new signal is a new field.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub id: &'a EndpointId,
    pub signals: &'a Signals,
    /// Requests of this gateway the endpoint has not finished.
    pub in_flight: u32,
    /// Requests of this gateway the endpoint's last scrape cannot have seen.
    pub sent_since_scrape: u32,
    pub load: Load,
    /// Leading blocks of the request's prompt believed to be in the endpoint's cache.
    pub cached_blocks: u32,
    /// Prompt tokens that therefore have to be computed, one at the least.
    pub uncached_tokens: f64,
    /// Prompt tokens that no request in flight there holds in its KV cache.
    pub unshared_tokens: f64,
    pub adapter: AdapterFit,
    /// Adapters that would then be in use there, over its slots.
    pub adapter_pressure: f64,
    /// The endpoint's own list of adapters, as last scraped, has the request's.
    pub adapter_listed: bool,
    /// How many other endpoints come before it on the hash ring, seen from the request's prefix. Only `prefix-hash` asks.
    pub ring_rank: u32,
    pub speed: Speed,
    /// Requests such as this one that could begin there at once; only asked where [`Admission`](crate::Admission) is not
    /// `Always`.
    pub places: u32,
    /// Nothing was sent there for so long that its speed may have changed.
    pub untried: bool,
}

impl<'a> Candidate<'a> {
    /// An endpoint on which this gateway has nothing.
    pub fn new(id: &'a EndpointId, signals: &'a Signals) -> Self {
        Self {
            id,
            signals,
            in_flight: 0,
            sent_since_scrape: 0,
            load: Load::default(),
            cached_blocks: 0,
            uncached_tokens: 1.0,
            unshared_tokens: 1.0,
            adapter: AdapterFit::Base,
            adapter_pressure: 0.0,
            adapter_listed: false,
            ring_rank: 0,
            speed: Speed::default(),
            places: 0,
            untried: false,
        }
    }
}

/// Work of an endpoint in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Prompt tokens this gateway has sent that are not cached there and have no first token yet.
    pub prefill_tokens: f64,
    /// KV tokens that this gateway's requests hold or are going to.
    pub kv_tokens: f64,
    /// How far that may be off: the variance of what answers will still grow by.
    pub kv_variance: f64,
    /// Tokens of this gateway's requests there, prompts and expected answers, cached or not.
    pub context_tokens: f64,
    /// KV tokens of others, as of the last scrape.
    pub foreign_kv_tokens: f64,
    /// Requests of others, as of the last scrape.
    pub foreign_requests: f64,
    pub kv_capacity: KvCapacity,
}

/// The size of a KV cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvCapacity {
    tokens: f64,
    /// The share of it that a token takes: a division less for each endpoint of a decision.
    token_share: f64,
}

impl Default for KvCapacity {
    /// It is not known, and nothing waits for room.
    fn default() -> Self {
        Self { tokens: f64::INFINITY, token_share: 0.0 }
    }
}

impl KvCapacity {
    /// So many tokens; no cache at all is one that is not known.
    pub fn of(tokens: f64) -> Self {
        if tokens > 0.0 { Self { tokens, token_share: 1.0 / tokens } } else { Self::default() }
    }

    /// The tokens that it holds; infinite if that is not known.
    pub fn tokens(&self) -> f64 {
        self.tokens
    }

    /// The share of it that so many tokens take; 0 if its size is not known.
    pub fn share(&self, tokens: f64) -> f64 {
        tokens * self.token_share
    }
}

/// How an adapter stands on an endpoint.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AdapterFit {
    /// None is wanted.
    #[default]
    Base,
    /// A request of this gateway uses it there now.
    Active,
    /// It is believed to be in a slot that nobody uses at the moment.
    Resident,
    /// It is not there, and a slot has no request.
    Room,
    /// All slots have requests of other adapters.
    Full,
}

/// What was learned of an endpoint's speed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Seconds a token of prompt takes.
    pub prefill_token_seconds: f64,
    /// Seconds a step takes without any context, a step being the time between two tokens of each answer.
    pub step_seconds: f64,
    /// Seconds a token of context in flight adds to each step.
    pub context_token_seconds: f64,
    /// Tokens an answer has.
    pub output_tokens: f64,
}
