use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn entry(priority: i32, flow: u64, tokens: f64) -> Entry {
    Entry { priority, flow, tokens, bytes: 10 }
}

/// `a1 b-1:50` are a request of flow a with priority 1 and 100 tokens, and one of flow b with priority -1 and 50 tokens.
fn queue(requests: &str) -> AdmissionQueue<String> {
    let mut queue = AdmissionQueue::default();
    for request in requests.split_whitespace() {
        enter(&mut queue, request);
    }
    queue
}

fn parse(request: &str) -> Entry {
    let (name, tokens) = request.split_once(':').unwrap_or((request, "100"));
    let flow = u64::from(name.as_bytes()[0]);
    entry(name[1..].parse().unwrap(), flow, tokens.parse().unwrap())
}

fn enter(queue: &mut AdmissionQueue<String>, request: &str) -> Ticket {
    queue.enter(request.to_owned(), parse(request))
}

/// Who goes, one after the other, if there is room for all.
fn drain(queue: &mut AdmissionQueue<String>) -> String {
    let mut gone = Vec::new();
    while let Some(first) = queue.next().first().copied() {
        gone.push(queue.go(first, &[], NOW).unwrap());
    }
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
    gone.join(" ")
}

fn check(requests: &str, expected: &str) {
    assert_eq!(drain(&mut queue(requests)), expected, "{requests}");
}

#[test]
fn priority_goes_first_then_arrival() {
    check("a0:1 a0:2 a0:3", "a0:1 a0:2 a0:3");
    check("a-100 a0 a100 a0:7", "a100 a0 a0:7 a-100");
}

#[test]
fn flows_take_turns_by_tokens() {
    check("a0 a0 a0 b0 b0 b0", "a0 b0 a0 b0 a0 b0");
    check("a0:300 a0:301 b0:100 b0:101 b0:102", "a0:300 b0:100 b0:101 b0:102 a0:301");
    check("a0:1 a0:2 b100:7", "b100:7 a0:1 a0:2");
}

#[test]
fn what_went_without_waiting_was_had_all_the_same() {
    let mut queue = queue("");
    for _ in 0..10 {
        queue.passed(&parse("a0"), NOW);
    }
    for request in ["a0:1", "a0:2", "b0:3", "b0:4"] {
        enter(&mut queue, request);
    }
    assert_eq!(drain(&mut queue), "b0:3 b0:4 a0:1 a0:2");
}

#[test]
fn a_flow_that_was_away_gets_no_credit_for_it() {
    let mut queue = queue("");
    queue.passed(&parse("b0"), NOW);
    for _ in 0..10 {
        queue.passed(&parse("a0"), NOW);
    }
    for request in ["b0", "b0", "b0", "a0", "a0", "a0"] {
        enter(&mut queue, request);
    }
    assert_eq!(drain(&mut queue), "b0 b0 a0 b0 a0 a0");
}

#[test]
fn one_that_was_overtaken_too_often_is_overdue() {
    let mut queue = queue("a0:900");
    for turn in 0..OVERTAKEN_MAX {
        enter(&mut queue, "a0:1");
        let next = queue.next();
        assert!(!queue.is_overdue(next[0]) && !queue.is_overdue(next[1]), "turn {turn}");
        assert_eq!(queue.go(next[1], &next[..1], NOW).unwrap(), "a0:1");
    }
    enter(&mut queue, "a0:1");
    let next = queue.next();
    assert!(queue.is_overdue(next[0]) && !queue.is_overdue(next[1]));
    assert_eq!(drain(&mut queue), "a0:900 a0:1");
}

#[test]
fn who_is_overtaken_keeps_its_lead() {
    let mut queue = queue("");
    queue.passed(&parse("a0:1000"), NOW);
    for request in ["b0:1", "b0:2", "b0:3", "a0:4", "a0:5"] {
        let entry = parse(request.split_once(':').unwrap().0);
        queue.enter(request.to_owned(), entry);
    }
    let next = queue.next();
    assert_eq!(queue.go(next[3], &next[..3], NOW).as_deref(), Some("a0:4"));
    assert_eq!(drain(&mut queue), "b0:1 b0:2 b0:3 a0:5");
}

#[test]
fn not_more_are_looked_at_than_a_few() {
    let mut queue = queue(&"a0 b0 c-1 ".repeat(LOOKED_AT_MAX));
    assert_eq!(queue.next().len(), LOOKED_AT_MAX);
    drain(&mut queue);
}

#[test]
fn who_leaves_makes_room() {
    let mut queue = queue("a0:1");
    let ticket = enter(&mut queue, "a0:2");
    enter(&mut queue, "a0:3");
    assert_eq!(queue.get(ticket).map(String::as_str), Some("a0:2"));
    assert_eq!(queue.leave(ticket).as_deref(), Some("a0:2"));
    assert_eq!((queue.leave(ticket), queue.len(), queue.bytes()), (None, 2, 20));
    assert_eq!(drain(&mut queue), "a0:1 a0:3");
}

#[test]
fn the_latest_of_the_least_gives_way_to_more_only() {
    let mut queue = queue("a0:1 a-1:2 b-1:3 a100:4");
    assert_eq!(queue.give_way(-1), None);
    assert_eq!(queue.give_way(0).as_deref(), Some("b-1:3"));
    assert_eq!(queue.give_way(0).as_deref(), Some("a-1:2"));
    assert_eq!(queue.give_way(0), None);
    assert_eq!(queue.give_way(1).as_deref(), Some("a0:1"));
}

#[test]
fn it_is_full_by_count_or_by_bytes() {
    let limits =
        |requests_max, bytes_max| FlowControl { requests_max, bytes_max, ..FlowControl::default() };
    let queue = queue("a0 b0");
    let one = parse("a0");
    assert!(queue.is_full(&one, &limits(2, 100)) && queue.is_full(&one, &limits(3, 29)));
    assert!(!queue.is_full(&one, &limits(3, 30)));
}

#[test]
fn who_has_had_too_much_or_matters_less_spares_room_for_others() {
    let mut queue = queue("");
    let check = |queue: &AdmissionQueue<String>, now, expected: &[(&str, Admission)]| {
        for (request, expected) in expected {
            assert_eq!(queue.admission(&parse(request), now), *expected, "{request}");
        }
    };
    let (free, spare, quiet) = (Admission::WhenFree, Admission::WhenSpare, Admission::WhenQuiet);
    check(&queue, NOW, &[("a-1", free), ("a0", free)]);
    for _ in 0..10 {
        queue.passed(&parse("a0"), NOW);
    }
    // Nobody else of its priority is there.
    check(&queue, NOW, &[("a0", free), ("a-1", quiet)]);
    queue.passed(&parse("b0"), NOW);
    check(&queue, NOW, &[("a0", quiet), ("b0", free), ("c0", free)]);
    queue.passed(&parse("c100"), NOW);
    check(&queue, NOW, &[("a0", quiet), ("b0", spare), ("a100", free)]);
    check(&queue, NOW, &[("a-1", Admission::WhenUnnoticed)]);
    // All of that is past.
    check(&queue, NOW + RECENT * 10, &[("a0", free), ("b0", free), ("a-1", spare)]);
}

#[test]
fn what_chance_gives_a_flow_more_is_not_too_much() {
    // So many requests of two flows: the first has had too much, or not.
    for (own, other, too_much) in [(3, 1, false), (6, 3, false), (30, 20, false), (50, 20, true)] {
        let mut queue = queue("");
        for (flow, requests) in [("a0", own), ("b0", other)] {
            (0..requests).for_each(|_| queue.passed(&parse(flow), NOW));
        }
        let admission = queue.admission(&parse("a0"), NOW);
        assert_eq!(admission == Admission::WhenQuiet, too_much, "{own} to {other}");
    }
}

#[test]
fn retry_after_is_the_time_the_queue_takes() {
    let mut queue = queue(&"a0 ".repeat(20));
    for (expected, retry_after) in [
        (0.0, RETRY_AFTER_MIN),
        (0.5, Duration::from_millis(10_500)),
        (9.0, RETRY_AFTER_MAX),
        (f64::INFINITY, RETRY_AFTER_MAX),
    ] {
        assert_eq!(queue.retry_after(|| expected), retry_after);
    }
    let seen = || unreachable!("it was seen");
    for second in 0..5 {
        let first = queue.next()[0];
        queue.go(first, &[], NOW + Duration::from_secs(second * 2)).unwrap();
    }
    assert_eq!(queue.retry_after(seen), Duration::from_secs(32));
    for _ in 0..100 {
        enter(&mut queue, "a0");
    }
    assert_eq!(queue.retry_after(seen), RETRY_AFTER_MAX);
}

#[test]
fn flows_that_are_too_many_share_a_place() {
    let mut queue: AdmissionQueue<u64> = AdmissionQueue::default();
    let many = u64::try_from(FLOWS_MAX).unwrap() + 10;
    for flow in 0..many {
        queue.enter(flow, entry(0, flow, 1.0));
    }
    assert!(queue.bands[&Reverse(0)].flows.len() <= FLOWS_MAX);
    let mut gone = 0;
    while let Some(first) = queue.next().first().copied() {
        queue.go(first, &[], NOW);
        gone += 1;
    }
    assert_eq!(gone, many);
    queue.enter(0, entry(0, many + 1, 1.0));
    assert!(queue.bands[&Reverse(0)].flows.len() <= FLOWS_MAX);
}

#[test]
fn flows_that_are_too_many_have_had_what_they_had_together() {
    let mut queue: AdmissionQueue<u64> = AdmissionQueue::default();
    let many = u64::try_from(FLOWS_MAX).unwrap();
    for flow in 0..many {
        queue.enter(flow, entry(0, flow, 1.0));
    }
    for flow in [1].into_iter().chain(many..2 * many) {
        queue.passed(&entry(0, flow, 1.0), NOW);
    }
    assert_eq!(queue.admission(&entry(0, 2 * many, 1.0), NOW), Admission::WhenQuiet);
    assert_eq!(queue.admission(&entry(0, 1, 1.0), NOW), Admission::WhenFree);
}

proptest! {
    #[test]
    fn whatever_happens_counts_are_right_and_priorities_kept(
        steps in prop::collection::vec((0u8..4, -1i32..2, 0u64..3, 1u32..500), 0..200),
    ) {
        let mut queue: AdmissionQueue<(i32, u64)> = AdmissionQueue::default();
        let mut tickets = Vec::new();
        let mut number = 0;
        for (what, priority, flow, tokens) in steps {
            match what {
                0 | 1 => {
                    let entry = entry(priority, flow, f64::from(tokens));
                    tickets.push(queue.enter((priority, number), entry));
                    number += 1;
                }
                2 => {
                    let next = queue.next();
                    let most = tickets.iter().map(|ticket| ticket.priority.0).max();
                    prop_assert_eq!(next.first().map(|ticket| ticket.priority.0), most);
                    if let Some(first) = next.first() {
                        let gone = queue.go(*first, &[], NOW).unwrap();
                        prop_assert_eq!(Some(gone.0), most);
                        // In its flow it was the first.
                        let earlier = tickets.iter().filter(|other| {
                            (other.priority, other.flow) == (first.priority, first.flow)
                        });
                        prop_assert_eq!(earlier.map(|other| other.number).min(), Some(first.number));
                        tickets.retain(|ticket| ticket != first);
                    }
                }
                _ => {
                    if let Some(ticket) = tickets.pop() {
                        prop_assert!(queue.leave(ticket).is_some());
                    }
                }
            }
            prop_assert_eq!(queue.len(), tickets.len());
            prop_assert_eq!(queue.bytes(), 10 * tickets.len() as u64);
        }
    }

    /// Of two flows that both wait all the time, neither gets ahead by more than a largest request of each.
    #[test]
    fn tokens_of_flows_that_wait_stay_together(
        sizes in prop::collection::vec((1u32..1000, 1u32..1000), 60),
    ) {
        let mut queue: AdmissionQueue<(u64, u32)> = AdmissionQueue::default();
        for (a, b) in &sizes {
            queue.enter((0, *a), entry(0, 0, f64::from(*a)));
            queue.enter((1, *b), entry(0, 1, f64::from(*b)));
        }
        let (mut had, mut left) = ([0i64; 2], [sizes.len(); 2]);
        while left.iter().all(|left| *left > 0) {
            let first = queue.next()[0];
            let (flow, tokens) = queue.go(first, &[], NOW).unwrap();
            let flow = usize::try_from(flow).unwrap();
            had[flow] += i64::from(tokens);
            left[flow] -= 1;
            prop_assert!((had[0] - had[1]).abs() <= 2_000, "{had:?}");
        }
    }
}
