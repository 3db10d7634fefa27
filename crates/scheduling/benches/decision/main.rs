//! What a decision costs: `cargo bench -p scheduling`.
//!
//! The state is that of a busy fleet (`fleet.rs`); the prompt has 8 KB, of which a kilobyte is cached on about a third of
//! the endpoints and four on a few.

mod fleet;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use fleet::{Fleet, PROMPT_BYTES};
use scheduling::{Policy, hash_blocks};

fn main() {
    divan::main();
}

const ENDPOINTS: [usize; 3] = [8, 64, 1000];

/// The whole decision: hash the prompt, choose, charge, and later take the charge back.
#[divan::bench(args = ENDPOINTS, sample_size = 32, sample_count = 200)]
fn pick_predicted(bencher: Bencher<'_, '_>, endpoints: usize) {
    Fleet::with(endpoints, |fleet| bencher.bench_local(|| fleet.decide(Policy::Predicted)));
}

/// The same without a prompt to hash, prefixes to find or anything to compare.
#[divan::bench(args = ENDPOINTS, sample_size = 32, sample_count = 200)]
fn pick_round_robin(bencher: Bencher<'_, '_>, endpoints: usize) {
    Fleet::with(endpoints, |fleet| bencher.bench_local(|| fleet.decide(Policy::RoundRobin)));
}

/// Of a decision only what is done with the prefix index: find a prompt among those of all endpoints, note it on one.
#[divan::bench(args = ENDPOINTS, sample_size = 32, sample_count = 200)]
fn prefixes(bencher: Bencher<'_, '_>, endpoints: usize) {
    Fleet::with(endpoints, |fleet| bencher.bench_local(|| fleet.decide_among_one()));
}

/// The prompt's hash chain.
#[divan::bench(args = [PROMPT_BYTES, 64 * PROMPT_BYTES])]
fn hash(bencher: Bencher<'_, '_>, bytes: usize) {
    let prompt = vec![b'x'; bytes];
    let mut blocks = Vec::new();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        hash_blocks(1, &[black_box(&prompt)], &mut blocks);
        blocks.last().copied()
    });
}

/// Chunks of a streamed answer.
#[divan::bench(args = ENDPOINTS, sample_size = 32, sample_count = 200)]
fn tokens(bencher: Bencher<'_, '_>, endpoints: usize) {
    const CHUNKS: u32 = 128;
    Fleet::with(endpoints, |fleet| {
        let mut claim = fleet.claim(Policy::Predicted);
        let bencher = bencher.counter(ItemsCount::new(CHUNKS));
        bencher.bench_local(|| fleet.tokens(&mut claim, CHUNKS));
        fleet.end(claim);
    });
}

/// An endpoint's metrics page, read already.
#[divan::bench(args = ENDPOINTS, sample_size = 32, sample_count = 200)]
fn scraped(bencher: Bencher<'_, '_>, endpoints: usize) {
    Fleet::with(endpoints, |fleet| bencher.bench_local(|| fleet.scrape_next()));
}
