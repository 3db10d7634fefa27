"""The tutorial's steps in their order, and its comparison with traditional balancing."""

from __future__ import annotations

import httpx
from cluster import Cluster, apply_or_skip, documents
from harness import REPOSITORY, eventually
from objects import ISTIO, LABELS, POOL, SEED, gateway, model, pods, pool, route, seed, serve

MESH_CONFIG = {"apiVersion": "istio.alibabacloud.com/v1", "kind": "ASMMeshConfig"}
DEFAULT = {"metadata": {"name": "default"}}


def switch(cluster: Cluster, enabled: bool) -> None:
    """kubectl patch asmmeshconfig default --type=merge --patch=…"""
    item = MESH_CONFIG | DEFAULT
    patch = {"spec": {"gatewayAPIInferenceExtension": {"enabled": enabled}}}
    cluster.patch(item, patch)


def assert_tutorial_answer(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tweet-summary"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 100


def test_the_tutorial_works_step_by_step(cluster, start, addresses):
    # Installed with the gateway: kubectl apply -k deploy/kustomize/base.
    cluster.apply_file(REPOSITORY / "deploy" / "kustomize" / "base" / "asmmeshconfig.yaml")
    gate = start(namespace=None)

    # Step 1: kubectl apply -f vllm-service.yaml; the Deployment's Pods become ready.
    deployed = cluster.apply_file(SEED / "vllm-service.yaml", "default")
    labels = deployed[-1]["spec"]["template"]["metadata"]["labels"]
    assert labels == LABELS
    pods(cluster, addresses, labels, namespace="default")

    # Step 2: kubectl apply -f gateway.yaml.
    made = [cluster.apply_file(SEED / "gateway.yaml", "default")[0]]
    nowhere = gate.wait_for(404)
    assert nowhere.headers["x-tokenweir-reason"] == "no_route"

    # Step 3: the switch, the pool, the model, the route; each is waited for as the text says.
    switch(cluster, True)
    for name in ("inferencepool.yaml", "inferencemodel.yaml"):
        document = documents(SEED / name)[0]
        document["metadata"]["namespace"] = "default"
        made.append(apply_or_skip(cluster, document, "extensionRef", as_it_is=True))
        cluster.wait_until_ready(made[-1])
    made += cluster.apply_file(SEED / "llmroute.yaml", "default")

    # Step 4: curl, several times.
    assert_tutorial_answer(gate.wait_for(200))
    gate.wait_for_endpoints(*addresses)
    served: set[str] = set()
    # An adapter's requests may stay where it is loaded, but not for ever.
    eventually(lambda: served.update(gate.served_by(30)) or len(served) > 1, "several Pods answer")
    assert served <= {f"{address}:8000" for address in addresses}
    cluster.wait_until_ready(made[-1])

    # Clean up: models, pools and routes first, then the gateway.
    for item in (made[2], made[1], made[3]):
        cluster.delete(item)
    gate.wait_for(404)
    cluster.delete(made[0])
    gate.wait_until_closed()
    assert gate.is_ready()


def test_traditional_balancing_goes_round_and_gives_way_to_the_route(cluster, start, addresses):
    gate = start()
    cluster.apply(seed("vllm-service.yaml"))
    cluster.apply(gateway())
    pods(cluster, addresses)
    virtual = seed("virtualservice.yaml")
    virtual["spec"]["gateways"] = ["llm-inference-gateway"]
    virtual["spec"]["http"][0]["route"][0]["destination"]["host"] = POOL
    virtual = cluster.apply(virtual)
    gate.wait_for_endpoints(*addresses)
    assert_tutorial_answer(gate.wait_for(200, host="any.host"))
    assert set(gate.served_by(30, host="any.host").values()) == {10}
    cluster.wait_until_ready(virtual)
    cluster.delete(virtual)
    gate.wait_for(404)
    cluster.apply(pool())
    cluster.apply(route())
    assert_tutorial_answer(gate.wait_for(200))


def test_the_switch_turns_inference_off_and_says_so(cluster, start, addresses):
    cluster.apply(MESH_CONFIG | DEFAULT | {"spec": {}})
    gate = start()
    serve(cluster, addresses)
    gate.wait_for(200)
    switch(cluster, False)
    gate.wait_for(404, 503)
    refused = cluster.wait_for(pool(), "Accepted", "False")
    assert refused["message"]
    switch(cluster, True)
    gate.wait_for(200)
    cluster.wait_until_ready(pool())


def test_a_model_is_sent_on_under_its_targets_name(cluster, start, addresses):
    gate = start()
    serve(cluster, addresses)
    targets = [{"name": "tweet-summary-1", "weight": 100}]
    cluster.wait_until_ready(cluster.apply(model(asked="friendly", targetModels=targets)))
    answer = gate.wait_for(200, model="friendly").json()
    assert answer["choices"][0]["finish_reason"] == "length"


def test_objects_of_other_namespaces_are_left_alone(cluster, start, addresses):
    """With --namespace."""
    gate = start()
    serve(cluster, addresses)
    gate.wait_for(200)
    cluster.make_namespace(f"{cluster.namespace}-other")
    elsewhere = gateway(port=8081)
    elsewhere["metadata"]["namespace"] = f"{cluster.namespace}-other"
    cluster.apply(elsewhere)
    # What comes after it in the gateway's own namespace is seen; it is not.
    cluster.apply(gateway("another", 8082))
    gate.wait_for(404, port=8082)
    assert gate.answer(8081) is None
    assert not cluster.conditions(elsewhere)


def test_every_version_of_istios_kinds_is_followed(cluster, start, addresses):
    gate = start()
    for number, version in enumerate(("v1", "v1beta1", "v1alpha3")):
        item = gateway(f"gateway-{number}", 8080 + number)
        item["apiVersion"] = item["apiVersion"].replace(ISTIO, f"networking.istio.io/{version}")
        cluster.apply(item)
    for number in range(3):
        gate.wait_for(404, port=8080 + number)
