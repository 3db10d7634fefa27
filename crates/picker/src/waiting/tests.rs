use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use scheduling::{EndpointId, FlowControl, Policy, Reading, ScrapeMark, Signals};

use tokio::time::Instant;

use super::*;
use crate::{
    Asked, Assignment, Desired, Finish, Health, ObjectiveSpec, Tasks,
    picker::tests::{Ask, Gateway, at_once, desired, key, record},
};

/// Tokens an endpoint of these tests holds, and prompts that take most of that: one fits, two do not.
const CAPACITY: u32 = 90;
const LARGE: Ask<'_> = Ask { pool: "p", model: "m", bytes: 200, objective: None, flow: 0 };
const SECOND: Duration = Duration::from_secs(1);

/// Pool `p` of these endpoints, whose requests wait; objectives `low`, `high` and `higher`.
fn waiting_pool(endpoints: &str, limits: FlowControl) -> Desired {
    let mut desired = desired(Policy::LeastRequest, &format!("p: {endpoints}"));
    let objective = |(name, priority): (&str, i32)| ObjectiveSpec { name: name.into(), priority };
    desired.pools[0].objectives = [("low", -1), ("high", 1), ("higher", 2)].map(objective).into();
    desired.pools[0].flow_control = FlowControl { late_binding: Some(true), ..limits };
    desired
}

fn gateway(endpoints: &str, limits: FlowControl) -> Gateway {
    let gateway = Gateway::new(waiting_pool(endpoints, limits));
    for id in endpoints.split_whitespace() {
        scrape(&gateway, id, 0.0);
    }
    gateway
}

fn one_endpoint() -> Gateway {
    gateway("a", FlowControl::default())
}

/// An endpoint tells its size, and that it has a request of somebody else which takes such a share of it.
fn scrape(gateway: &Gateway, id: &str, usage: f64) {
    let heard = monotonic();
    // One of them may be ours.
    let running = Some(Reading { value: if usage > 0.0 { 2 } else { 0 }, heard });
    let signals = Signals {
        running,
        waiting: Some(Reading { value: 0, heard }),
        kv_usage: Some(Reading { value: usage, heard }),
        kv_block_tokens: Some(Reading { value: 10, heard }),
        // One of them holds nothing.
        kv_blocks: Some(Reading { value: u64::from(CAPACITY) / 10 + 1, heard }),
        ..Signals::default()
    };
    gateway.picker.writer().signals(&EndpointId::new(id), signals, ScrapeMark::NOTHING);
}

type Placing<'a> = Pin<Box<dyn Future<Output = Result<Assignment, Refusal>> + 'a>>;

fn placing<'a>(gateway: &'a Gateway, ask: Ask<'a>) -> Placing<'a> {
    let mut placing: Placing<'a> = Box::pin(gateway.place(ask));
    assert!(end_of(&mut placing).is_none(), "it does not wait");
    placing
}

fn end_of(placing: &mut Placing<'_>) -> Option<Result<Assignment, Refusal>> {
    match placing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(end) => Some(end),
        Poll::Pending => None,
    }
}

fn placed(gateway: &Gateway, ask: Ask<'_>) -> Assignment {
    at_once(gateway.place(ask)).unwrap()
}

/// How many wait, and what their bodies take.
fn waiting(gateway: &Gateway) -> (usize, u64) {
    gateway.picker.view().queue(&key("p"))
}

fn check_nothing_left(gateway: &Gateway) {
    assert_eq!(waiting(gateway), (0, 0));
    assert!(!gateway.load().replace("=0", "").contains('='), "{}", gateway.load());
    assert_eq!(gateway.picker.lobby().waiting.load(Ordering::SeqCst), 0);
}

/// Requests as `name:objective:flow:bytes`, whatever comes after the name left out at will. The first is sent and held, the
/// others wait behind it; each that is placed ends before the next. Tells in which order they are placed.
fn order(requests: &str) -> String {
    let gateway = one_endpoint();
    let ask = |request: &'static str| {
        let mut words = request.split(':').skip(1);
        let objective = words.next().filter(|word| !word.is_empty());
        let flow = words.next().map_or(0, |word| word.parse().unwrap());
        let bytes = words.next().map_or(LARGE.bytes, |word| word.parse().unwrap());
        Ask { bytes, objective, flow, ..LARGE }
    };
    let requests: Vec<&'static str> =
        requests.split_whitespace().map(|request| &*request.to_owned().leak()).collect();
    let mut held = Some(placed(&gateway, ask(requests[0])));
    let mut waits: Vec<(&str, Placing<'_>)> = requests[1..]
        .iter()
        .map(|request| (request.split(':').next().unwrap(), placing(&gateway, ask(request))))
        .collect();
    let mut order = Vec::new();
    while !waits.is_empty() {
        drop(held.take());
        let ended = waits.iter_mut().enumerate();
        let mut ended = ended.filter_map(|(at, (_, placing))| Some((at, end_of(placing)?)));
        let (at, end) = ended.next().expect("one is placed");
        held = Some(end.unwrap());
        assert!(ended.next().is_none(), "only one is placed");
        drop(ended);
        order.push(waits.remove(at).0);
    }
    drop(held);
    check_nothing_left(&gateway);
    order.join(" ")
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_another_ends() {
    let gateway = one_endpoint();
    let first = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    assert_eq!((gateway.load().as_str(), waiting(&gateway).0), ("a=1", 1));
    let page = gateway.page();
    assert!(page.contains("tokenweir_queue_requests{pool=\"p\"} 1\n"), "{page}");
    assert!(page.contains("tokenweir_queue_bytes{pool=\"p\"} 239\n"), "its body: {page}");
    tokio::time::advance(SECOND).await;
    assert!(end_of(&mut second).is_none());
    drop(first);
    assert_eq!((gateway.load().as_str(), waiting(&gateway)), ("a=1", (0, 0)), "charged at once");
    tokio::time::advance(SECOND).await;
    drop(end_of(&mut second).unwrap().unwrap());
    drop(second);
    check_nothing_left(&gateway);
    let record = gateway.written().remove(1);
    assert_eq!(record.queue, Some(2 * SECOND), "it ends with the request's own task");
    assert!(gateway.page().contains("tokenweir_queue_seconds_sum{model=\"other\",pool=\"p\"} 2\n"));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_a_scrape_shows_room() {
    let gateway = one_endpoint();
    let held = placed(&gateway, Ask::default());
    scrape(&gateway, "a", 0.9);
    let mut second = placing(&gateway, LARGE);
    scrape(&gateway, "a", 0.8);
    assert!(end_of(&mut second).is_none());
    scrape(&gateway, "a", 0.0);
    drop(end_of(&mut second).unwrap().unwrap());
    drop((held, second));
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_an_endpoint_comes_back() {
    let gateway = gateway("a b", FlowControl::default());
    let b = EndpointId::new("b");
    gateway.picker.writer().health(&b, Health::Unready);
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    gateway.picker.writer().health(&b, Health::Ready);
    let assignment = end_of(&mut second).unwrap().unwrap();
    assert_eq!(gateway.load(), "a=1 b=1");
    drop((held, assignment));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_a_new_configuration_brings_an_endpoint() {
    let gateway = one_endpoint();
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    gateway.picker.writer().apply(waiting_pool("a b", FlowControl::default()));
    let assignment = end_of(&mut second).unwrap().unwrap();
    assert_eq!(gateway.load(), "a=1 b=1");
    drop((held, assignment));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_no_more_where_a_new_configuration_has_nobody_wait() {
    let gateway = one_endpoint();
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    let mut state = waiting_pool("a", FlowControl::default());
    state.pools[0].flow_control.late_binding = Some(false);
    gateway.picker.writer().apply(state);
    let assignment = end_of(&mut second).unwrap().unwrap();
    let third = placed(&gateway, LARGE);
    assert_eq!(gateway.load(), "a=3");
    drop((held, assignment, third));
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_on_in_a_pool_that_is_taken_away() {
    let gateway = one_endpoint();
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    gateway.picker.writer().apply(desired(Policy::LeastRequest, "q: b"));
    assert!(end_of(&mut second).is_none());
    drop(held);
    let assignment = end_of(&mut second).unwrap().unwrap();
    assert_eq!(assignment.endpoint().spec.id.as_str(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_moves_on_makes_room_where_it_was() {
    let gateway = gateway("a b", FlowControl::default());
    let small = Ask { bytes: 40, ..LARGE };
    let mut first = placed(&gateway, LARGE);
    let second = placed(&gateway, small);
    let third = placed(&gateway, small);
    assert_ne!(first.endpoint().spec.id, second.endpoint().spec.id);
    let mut fourth = placing(&gateway, Ask { bytes: 320, ..LARGE });
    assert!(first.advance("error"));
    // Where it goes there was no room for it, so it is there that the others wait.
    let assignment = end_of(&mut fourth);
    assert_eq!(assignment.is_some(), first.endpoint().in_flight() == 3, "{}", gateway.load());
    drop((first, second, third, assignment, fourth));
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn requests_go_in_order_of_priority_then_flow_then_arrival() {
    assert_eq!(order("first a b c"), "a b c");
    assert_eq!(order("first a b:high c:higher d:high"), "c b d a");
    assert_eq!(order("first::1 a::1 b::1 c::2 d::2"), "c a d b");
    assert_eq!(order("first::3 a::1:300 b::1:300 c::2:200 d::2:200"), "a c d b");
}

#[tokio::test(start_paused = true)]
async fn a_small_request_goes_by_a_large_one_and_takes_nothing_from_it() {
    let gateway = one_endpoint();
    let held = placed(&gateway, LARGE);
    let mut large = placing(&gateway, LARGE);
    let small = placed(&gateway, Ask { bytes: 40, ..LARGE });
    assert!(end_of(&mut large).is_none());
    drop(held);
    assert!(end_of(&mut large).unwrap().is_ok());
    drop(small);
}

#[tokio::test(start_paused = true)]
async fn for_a_large_request_overtaken_too_often_one_endpoint_is_kept_and_others_go_on() {
    let gateway = gateway("a b", FlowControl::default());
    let place_small = || placed(&gateway, Ask { bytes: 40, ..LARGE });
    let mut held: Vec<Assignment> = (0..2).map(|_| placed(&gateway, LARGE)).collect();
    let mut large = placing(&gateway, LARGE);
    for _ in 0..16 {
        drop(place_small());
    }
    let on = place_small().endpoint().spec.id.clone();
    for _ in 0..100 {
        assert_eq!(place_small().endpoint().spec.id, on);
    }
    let kept = held.iter().position(|held| held.endpoint().spec.id != on).unwrap();
    let (small, kept) = (place_small(), held.remove(kept));
    assert!(end_of(&mut large).is_none());
    let id = kept.endpoint().spec.id.clone();
    drop(kept);
    assert_eq!(end_of(&mut large).unwrap().unwrap().endpoint().spec.id, id);
    drop((held, small, large));
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn large_requests_that_wait_for_one_endpoint_hold_up_no_other() {
    let gateway = gateway("a b", FlowControl::default());
    let small = Ask { bytes: 40, ..LARGE };
    let held: Vec<Assignment> = (0..2).map(|_| placed(&gateway, LARGE)).collect();
    let mut lacking = placed(&gateway, Ask { model: "n", ..small });
    let without = lacking.endpoint().spec.id.clone();
    assert!(lacking.lacks_model("n"));
    drop(lacking);
    let mut large: Vec<_> =
        (0..2).map(|_| placing(&gateway, Ask { model: "n", ..LARGE })).collect();
    for _ in 0..16 {
        drop(placed(&gateway, small));
    }
    for _ in 0..100 {
        assert_eq!(placed(&gateway, small).endpoint().spec.id, without);
    }
    drop(held);
    let first = end_of(&mut large[0]).unwrap().unwrap();
    assert!(end_of(&mut large[1]).is_none());
    drop(first);
    assert!(end_of(&mut large[1]).unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_generates_nothing_does_not_wait() {
    let gateway = one_endpoint();
    // There is no room for anything, and somebody waits already.
    let held = placed(&gateway, Ask { bytes: 400, ..LARGE });
    let second = placing(&gateway, LARGE);
    let routed = gateway.picker.straight_to(&key("p"));
    let mut open = gateway.picker.open(record(""));
    let listing = at_once(gateway.picker.pick(&routed, Asked::default(), &mut open));
    assert!(listing.is_ok());
    drop((held, second));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_frees_its_place() {
    let gateway = gateway("a", FlowControl { requests_max: 1, ..FlowControl::default() });
    let held = placed(&gateway, LARGE);
    let second = placing(&gateway, LARGE);
    drop(second);
    assert_eq!(waiting(&gateway), (0, 0));
    assert_eq!(gateway.written()[0].finish, Some(Finish::ClientGone));
    let mut third = placing(&gateway, LARGE);
    drop(held);
    assert!(end_of(&mut third).unwrap().is_ok());
    drop(third);
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn what_a_client_that_left_had_been_given_goes_to_the_next() {
    let gateway = one_endpoint();
    let held = placed(&gateway, LARGE);
    let second = placing(&gateway, LARGE);
    let mut third = placing(&gateway, LARGE);
    drop(held);
    assert!(end_of(&mut third).is_none());
    drop(second);
    assert!(end_of(&mut third).unwrap().is_ok());
    drop(third);
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn who_stood_in_the_way_and_leaves_lets_the_next_go() {
    let gateway = one_endpoint();
    let held = placed(&gateway, LARGE);
    let large = placing(&gateway, LARGE);
    // Overtaken so often that nobody may any more.
    for _ in 0..16 {
        drop(placed(&gateway, Ask { bytes: 40, ..LARGE }));
    }
    let mut small = placing(&gateway, Ask { bytes: 40, ..LARGE });
    drop(large);
    assert!(end_of(&mut small).unwrap().is_ok());
    drop((held, small));
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused() {
    let gateway = gateway("a", FlowControl { wait_max: 7 * SECOND, ..FlowControl::default() });
    let held = placed(&gateway, LARGE);
    let begun = Instant::now();
    let refusal = gateway.place(LARGE).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 7);
    let pool = "InferencePool default/p".to_owned();
    let Refusal::QueueTimeout { pool: of, waited, .. } = &refusal else { panic!("{refusal:?}") };
    assert_eq!((of, *waited), (&pool, 7 * SECOND));
    let record = gateway.written().remove(0);
    assert_eq!(record.finish, Some(Finish::Refused("queue_timeout")));
    assert_eq!(record.queue.map(|queue| queue.as_secs()), Some(7));
    drop(held);
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_queue_full_is_refused() {
    let full = |limits: FlowControl| {
        let gateway = gateway("a", limits);
        let held = placed(&gateway, LARGE);
        let second = placing(&gateway, LARGE);
        let refusal = at_once(gateway.place(LARGE)).unwrap_err();
        assert!(matches!(refusal, Refusal::QueueFull { .. }), "{refusal:?}");
        // One that has gone before it, and one that is to go: each as long as an answer is expected to take.
        assert_eq!(refusal.wire().retry_after, Some(8));
        assert_eq!(waiting(&gateway).0, 1);
        drop((held, second));
        check_nothing_left(&gateway);
    };
    full(FlowControl { requests_max: 1, ..FlowControl::default() });
    full(FlowControl { bytes_max: 400, ..FlowControl::default() });
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_queue_full_puts_out_the_latest_of_less_priority() {
    let gateway = gateway("a", FlowControl { requests_max: 2, ..FlowControl::default() });
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    let mut third = placing(&gateway, LARGE);
    let mut fourth = placing(&gateway, Ask { objective: Some("high"), ..LARGE });
    assert!(matches!(end_of(&mut third).unwrap(), Err(Refusal::QueueFull { .. })));
    assert!(end_of(&mut second).is_none());
    drop(held);
    assert!(end_of(&mut second).is_none());
    let assignment = end_of(&mut fourth).unwrap().unwrap();
    drop((assignment, second, third, fourth));
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_can_never_wait_puts_out_nobody() {
    let gateway = gateway("a", FlowControl { bytes_max: 240, ..FlowControl::default() });
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    let ask = Ask { bytes: 300, objective: Some("high"), ..LARGE };
    assert!(matches!(at_once(gateway.place(ask)), Err(Refusal::QueueFull { .. })));
    assert!(end_of(&mut second).is_none());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_sheddable_request_is_refused_instead_of_waiting() {
    let gateway = one_endpoint();
    let low = Ask { objective: Some("low"), ..LARGE };
    drop(placed(&gateway, low));
    let held = placed(&gateway, LARGE);
    let refusal = at_once(gateway.place(low)).unwrap_err();
    assert!(matches!(refusal, Refusal::Shed { .. }), "{refusal:?}");
    assert_eq!(refusal.wire().retry_after, Some(4));
    // Nor does it go by those that wait.
    let second = placing(&gateway, LARGE);
    let small = Ask { bytes: 4, ..low };
    assert!(matches!(at_once(gateway.place(small)), Err(Refusal::Shed { .. })));
    drop((held, second));
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_when_those_who_wait_will_have_gone() {
    let gateway = gateway("a", FlowControl { requests_max: 3, ..FlowControl::default() });
    let mut held = Some(placed(&gateway, LARGE));
    let mut waits: VecDeque<Placing<'_>> = (0..3).map(|_| placing(&gateway, LARGE)).collect();
    for _ in 0..4 {
        tokio::time::advance(4 * SECOND).await;
        drop(held.take());
        held = Some(end_of(&mut waits.pop_front().unwrap()).unwrap().unwrap());
        waits.push_back(placing(&gateway, LARGE));
    }
    let refusal = at_once(gateway.place(LARGE)).unwrap_err();
    assert_eq!(refusal.wire().retry_after, Some(16));
    drop((held, waits));
}

#[tokio::test(start_paused = true)]
async fn waiting_outlasts_an_endpoints_trouble() {
    let gateway = one_endpoint();
    let a = EndpointId::new("a");
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    gateway.picker.writer().health(&a, Health::Unready);
    drop(held);
    assert!(end_of(&mut second).is_none());
    // Who comes now is told at once.
    assert!(matches!(at_once(gateway.place(LARGE)), Err(Refusal::NoEndpoints { .. })));
    gateway.picker.writer().health(&a, Health::Ready);
    assert!(end_of(&mut second).unwrap().is_ok());
    drop(second);
    check_nothing_left(&gateway);
}

#[tokio::test(start_paused = true)]
async fn a_panic_gives_room_to_those_who_wait() {
    let gateway = one_endpoint();
    let held = placed(&gateway, LARGE);
    let mut second = placing(&gateway, LARGE);
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _held = held;
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    let mut third = placing(&gateway, LARGE);
    let assignment = end_of(&mut second).unwrap().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _waits = second;
        let _held = assignment;
        panic!("a bug");
    }));
    assert!(panicked.is_err());
    assert!(end_of(&mut third).unwrap().is_ok());
    drop(third);
    check_nothing_left(&gateway);
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask {
        objective: Option<&'static str>,
        flow: u64,
        bytes: usize,
    },
    /// A request ends, or its client leaves, whether it waits or not.
    End(usize),
    /// The same as it is about to be told that it may go.
    EndTwo(usize, usize),
    Scrape(u8, f64),
    Health(u8, bool),
    Token(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let objectives = prop::sample::select(vec![None, Some("low"), Some("high"), Some("higher")]);
    let ask = (objectives, 0..3u64, 1..500usize);
    let step = prop_oneof![
        8 => ask.prop_map(|(objective, flow, bytes)| Step::Ask { objective, flow, bytes }),
        4 => (0..20usize).prop_map(Step::End),
        2 => (0..20usize, 0..20usize).prop_map(|(a, b)| Step::EndTwo(a, b)),
        1 => (0..2u8, 0.0..1.0).prop_map(|(at, usage)| Step::Scrape(at, usage)),
        1 => (0..2u8, any::<bool>()).prop_map(|(at, ready)| Step::Health(at, ready)),
        1 => (0..20usize).prop_map(Step::Token),
        1 => (0..9u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..120)
}

/// A request of whichever state.
enum Request<'a> {
    Waits(Placing<'a>),
    Goes(Box<Assignment>),
}

async fn run(steps: &[Step]) {
    let wait_max = 60 * SECOND;
    let limits = FlowControl { requests_max: 10, bytes_max: 3_000, wait_max, late_binding: None };
    let gateway = gateway("a b", limits);
    let id = |at: u8| if at == 0 { "a" } else { "b" };
    let mut requests: Vec<Request<'_>> = Vec::new();
    let take = |requests: &mut Vec<Request<'_>>, at: usize| {
        let at = at.checked_rem(requests.len());
        at.map(|at| requests.remove(at));
    };
    for step in steps {
        match *step {
            Step::Ask { objective, flow, bytes } => {
                let ask = Ask { bytes, objective, flow, ..LARGE };
                requests.push(Request::Waits(Box::pin(gateway.place(ask))));
            }
            Step::End(at) => take(&mut requests, at),
            Step::EndTwo(one, other) => {
                take(&mut requests, one);
                take(&mut requests, other);
            }
            Step::Scrape(at, usage) => scrape(&gateway, id(at), usage),
            Step::Health(at, ready) => {
                let health = if ready { Health::Ready } else { Health::Unready };
                gateway.picker.writer().health(&EndpointId::new(id(at)), health);
            }
            Step::Token(at) => {
                if let Some(Request::Goes(assignment)) = requests.get_mut(at) {
                    assignment.tokens(Instant::now());
                }
            }
            Step::Wait(seconds) => {
                let seconds = Duration::from_secs(seconds);
                tokio::time::advance(seconds).await;
            }
        }
        look(&mut requests);
        let (waits, bytes) = waiting(&gateway);
        let still = requests.iter().filter(|request| matches!(request, Request::Waits(_)));
        assert_eq!(waits, still.count());
        assert!(waits <= 10 && bytes <= 3_000);
    }
    // From now on all is well, and nobody but those that end makes room.
    for at in [0, 1] {
        scrape(&gateway, id(at), 0.0);
        gateway.picker.writer().health(&EndpointId::new(id(at)), Health::Ready);
    }
    look(&mut requests);
    while !requests.is_empty() {
        let goes = requests.iter().position(|request| matches!(request, Request::Goes(_)));
        requests.remove(goes.expect("somebody has been let go"));
        look(&mut requests);
    }
    check_nothing_left(&gateway);
    let asked = steps.iter().filter(|step| matches!(step, Step::Ask { .. })).count();
    assert_eq!(gateway.written().len(), asked, "each has its record");
}

/// Sees what has become of those that wait.
fn look(requests: &mut Vec<Request<'_>>) {
    look_once(requests);
    // A new one may have put out one that was looked at before.
    look_once(requests);
}

fn look_once(requests: &mut Vec<Request<'_>>) {
    let look = |request| match request {
        Request::Waits(mut placing) => match end_of(&mut placing) {
            None => Some(Request::Waits(placing)),
            Some(end) => end.ok().map(|placed| Request::Goes(Box::new(placed))),
        },
        goes @ Request::Goes(_) => Some(goes),
    };
    *requests = requests.drain(..).filter_map(look).collect();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: nobody is forgotten, and nothing is left behind.
    #[test]
    fn whoever_waits_goes_or_is_told(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(&steps));
    }
}

/// On several threads at once, with clients leaving at any moment.
#[test]
fn nobody_is_forgotten_between_threads() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
    runtime.unwrap().block_on(async {
        let limits = FlowControl { wait_max: Duration::from_mins(5), ..FlowControl::default() };
        let gateway = Arc::new(gateway("a b", limits));
        let tasks = Tasks::new(gateway.picker.metrics().panics.clone());
        for number in 0..2_000_u64 {
            let gateway = Arc::clone(&gateway);
            tasks.spawn("request", async move {
                let ask = Ask { flow: number % 3, bytes: 200, ..LARGE };
                let patience = Duration::from_micros(number % 40 * 100);
                let placed = if number % 4 == 0 {
                    timeout(patience, gateway.place(ask)).await
                } else {
                    Ok(gateway.place(ask).await)
                };
                let Ok(placed) = placed else { return };
                let held = placed.unwrap();
                for _ in 0..number % 5 {
                    tokio::task::yield_now().await;
                }
                drop(held);
            });
        }
        timeout(Duration::from_mins(1), tasks.ended()).await.expect("all end");
        assert_eq!(gateway.picker.metrics().panics.get(), 0);
        assert_eq!(gateway.written().len(), 2_000);
        check_nothing_left(&gateway);
    });
}
