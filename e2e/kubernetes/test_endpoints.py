"""Endpoints follow Pods, listeners follow Gateways, kinds may come later."""

from __future__ import annotations

import threading

import httpx
import pytest
from cluster import apply_or_skip
from double.selectors import Selector
from gateway import BODY, HOST, Server
from harness import PATIENCE_SECONDS, Fleet, answers_200, eventually, get
from objects import ISTIO, K8S, LABELS, gateway, pods, pool, route, serve

ACTIVE_PORTS = "inference.networking.k8s.io/active-ports"


def test_pods_come_and_go(cluster, start, addresses):
    gate = start("--policy", "round-robin")
    first, second, third = addresses
    made = serve(cluster, [first, second])
    gate.wait_for_endpoints(first, second)
    made.append(cluster.pod("third", third, LABELS))
    gate.wait_for_endpoints(first, second, third)
    assert len(gate.served_by(30)) == 3
    for pod in made[:2]:
        pod.end_deletion()
    gate.wait_for_endpoints(third)
    assert set(gate.served_by(5)) == {f"{third}:8000"}


def test_a_pod_gets_requests_only_while_it_is_ready(cluster, start, addresses):
    gate = start()
    first, second = serve(cluster, addresses[:2])
    gate.wait_for_endpoints(*addresses[:2])
    first.set_ready(False)
    gate.wait_for_endpoints(second.address)
    assert set(gate.served_by(10)) == {f"{second.address}:8000"}
    second.set_ready(False)
    gate.wait_for_endpoints()
    refused = gate.wait_for(503)
    assert refused.headers["x-tokenweir-reason"] == "no_endpoints"
    assert "retry-after" in refused.headers
    first.set_ready(True)
    gate.wait_for_endpoints(first.address)
    gate.wait_for(200)


def test_a_pod_without_an_address_is_no_endpoint_yet(cluster, start, addresses):
    gate = start()
    (pod,) = serve(cluster, addresses[:1])
    gate.wait_for_endpoints(addresses[0])
    pod.report("", True)
    gate.wait_for_endpoints()
    pod.report(addresses[1], True)
    gate.wait_for_endpoints(addresses[1])
    gate.wait_for(200)


def test_a_pod_that_is_being_deleted_gets_nothing_new_and_finishes_what_it_has(
    cluster, start, network, addresses, tmp_path
):
    slow = Server(tmp_path, network.address(), speedup=2)
    slow.wait()
    gate = start()
    (leaving,) = serve(cluster, [slow.address])
    gate.wait_for_endpoints(slow.address)
    gate.wait_for(200, max_tokens=1)
    begun, answer = threading.Event(), []

    def stream() -> None:
        body = BODY | {"stream": True, "max_tokens": 150}
        with httpx.stream(
            "POST", f"{gate.url()}/v1/completions", json=body, headers={"host": HOST}, timeout=PATIENCE_SECONDS
        ) as response:
            for line in response.iter_lines():
                answer.append(line)
                begun.set()

    reader = threading.Thread(target=stream)
    reader.start()
    assert begun.wait(PATIENCE_SECONDS)
    # It cannot be over before everything was looked at.
    Fleet([slow.url], []).fault("stall")
    cluster.pod("staying", addresses[0], LABELS)
    leaving.begin_deletion()
    gate.wait_for_endpoints(addresses[0])
    assert set(gate.served_by(5)) == {f"{addresses[0]}:8000"}
    assert reader.is_alive()
    Fleet([slow.url], []).fault("none")
    reader.join(PATIENCE_SECONDS)
    assert "data: [DONE]" in answer
    leaving.end_deletion()


def test_a_pod_whose_labels_no_longer_fit_leaves_the_pool(cluster, start, addresses):
    gate = start()
    first, second = serve(cluster, addresses[:2])
    gate.wait_for_endpoints(*addresses[:2])
    first.label({"app": "something-else"})
    gate.wait_for_endpoints(second.address)
    first.label(LABELS)
    gate.wait_for_endpoints(*addresses[:2])


def test_a_pool_that_selects_others_takes_their_requests_there(cluster, start, addresses):
    gate = start()
    serve(cluster, addresses[:1])
    cluster.pod("other", addresses[1], {"app": "other"})
    gate.wait_for_endpoints(addresses[0])
    cluster.patch(pool(), {"spec": {"selector": {"app": "other"}}})
    gate.wait_for_endpoints(addresses[1])
    assert set(gate.served_by(5)) == {f"{addresses[1]}:8000"}


def test_every_port_of_a_pool_is_an_endpoint_unless_the_pod_says_which(cluster, start, addresses):
    gate = start()
    ports = [{"number": 8000}, {"number": 8001}, {"number": 8002}]
    cluster.apply(gateway())
    apply_or_skip(cluster, pool(version="v1", targetPorts=ports), "targetPorts")
    item = route()
    item["spec"]["rules"][0]["backendRefs"][0]["backendRef"]["group"] = K8S
    cluster.apply(item)
    first, second = pods(cluster, addresses[:2])
    whole = [f"{address}:{port}" for address in addresses[:2] for port in (8000, 8001, 8002)]
    gate.wait_for_endpoints(*whole)
    first.annotate({ACTIVE_PORTS: "8001, 8002, 9999, nonsense"})
    gate.wait_for_endpoints(*whole[1:])
    second.annotate({ACTIVE_PORTS: ""})
    gate.wait_for_endpoints(*whole[1:3])
    cluster.patch(pool(version="v1"), {"spec": {"targetPorts": ports[:2]}})
    gate.wait_for_endpoints(whole[1])
    first.annotate({ACTIVE_PORTS: None})
    second.annotate({ACTIVE_PORTS: None})
    gate.wait_for_endpoints(whole[0], whole[1], whole[3], whole[4])


def test_machines_outside_are_endpoints_by_workload_entries(cluster, start, addresses):
    gate = start()
    serve(cluster, addresses[:1])
    entry = {"apiVersion": ISTIO, "kind": "WorkloadEntry", "metadata": {"name": "vm"}}
    spec = {"address": addresses[1], "labels": LABELS, "ports": {"http": 8001}}
    entry = cluster.apply(entry | {"spec": spec})
    gate.wait_for_endpoints(addresses[0], f"{addresses[1]}:8001")
    cluster.delete(entry)
    gate.wait_for_endpoints(addresses[0])


def test_listeners_come_and_go_with_their_gateways(cluster, start, addresses):
    gate = start()
    assert gate.answer() is None
    serve(cluster, addresses)
    gate.wait_for(200)
    second = cluster.apply(gateway("second", 8081))
    gate.wait_for(404, port=8081)
    cluster.patch(route(), {"spec": {"gateways": ["llm-inference-gateway", "second"]}})
    gate.wait_for(200, port=8081)
    cluster.delete(second)
    gate.wait_until_closed(8081)
    assert gate.ask().status_code == 200
    cluster.patch(gateway(), {"spec": gateway(port=8082)["spec"]})
    gate.wait_for(200, port=8082)
    gate.wait_until_closed(8080)


def test_a_gateway_for_other_proxies_is_not_served(cluster, start, addresses):
    gate = start()
    serve(cluster, addresses)
    gate.wait_for(200)
    cluster.patch(gateway(), {"spec": {"selector": {"istio": "another"}}})
    gate.wait_until_closed()
    cluster.patch(gateway(), {"spec": {"selector": {"istio": "ingressgateway"}}})
    gate.wait_for(200)


@pytest.mark.faults("takes definitions away that others may use")
def test_kinds_that_nobody_has_defined_are_waited_for(cluster, start, addresses):
    stored = cluster.double.store.list(
        cluster.double.store.kind("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        "",
        Selector(),
    )[0]
    definitions = [
        {key: item[key] for key in ("apiVersion", "kind", "spec")}
        | {"metadata": {"name": item["metadata"]["name"]}}
        for item in stored
    ]
    for definition in definitions:
        cluster.delete(definition)
    gate = start()
    assert gate.is_ready(), "absent kinds are no error"
    cluster.define(definitions)
    serve(cluster, addresses)
    gate.wait_for(200)
    pools = next(
        d
        for d in definitions
        if d["metadata"]["name"].startswith("inferencepools.inference.networking.x")
    )
    cluster.delete(pools)
    eventually(lambda: not gate.endpoints(), "the pool is gone with its kind")
    assert gate.is_ready()
    cluster.define([pools])
    cluster.apply(pool())
    gate.wait_for(200)


@pytest.mark.faults("holds the API server")
def test_readiness_waits_for_the_first_state_and_for_it_alone(cluster, start, addresses):
    serve(cluster, addresses)
    kubeconfig = cluster.gateway_kubeconfig()
    cluster.double.pause()
    gate = start(kubeconfig=kubeconfig, wait=False)
    gate.program.wait_until(lambda: answers_200(f"{gate.health}/healthz/live"), "is alive")
    answer = get(f"{gate.health}/healthz/ready")
    assert answer.status_code == 503
    assert answer.text.strip(), "it says what it waits for"
    assert '"ready"' not in gate.program.output, "nor does the log say more"
    cluster.double.resume()
    gate.wait()
    assert gate.ask().status_code == 200, "ready means that requests are served"
    gate.program.wait_until(lambda: '"ready"' in gate.program.output, "logs that it is ready")
