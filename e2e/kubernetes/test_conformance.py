"""The Inference Extension's conformance cases for a gateway with its own picker, by number.

GC-01 to GC-03 steer somebody else's picker. Of them this is left: every answer comes from an
endpoint of the pool.
"""

from __future__ import annotations

import math

import pytest
from cluster import apply_or_skip, skip_unless_served
from h2c import H2cServer
from harness import eventually
from objects import (
    CONTROLLER,
    GATEWAY_API,
    K8S,
    api_gateway,
    gateway_class,
    http_route,
    path_rule,
    pods,
    pool,
    pool_backend,
    reference_grant,
    route_conditions,
)

GRANTS = "gateway.networking.k8s.io/v1beta1"
PRIMARY, SECONDARY = {"app": "primary"}, {"app": "secondary"}


@pytest.fixture
def gateways(cluster):
    skip_unless_served(cluster, GATEWAY_API, "httproutes")
    skip_unless_served(cluster, f"{K8S}/v1", "inferencepools")
    cluster.apply(gateway_class())
    cluster.apply(api_gateway("conformance-primary", 8080))
    cluster.apply(api_gateway("conformance-secondary", 8081))


@pytest.fixture
def gate(gateways, start):
    return start()


@pytest.fixture
def pools(cluster, addresses):
    """Two pools: the first two servers, and the third."""
    for name, labels, its in (
        ("primary", PRIMARY, addresses[:2]),
        ("secondary", SECONDARY, addresses[2:]),
    ):
        cluster.apply(pool(name, "v1", labels))
        pods(cluster, its, labels)
    return addresses[:2], addresses[2:]


def all_of(addresses: list[str], port: int = 8000) -> set[str]:
    return {f"{address}:{port}" for address in addresses}


def route_to(cluster, name: str, *backends: dict, gateway: str = "conformance-primary") -> dict:
    return cluster.apply(http_route(name, [gateway], [path_rule("/", *backends)]))


def wait_for_route(cluster, item: dict, gateway: str, **wanted: str) -> dict[str, dict]:
    """`wanted`: status, or status and reason with a slash between, by type."""

    def found():
        conditions = route_conditions(
            cluster.get(GATEWAY_API, "HTTPRoute", item["metadata"]["name"]), gateway
        )
        for name, value in wanted.items():
            status, _, reason = value.partition("/")
            seen = conditions.get(name, {})
            if seen.get("status") != status or reason not in ("", seen.get("reason")):
                return None
        return conditions

    return eventually(found, f"{wanted} of {item['metadata']['name']}")


def parents(cluster, name: str) -> dict[str, dict[str, dict]]:
    """Our conditions of a pool by Gateway."""
    status = cluster.get(f"{K8S}/v1", "InferencePool", name).get("status") or {}
    return {
        entry["parentRef"]["name"]: {c["type"]: c for c in entry["conditions"]}
        for entry in status.get("parents") or ()
        if entry.get("controllerName") == CONTROLLER
    }


def wait_for_parent(cluster, name: str, gateway: str, condition: str, status: str = "True") -> dict:
    def found():
        seen = parents(cluster, name).get(gateway, {}).get(condition, {})
        return seen if seen.get("status") == status else None

    return eventually(found, f"{condition}={status} of pool {name} by {gateway}")


def test_gc03_every_answer_comes_from_an_endpoint_of_the_pool(cluster, gate, pools):
    first, _ = pools
    route_to(cluster, "route", pool_backend("primary"))
    gate.wait_for(200)
    assert set(gate.served_by(100)) <= all_of(first)


def test_gc04_every_rank_of_a_pod_is_reached(cluster, gateways, start, addresses):
    gate = start("--policy", "round-robin")
    ports = [{"number": 8000}, {"number": 8001}, {"number": 8002}]
    apply_or_skip(cluster, pool("primary", "v1", PRIMARY, targetPorts=ports), "targetPorts")
    pods(cluster, addresses, PRIMARY)
    route_to(cluster, "route", pool_backend("primary"))
    gate.wait_for(200)
    everywhere = {f"{address}:{port}" for address in addresses for port in (8000, 8001, 8002)}
    gate.wait_for_endpoints(*everywhere)
    assert set(gate.served_by(100)) == everywhere


def test_gc05_weights_divide_requests_between_two_pools(cluster, gate, pools):
    first, second = pools
    weighted = (pool_backend("primary", weight=70), pool_backend("secondary", weight=30))
    route_to(cluster, "route", *weighted)
    gate.wait_for(200)
    gate.wait_for_endpoints(*first, *second)
    counts = gate.served_by(200)
    assert set(counts) <= all_of(first) | all_of(second)
    share = sum(counts.get(endpoint, 0) for endpoint in all_of(first)) / 200
    assert abs(share - 0.7) <= max(0.10, 4.5 * math.sqrt(0.7 * 0.3 / 200)), counts


def test_gc06_a_route_to_a_pool_that_is_not_there_is_accepted_and_unresolved(cluster, gate, pools):
    item = route_to(cluster, "route", pool_backend("nowhere"))
    wanted = {"Accepted": "True", "ResolvedRefs": "False/BackendNotFound"}
    wait_for_route(cluster, item, "conformance-primary", **wanted)
    gate.wait_for(500, 502, 503)


def test_gc07_each_gateway_reaches_its_own_pool(cluster, gate, pools):
    first, second = pools
    route_to(cluster, "one", pool_backend("primary"))
    route_to(cluster, "two", pool_backend("secondary"), gateway="conformance-secondary")
    gate.wait_for(200)
    gate.wait_for(200, port=8081)
    gate.wait_for_endpoints(*first, *second)
    assert set(gate.served_by(30)) <= all_of(first)
    assert set(gate.served_by(30, port=8081)) == all_of(second)


def test_gc08_a_pool_is_accepted_by_the_gateway_whose_route_refers_to_it(cluster, gate, pools):
    route_to(cluster, "route", pool_backend("primary"))
    accepted = wait_for_parent(cluster, "primary", "conformance-primary", "Accepted")
    assert accepted["reason"] == "Accepted"
    assert "secondary" not in str(parents(cluster, "secondary"))


@pytest.mark.parametrize("protocol", ["http", None])
def test_gc09_a_pool_is_spoken_to_in_http_1_unless_it_says_otherwise(
    cluster, gate, addresses, protocol
):
    more = {"appProtocol": protocol} if protocol else {}
    cluster.apply(pool("primary", "v1", PRIMARY, **more))
    pods(cluster, addresses, PRIMARY)
    route_to(cluster, "route", pool_backend("primary"))
    gate.wait_for(200)
    gate.wait_for_endpoints(*addresses)
    assert set(gate.served_by(30)) <= all_of(addresses)


def test_gc09_a_pool_is_spoken_to_in_http_2_if_it_says_so(cluster, gate, network):
    ports = [{"number": 8001}]
    item = pool("primary", "v1", PRIMARY, targetPorts=ports, appProtocol="kubernetes.io/h2c")
    if "appProtocol" not in cluster.apply(item)["spec"]:
        pytest.skip("this cluster's InferencePool has no appProtocol")
    addresses = [network.address() for _ in range(2)]
    servers = [H2cServer(address, 8001) for address in addresses]
    pods(cluster, addresses, PRIMARY)
    route_to(cluster, "route", pool_backend("primary"))
    gate.wait_for(200)
    gate.wait_for_endpoints(*addresses, port=8001)
    assert set(gate.served_by(30)) <= all_of(addresses, 8001)
    for server in servers:
        server.stop()


@pytest.mark.parametrize("port", [None, 8000, 8888])
def test_gc10_a_port_at_the_reference_to_a_pool_means_nothing(cluster, gate, pools, port):
    first, _ = pools
    more = {"port": port} if port else {}
    item = route_to(cluster, "route", pool_backend("primary", **more))
    wanted = {"Accepted": "True", "ResolvedRefs": "True"}
    wait_for_route(cluster, item, "conformance-primary", **wanted)
    gate.wait_for(200)
    assert set(gate.served_by(10)) <= all_of(first)


def test_gc11_a_picker_that_is_not_there_is_not_missed(cluster, gate, addresses):
    """Upstream's gateways answer 5xx then; one that picks by itself has nothing to resolve."""
    reference = {"name": "nowhere", "port": {"number": 9002}}
    cluster.apply(pool("primary", "v1", PRIMARY, endpointPickerRef=reference))
    pods(cluster, addresses, PRIMARY)
    item = route_to(cluster, "route", pool_backend("primary"))
    wait_for_route(cluster, item, "conformance-primary", Accepted="True")
    wait_for_parent(cluster, "primary", "conformance-primary", "Accepted")
    gate.wait_for(200)


def test_gc12_a_pool_without_a_picker_is_accepted(cluster, gate, pools):
    item = route_to(cluster, "route", pool_backend("primary"))
    wait_for_route(cluster, item, "conformance-primary", Accepted="True")
    wait_for_parent(cluster, "primary", "conformance-primary", "Accepted")
    wait_for_parent(cluster, "primary", "conformance-primary", "ResolvedRefs")


def test_gc13_each_rule_of_a_route_reaches_its_pool(cluster, gate, pools):
    first, second = pools
    rules = [
        path_rule("/primary", pool_backend("primary")),
        path_rule("/secondary", pool_backend("secondary")),
    ]
    item = cluster.apply(http_route("route", ["conformance-primary"], rules))
    wait_for_route(cluster, item, "conformance-primary", Accepted="True", ResolvedRefs="True")
    gate.wait_for_endpoints(*first, *second)
    # The servers know no such path: whose 404 it is says where the request went.
    for path, its in (("/primary", first), ("/secondary", second)):
        eventually(
            lambda p=path: "x-tokenweir-endpoint" in gate.ask(path=p).headers, f"a route for {path}"
        )
        answers = [gate.ask(path=path) for _ in range(10)]
        assert {a.headers["x-tokenweir-endpoint"] for a in answers} <= all_of(its)
    assert "x-tokenweir-endpoint" not in gate.ask(path="/elsewhere").headers


def test_gc14_a_pool_is_accepted_by_whoever_still_refers_to_it(cluster, gate, pools):
    first, _ = pools
    one = route_to(cluster, "one", pool_backend("primary"))
    two = route_to(cluster, "two", pool_backend("primary"), gateway="conformance-secondary")
    for gateway in ("conformance-primary", "conformance-secondary"):
        wait_for_parent(cluster, "primary", gateway, "Accepted")
        wait_for_parent(cluster, "primary", gateway, "ResolvedRefs")
    gate.wait_for(200)
    gate.wait_for(200, port=8081)
    cluster.delete(one)
    gate.wait_for(404)
    assert set(gate.served_by(5, port=8081)) <= all_of(first)
    second = {"conformance-secondary"}
    eventually(lambda: parents(cluster, "primary").keys() == second, "its entry alone")
    cluster.delete(two)
    gate.wait_for(404, port=8081)
    eventually(lambda: not parents(cluster, "primary"), "no entry")


def test_a_backend_elsewhere_is_refused_without_a_grant_from_there(
    cluster, gateways, start, addresses
):
    skip_unless_served(cluster, GRANTS, "referencegrants")
    gate = start(namespace=None)
    far = f"{cluster.namespace}-far"
    cluster.make_namespace(far)
    cluster.apply(pool("primary", "v1", PRIMARY), far)
    pods(cluster, addresses, PRIMARY, namespace=far)
    item = route_to(cluster, "route", pool_backend("primary", namespace=far))
    refused = {"Accepted": "True", "ResolvedRefs": "False/RefNotPermitted"}
    wait_for_route(cluster, item, "conformance-primary", **refused)
    gate.wait_for(503)
    cluster.apply(reference_grant("elsewhere", "nobody"), far)
    grant = cluster.apply(reference_grant("ours", cluster.namespace), far)
    wait_for_route(cluster, item, "conformance-primary", ResolvedRefs="True")
    gate.wait_for(200)
    gate.wait_for_endpoints(*addresses)
    cluster.delete(grant)
    wait_for_route(cluster, item, "conformance-primary", **refused)
    gate.wait_for(503)


def entries_of(cluster, item: dict) -> list[dict]:
    status = cluster.get(GATEWAY_API, "HTTPRoute", item["metadata"]["name"]).get("status") or {}
    return status.get("parents") or []


def test_a_route_loses_its_entries_with_its_gateways(cluster, gate, pools):
    """When a Gateway is deleted, and when the route moves to another controller's."""
    other = api_gateway("other", 8085)
    other["spec"]["gatewayClassName"] = "other"
    cluster.apply(other)
    stays = route_to(cluster, "stays", pool_backend("primary"))
    moves = route_to(cluster, "moves", pool_backend("primary"), gateway="conformance-secondary")
    theirs = {
        "parentRef": {"name": "other"},
        "controllerName": "example.com/other",
        "conditions": [],
    }
    for item, gateway in ((stays, "conformance-primary"), (moves, "conformance-secondary")):
        wait_for_route(cluster, item, gateway, Accepted="True")
        both = [*entries_of(cluster, item), theirs]
        cluster.patch(item, {"status": {"parents": both}}, "status")
    cluster.delete(api_gateway("conformance-primary", 8080))
    eventually(lambda: entries_of(cluster, stays) == [theirs], "theirs alone is left")
    cluster.patch(moves, {"spec": {"parentRefs": [{"name": "other"}]}})
    eventually(lambda: entries_of(cluster, moves) == [theirs], "theirs alone is left")


def test_a_route_that_cannot_be_read_says_so_in_its_entry(cluster, gate, pools):
    item = route_to(cluster, "route", pool_backend("primary"))
    wait_for_route(cluster, item, "conformance-primary", Accepted="True", ResolvedRefs="True")
    lookahead = [{"path": {"type": "RegularExpression", "value": "/(?=x)"}}]
    rules = [item["spec"]["rules"][0] | {"matches": lookahead}]
    changed = cluster.patch(item, {"spec": {"rules": rules}})
    refused = {"Accepted": "False/UnsupportedValue", "ResolvedRefs": "Unknown/UnsupportedValue"}
    wait_for_route(cluster, item, "conformance-primary", **refused)
    (entry,) = entries_of(cluster, item)
    generations = {condition["observedGeneration"] for condition in entry["conditions"]}
    assert generations == {changed["metadata"]["generation"]}
    cluster.patch(item, {"spec": {"rules": item["spec"]["rules"]}})
    wait_for_route(cluster, item, "conformance-primary", Accepted="True", ResolvedRefs="True")


def test_a_route_has_an_entry_for_each_of_twenty_gateways(cluster, gate, pools):
    names = [f"gateway-{number}" for number in range(20)]
    for number, name in enumerate(names):
        cluster.apply(api_gateway(name, 8100 + number))
    item = http_route("route", names, [path_rule("/", pool_backend("primary"))])
    item = cluster.apply(item)

    def named() -> list[str]:
        return [entry["parentRef"]["name"] for entry in entries_of(cluster, item)]

    eventually(lambda: named() == names, "an entry for each")
    eventually(lambda: parents(cluster, "primary").keys() == set(names), "the pool's, too")


def test_a_gateway_has_the_addresses_of_the_service_clients_come_through(cluster, gateways, start):
    start("--publish-service", f"{cluster.namespace}/front")

    def has(*addresses: tuple[str, str]):
        wanted = [{"type": kind, "value": value} for kind, value in addresses]
        status = cluster.get(GATEWAY_API, "Gateway", "conformance-primary").get("status") or {}
        return status.get("addresses", []) == wanted and "listeners" in status

    eventually(has, "no addresses yet")
    spec = {"type": "LoadBalancer", "ports": [{"port": 8080}], "selector": {"app": "tokenweir"}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}, "spec": spec}
    service = cluster.apply(service)
    for ingress, address in (
        ({"ip": "192.0.2.1"}, ("IPAddress", "192.0.2.1")),
        ({"hostname": "front.example.com"}, ("Hostname", "front.example.com")),
    ):
        cluster.patch(service, {"status": {"loadBalancer": {"ingress": [ingress]}}}, "status")
        eventually(lambda a=address: has(a), f"the address {address}")
    cluster.delete(service)
    eventually(has, "no address any more")
