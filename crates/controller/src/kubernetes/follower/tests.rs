//! Lists and watches, with the answers a real server gave and those it gives seldom.

use std::pin::Pin;

use serde_json::{Value, json};

use super::Follower;
use crate::{
    kubernetes::{
        entry::{Entries, Source},
        store::Store,
        tests::{ApiServer, PODS, POOLS, follower, recorded},
    },
    object::Spec,
};

const PODS_LIST: &str = include_str!("../../../testdata/kube-traces/19-pods-list.txt");
const PODS_WATCH: &str = include_str!("../../../testdata/kube-traces/20-pods-watch-selector.txt");
const POOLS_LIST: &str = include_str!("../../../testdata/kube-traces/13-list.txt");
const POOLS_WATCH: &str =
    include_str!("../../../testdata/kube-traces/14-watch-75s-with-bookmarks.txt");
const EXPIRED: &str = include_str!("../../../testdata/kube-traces/23-watch-expired-410.txt");
const FORBIDDEN: &str = include_str!("../../../testdata/kube-traces/17-forbidden-403.txt");
const NO_SUCH_KIND: &str = include_str!("../../../testdata/kube-traces/16-no-such-kind-404.txt");
const TOO_LARGE: &str = include_str!("../../../testdata/kube-traces/24-rv-too-large-504.txt");

/// Runs the script against the follower, which must not end by itself.
fn play<'s>(
    follower: Follower,
    source: Source,
    script: impl Future<Output = ()> + 's,
) -> Pin<Box<dyn Future<Output = ()> + 's>> {
    let (follow, script) = (Box::pin(follower.follow(source)), Box::pin(script));
    Box::pin(async move {
        tokio::select! {
            () = follow => panic!("the follower gave up"),
            () = script => {}
        }
    })
}

/// Names and addresses of the Pods that can be used.
fn usable(store: &Store) -> Vec<String> {
    store.watched().expect("everything was heard");
    let heard = store.heard(PODS);
    let usable = heard.iter().filter_map(|object| match &object.spec {
        Spec::Pod(pod) if pod.serves() => {
            Some(format!("{} {}", object.name, pod.address.as_deref().unwrap_or_default()))
        }
        _ => None,
    });
    usable.collect()
}

async fn list(server: &mut ApiServer, path: &str, trace: &str) {
    let (status, body) = recorded(trace);
    let asked = server.expect(path).await;
    assert!(!asked.is_watch() && asked.query.contains("limit=500"), "{}", asked.query);
    asked.answer(status, body);
}

async fn watch_from(
    server: &mut ApiServer,
    path: &str,
    version: &str,
) -> crate::kubernetes::tests::Asked {
    let asked = server.expect(path).await;
    assert!(asked.is_watch(), "{}", asked.query);
    assert_eq!(asked.version(), version);
    asked
}

const OF_PODS: &str = "GET /api/v1/pods";
const OF_POOLS: &str = "GET /apis/inference.networking.k8s.io/v1/inferencepools";

#[tokio::test(start_paused = true)]
async fn pods_are_what_a_real_server_said_line_by_line() {
    let (follower, store, mut server) = follower(&[PODS]);
    let (_, events) = recorded(PODS_WATCH);
    play(follower, PODS, async {
        assert!(store.waiting_for().is_some());
        list(&mut server, OF_PODS, PODS_LIST).await;
        let steps = [
            ("310", vec!["p1 127.0.0.3"]),
            ("311", vec!["p1 127.0.0.4"]),
            ("312", vec![]),
            ("313", vec![]),
        ];
        let mut version = "309";
        let both = ["p0 127.0.0.2", "p1 127.0.0.3"].map(str::to_owned);
        for (event, (next, expected)) in events.lines().zip(steps) {
            let asked = watch_from(&mut server, OF_PODS, version).await;
            if version == "309" {
                assert_eq!(usable(&store), both);
            }
            // One event, and the end: the next watch goes on from there without a list.
            asked.answer(200, format!("{event}\n"));
            let asked = watch_from(&mut server, OF_PODS, next).await;
            assert_eq!(usable(&store), expected);
            asked.answer(200, "");
            version = next;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_keeps_its_status_and_goes_with_its_deletion() {
    let (follower, store, mut server) = follower(&[POOLS]);
    let (_, events) = recorded(POOLS_WATCH);
    play(follower, POOLS, async {
        list(&mut server, OF_POOLS, POOLS_LIST).await;
        let asked = watch_from(&mut server, OF_POOLS, "271").await;
        let watched = store.watched().unwrap();
        assert_eq!(watched.objects[0].to_string(), "InferencePool default/pool");
        let standing = store.standing((POOLS.kind, POOLS.group), &path(&watched.objects[0]));
        let standing = standing.unwrap();
        assert_eq!(standing.resource_version, "271");
        assert_eq!(standing.status["parents"][0]["controllerName"], "example.com/gw");
        asked.answer(200, events);
        // A bookmark says how far the watch came.
        watch_from(&mut server, OF_POOLS, "301").await;
        assert!(store.watched().unwrap().objects.is_empty());
    })
    .await;
}

fn path(object: &crate::Object) -> crate::object::Path {
    crate::object::Path::of(object)
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_has_lost_its_place_lists_again_and_takes_nothing_away_meanwhile() {
    let (follower, store, mut server) = follower(&[PODS]);
    let (_, expired) = recorded(EXPIRED);
    play(follower, PODS, async {
        list(&mut server, OF_PODS, PODS_LIST).await;
        watch_from(&mut server, OF_PODS, "309").await.answer(200, expired);
        let asked = server.expect(OF_PODS).await;
        assert!(!asked.is_watch(), "it lists");
        assert_eq!(usable(&store).len(), 2, "what was known is in force until the list is here");
        let (_, body) = recorded(PODS_LIST);
        let mut body: Value = serde_json::from_str(&body).unwrap();
        body["items"].as_array_mut().unwrap().remove(0);
        asked.answer(200, body.to_string());
        watch_from(&mut server, OF_PODS, "309").await;
        assert_eq!(usable(&store), ["p1 127.0.0.3"], "what the list lacks is gone");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages_and_begins_anew_when_a_page_is_too_late() {
    let (follower, store, mut server) = follower(&[PODS]);
    let (_, body) = recorded(PODS_LIST);
    let whole: Value = serde_json::from_str(&body).unwrap();
    let mut page = whole.clone();
    page["metadata"]["continue"] = json!("more");
    play(follower, PODS, async {
        server.expect(OF_PODS).await.answer(200, page.to_string());
        let asked = server.expect(OF_PODS).await;
        assert!(asked.query.contains("continue=more"), "{}", asked.query);
        let status = json!({
            "kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "The provided continue parameter is too old",
        });
        asked.answer(410, status.to_string());
        let asked = server.expect(OF_PODS).await;
        assert!(!asked.query.contains("continue") && !asked.query.contains("limit"));
        asked.answer(200, whole.to_string());
        watch_from(&mut server, OF_PODS, "309").await;
        assert_eq!(usable(&store).len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_kind_holds_nothing_up_and_is_asked_for_again() {
    let (follower, store, mut server) = follower(&[POOLS]);
    let (_, forbidden) = recorded(FORBIDDEN);
    play(follower, POOLS, async {
        for _ in 0..3 {
            server.expect(OF_POOLS).await.answer(403, forbidden.clone());
        }
        let asked = server.expect(OF_POOLS).await;
        let watched = store.watched().expect("nobody waits for it");
        assert!(watched.objects.is_empty());
        let (_, body) = recorded(POOLS_LIST);
        asked.answer(200, body);
        watch_from(&mut server, OF_POOLS, "271").await;
        assert_eq!(store.watched().unwrap().objects.len(), 1, "allowed at last");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_refused_later_keeps_what_was_heard() {
    let (follower, store, mut server) = follower(&[PODS]);
    let (_, expired) = recorded(EXPIRED);
    let (_, forbidden) = recorded(FORBIDDEN);
    play(follower, PODS, async {
        list(&mut server, OF_PODS, PODS_LIST).await;
        watch_from(&mut server, OF_PODS, "309").await.answer(200, expired);
        server.expect(OF_PODS).await.answer(403, forbidden);
        server.expect(OF_PODS).await;
        assert_eq!(usable(&store).len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_or_overloaded_is_asked_until_it_answers() {
    let (follower, store, mut server) = follower(&[PODS]);
    let (status, too_large) = recorded(TOO_LARGE);
    play(follower, PODS, async {
        server.expect(OF_PODS).await.fail();
        server.expect(OF_PODS).await.answer_with(429, ("retry-after", "1"), "Too many requests");
        let asked = server.expect(OF_PODS).await;
        let waiting = store.waiting_for().expect("it waits");
        assert!(waiting.ends_with("list of pods: 429 Too many requests"), "{waiting}");
        asked.fail();
        let asked = server.expect(OF_PODS).await;
        let waiting = store.waiting_for().expect("it waits");
        assert!(waiting.contains("pods") && waiting.contains("connection refused"), "{waiting}");
        asked.answer(status, too_large);
        // It hangs: nothing comes back until the wait is over.
        let _hanging = server.expect(OF_PODS).await;
        list(&mut server, OF_PODS, PODS_LIST).await;
        watch_from(&mut server, OF_PODS, "309").await.fail();
        watch_from(&mut server, OF_PODS, "309").await;
        assert_eq!(usable(&store).len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_begun_again_where_it_was() {
    let (follower, store, mut server) = follower(&[PODS]);
    let (_, events) = recorded(PODS_WATCH);
    let first = events.lines().next().unwrap();
    play(follower, PODS, async {
        list(&mut server, OF_PODS, PODS_LIST).await;
        let asked = watch_from(&mut server, OF_PODS, "309").await;
        // Half an event, as a cut leaves it, comes to nothing.
        asked.stay_open(&format!("{first}\n{}", &first[..100]));
        watch_from(&mut server, OF_PODS, "310").await;
        assert_eq!(usable(&store), ["p1 127.0.0.3"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_gone_ends_the_following() {
    let (follower, _, mut server) = follower(&[POOLS]);
    let (status, body) = recorded(NO_SUCH_KIND);
    let script = async { server.expect(OF_POOLS).await.answer(status, body) };
    tokio::join!(Box::pin(follower.follow(POOLS)), script);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_left_out_and_says_why() {
    let (follower, store, mut server) = follower(&[POOLS]);
    let (_, body) = recorded(POOLS_LIST);
    let mut list: Value = serde_json::from_str(&body).unwrap();
    let mut broken = list["items"][0].clone();
    broken["metadata"]["name"] = json!("broken");
    broken["metadata"]["generation"] = json!(4);
    broken["spec"]["targetPorts"] = json!([{ "number": 0 }]);
    list["items"].as_array_mut().unwrap().push(broken);
    play(follower, POOLS, async {
        server.expect(OF_POOLS).await.answer(200, list.to_string());
        watch_from(&mut server, OF_POOLS, "271").await;
        let watched = store.watched().unwrap();
        assert_eq!(watched.objects.len(), 1);
        let condition = watched.unreadable[0].status.condition("Accepted").unwrap();
        assert_eq!(condition.reason, "Invalid");
        assert_eq!(condition.observed_generation, 4);
        assert_eq!(
            condition.message,
            "spec.targetPorts[0].number: expected a port number 1-65535, found 0; write e.g. 8000"
        );
        let told: Vec<String> = watched.problems.iter().map(ToString::to_string).collect();
        let place = "InferencePool default/broken: spec.targetPorts[0].number: expected";
        assert!(told.iter().any(|problem| problem.starts_with(place)), "{told:#?}");
    })
    .await;
}

/// What it says of one kind says nothing of the others.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_an_error_is_the_trouble_of_its_kind() {
    for code in [429, 500, 503] {
        let (follower, store, mut server) = follower(&[PODS, POOLS]);
        play(follower, PODS, async {
            store.server_trouble("connection refused");
            let failure = json!({ "kind": "Status", "status": "Failure", "code": code,
                "message": "not now" });
            server.expect(OF_PODS).await.answer(code, failure.to_string());
            let asked = server.expect(OF_PODS).await;
            let pools =
                "the Kubernetes API server's list of inferencepools.inference.networking.k8s.io";
            assert_eq!(store.waiting_for(), Some(format!("waiting for {pools}")));
            store.replace(POOLS, Entries::new());
            let pods = format!("the Kubernetes API server's list of pods: {code} not now");
            assert_eq!(store.waiting_for(), Some(format!("waiting for {pods}")));
            let (status, body) = recorded(PODS_LIST);
            asked.answer(status, body);
            watch_from(&mut server, OF_PODS, "309").await;
        })
        .await;
    }
}

/// One that begins well and then fails, each time, is no recovery.
#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_after_its_beginning_is_waited_for_ever_longer() {
    let (follower, _, mut server) = follower(&[POOLS]);
    play(follower, POOLS, async {
        list(&mut server, OF_POOLS, POOLS_LIST).await;
        let failure = json!({ "type": "ERROR", "object": { "kind": "Status", "status": "Failure",
            "code": 500, "message": "etcd has no leader" } });
        let began = tokio::time::Instant::now();
        for _ in 0..10 {
            let asked = watch_from(&mut server, OF_POOLS, "271").await;
            asked.answer(200, format!("{failure}\n"));
        }
        assert!(began.elapsed() > std::time::Duration::from_secs(30), "{:?}", began.elapsed());
    })
    .await;
}
