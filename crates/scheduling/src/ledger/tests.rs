use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Admission, Load, Reading, Speed};

const NOW: Duration = Duration::from_secs(100);
const RULE: OutlierDetection = OutlierDetection {
    consecutive_failures: 3,
    base_ejection: Duration::from_secs(1),
    max_ejection: Duration::from_secs(30),
    max_ejection_percent: 50,
};
/// A prompt of a thousand tokens, as long as nothing else is known of tokens.
const PROMPT_BYTES: u64 = 4_000;
const CAPACITY_BLOCKS: u64 = 10_001;

/// A ledger of endpoints, none of which has said anything.
struct Pool {
    ledger: Ledger,
    slots: Vec<Slot>,
    turn: u64,
}

impl Pool {
    fn new(endpoints: usize) -> Self {
        let mut ledger = Ledger::default();
        let slots = (0..endpoints).map(|index| ledger.add(&name(index))).collect();
        Self { ledger, slots, turn: 0 }
    }

    fn pick(&mut self, policy: Policy, request: &InferenceRequest<'_>) -> (Decision, Claim) {
        let slots = self.slots.clone();
        self.pick_of(policy, request, &slots)
    }

    fn pick_of(
        &mut self,
        policy: Policy,
        request: &InferenceRequest<'_>,
        usable: &[Slot],
    ) -> (Decision, Claim) {
        self.turn += 1;
        let chance = Chance::new(self.turn, self.turn);
        self.ledger.pick(policy, request, usable, &RULE, NOW, chance).unwrap()
    }

    /// A decision that leaves nothing behind.
    fn look(&mut self, policy: Policy, request: &InferenceRequest<'_>, seed: u64) -> Decision {
        self.ledger.find_prefixes(request.blocks);
        let adapter = self.ledger.adapter(request);
        let common = self.ledger.common(&self.slots, NOW);
        self.ledger.place_on_ring(policy);
        let offer = self.ledger.offer(policy, (request, adapter), &self.slots, &common, NOW);
        schedule(policy, request, &offer, NOW, Chance::new(seed, seed)).unwrap()
    }

    /// Where a request might go, as indices.
    fn reachable(&mut self, policy: Policy, request: &InferenceRequest<'_>) -> BTreeSet<usize> {
        (0..32).map(|seed| self.look(policy, request, seed).choices[0]).collect()
    }

    fn end(&mut self, claim: Claim) {
        self.ledger.end(claim, Ending::default(), NOW);
    }

    /// The endpoint says that so many requests run, with so much of its KV in use.
    fn scraped(&mut self, index: usize, mark: ScrapeMark, running: u32, kv_usage: f64) {
        self.ledger.scraped(self.slots[index], mark, page(running, kv_usage));
    }

    fn term(&mut self, request: &InferenceRequest<'_>, index: usize, name: &str) -> f64 {
        let decision = self.look(Policy::Predicted, request, 0);
        let (_, cost) = decision.costs.iter().find(|(at, _)| *at == index).unwrap();
        cost.terms().find(|term| term.name == name).unwrap().value
    }
}

fn name(index: usize) -> EndpointId {
    EndpointId::new(format!("10.0.0.{index}:8000"))
}

fn page(running: u32, kv_usage: f64) -> Signals {
    Signals {
        waiting: Some(Reading { value: 0, heard: NOW }),
        running: Some(Reading { value: running, heard: NOW }),
        kv_usage: Some(Reading { value: kv_usage, heard: NOW }),
        kv_block_tokens: Some(Reading { value: 16, heard: NOW }),
        kv_blocks: Some(Reading { value: CAPACITY_BLOCKS, heard: NOW }),
        ..Signals::default()
    }
}

fn prompt(bytes: u64) -> InferenceRequest<'static> {
    InferenceRequest { prompt_bytes: bytes, ..InferenceRequest::default() }
}

#[test]
fn simultaneous_picks_on_one_snapshot_spread() {
    for policy in [Policy::Predicted, Policy::QueueKvLocal, Policy::LeastRequest] {
        let mut pool = Pool::new(8);
        for index in 0..8 {
            pool.scraped(index, ScrapeMark::NOTHING, 0, 0.0);
        }
        for round in 1..=3 {
            let claims: Vec<Claim> =
                (0..8).map(|_| pool.pick(policy, &prompt(PROMPT_BYTES)).1).collect();
            assert_eq!(claims.len(), 8);
            let in_flight: Vec<u32> =
                pool.slots.iter().map(|slot| pool.ledger.in_flight(*slot)).collect();
            assert_eq!(in_flight, [round; 8], "{policy}");
        }
    }
}

#[test]
fn a_policy_that_reads_only_pages_sends_a_burst_to_one_endpoint() {
    let mut pool = Pool::new(4);
    for index in 0..4 {
        pool.scraped(index, ScrapeMark::NOTHING, 0, if index == 2 { 0.1 } else { 0.2 });
    }
    for _ in 0..12 {
        let (decision, _claim) = pool.pick(Policy::QueueKv, &prompt(PROMPT_BYTES));
        assert_eq!(decision.choices[0], 2);
    }
}

/// On one endpoint `p` picks, `m` marks, `s` scrapes with the last mark, `r` reports with the oldest's answer and `e` ends
/// the oldest; then what is in flight, and what of it the last scrape or report cannot have seen.
fn check(events: &str, in_flight: u32, unseen: u32) {
    let mut pool = Pool::new(1);
    let (mut claims, mut mark) = (std::collections::VecDeque::new(), ScrapeMark::NOTHING);
    for event in events.chars() {
        match event {
            'p' => claims.push_back(pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES)).1),
            'm' => mark = pool.ledger.mark(pool.slots[0]),
            's' => pool.scraped(0, mark, 0, 0.0),
            'r' => pool.ledger.reported(&claims[0], report(0, 0.0), NOW + Duration::from_secs(1)),
            'e' => {
                let claim = claims.pop_front().unwrap();
                pool.end(claim);
            }
            other => panic!("{other}"),
        }
    }
    let slot = pool.slots[0];
    let counted = (pool.ledger.in_flight(slot), pool.ledger.sent_since_scrape(slot));
    assert_eq!(counted, (in_flight, unseen), "{events}");
}

#[test]
fn what_was_sent_before_a_scrape_is_seen_by_it_and_what_came_while_it_was_under_way_is_not() {
    check("ppp", 3, 3);
    check("ppms", 2, 0);
    check("ppmps", 3, 1);
    check("mpps", 2, 2);
    check("ppmspp", 4, 2);
}

#[test]
fn what_was_sent_since_and_has_ended_is_no_load() {
    check("mspppee", 1, 1);
    check("pmspe", 1, 1);
    check("mspe", 0, 0);
}

fn report(waiting: u32, kv_usage: f64) -> Report {
    Report { waiting: Some(waiting), running: None, kv_usage: Some(kv_usage) }
}

#[test]
fn a_report_has_seen_what_was_sent_before_it_came() {
    check("ppprp", 4, 1);
    check("pppre", 2, 0);
    check("pmspppre", 3, 0);
    // A page that was asked for before a report came tells less.
    check("pmpprs", 3, 0);
    check("pmpprsp", 4, 1);
}

/// A pool of one endpoint that was scraped with this, with `own` requests of this gateway, and the load that is seen on it
/// when the first of them is answered with a report.
fn load_after_report(page: Signals, own: usize, report: Report) -> Load {
    let mut pool = Pool::new(1);
    let slot = pool.slots[0];
    pool.ledger.scraped(slot, ScrapeMark::NOTHING, page);
    let claims: Vec<Claim> =
        (0..own).map(|_| pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES)).1).collect();
    pool.ledger.reported(&claims[0], report, NOW);
    let signals = &pool.ledger.accounts[pool.slots[0]].candidate(Speed::default()).signals;
    assert_eq!(signals.kv_blocks, Some(Reading { value: CAPACITY_BLOCKS, heard: NOW }));
    let account = &pool.ledger.accounts[slot];
    account.load(&account.foreign(NOW.as_secs_f64(), &Foreign::default()), 0.0)
}

#[test]
fn a_report_that_shows_only_what_is_ours_shows_nobody_else() {
    // Three are left of four, prompts of a thousand tokens with half of their answers.
    let usage = 3.0 * 1_064.0 / 160_000.0;
    let load = load_after_report(page(0, 0.0), 4, report(0, usage));
    assert!(load.foreign_requests.abs() < 1e-9, "{load:?}");
    assert!(load.foreign_kv_tokens.abs() < 1e-9, "{load:?}");
}

#[test]
fn a_report_tells_how_others_load_has_changed_since_the_page() {
    let before = load_after_report(page(10, 0.1), 1, Report::default());
    assert!((before.foreign_requests - 10.0).abs() < 1e-9, "{before:?}");
    let fuller = load_after_report(page(10, 0.1), 1, report(0, 0.5));
    assert!((fuller.foreign_requests - 10.0).abs() < 1e-9, "{fuller:?}");
    let more = fuller.foreign_kv_tokens - before.foreign_kv_tokens;
    assert!((more / (0.4 * 160_016.0) - 1.0).abs() < 1e-6, "{more}");
    // More wait than we have there: they are others'.
    let queue = load_after_report(page(0, 0.0), 3, report(20, 0.9));
    assert!((queue.foreign_requests - 18.0).abs() < 1e-9, "{queue:?}");
    let counted =
        load_after_report(page(0, 0.0), 3, Report { running: Some(7), ..report(20, 0.9) });
    assert!((counted.foreign_requests - 25.0).abs() < 1e-9, "{counted:?}");
}

#[test]
fn the_later_of_a_page_and_a_report_is_what_policies_see() {
    let mut pool = Pool::new(1);
    let slot = pool.slots[0];
    let seen = |pool: &Pool| {
        let account = &pool.ledger.accounts[pool.slots[0]];
        let signals = account.candidate(Speed::default()).signals.clone();
        (signals.waiting.unwrap(), signals.kv_usage.unwrap(), signals.running.unwrap().value)
    };
    let at = |millis| NOW + Duration::from_millis(millis);
    let (_, claim) = pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES));
    let mark = pool.ledger.mark(slot);
    pool.ledger.scraped(slot, mark, page(3, 0.25));
    pool.ledger.reported(&claim, report(6, 0.5), at(10));
    let waiting = Reading { value: 6, heard: at(10) };
    let kv_usage = Reading { value: 0.5, heard: at(10) };
    assert_eq!(seen(&pool), (waiting, kv_usage, 3));
    // Asked for before the report came.
    pool.ledger.scraped(slot, mark, page(4, 0.25));
    assert_eq!(seen(&pool), (waiting, kv_usage, 4));
    let only_kv = Report { kv_usage: Some(0.75), ..Report::default() };
    pool.ledger.reported(&claim, only_kv, at(20));
    assert_eq!(seen(&pool), (waiting, Reading { value: 0.75, heard: at(20) }, 4));
    pool.end(claim);
}

#[test]
fn an_endpoint_is_asked_for_a_report_once_in_a_while() {
    let mut pool = Pool::new(2);
    let (one, other) = (pool.slots[0], pool.slots[1]);
    let mut asks = |slot, millis| pool.ledger.asks_report(slot, Duration::from_millis(millis));
    assert!(asks(one, 10));
    assert!(!asks(one, 10) && !asks(one, 509));
    assert!(asks(other, 20));
    assert!(asks(one, 510));
    assert!(!asks(one, 1_009));
}

#[test]
fn a_prompt_is_pending_until_its_first_token() {
    let mut pool = Pool::new(1);
    let slot = pool.slots[0];
    let (_, mut one) = pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES));
    let (_, two) = pool.pick(Policy::Predicted, &prompt(2 * PROMPT_BYTES));
    let pending = |pool: &Pool| pool.ledger.prefill_tokens_pending(slot);
    assert!((pending(&pool) - 3_000.0).abs() < 1e-6);
    pool.ledger.tokens(&mut one, 1, NOW + Duration::from_millis(500));
    assert!((pending(&pool) - 2_000.0).abs() < 1e-6);
    assert_eq!(pool.ledger.predicted_ttft_seconds(slot), Some(0.5));
    pool.ledger.tokens(&mut one, 1, NOW + Duration::from_millis(530));
    pool.end(one);
    assert!((pending(&pool) - 2_000.0).abs() < 1e-6);
    pool.end(two);
    assert_eq!((pool.ledger.in_flight(slot), pending(&pool)), (0, 0.0));
}

#[test]
fn a_prompt_whose_first_token_nobody_tells_of_is_pending_until_it_must_be_computed() {
    let mut pool = Pool::new(1);
    let slot = pool.slots[0];
    let unstreamed = InferenceRequest { unstreamed: true, ..prompt(PROMPT_BYTES) };
    let claims =
        [pool.pick(Policy::Predicted, &unstreamed).1, pool.pick(Policy::Predicted, &unstreamed).1];
    let mut pending_at = |after: f64| {
        pool.ledger.accounts[slot].settle(NOW + Duration::from_secs_f64(after));
        pool.ledger.prefill_tokens_pending(slot)
    };
    // At the 0.15 ms a token takes as long as nothing is known, one prompt after the other.
    assert!((pending_at(0.14) - 2_000.0).abs() < 1e-6);
    assert!((pending_at(0.16) - 1_000.0).abs() < 1e-6);
    assert!(pending_at(0.31).abs() < 1e-6);
    for claim in claims {
        pool.end(claim);
    }
    assert!(pool.ledger.prefill_tokens_pending(slot).abs() < 1e-6, "it is taken off once");
}

/// A prompt of so many tokens, in shares of an endpoint's cache. Almost no answer, so that the prompt alone counts.
fn share(share: f64) -> InferenceRequest<'static> {
    let tokens = floor(share * 160_000.0);
    InferenceRequest { max_tokens: Some(1), ..prompt(u64::from(tokens) * 4) }
}

/// Where a request goes, if it may, or how it is told to wait.
fn place(pool: &mut Pool, request: &InferenceRequest<'_>) -> Result<Slot, Unschedulable> {
    pool.turn += 1;
    let slots = pool.slots.clone();
    let chance = Chance::new(pool.turn, pool.turn);
    let picked = pool.ledger.pick(Policy::Predicted, request, &slots, &RULE, NOW, chance);
    picked.map(|(_, claim)| claim.slot())
}

/// Whether a prompt of such a share may go.
fn goes(pool: &mut Pool, part: f64, admission: Admission) -> bool {
    match place(pool, &InferenceRequest { admission, ..share(part) }) {
        Ok(_) => true,
        Err(why) => {
            assert_eq!(why, Unschedulable::Saturated { soonest: None });
            false
        }
    }
}

/// Endpoints of which such shares are taken.
fn taken(shares: &[f64]) -> Pool {
    let mut pool = Pool::new(shares.len());
    for (index, taken) in shares.iter().enumerate() {
        pool.scraped(index, ScrapeMark::NOTHING, 0, 0.0);
        let slot = pool.slots[index];
        let _ = pool.pick_of(Policy::Predicted, &share(*taken), &[slot]);
    }
    pool
}

#[test]
fn an_overdue_request_is_told_where_it_finds_room_first() {
    let mut pool = taken(&[0.9, 0.6, 0.7]);
    let slots = pool.slots.clone();
    let mut told = |overdue, reserved: &[Slot]| {
        let admission = Admission::WhenFree;
        let request = InferenceRequest { admission, reserved, overdue, ..share(0.5) };
        match place(&mut pool, &request).unwrap_err() {
            Unschedulable::Saturated { soonest } => soonest,
            other => panic!("{other}"),
        }
    };
    assert_eq!(told(true, &[]), Some(slots[1]));
    assert_eq!(told(true, &[slots[1]]), Some(slots[2]));
    assert_eq!(told(true, &[slots[2], slots[1], slots[0]]), None);
    assert_eq!(told(false, &[]), None);
}

#[test]
fn who_may_not_go_where_others_have_an_endpoint_to_themselves_goes_elsewhere_or_waits() {
    let mut pool = taken(&[0.1, 0.6]);
    let slots = pool.slots.clone();
    let small = |admission, reserved| InferenceRequest { admission, reserved, ..share(0.05) };
    for admission in [Admission::WhenFree, Admission::WhenSpare] {
        assert_eq!(place(&mut pool, &small(admission, &[])), Ok(slots[0]));
        assert_eq!(place(&mut pool, &small(admission, &slots[..1])), Ok(slots[1]));
        assert!(place(&mut pool, &small(admission, &slots)).is_err());
    }
    let large = InferenceRequest { reserved: &slots[..1], ..share(0.5) };
    let large = InferenceRequest { admission: Admission::WhenFree, ..large };
    assert!(place(&mut pool, &large).is_err(), "there is room, but for others");
}

#[test]
fn requests_end_the_more_often_the_more_there_are_and_the_faster_their_endpoint_is() {
    let mut pool = Pool::new(2);
    let slots = pool.slots.clone();
    assert!(pool.ledger.ending_interval(&slots).abs() < 1e-9, "nothing is there");
    let mut claims: Vec<Claim> = (0..4)
        .map(|_| pool.pick_of(Policy::Predicted, &prompt(PROMPT_BYTES), &slots[..1]).1)
        .collect();
    let first = pool.ledger.ending_interval(&slots);
    // A quarter of 128 steps.
    assert!((0.9..1.3).contains(&first), "{first} s");
    claims.push(pool.pick_of(Policy::Predicted, &prompt(PROMPT_BYTES), &slots[1..]).1);
    let more = pool.ledger.ending_interval(&slots);
    assert!((0.75..0.85).contains(&(more / first)), "{more} s");
    for step in 1..1_000_u32 {
        pool.ledger.tokens(&mut claims[0], 1, NOW + step * Duration::from_millis(3));
    }
    let _ = pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES));
    let faster = pool.ledger.ending_interval(&slots);
    assert!(faster < more / 4.0, "{faster} s");
    for claim in claims {
        pool.end(claim);
    }
}

#[test]
fn who_lacks_the_model_is_chosen_only_where_nobody_else_is() {
    for endpoints in [3, COSTS_MAX + 3] {
        let mut pool = taken(&vec![0.1; endpoints]);
        let (slots, half) = (pool.slots.clone(), endpoints / 2);
        for _ in 0..endpoints {
            let request = InferenceRequest { absent: &slots[..half], ..share(0.01) };
            let at = place(&mut pool, &request).unwrap();
            assert!(!slots[..half].contains(&at));
            let request = InferenceRequest { absent: &slots, ..share(0.01) };
            assert!(place(&mut pool, &request).is_ok());
        }
    }
}

#[test]
fn a_request_waits_while_no_endpoint_has_room_for_its_prompt() {
    let mut pool = Pool::new(2);
    assert!(goes(&mut pool, 7.0, Admission::WhenFree), "who has not told is not full");
    let mut pool = Pool::new(2);
    for index in 0..2 {
        pool.scraped(index, ScrapeMark::NOTHING, 0, 0.0);
    }
    assert!(
        goes(&mut pool, 7.0, Admission::WhenFree),
        "one too large for any goes where nobody is"
    );
    assert!(goes(&mut pool, 0.7, Admission::WhenFree));
    assert!(!goes(&mut pool, 0.7, Admission::WhenFree));
    assert!(goes(&mut pool, 1.1, Admission::WhenFree), "one that never will goes to be refused");
    let mut pool = Pool::new(2);
    for index in 0..2 {
        pool.scraped(index, ScrapeMark::NOTHING, 0, 0.0);
    }
    assert!(goes(&mut pool, 0.7, Admission::WhenFree));
    assert!(goes(&mut pool, 0.7, Admission::WhenFree));
    assert!(!goes(&mut pool, 0.7, Admission::WhenFree));
    assert!(goes(&mut pool, 0.2, Admission::WhenFree), "a smaller one finds room");
    assert!(goes(&mut pool, 0.7, Admission::Always));
}

#[test]
fn who_leaves_room_for_others_goes_only_where_two_could_and_others_find_two_that_compute_no_prompt()
{
    for admission in [Admission::WhenQuiet, Admission::WhenUnnoticed] {
        let mut pool = Pool::new(3);
        for index in 0..3 {
            pool.scraped(index, ScrapeMark::NOTHING, 0, 0.0);
        }
        assert!(goes(&mut pool, 0.01, admission), "all three are quiet");
        assert!(goes(&mut pool, 0.01, admission), "two are");
        assert!(!goes(&mut pool, 0.01, admission), "one is");
        assert!(goes(&mut pool, 0.01, Admission::WhenSpare), "it is there for others");
    }
    let mut pool = Pool::new(1);
    pool.scraped(0, ScrapeMark::NOTHING, 0, 0.0);
    let request = InferenceRequest { max_tokens: Some(1), ..prompt(4 * 64_000) };
    let (_, mut claim) = pool.pick(Policy::Predicted, &request);
    pool.ledger.tokens(&mut claim, 1, NOW);
    assert!(!goes(&mut pool, 0.31, Admission::WhenSpare), "another like it would find no room");
    assert!(goes(&mut pool, 0.29, Admission::WhenSpare));
}

#[test]
fn a_request_that_goes_on_elsewhere_is_charged_there_with_its_whole_prompt() {
    let mut pool = Pool::new(2);
    let (first, second) = (pool.slots[0], pool.slots[1]);
    let (_, claim) = pool.pick_of(Policy::Predicted, &prompt(PROMPT_BYTES), &[first]);
    let claim = pool.ledger.advance(claim, second, Outcome::Failed, NOW);
    assert_eq!(claim.slot(), second);
    assert_eq!((pool.ledger.in_flight(first), pool.ledger.in_flight(second)), (0, 1));
    assert!(pool.ledger.prefill_tokens_pending(first).abs() < 1e-9);
    assert!((pool.ledger.prefill_tokens_pending(second) - 1_000.0).abs() < 1e-6);
    pool.end(claim);
    assert!(pool.ledger.prefill_tokens_pending(second).abs() < 1e-9);
}

#[test]
fn a_page_that_shows_more_than_ours_makes_predicted_go_elsewhere() {
    let mut pool = Pool::new(2);
    let request = prompt(PROMPT_BYTES);
    pool.scraped(1, ScrapeMark::NOTHING, 0, 0.0);
    pool.scraped(0, ScrapeMark::NOTHING, 0, 0.0);
    assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([0, 1]));
    pool.scraped(0, ScrapeMark::NOTHING, 100, 0.95);
    assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([1]));
    pool.scraped(0, ScrapeMark::NOTHING, 0, 0.0);
    assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([0, 1]));
}

#[test]
fn a_page_that_shows_only_what_is_ours_changes_nothing() {
    let mut pool = Pool::new(2);
    let request = prompt(PROMPT_BYTES);
    pool.scraped(0, ScrapeMark::NOTHING, 0, 0.0);
    pool.scraped(1, ScrapeMark::NOTHING, 0, 0.0);
    for index in [0, 1].repeat(6) {
        let slot = pool.slots[index];
        let _ = pool.pick_of(Policy::Predicted, &request, &[slot]);
    }
    let before = pool.look(Policy::Predicted, &request, 0).costs;
    let mark = pool.ledger.mark(pool.slots[0]);
    // Prompts of a thousand tokens, half of whose answers is there.
    pool.scraped(0, mark, 6, 6.0 * 1_064.0 / 160_000.0);
    let after = pool.look(Policy::Predicted, &request, 0).costs;
    assert_eq!(before, after);
    assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([0, 1]));
}

/// What others are believed to have on an endpoint that has `running` requests, half its cache full, when it answers a
/// scrape, of which `before` are ours from before the scrape was sent, and `meanwhile` since.
fn others(running: u32, before: u32, meanwhile: u32) -> (f64, f64) {
    let mut pool = Pool::new(1);
    let slot = pool.slots[0];
    let mut send = |count: u32| {
        for _ in 0..count {
            let _ = pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES));
        }
        pool.ledger.mark(slot)
    };
    let mark = send(before);
    send(meanwhile);
    pool.scraped(0, mark, running, 0.5);
    let account = &pool.ledger.accounts[slot];
    let others = account.foreign(NOW.as_secs_f64(), &Foreign::default());
    let load = account.load(&others, 0.0);
    (load.foreign_requests, load.foreign_kv_tokens)
}

#[test]
fn what_is_sent_while_a_scrape_is_under_way_is_not_taken_for_others() {
    for ours in [(4, 0), (0, 4), (2, 2)] {
        assert_eq!(others(4, ours.0, ours.1), (0.0, 0.0), "{ours:?}");
        assert_eq!(others(3, ours.0, ours.1), (0.0, 0.0), "one had not come yet");
        let (requests, tokens) = others(6, ours.0, ours.1);
        // Half of 160,016 tokens and half the answers of six, but four prompts and answers.
        assert!(
            (requests - 2.0).abs() < 1e-9
                && (tokens - (80_008.0 + 384.0 - 4.0 * 1_128.0)).abs() < 1e-6,
            "{tokens}"
        );
    }
}

#[test]
fn how_many_bytes_a_token_has_is_learned_from_what_endpoints_count() {
    let mut pool = Pool::new(1);
    let slot = pool.slots[0];
    let (_, claim) = pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES));
    assert!((pool.ledger.prefill_tokens_pending(slot) - 1_000.0).abs() < 1e-6);
    let counted = Ending {
        complete: true,
        prompt_tokens: Some(2_000),
        output_tokens: Some(10),
        ..Ending::default()
    };
    pool.ledger.end(claim, counted, NOW);
    let (_, claim) = pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES));
    assert!((pool.ledger.prefill_tokens_pending(slot) - 2_000.0).abs() < 1e-6);
    pool.ledger.end(claim, Ending { prompt_tokens: Some(0), ..counted }, NOW);
    let (_, claim) = pool.pick(Policy::Predicted, &prompt(PROMPT_BYTES));
    assert!((pool.ledger.prefill_tokens_pending(slot) - 2_000.0).abs() < 1e-6);
    pool.end(claim);
}

#[test]
fn how_long_answers_are_is_learned_from_those_that_are_whole() {
    let mut pool = Pool::new(1);
    let request = prompt(PROMPT_BYTES);
    let before = pool.term(&request, 0, "decode");
    for complete in [false, true] {
        let (_, mut claim) = pool.pick(Policy::Predicted, &request);
        for step in 0..1_280u32 {
            let now = NOW + Duration::from_millis(30) * step;
            pool.ledger.tokens(&mut claim, 1, now);
        }
        pool.ledger.end(claim, Ending { complete, ..Ending::default() }, NOW);
        let longer = pool.term(&request, 0, "decode") / before;
        let expected = if complete { 10.0 } else { 1.0 };
        assert!((longer / expected - 1.0).abs() < 0.05, "{complete}: {longer}");
    }
}

#[test]
fn a_model_is_an_adapter_once_an_endpoint_has_listed_it() {
    let mut pool = Pool::new(2);
    let request = InferenceRequest { model: Some("haiku"), ..prompt(PROMPT_BYTES) };
    assert!(pool.term(&request, 0, "adapter").abs() < 1e-9);
    let listed = Arc::new(BTreeSet::from(["haiku".to_owned()]));
    let signals = Signals { running_adapters: Some(listed), ..page(0, 0.0) };
    pool.ledger.scraped(pool.slots[1], ScrapeMark::NOTHING, signals);
    assert!(pool.term(&request, 0, "adapter") > 0.0);
    let other = InferenceRequest { model: Some("base"), ..request };
    assert!(pool.term(&other, 0, "adapter").abs() < 1e-9);
    let slot = pool.slots[0];
    let _ = pool.pick_of(Policy::Predicted, &request, &[slot]);
    assert!(pool.term(&request, 0, "adapter").abs() < 1e-9, "it is in use there");
    assert!(pool.term(&request, 1, "adapter") > 0.0);
}

#[test]
fn a_new_process_at_an_address_has_no_adapter() {
    let start = |seconds| Some(Reading { value: seconds, heard: NOW });
    let counted = |tokens| Some(Reading { value: tokens, heard: NOW });
    let listed = Arc::new(BTreeSet::from(["haiku".to_owned()]));
    let before = Signals {
        running_adapters: Some(listed),
        process_start: start(1.7e9),
        prompt_tokens: counted(1_000),
        ..page(0, 0.0)
    };
    let new = Signals { process_start: start(1.7e9 + 60.0), ..before.clone() };
    let counts_anew = Signals { process_start: None, prompt_tokens: counted(7), ..before.clone() };
    let request = InferenceRequest { model: Some("haiku"), ..prompt(PROMPT_BYTES) };
    for (after, cold) in [(before.clone(), false), (new, true), (counts_anew, true)] {
        let mut pool = Pool::new(1);
        let slot = pool.slots[0];
        pool.ledger.scraped(slot, ScrapeMark::NOTHING, before.clone());
        let unused = pool.term(&request, 0, "adapter");
        let (_, ended) = pool.pick(Policy::Predicted, &request);
        let (_, lost) = pool.pick(Policy::Predicted, &request);
        pool.end(ended);
        pool.ledger.scraped(slot, ScrapeMark::NOTHING, after);
        pool.end(lost);
        let swap = pool.term(&request, 0, "adapter") >= unused;
        assert_eq!(swap, cold);
        // What the new one has got is there.
        let (_, claim) = pool.pick(Policy::Predicted, &request);
        pool.end(claim);
        assert!(pool.term(&request, 0, "adapter") < unused);
    }
}

#[test]
fn an_endpoint_that_lists_the_adapter_is_where_lora_chain_goes() {
    let mut pool = Pool::new(3);
    let listed = Arc::new(BTreeSet::from(["haiku".to_owned()]));
    let signals = Signals { running_adapters: Some(listed), ..page(5, 0.5) };
    pool.ledger.scraped(pool.slots[1], ScrapeMark::NOTHING, signals);
    let request = InferenceRequest { model: Some("haiku"), ..prompt(PROMPT_BYTES) };
    assert_eq!(pool.reachable(Policy::LoraChain, &request), BTreeSet::from([1]));
    assert_eq!(pool.reachable(Policy::LoraChain, &prompt(PROMPT_BYTES)).len(), 3);
}

fn blocks(root: u64) -> Vec<u64> {
    let mut blocks = Vec::new();
    crate::hash_blocks(root, &[&[5; 4_000]], &mut blocks);
    blocks
}

#[test]
fn a_prompt_goes_where_it_was_before_unless_that_is_far_busier() {
    let blocks = blocks(1);
    let request = InferenceRequest { blocks: &blocks, ..prompt(PROMPT_BYTES) };
    let mut pool = Pool::new(3);
    let holder = pool.slots[1];
    let (_, claim) = pool.pick_of(Policy::Predicted, &request, &[holder]);
    assert!((pool.ledger.prefill_tokens_pending(holder) - 1_000.0).abs() < 1e-6);
    pool.end(claim);
    assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([1]));
    assert_eq!(pool.reachable(Policy::GieDefault, &request), BTreeSet::from([1]));
    let (_, again) = pool.pick(Policy::Predicted, &request);
    assert_eq!(again.slot(), holder);
    assert!(pool.ledger.prefill_tokens_pending(holder) < 50.0, "the last, unfull block");
    for _ in 0..40 {
        let _ = pool.pick_of(Policy::Predicted, &prompt(PROMPT_BYTES), &[holder]);
    }
    assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([0, 2]));
}

#[test]
fn an_endpoint_that_was_restarted_or_has_left_holds_nothing() {
    let blocks = blocks(1);
    let request = InferenceRequest { blocks: &blocks, ..prompt(PROMPT_BYTES) };
    let forgets: [fn(&mut Pool); 2] = [
        |pool| {
            // It had counted more before.
            for counted in [500, 20] {
                let counted = Some(Reading { value: counted, heard: NOW });
                let signals = Signals { prompt_tokens: counted, ..Signals::default() };
                pool.ledger.scraped(pool.slots[1], ScrapeMark::NOTHING, signals);
            }
        },
        |pool| {
            pool.ledger.release(pool.slots[1]);
            pool.slots[1] = pool.ledger.add(&name(1));
        },
    ];
    for forget in forgets {
        let mut pool = Pool::new(2);
        let holder = pool.slots[1];
        let (_, claim) = pool.pick_of(Policy::Predicted, &request, &[holder]);
        pool.end(claim);
        assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([1]));
        forget(&mut pool);
        assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([0, 1]));
    }
}

#[test]
fn an_endpoint_that_comes_back_while_requests_are_there_is_who_it_was() {
    let blocks = blocks(1);
    let request = InferenceRequest { blocks: &blocks, ..prompt(PROMPT_BYTES) };
    let mut pool = Pool::new(2);
    let holder = pool.slots[1];
    let (_, claim) = pool.pick_of(Policy::Predicted, &request, &[holder]);
    // It leaves, and the request holds its slot.
    assert_eq!(pool.ledger.add(&name(1)), holder);
    pool.ledger.release(holder);
    assert_eq!(pool.ledger.in_flight(holder), 1);
    pool.end(claim);
    assert_eq!(pool.reachable(Policy::Predicted, &request), BTreeSet::from([1]));
}

#[test]
fn prefix_hash_keeps_a_beginning_on_one_endpoint() {
    let mut pool = Pool::new(4);
    let mut seen = BTreeSet::new();
    for prefix in 0..64u64 {
        let prefix = prefix.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let request = InferenceRequest { prefix, ..prompt(PROMPT_BYTES) };
        let reached = pool.reachable(Policy::PrefixHash, &request);
        assert_eq!(reached.len(), 1);
        seen.extend(reached);
    }
    assert_eq!(seen.len(), 4);
}

/// What may happen to a ledger; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    /// From a list of endpoints that may be older than the last change.
    Pick {
        policy: usize,
        model: usize,
        bytes: u64,
        unstreamed: bool,
        stale: bool,
    },
    Tokens(usize, u32),
    End(usize, bool),
    Advance(usize, usize),
    Scraped(usize, u32),
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0usize..16;
    let step = prop_oneof![
        2 => (0usize..4).prop_map(Step::Add),
        1 => (0usize..4).prop_map(Step::Remove),
        6 => (0..Policy::ALL.len(), 0usize..4, 0u64..9_000, any::<bool>(), any::<bool>()).prop_map(
            |(policy, model, bytes, unstreamed, stale)| {
                Step::Pick { policy, model, bytes, unstreamed, stale }
            }
        ),
        4 => (at.clone(), 0u32..300).prop_map(|(claim, tokens)| Step::Tokens(claim, tokens)),
        4 => (at.clone(), any::<bool>()).prop_map(|(claim, whole)| Step::End(claim, whole)),
        2 => (at.clone(), at.clone()).prop_map(|(claim, to)| Step::Advance(claim, to)),
        2 => (at.clone(), 0u32..9).prop_map(|(slot, running)| Step::Scraped(slot, running)),
        2 => at.prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..120)
}

/// A ledger beside what it has to come to.
#[derive(Default)]
struct Model {
    ledger: Ledger,
    members: BTreeMap<EndpointId, Slot>,
    /// Slots given and not released, as gateways with an older list still name them.
    named: Vec<Slot>,
    holds: BTreeMap<Slot, u32>,
    /// Whose the slots are that are held.
    ids: BTreeMap<EndpointId, Slot>,
    claims: Vec<Claim>,
    turn: u64,
    now: Duration,
    decisions: Vec<Decision>,
}

impl Model {
    fn step(&mut self, step: &Step) {
        self.now += Duration::from_millis(7);
        match *step {
            Step::Add(index) => self.add(&name(index)),
            Step::Remove(index) => {
                self.members.remove(&name(index));
            }
            Step::Pick { policy, model, bytes, unstreamed, stale } => {
                let members: Vec<Slot> = self.members.values().copied().collect();
                let usable = if stale { self.named.clone() } else { members };
                self.pick(Policy::ALL[policy], (model, bytes, unstreamed), &usable);
            }
            Step::Tokens(at, tokens) => {
                let claim = pick_of(&mut self.claims, at).filter(|claim| claim.due.is_none());
                if let Some(claim) = claim {
                    self.ledger.tokens(claim, tokens, self.now);
                }
            }
            Step::End(at, complete) if !self.claims.is_empty() => {
                let claim = self.claims.swap_remove(at % self.claims.len());
                let outcome = if complete { Outcome::Served } else { Outcome::Failed };
                let ending =
                    Ending { complete, outcome, prompt_tokens: Some(90), output_tokens: None };
                self.ledger.end(claim, ending, self.now);
            }
            Step::Advance(at, to) if !self.claims.is_empty() => {
                let claim = self.claims.swap_remove(at % self.claims.len());
                let Some(to) = pick_of(&mut self.named, to).copied() else { return };
                self.claims.push(self.ledger.advance(claim, to, Outcome::Failed, self.now));
            }
            Step::Scraped(at, running) => {
                if let Some(slot) = pick_of(&mut self.named, at).copied() {
                    let mark = self.ledger.mark(slot);
                    let adapters = (0..running % 3).map(|n| format!("adapter-{n}")).collect();
                    let signals = Signals {
                        running_adapters: Some(Arc::new(adapters)),
                        ..page(running, f64::from(running) / 10.0)
                    };
                    self.ledger.scraped(slot, mark, signals);
                }
            }
            Step::Release(at) => {
                if let Some(slot) = pick_of(&mut self.named, at).copied() {
                    self.release(slot);
                }
            }
            Step::End(..) | Step::Advance(..) => {}
        }
    }

    /// The last that names a slot is gone, unless it is a member's or something is charged to it.
    fn release(&mut self, slot: Slot) {
        let used = self.members.values().any(|member| *member == slot)
            || self.claims.iter().any(|claim| claim.slot() == slot);
        if !used {
            self.named.retain(|named| *named != slot);
            self.ids.retain(|_, held| *held != slot);
            for _ in 0..self.holds.remove(&slot).unwrap_or(0) {
                self.ledger.release(slot);
            }
        }
    }

    fn add(&mut self, id: &EndpointId) {
        let slot = self.ledger.add(id);
        *self.holds.entry(slot).or_default() += 1;
        self.members.insert(id.clone(), slot);
        if let Some(held) = self.ids.insert(id.clone(), slot) {
            assert_eq!(slot, held, "it is still there");
        } else {
            assert!(self.claims.iter().all(|claim| claim.slot() != slot), "given while claimed");
            let others = self.members.iter().filter(|(other, _)| *other != id);
            assert!(others.map(|(_, other)| *other).all(|other| other != slot), "given twice");
        }
        if !self.named.contains(&slot) {
            self.named.push(slot);
        }
    }

    fn pick(
        &mut self,
        policy: Policy,
        (model, bytes, unstreamed): (usize, u64, bool),
        usable: &[Slot],
    ) {
        self.turn += 1;
        let mut blocks = Vec::new();
        crate::hash_blocks(0, &[&vec![1; usize::try_from(bytes).unwrap()]], &mut blocks);
        let models = ["base", "adapter-0", "adapter-1", "adapter-2"];
        let request = InferenceRequest {
            model: Some(models[model]),
            prompt_bytes: bytes,
            blocks: &blocks,
            prefix: bytes,
            unstreamed,
            ..InferenceRequest::default()
        };
        let chance = Chance::new(self.turn, self.turn);
        match self.ledger.pick(policy, &request, usable, &RULE, self.now, chance) {
            Ok((decision, claim)) => {
                assert_eq!(claim.slot(), usable[decision.choices[0]]);
                self.decisions.push(decision);
                self.claims.push(claim);
            }
            Err(why) => assert!(usable.is_empty(), "{why}"),
        }
    }

    fn verify(&self) {
        for slot in &self.named {
            let charged = self.claims.iter().filter(|claim| claim.slot() == *slot).count();
            assert_eq!(self.ledger.in_flight(*slot) as usize, charged);
            assert!(self.ledger.sent_since_scrape(*slot) as usize <= charged);
            assert!(self.ledger.prefill_tokens_pending(*slot) > -1e-6);
        }
    }

    fn run(steps: &[Step]) -> Self {
        let mut model = Self::default();
        for step in steps {
            model.step(step);
            model.verify();
        }
        while let Some(claim) = model.claims.pop() {
            model.ledger.end(claim, Ending::default(), model.now);
        }
        model.verify();
        model
    }
}

fn pick_of<T>(list: &mut [T], at: usize) -> Option<&mut T> {
    let len = list.len().max(1);
    list.get_mut(at % len)
}

/// Fewer cases than usual, each being long.
fn cases() -> ProptestConfig {
    ProptestConfig { cases: 64, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_happens_charges_return_to_zero_and_slots_are_not_shared(steps in steps()) {
        let model = Model::run(&steps);
        for slot in &model.named {
            prop_assert_eq!(model.ledger.in_flight(*slot), 0);
            prop_assert!(model.ledger.prefill_tokens_pending(*slot).abs() < 1e-9);
            let load = model.ledger.accounts[*slot].load(&Foreign::default(), 0.0);
            prop_assert_eq!(model.ledger.prefixes.pinned(slot.0), 0);
            let own = (load.prefill_tokens, load.kv_tokens, load.kv_variance, load.context_tokens);
            prop_assert_eq!(own, (0.0, 0.0, 0.0, 0.0));
        }
    }

    #[test]
    fn equal_calls_give_equal_decisions(steps in steps()) {
        prop_assert_eq!(Model::run(&steps).decisions, Model::run(&steps).decisions);
    }
}

#[test]
fn what_was_no_text_teaches_nothing_of_text() {
    for (bytes, tokens) in [(0, 100), (1_000_000, 300)] {
        let mut pool = Pool::new(1);
        let (_, claim) = pool.pick(Policy::RoundRobin, &prompt(bytes));
        let ending = Ending {
            complete: true,
            prompt_tokens: Some(tokens),
            output_tokens: Some(1),
            ..Ending::default()
        };
        pool.ledger.end(claim, ending, NOW);
        let (_, _claim) = pool.pick(Policy::RoundRobin, &prompt(400));
        let pending = pool.ledger.prefill_tokens_pending(pool.slots[0]);
        assert!((pending - 100.0).abs() < 1e-9, "{bytes} bytes: {pending}");
    }
}
