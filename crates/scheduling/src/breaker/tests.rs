use super::*;

const RULE: OutlierDetection = OutlierDetection {
    consecutive_failures: 3,
    base_ejection: Duration::from_secs(1),
    max_ejection: Duration::from_secs(4),
    max_ejection_percent: 50,
};

/// A breaker, the requests that are on their way, and a clock in tenths of a second.
struct Endpoint {
    breaker: CircuitBreaker,
    last: u64,
    under_way: Vec<Sent>,
    tenths: u32,
    chance: Chance,
}

impl Endpoint {
    fn now(&self) -> Duration {
        Duration::from_millis(100) * self.tenths
    }

    fn send(&mut self) {
        self.last += 1;
        let sent = self.breaker.send(self.last, self.now());
        self.under_way.push(sent);
    }

    fn end(&mut self, at: usize, outcome: Outcome) {
        let (sent, now) = (self.under_way.remove(at), self.now());
        self.breaker.end(sent, outcome, self.last, &RULE, now, &mut self.chance);
    }

    /// `f`, `s`, `r` and `u` send a request that fails, is served, is refused, or ends without a word; `>` sends one that stays,
    /// of which `F`, `S`, `R` and `U` end the oldest and `T` gives it a first token; `.` lets a second pass. What is there afterwards: `closed`,
    /// `open` or `due`.
    fn happens(&mut self, events: &str) -> &'static str {
        for event in events.chars() {
            match event {
                'f' | 's' | 'u' | 'r' => {
                    self.send();
                    self.end(self.under_way.len() - 1, outcome(event.to_ascii_uppercase()));
                }
                '>' => self.send(),
                'T' => self.breaker.first_token(self.under_way[0], self.last),
                '.' => self.tenths += 10,
                event => self.end(0, outcome(event)),
            }
        }
        match (self.breaker.is_open(), self.breaker.admits(self.now())) {
            (false, true) => "closed",
            (true, false) => "open",
            (true, true) => "due",
            (false, false) => unreachable!(),
        }
    }
}

fn outcome(event: char) -> Outcome {
    match event {
        'F' => Outcome::Failed,
        'S' => Outcome::Served,
        'R' => Outcome::Refused,
        'U' => Outcome::Unknown,
        other => panic!("{other}"),
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        breaker: CircuitBreaker::default(),
        last: 0,
        under_way: Vec::new(),
        tenths: 0,
        chance: Chance::new(0, 7),
    }
}

fn check(events: &str, state: &str) {
    assert_eq!(endpoint().happens(events), state, "{events}");
}

#[test]
fn it_stays_closed_where_nobody_may_be_out() {
    let rule = OutlierDetection { max_ejection_percent: 0, ..RULE };
    let (mut breaker, mut chance) = (CircuitBreaker::default(), Chance::new(0, 7));
    for number in 1..=9 {
        let sent = breaker.send(number, Duration::ZERO);
        breaker.end(sent, Outcome::Failed, number, &rule, Duration::ZERO, &mut chance);
        assert!(!breaker.is_open());
    }
}

#[test]
fn failures_in_a_row_open_it() {
    check("ff", "closed");
    check("fff", "open");
    check("ffsff", "closed");
    check("ffsfff", "open");
}

#[test]
fn many_refusals_in_a_row_open_it() {
    let row = "r".repeat(19);
    check(&row, "closed");
    check(&format!("{row}r"), "open");
    check(&format!("{row}ur"), "open");
    check(&format!("{row}s{row}"), "closed");
    // A trial that is refused shows that nothing is better.
    check(&format!("{row}r.r"), "open");
    check(&format!("{row}r.s{row}"), "closed");
    // Failures are counted by themselves.
    check(&format!("ffr{row}"), "open");
    check("ffrf", "open");
}

#[test]
fn what_says_nothing_neither_counts_nor_ends_a_row() {
    check("uuuuu", "closed");
    check("fuufuf", "open");
}

#[test]
fn a_success_that_was_sent_before_the_row_began_does_not_end_it() {
    check(">>fSfSf", "open");
    check("f>fSf", "closed");
}

#[test]
fn requests_that_break_together_are_one_ejection() {
    let mut endpoint = endpoint();
    assert_eq!(endpoint.happens(">>>>>>>>>FFFFFFFFF"), "open");
    assert_eq!(endpoint.breaker.ejections, 1);
    assert_eq!(endpoint.happens("."), "due");
}

#[test]
fn after_its_time_one_request_at_a_time_tries() {
    check("fff.", "due");
    check("fff.>", "open");
    check("fff.>....", "open");
    // The next one is sent only where too many are out, and shows nothing if it fails.
    check("fff.>fU", "due");
}

#[test]
fn a_trial_that_is_served_or_gives_a_first_token_closes_it() {
    check("fff.s", "closed");
    check("fff.>T", "closed");
    check("fff.sff", "closed");
    check("fff.sfff", "open");
}

#[test]
fn a_trial_that_fails_opens_it_again_and_one_that_says_nothing_lets_the_next_try() {
    check("fff.f", "open");
    check("fff.u", "due");
    check("fff.>TF", "closed");
}

#[test]
fn only_what_was_sent_since_it_opened_can_close_it() {
    check(">fffS", "open");
    check(">fff.S", "due");
    // Sent though it is out.
    check("fffs", "closed");
}

#[test]
fn each_ejection_in_a_row_is_twice_as_long_up_to_the_longest() {
    let mut endpoint = endpoint();
    endpoint.happens("fff");
    for longest in [10, 20, 40, 40, 40] {
        let State::Open { until, .. } = endpoint.breaker.state else { panic!("closed") };
        let (from, span) = (endpoint.now(), Duration::from_millis(100) * longest);
        assert!(until <= from + span && until >= from + span * 3 / 4, "{longest}: {until:?}");
        endpoint.tenths += longest;
        endpoint.happens("f");
    }
    endpoint.tenths += 40;
    assert_eq!(endpoint.happens("sfff"), "open");
    assert_eq!(endpoint.breaker.ejections, 1, "a success ends the row");
}

#[test]
fn an_endpoint_that_breaks_after_each_first_token_is_ejected_for_longer_and_longer() {
    let mut endpoint = endpoint();
    for (round, wait) in ["", ".", ".."].into_iter().enumerate() {
        let trial = if round > 0 { ">TF" } else { "" };
        assert_eq!(endpoint.happens(&format!("{wait}{trial}>TF>TF>TF")), "open", "{round}");
        assert_eq!(endpoint.breaker.ejections as usize, round + 1);
    }
}

#[test]
fn gateways_that_ejected_together_do_not_try_together() {
    let until = |seed| {
        let mut endpoint = Endpoint { chance: Chance::new(0, seed), ..endpoint() };
        endpoint.happens("fff");
        let State::Open { until, .. } = endpoint.breaker.state else { panic!("closed") };
        until
    };
    assert_ne!(until(1), until(2));
    assert_eq!(until(1), until(1));
}

#[test]
fn another_process_is_not_judged_by_requests_of_the_one_before() {
    let mut endpoint = endpoint();
    assert_eq!(endpoint.happens("fff.>>>>"), "open");
    endpoint.breaker = CircuitBreaker::anew(endpoint.last);
    assert_eq!(endpoint.happens("FFFF"), "closed");
    assert_eq!(endpoint.happens("fff"), "open");
}

#[test]
fn without_a_number_of_failures_none_ejects() {
    let (mut breaker, mut chance) = (CircuitBreaker::default(), Chance::default());
    let rule = OutlierDetection { consecutive_failures: 0, ..RULE };
    for number in 1..100 {
        let sent = breaker.send(number, Duration::ZERO);
        breaker.end(sent, Outcome::Failed, number, &rule, Duration::ZERO, &mut chance);
    }
    assert!(!breaker.is_open());
}

#[test]
fn at_most_a_share_of_a_pool_may_be_out_and_never_all() {
    for (percent, out, all, may) in [
        (50, 0, 0, false),
        (50, 0, 1, true),
        (50, 1, 1, false),
        (50, 1, 2, true),
        (50, 2, 3, false),
        (50, 4, 8, true),
        (50, 5, 8, false),
        (0, 1, 8, false),
        (0, 0, 8, true),
        (100, 7, 8, true),
        (100, 8, 8, false),
    ] {
        let rule = OutlierDetection { max_ejection_percent: percent, ..RULE };
        assert_eq!(rule.may_be_out(out, all), may, "{out} of {all} at {percent} %");
    }
}

#[test]
fn ejections_of_any_length_can_be_doubled() {
    let rule =
        OutlierDetection { base_ejection: Duration::MAX, max_ejection: Duration::MAX, ..RULE };
    let mut chance = Chance::new(0, 1);
    assert!(rule.ejection(u32::MAX, &mut chance) > Duration::MAX / 2);
    let none = OutlierDetection { base_ejection: Duration::ZERO, ..RULE };
    assert_eq!(none.ejection(3, &mut chance), Duration::ZERO);
}
