use super::*;
use crate::{
    Chance, Claim, Ending, EndpointId, InferenceRequest, Outcome, Policy, Reading, ScrapeMark,
    Signals, Trouble,
};

const RULE: OutlierDetection = OutlierDetection {
    consecutive_failures: 3,
    base_ejection: Duration::from_secs(1),
    max_ejection: Duration::from_secs(30),
    max_ejection_percent: 50,
};

/// Endpoints and a clock.
struct Pool {
    ledger: Ledger,
    slots: Vec<Slot>,
    now: Duration,
    turn: u64,
}

impl Pool {
    fn new(endpoints: usize) -> Self {
        let (ledger, slots) = (Ledger::default(), Vec::new());
        let mut pool = Self { ledger, slots, now: Duration::from_secs(100), turn: 0 };
        pool.grow(endpoints);
        pool
    }

    /// Whose endpoints have each answered something.
    fn known(endpoints: usize) -> Self {
        let mut pool = Self::new(endpoints);
        for at in 0..endpoints {
            let claim = pool.send(at);
            pool.end(claim, Outcome::Served);
        }
        pool
    }

    fn grow(&mut self, endpoints: usize) {
        for _ in 0..endpoints {
            let id = EndpointId::new(format!("10.0.0.{}:8000", self.slots.len()));
            self.slots.push(self.ledger.add(&id));
        }
    }

    fn choose(&mut self, policy: Policy, among: &[Slot]) -> (Decision, Claim) {
        self.turn += 1;
        let chance = Chance::new(self.turn, self.turn);
        let request = InferenceRequest { prompt_bytes: 400, ..InferenceRequest::default() };
        self.ledger.pick(policy, &request, among, &RULE, self.now, chance).unwrap()
    }

    fn pick(&mut self, policy: Policy) -> (Decision, Claim) {
        let slots = self.slots.clone();
        self.choose(policy, &slots)
    }

    /// Sends a request to this endpoint, whatever is the matter with it.
    fn send(&mut self, at: usize) -> Claim {
        self.choose(Policy::RoundRobin, &[self.slots[at]]).1
    }

    fn end(&mut self, claim: Claim, outcome: Outcome) {
        let ending = Ending { outcome, ..Ending::default() };
        self.ledger.end(claim, ending, self.now);
    }

    fn fail(&mut self, at: usize) {
        for _ in 0..3 {
            let claim = self.send(at);
            self.end(claim, Outcome::Failed);
        }
        assert_eq!(self.ledger.trouble(self.slots[at]), Some(Trouble::Ejected));
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn scraped(&mut self, at: usize, counted: u64) {
        let heard = self.now;
        let signals = Signals {
            running: Some(Reading { value: 3, heard }),
            prompt_tokens: Some(Reading { value: counted, heard }),
            ..Signals::default()
        };
        self.ledger.scraped(self.slots[at], ScrapeMark::NOTHING, signals);
    }

    /// Has it hang with one own request.
    fn hang(&mut self, at: usize) -> Claim {
        let claim = self.send(at);
        for _ in 0..=6 {
            self.scraped(at, 7);
            self.pass(1);
        }
        assert_eq!(self.ledger.trouble(self.slots[at]), Some(Trouble::Hung));
        claim
    }

    /// Every endpoint that a decision names, in any of many.
    fn named(&mut self, policy: Policy) -> Vec<usize> {
        let mut named = Vec::new();
        for _ in 0..32 {
            let (decision, claim) = self.pick(policy);
            assert_eq!(claim.slot(), self.slots[decision.choices[0]]);
            let candidates = self.slots.len() - decision.left_out.len();
            assert_eq!(decision.costs.len(), candidates, "{policy}");
            named.extend(decision.choices);
            self.end(claim, Outcome::Unknown);
        }
        named.sort_unstable();
        named.dedup();
        named
    }
}

/// Of these endpoints those of `out` are ejected; then decisions name those of `named`.
fn check(endpoints: usize, out: &[usize], named: &[usize]) {
    for policy in Policy::ALL {
        let mut pool = Pool::known(endpoints);
        for at in out {
            pool.fail(*at);
        }
        assert_eq!(pool.named(policy), named, "{policy}");
    }
}

#[test]
fn an_ejected_endpoint_is_in_no_decision_and_no_list() {
    check(2, &[0], &[1]);
    check(2, &[1], &[0]);
    check(3, &[1], &[0, 2]);
    check(4, &[0, 2], &[1, 3]);
}

#[test]
fn with_too_many_out_all_are_candidates() {
    check(1, &[0], &[0]);
    check(2, &[0, 1], &[0, 1]);
    check(3, &[0, 1], &[0, 1, 2]);
}

#[test]
fn those_that_cannot_be_used_anyway_do_not_count_for_the_share() {
    let mut pool = Pool::known(4);
    pool.fail(0);
    let among = pool.slots[0..2].to_vec();
    let (decision, _claim) = pool.choose(Policy::RoundRobin, &among);
    assert_eq!((decision.choices.as_slice(), decision.left_out), ([1].as_slice(), vec![0]));
    let among = pool.slots[0..1].to_vec();
    let (decision, _claim) = pool.choose(Policy::RoundRobin, &among);
    assert_eq!((decision.choices.as_slice(), decision.left_out), ([0].as_slice(), vec![]));
}

#[test]
fn an_ejected_endpoint_comes_back_through_one_trial() {
    let mut pool = Pool::known(2);
    pool.fail(0);
    pool.pass(1);
    // The idle one is the choice as soon as it may be one.
    let busy: Vec<Claim> = (0..3).map(|_| pool.send(1)).collect();
    let (_, trial) = pool.pick(Policy::LeastRequest);
    assert_eq!(trial.slot(), pool.slots[0]);
    for _ in 0..5 {
        let (decision, claim) = pool.pick(Policy::LeastRequest);
        assert_eq!((claim.slot(), decision.left_out), (pool.slots[1], vec![0]));
        pool.end(claim, Outcome::Served);
    }
    let trial_ends = pool.now + Duration::from_secs(1);
    pool.ledger.tokens(&mut { trial }, 1, trial_ends);
    assert_eq!(pool.ledger.trouble(pool.slots[0]), None);
    let (_, claim) = pool.pick(Policy::LeastRequest);
    assert_eq!(claim.slot(), pool.slots[0]);
    for claim in busy.into_iter().chain([claim]) {
        pool.end(claim, Outcome::Served);
    }
}

#[test]
fn a_request_that_moves_on_is_a_failure_of_the_endpoint_it_leaves() {
    let mut pool = Pool::known(2);
    for _ in 0..3 {
        let claim = pool.send(0);
        let to = pool.slots[1];
        let claim = pool.ledger.advance(claim, to, Outcome::Failed, pool.now);
        pool.end(claim, Outcome::Served);
    }
    let troubles = [0, 1].map(|at| pool.ledger.trouble(pool.slots[at]));
    assert_eq!(troubles, [Some(Trouble::Ejected), None]);
}

#[test]
fn an_endpoint_that_hangs_is_in_no_decision_until_it_moves() {
    for policy in Policy::ALL {
        let mut pool = Pool::known(3);
        let claim = pool.hang(1);
        assert_eq!(pool.named(policy), [0, 2], "{policy}");
        pool.scraped(1, 8);
        assert_eq!(pool.ledger.trouble(pool.slots[1]), None);
        pool.end(claim, Outcome::Unknown);
        assert_eq!(pool.named(policy), [0, 1, 2], "{policy}");
    }
}

#[test]
fn an_endpoint_that_hangs_is_known_to_live_by_a_token_or_an_answer() {
    for whole in [false, true] {
        let mut pool = Pool::known(3);
        let mut claim = pool.hang(1);
        if !whole {
            pool.ledger.tokens(&mut claim, 1, pool.now);
            assert_eq!(pool.ledger.trouble(pool.slots[1]), None);
        }
        pool.end(claim, Outcome::Served);
        assert_eq!(pool.ledger.trouble(pool.slots[1]), None);
    }
}

#[test]
fn a_prompt_that_takes_long_is_no_hang() {
    let mut pool = Pool::known(2);
    let request = InferenceRequest { prompt_bytes: 400_000, ..InferenceRequest::default() };
    let (slot, chance) = (pool.slots[0], Chance::default());
    // A hundred thousand tokens: fifteen seconds, before more is known.
    let picked = pool.ledger.pick(Policy::Random, &request, &[slot], &RULE, pool.now, chance);
    let (_, _claim) = picked.unwrap();
    for second in 0..=40 {
        pool.scraped(0, 7);
        let hung = pool.ledger.trouble(slot) == Some(Trouble::Hung);
        assert_eq!(hung, second >= 35, "{second}");
        pool.pass(1);
    }
}

/// How many of so many requests that come at once and stay go to the endpoint.
fn share(pool: &mut Pool, at: usize, requests: usize) -> usize {
    let slot = pool.slots[at];
    let claims: Vec<Claim> = (0..requests).map(|_| pool.pick(Policy::LeastRequest).1).collect();
    let there = claims.iter().filter(|claim| claim.slot() == slot).count();
    for claim in claims {
        pool.end(claim, Outcome::Unknown);
    }
    there
}

#[test]
fn a_new_endpoint_is_not_flooded_and_not_starved() {
    let mut pool = Pool::known(3);
    let busy: Vec<Claim> = [0, 1, 2].repeat(8).into_iter().map(|at| pool.send(at)).collect();
    pool.grow(1);
    assert_eq!(share(&mut pool, 3, 12), 2);
    // Each of the two answers; so does each of the four after them.
    for window in [4, 8] {
        let slot = pool.slots[3];
        let claims: Vec<Claim> = (0..window / 2).map(|_| pool.send_among_others(slot)).collect();
        for claim in claims {
            pool.end(claim, Outcome::Served);
        }
        assert_eq!(share(&mut pool, 3, 24), window, "{window}");
    }
    for claim in busy {
        pool.end(claim, Outcome::Served);
    }
    // All are idle, and it has shown that it can: it gets as much as the others.
    assert_eq!(share(&mut pool, 3, 40), 10);
}

impl Pool {
    /// Sends a request there as one of all.
    fn send_among_others(&mut self, slot: Slot) -> Claim {
        let (_, claim) = self.pick(Policy::LeastRequest);
        assert_eq!(claim.slot(), slot);
        claim
    }
}

#[test]
fn an_idle_pool_gives_a_new_endpoint_its_share_from_the_first_request() {
    let mut pool = Pool::known(3);
    pool.grow(1);
    let mut counts = [0; 4];
    for _ in 0..40 {
        let (decision, claim) = pool.pick(Policy::RoundRobin);
        counts[decision.choices[0]] += 1;
        pool.end(claim, Outcome::Served);
    }
    assert_eq!(counts, [10; 4]);
}

#[test]
fn endpoints_that_are_new_together_do_not_limit_each_other() {
    let mut pool = Pool::new(3);
    let among = [pool.slots[1]];
    let claims: Vec<Claim> = (0..20).map(|_| pool.choose(Policy::LeastRequest, &among).1).collect();
    assert_eq!(claims.len(), 20);
    assert_eq!(share(&mut pool, 0, 30), 15, "two of three, and nobody has answered yet");
    for claim in claims {
        pool.end(claim, Outcome::Unknown);
    }
}

#[test]
fn a_beginner_that_is_spared_still_takes_over_where_others_fail() {
    let mut pool = Pool::known(1);
    let claims: Vec<Claim> = (0..9).map(|_| pool.send(0)).collect();
    pool.grow(1);
    let (first, second) = (pool.pick(Policy::LeastRequest), pool.pick(Policy::LeastRequest));
    assert_eq!((first.0.choices[0], second.0.choices[0]), (1, 1));
    let (decision, third) = pool.pick(Policy::LeastRequest);
    assert_eq!((decision.choices.as_slice(), decision.left_out), ([0, 1].as_slice(), vec![1]));
    assert_eq!(decision.costs.len(), 1);
    for claim in claims.into_iter().chain([first.1, second.1, third]) {
        pool.end(claim, Outcome::Unknown);
    }
}

/// What makes an endpoint a beginner again.
fn check_begins_again(name: &str, happens: impl FnOnce(&mut Pool)) {
    let mut pool = Pool::known(3);
    assert_eq!(share(&mut pool, 2, 30), 10, "{name}");
    happens(&mut pool);
    let busy: Vec<Claim> = [0, 1].repeat(8).into_iter().map(|at| pool.send(at)).collect();
    assert_eq!(share(&mut pool, 2, 12), 2, "{name}");
    for claim in busy {
        pool.end(claim, Outcome::Unknown);
    }
}

#[test]
fn whoever_comes_back_begins_slowly() {
    check_begins_again("ready again", |pool| pool.ledger.returned(pool.slots[2]));
    check_begins_again("restarted", |pool| {
        pool.scraped(2, 500);
        pool.scraped(2, 20);
    });
    check_begins_again("readmitted", |pool| {
        pool.fail(2);
        pool.pass(1);
        let trial = pool.send(2);
        pool.end(trial, Outcome::Served);
    });
    check_begins_again("moves again", |pool| {
        let claim = pool.hang(2);
        pool.scraped(2, 8);
        pool.end(claim, Outcome::Served);
    });
}

#[test]
fn a_restart_ends_an_ejection() {
    let mut pool = Pool::known(2);
    pool.scraped(0, 500);
    pool.fail(0);
    let old = pool.send(0);
    pool.scraped(0, 20);
    assert_eq!(pool.ledger.trouble(pool.slots[0]), None);
    pool.end(old, Outcome::Failed);
    assert_eq!(pool.named(Policy::RoundRobin), [0, 1]);
}

#[test]
fn another_endpoint_in_a_slot_inherits_nothing() {
    let mut pool = Pool::known(2);
    pool.fail(0);
    pool.ledger.release(pool.slots[0]);
    let slot = pool.ledger.add(&EndpointId::new("10.0.0.9:8000"));
    assert_eq!((slot, pool.ledger.trouble(slot)), (pool.slots[0], None));
}

#[test]
fn who_lacks_the_model_is_not_counted_among_those_that_are_left() {
    let mut pool = Pool::known(3);
    pool.fail(1);
    let place = |pool: &mut Pool, absent: &[usize]| {
        let slots = pool.slots.clone();
        let absent: Vec<Slot> = absent.iter().map(|at| slots[*at]).collect();
        let request = InferenceRequest { absent: &absent, ..InferenceRequest::default() };
        let chance = Chance::new(1, 1);
        let now = pool.now;
        let picked = pool.ledger.pick(Policy::LeastRequest, &request, &slots, &RULE, now, chance);
        let (decision, claim) = picked.unwrap();
        pool.end(claim, Outcome::Unknown);
        decision.choices.to_vec()
    };
    assert_eq!(place(&mut pool, &[0]), [2]);
    // One that fails is better than one that surely cannot serve.
    assert_eq!(place(&mut pool, &[0, 2]), [1]);
    assert_eq!(place(&mut pool, &[0, 1, 2]).len(), 2, "none is better than the others");
}
