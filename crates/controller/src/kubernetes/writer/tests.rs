//! What is written, by whom, and what is not.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Writer;
use crate::{
    FoldOptions, fold,
    kubernetes::{
        backoff::RetryAfter,
        entry::{Entries, Sent, Source},
        store::Store,
        tests::{ApiServer, POOLS, api_server},
    },
    object::{ISTIO_GROUP, Kind},
    status::ObjectStatus,
};

const VIRTUAL_SERVICES: Source =
    Source { kind: Kind::VirtualService, group: ISTIO_GROUP, version: "v1" };

const STATUS: &str =
    "PATCH /apis/inference.networking.k8s.io/v1/namespaces/default/inferencepools/p/status";
const POOL: &str = "GET /apis/inference.networking.k8s.io/v1/namespaces/default/inferencepools/p";

/// A pool as the API server has it.
fn pool(version: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": { "name": "p", "namespace": "default", "generation": 1, "resourceVersion": version },
        "spec": { "selector": { "matchLabels": { "app": "a" } }, "targetPorts": [{ "number": 1 }] },
        "status": status,
    })
}

struct Scene {
    store: Arc<Store>,
    server: ApiServer,
    wanted: watch::Sender<Arc<Vec<ObjectStatus>>>,
    held: watch::Sender<bool>,
}

/// A writer that knows the pool in version 1, without a status.
fn scene() -> (Writer, Scene) {
    let (client, server) = api_server();
    let store: Arc<Store> = Arc::default();
    store.discovered(&[POOLS, VIRTUAL_SERVICES]);
    tell(&store, "1", &Value::Null);
    store.replace(VIRTUAL_SERVICES, Entries::new());
    let (wanted, statuses) = watch::channel(Arc::default());
    let (held, holds) = watch::channel(true);
    let writer = Writer {
        client,
        store: Arc::clone(&store),
        retry_after: RetryAfter::default(),
        wanted: statuses,
        held: holds,
        namespace: None,
    };
    (writer, Scene { store, server, wanted, held })
}

/// The watch tells of the pool.
fn tell(store: &Store, version: &str, status: &Value) {
    let object: kube::api::DynamicObject = serde_json::from_value(pool(version, status)).unwrap();
    let path = object.path();
    store.replace(POOLS, Entries::from([(path, object.into_entry(POOLS, &BTreeMap::new()))]));
}

/// What the fold says once a route refers to the pool.
fn accepted(store: &Store) -> Arc<Vec<ObjectStatus>> {
    let more = crate::read_text(
        "x.yaml",
        "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec: {servers: [{hosts: ['*'], port: {number: 80, protocol: HTTP}}]}
---
apiVersion: istio.alibabacloud.com/v1
kind: LLMRoute
metadata: {name: r}
spec: {host: a.com, gateways: [g], rules: [{backendRefs: [{backendRef: {name: p}}]}]}
",
    )
    .objects;
    let watched = store.watched().unwrap();
    let objects = watched.objects.iter().map(|object| &**object).chain(&more);
    let options = FoldOptions { kubernetes: true, ..FoldOptions::default() };
    let mut statuses = fold(objects, &options).statuses;
    statuses.retain(|status| &*status.name == "p");
    Arc::new(statuses)
}

fn play<'s>(
    writer: Writer,
    script: impl Future<Output = ()> + 's,
) -> Pin<Box<dyn Future<Output = ()> + 's>> {
    let (write, script) = (Box::pin(writer.write()), Box::pin(script));
    Box::pin(async move {
        tokio::select! {
            () = write => panic!("it never ends"),
            () = script => {}
        }
    })
}

/// Nobody asks for anything, however long one waits.
async fn silence(server: &mut ApiServer) {
    let hour = std::time::Duration::from_hours(1);
    let asked = tokio::time::timeout(hour, server.next()).await;
    assert!(asked.is_err(), "{}", asked.map(|asked| asked.line).unwrap_or_default());
}

#[tokio::test(start_paused = true)]
async fn a_status_is_written_once_with_the_version_it_was_read_in() {
    let (writer, mut scene) = scene();
    play(writer, async {
        scene.wanted.send_replace(accepted(&scene.store));
        let asked = scene.server.expect(STATUS).await;
        assert!(asked.query.contains("fieldManager=tokenweir"));
        assert_eq!(asked.body["metadata"]["resourceVersion"], "1");
        let status = asked.body["status"].clone();
        assert_eq!(status["parents"][0]["conditions"][0]["status"], "True");
        asked.answer(200, pool("2", &status).to_string());
        silence(&mut scene.server).await;
        // The watch tells of what was written, and the fold says the same again.
        tell(&scene.store, "2", &status);
        scene.wanted.send_replace(accepted(&scene.store));
        silence(&mut scene.server).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_the_lease() {
    let (writer, mut scene) = scene();
    scene.held.send_replace(false);
    play(writer, async {
        scene.wanted.send_replace(accepted(&scene.store));
        silence(&mut scene.server).await;
        scene.held.send_replace(true);
        scene.server.expect(STATUS).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn when_another_was_faster_what_it_wrote_is_read_and_kept() {
    let (writer, mut scene) = scene();
    let theirs = json!({ "parentRef": { "name": "x" }, "controllerName": "example.com/x", "conditions": [] });
    let conflict =
        json!({ "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict" });
    play(writer, async {
        scene.wanted.send_replace(accepted(&scene.store));
        scene.server.expect(STATUS).await.answer(409, conflict.to_string());
        let now = pool("7", &json!({ "parents": [theirs] }));
        scene.server.expect(POOL).await.answer(200, now.to_string());
        let asked = scene.server.expect(STATUS).await;
        assert_eq!(asked.body["metadata"]["resourceVersion"], "7");
        assert_eq!(asked.body["status"]["parents"][0], theirs);
        assert_eq!(asked.body["status"]["parents"].as_array().unwrap().len(), 2);
        let status = asked.body["status"].clone();
        asked.answer(200, pool("8", &status).to_string());
        silence(&mut scene.server).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_keeps_undoing_what_is_written_is_answered_less_and_less_often() {
    let (writer, mut scene) = scene();
    play(writer, async {
        scene.wanted.send_replace(accepted(&scene.store));
        let began = tokio::time::Instant::now();
        for version in 1..=10 {
            let asked = scene.server.expect(STATUS).await;
            let status = asked.body["status"].clone();
            asked.answer(200, pool(&format!("{version}-ours"), &status).to_string());
            tell(&scene.store, &format!("{version}-theirs"), &json!({ "parents": [] }));
        }
        assert!(began.elapsed() > std::time::Duration::from_mins(4), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_or_lost_is_tried_again_later() {
    let (writer, mut scene) = scene();
    let refused =
        json!({ "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden" });
    play(writer, async {
        scene.wanted.send_replace(accepted(&scene.store));
        scene.server.expect(STATUS).await.fail();
        scene.server.expect(STATUS).await.answer(404, "404 page not found\n");
        scene.server.expect(STATUS).await.answer(403, refused.to_string());
        // It hangs.
        let _hanging = scene.server.expect(STATUS).await;
        scene.server.expect(STATUS).await;
    })
    .await;
}

/// An entry as versions have it that know no controllerName.
fn without_controller(status: &ObjectStatus) -> Value {
    let mut status = status.status_json();
    for entry in status["parents"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("controllerName");
    }
    status
}

/// What is wanted of the pool when no route refers to it.
fn unused(store: &Store) -> Arc<Vec<ObjectStatus>> {
    let watched = store.watched().unwrap();
    let objects = watched.objects.iter().map(|object| &**object);
    Arc::new(fold(objects, &FoldOptions::default()).statuses)
}

#[tokio::test(start_paused = true)]
async fn entries_found_as_they_have_to_be_are_ours_to_take_back() {
    for waits_for_the_lease in [false, true] {
        let (writer, mut scene) = scene();
        scene.held.send_replace(!waits_for_the_lease);
        play(writer, async {
            let wanted = accepted(&scene.store);
            tell(&scene.store, "2", &without_controller(&wanted[0]));
            // Another process wrote it: there is nothing to do.
            scene.wanted.send_replace(wanted);
            silence(&mut scene.server).await;
            scene.wanted.send_replace(unused(&scene.store));
            if waits_for_the_lease {
                silence(&mut scene.server).await;
                scene.held.send_replace(true);
            }
            let asked = scene.server.expect(STATUS).await;
            assert_eq!(asked.body["status"], json!({ "parents": [] }));
        })
        .await;
    }
}

const SERVICE_STATUS: &str =
    "PATCH /apis/networking.istio.io/v1/namespaces/default/virtualservices/v/status";
const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec: {servers: [{hosts: ['*'], port: {number: 80, protocol: HTTP}}]}
";

/// A VirtualService as the API server has it.
fn virtual_service(version: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": { "name": "v", "namespace": "default", "generation": 1, "resourceVersion": version },
        "spec": { "hosts": ["*"], "gateways": ["g"], "http": [{ "route": [{ "destination": { "host": "s" } }] }] },
        "status": status,
    })
}

/// The watch tells of the VirtualService; what the fold says of it beside these objects.
fn tell_service(
    store: &Store,
    version: &str,
    status: &Value,
    others: &str,
) -> Arc<Vec<ObjectStatus>> {
    let object = virtual_service(version, status);
    let object: kube::api::DynamicObject = serde_json::from_value(object).unwrap();
    let path = object.path();
    let entry = object.into_entry(VIRTUAL_SERVICES, &BTreeMap::new());
    store.replace(VIRTUAL_SERVICES, Entries::from([(path, entry)]));
    let others = crate::read_text("x.yaml", others).objects;
    let watched = store.watched().unwrap();
    let objects = watched.objects.iter().map(|object| &**object).chain(&others);
    let mut statuses = fold(objects, &FoldOptions::default()).statuses;
    statuses.retain(|status| status.kind == Kind::VirtualService);
    Arc::new(statuses)
}

/// The conditions as JSON has them, dated.
fn conditions(accepted: (&str, &str), more: &str) -> Value {
    let condition = |name: &str, (status, reason): (&str, &str)| {
        json!({ "type": name, "status": status, "reason": reason, "message": "theirs",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    json!({ "conditions": [condition("Accepted", accepted), condition(more, ("True", more))] })
}

#[tokio::test(start_paused = true)]
async fn conditions_are_taken_back_once_from_what_is_another_controllers_now() {
    let (writer, mut scene) = scene();
    play(writer, async {
        let wanted = tell_service(&scene.store, "1", &Value::Null, GATEWAY);
        scene.wanted.send_replace(wanted);
        let asked = scene.server.expect(SERVICE_STATUS).await;
        let ours = asked.body["status"].clone();
        assert_eq!(ours["conditions"][0]["status"], "True");
        asked.answer(200, virtual_service("2", &ours).to_string());
        silence(&mut scene.server).await;
        // Its Gateway moves to other proxies.
        let moved = GATEWAY.replace("servers", "selector: {istio: other}, servers");
        let wanted = tell_service(&scene.store, "2", &ours, &moved);
        assert!(wanted[0].foreign);
        scene.wanted.send_replace(wanted);
        let asked = scene.server.expect(SERVICE_STATUS).await;
        let back = asked.body["status"].clone();
        assert_eq!(back["conditions"][0]["reason"], "GatewayNotAccepted");
        asked.answer(200, virtual_service("3", &back).to_string());
        silence(&mut scene.server).await;
        // Whoever obeys it now has the last word, whatever that is.
        let theirs = conditions(("True", "Accepted"), "ResolvedRefs");
        let wanted = tell_service(&scene.store, "4", &theirs, &moved);
        scene.wanted.send_replace(wanted);
        silence(&mut scene.server).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn conditions_that_nobody_here_has_written_are_left_to_others() {
    let moved = GATEWAY.replace("servers", "selector: {istio: other}, servers");
    let ours = conditions(("True", "Accepted"), "ResolvedRefs");
    let cases = [
        // Another installation of ours may serve the Gateway.
        (moved.as_str(), &ours, false),
        // There is no Gateway: nobody serves it.
        ("", &ours, true),
        ("", &conditions(("True", "Reconciled"), "ResolvedRefs"), false),
        ("", &conditions(("True", "Accepted"), "Reconciled"), false),
        ("", &Value::Null, false),
    ];
    for (others, standing, written) in cases {
        let (writer, mut scene) = scene();
        play(writer, async {
            scene.wanted.send_replace(tell_service(&scene.store, "1", standing, others));
            if written {
                let asked = scene.server.expect(SERVICE_STATUS).await;
                let accepted = &asked.body["status"]["conditions"][0];
                assert_eq!(accepted["reason"], "GatewayNotFound");
            } else {
                silence(&mut scene.server).await;
            }
        })
        .await;
    }
}
