//! The recorded requests on the model.

use std::time::Duration;

use super::{RecordedRequest, Served};
use crate::engine::{Engine, EngineConfig, Finish, Request, RequestId};

/// What the model made of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// When each request was answered, in the order of [`super::Recording::requests`]; none if it was refused.
    pub served: Vec<Option<Served>>,
    /// How often requests lost their blocks, seen from inside.
    pub preemptions: u64,
}

pub(super) fn replay(requests: &[RecordedRequest], config: EngineConfig) -> Replayed {
    let mut engine = Engine::new(config);
    let mut replayed = Replayed { served: vec![None; requests.len()], preemptions: 0 };
    let mut arrivals = (0..).zip(requests).peekable();
    let mut now = Duration::ZERO;
    loop {
        while let Some((id, next)) = arrivals.next_if(|(_, request)| request.arrival <= now) {
            let request = request(id, next, engine.config());
            // What is refused is never served, and that is what is told of it.
            let _refused = engine.offer(request, next.arrival);
        }
        let Some(step) = engine.begin_step(now) else {
            let Some((_, next)) = arrivals.peek() else { break };
            now = next.arrival;
            continue;
        };
        now += step;
        let effects = engine.end_step(now);
        replayed.preemptions += effects.preempted.len() as u64;
        for token in &effects.tokens {
            let place = usize::try_from(token.id.0).ok().and_then(|at| replayed.served.get_mut(at));
            if let Some(served) = place {
                let served = served.get_or_insert(Served { first_token: now, last_token: now });
                served.last_token = now;
            }
        }
    }
    replayed
}

/// The recording does not say what prompts share: nothing, then. A preempted request may find its own blocks again.
fn request(id: u64, recorded: &RecordedRequest, config: &EngineConfig) -> Request {
    let tokens = recorded.prompt_tokens.saturating_add(recorded.output_tokens);
    let profile = &config.profile;
    let blocks = (tokens / profile.block_tokens.max(1)).min(profile.blocks);
    Request {
        id: RequestId(id),
        adapter: None,
        salt: 0,
        prompt_tokens: recorded.prompt_tokens,
        output_tokens: recorded.output_tokens,
        max_tokens: Some(recorded.output_tokens),
        finish: Finish::Length,
        content: (0..u64::from(blocks)).map(|block| (id << 32) + block).collect(),
    }
}
