//! A request's prompt, hashed as far as the pool's policy asks for it.

use std::borrow::Cow;

use openai::Operation;
use scheduling::{
    Admission, InferenceRequest, Policy, hash_blocks, hash_bytes, hash_name, hash_prefix,
};

use crate::Asked;

/// What of a request the choice of its endpoint hangs on.
#[derive(Debug, Default)]
pub(crate) struct Prompt<'a> {
    model: Option<Cow<'a, str>>,
    /// What is asked for, if it is tokens: otherwise nothing of the body was read.
    operation: Option<Operation>,
    bytes: u64,
    blocks: Vec<u64>,
    prefix: u64,
    priority: i32,
    flow: u64,
    max_tokens: Option<u64>,
    unstreamed: bool,
}

impl<'a> Prompt<'a> {
    /// `model` is the name the endpoint will read.
    pub(crate) fn read(
        asked: Asked<'_>,
        model: Option<&'a str>,
        priority: i32,
        policy: Policy,
    ) -> Self {
        let mut prompt =
            Self { model: model.map(Cow::Borrowed), priority, flow: asked.flow, ..Self::default() };
        let (Some(envelope), body) = (asked.envelope, asked.body) else { return prompt };
        prompt.operation = Some(envelope.operation());
        let parts = envelope.prompt(body);
        prompt.bytes = parts.iter().map(|part| part.len() as u64).sum();
        prompt.max_tokens = envelope.max_tokens();
        prompt.unstreamed = !envelope.stream();
        let root = || hash_bytes(model.map_or(0, hash_name), envelope.cache_salt(body));
        if policy.reads_prefixes() {
            hash_blocks(root(), &parts, &mut prompt.blocks);
        }
        if policy == Policy::PrefixHash {
            prompt.prefix = hash_prefix(root(), &parts);
        }
        prompt
    }

    /// Whether it takes room on an endpoint at all.
    pub(crate) fn generates(&self) -> bool {
        self.operation.is_some()
    }

    pub(crate) fn operation(&self) -> Option<Operation> {
        self.operation
    }

    /// It outlives what it was read from.
    pub(crate) fn into_owned(self) -> Prompt<'static> {
        let model = self.model.map(|model| Cow::Owned(model.into_owned()));
        Prompt { model, ..self }
    }

    pub(crate) fn request(&self, admission: Admission) -> InferenceRequest<'_> {
        InferenceRequest {
            model: self.model.as_deref(),
            prompt_bytes: self.bytes,
            blocks: &self.blocks,
            prefix: self.prefix,
            priority: self.priority,
            flow: self.flow,
            max_tokens: self.max_tokens,
            unstreamed: self.unstreamed,
            admission,
            ..InferenceRequest::default()
        }
    }
}

#[cfg(test)]
mod tests;
