//! A request's prompt, hashed as far as the pool's policy asks for it.

use openai::Envelope;
use scheduling::{InferenceRequest, Policy, hash_blocks, hash_bytes, hash_name, hash_prefix};

/// What of a request the choice of its endpoint hangs on.
#[derive(Debug, Default)]
pub(crate) struct Prompt<'a> {
    model: Option<&'a str>,
    bytes: u64,
    blocks: Vec<u64>,
    prefix: u64,
}

impl<'a> Prompt<'a> {
    /// `model` is the name the endpoint will read.
    pub(crate) fn read(
        asked: Option<(&Envelope, &[u8])>,
        model: Option<&'a str>,
        policy: Policy,
    ) -> Self {
        let Some((envelope, body)) = asked else { return Self { model, ..Self::default() } };
        let text = envelope.prompt(body);
        let mut prompt = Self { model, bytes: text.len() as u64, blocks: Vec::new(), prefix: 0 };
        let root = || {
            let model = model.map_or(0, hash_name);
            envelope.before_prompt(body).fold(model, hash_bytes)
        };
        if policy.reads_prefixes() {
            hash_blocks(root(), text, &mut prompt.blocks);
        }
        if policy == Policy::PrefixHash {
            prompt.prefix = hash_prefix(root(), text);
        }
        prompt
    }

    pub(crate) fn request(&self) -> InferenceRequest<'_> {
        InferenceRequest {
            model: self.model,
            prompt_bytes: self.bytes,
            blocks: &self.blocks,
            prefix: self.prefix,
            sheddable: false,
        }
    }
}
