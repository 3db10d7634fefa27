//! Who writes statuses.

use std::{pin::Pin, sync::Arc};

use serde_json::{Value, json};

use super::Lease;
use crate::kubernetes::{
    store::Store,
    tests::{ApiServer, api_server},
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/infra/leases";

fn lease() -> (Lease, ApiServer) {
    let (client, server) = api_server();
    let store: Arc<Store> = Arc::default();
    (Lease::new(client, store, "infra", "tokenweir".to_owned(), "us".to_owned()), server)
}

fn record(holder: &str, renewed: u32) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": "tokenweir", "namespace": "infra", "resourceVersion": "5" },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "leaseTransitions": 2,
            "renewTime": format!("2026-01-01T00:00:{renewed:02}.000000Z"),
        },
    })
}

fn play<'s>(
    lease: &'s Lease,
    script: impl Future<Output = ()> + 's,
) -> Pin<Box<dyn Future<Output = ()> + 's>> {
    let (keep, script) = (Box::pin(lease.keep()), Box::pin(script));
    Box::pin(async move {
        tokio::select! {
            () = keep => panic!("it never ends"),
            () = script => {}
        }
    })
}

async fn get(server: &mut ApiServer, found: &Value) {
    let asked = server.expect(&format!("GET {LEASES}/tokenweir")).await;
    asked.answer(200, found.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_lease_nobody_has_made_is_made_and_renewed() {
    let (lease, mut server) = lease();
    play(&lease, async {
        let missing =
            json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" });
        let asked = server.expect(&format!("GET {LEASES}/tokenweir")).await;
        asked.answer(404, missing.to_string());
        let asked = server.expect(&format!("POST {LEASES}")).await;
        assert_eq!(asked.body["spec"]["holderIdentity"], "us");
        assert_eq!(asked.body["spec"]["leaseDurationSeconds"], 15);
        asked.answer(201, record("us", 0).to_string());
        get(&mut server, &record("us", 0)).await;
        assert!(*lease.held().borrow());
        let asked = server.expect(&format!("PUT {LEASES}/tokenweir")).await;
        assert_eq!(asked.body["metadata"]["resourceVersion"], "5", "only if nobody was faster");
        assert_eq!(asked.body["spec"]["leaseTransitions"], 2, "it stays where it is");
        asked.answer(200, record("us", 4).to_string());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_holder_is_waited_for_until_it_renews_no_more() {
    let (lease, mut server) = lease();
    play(&lease, async {
        for second in [0, 4, 8, 8, 8] {
            get(&mut server, &record("them", second)).await;
        }
        // Fifteen seconds by our clock after the last renewal we saw.
        let asked = loop {
            let asked = server.next().await;
            if asked.line.starts_with("PUT") {
                break asked;
            }
            asked.answer(200, record("them", 8).to_string());
        };
        assert!(!*lease.held().borrow());
        assert_eq!(asked.body["spec"]["holderIdentity"], "us");
        assert_eq!(asked.body["spec"]["leaseTransitions"], 3);
        let conflict =
            json!({ "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict" });
        asked.answer(409, conflict.to_string());
        get(&mut server, &record("third", 30)).await;
        assert!(!*lease.held().borrow(), "another was faster");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_back_is_taken_at_once() {
    let (lease, mut server) = lease();
    play(&lease, async {
        get(&mut server, &record("", 0)).await;
        let asked = server.expect(&format!("PUT {LEASES}/tokenweir")).await;
        asked.answer(200, record("us", 1).to_string());
        lease.held().wait_for(|held| *held).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_writing_before_its_lease_runs_out() {
    let (lease, mut server) = lease();
    play(&lease, async {
        get(&mut server, &record("us", 0)).await;
        let asked = server.expect(&format!("PUT {LEASES}/tokenweir")).await;
        asked.answer(200, record("us", 1).to_string());
        let mut held = lease.held();
        held.wait_for(|held| *held).await.unwrap();
        let took = tokio::time::Instant::now();
        let away = async {
            loop {
                server.next().await.fail();
            }
        };
        tokio::select! {
            () = away => {}
            lost = held.wait_for(|held| !held) => drop(lost.unwrap()),
        }
        assert!(took.elapsed() < super::DURATION);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_what_is_ours_is_given_back() {
    let (lease, mut server) = lease();
    let script = async {
        get(&mut server, &record("us", 0)).await;
        let asked = server.expect(&format!("PUT {LEASES}/tokenweir")).await;
        assert_eq!(asked.body["spec"]["holderIdentity"], "");
        asked.answer(200, record("", 1).to_string());
    };
    tokio::join!(lease.release(), script);
    let theirs = record("them", 0);
    tokio::join!(lease.release(), get(&mut server, &theirs));
}
