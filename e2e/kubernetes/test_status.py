"""Statuses: in each version's shape, our own part only, and no write that changes nothing."""

from __future__ import annotations

import copy

import pytest
from cluster import ACCOUNT, SYSTEM, skip_unless_served
from harness import eventually
from objects import CONTROLLER, K8S, X, gateway, model, pods, pool, route, serve

USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
LEASE = ("coordination.k8s.io/v1", "Lease", ACCOUNT, SYSTEM)
READY = {"Accepted": "True", "ResolvedRefs": "True"}
FOREIGN = {
    "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "theirs"},
    "controllerName": "example.com/theirs",
    "conditions": [
        {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "theirs",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


def told(conditions: list[dict]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in conditions}


def current(cluster, item: dict) -> dict:
    return cluster.get(item["apiVersion"], item["kind"], item["metadata"]["name"])


def wait_for_renewals(cluster) -> None:
    """Of the Lease, two: between them the writer had time for more than one write."""
    for _ in range(2):
        lease = cluster.get(*LEASE)
        version = lease["metadata"]["resourceVersion"]
        eventually(
            lambda v=version: cluster.get(*LEASE)["metadata"]["resourceVersion"] != v,
            15,
            "a renewal of the lease",
        )


def redefine(cluster, plural: str, version: str, change=lambda schema: None) -> None:
    """As the releases of the Inference Extension do: one version of the older group."""
    name = f"{plural}.{X}"
    definition = cluster.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
    spec = copy.deepcopy(definition["spec"])
    spec["versions"] = [v | {"storage": True} for v in spec["versions"] if v["name"] == version]
    change(spec["versions"][0]["schema"]["openAPIV3Schema"])
    cluster.delete(definition)
    definition = {key: definition[key] for key in ("apiVersion", "kind")}
    cluster.define([definition | {"metadata": {"name": name}, "spec": spec}])


@pytest.mark.faults("replaces a definition")
def test_v1alpha1_has_its_conditions_flat(cluster, start, addresses):
    for plural in ("inferencepools", "inferencemodels"):
        redefine(cluster, plural, "v1alpha1")
    start()
    serve(cluster, addresses)
    for item in (pool(), model()):
        cluster.apply(item)
        cluster.wait_until_ready(item)
        status = current(cluster, item)["status"]
        assert set(status) == {"conditions"}
        assert told(status["conditions"]) == READY


@pytest.mark.faults("replaces a definition")
def test_v1alpha2_has_them_by_gateway(cluster, start, addresses):
    redefine(cluster, "inferencepools", "v1alpha2")
    start()
    item = cluster.apply(pool(version="v1alpha2"))
    # The tutorial waits before there is a route.
    cluster.wait_until_ready(item)
    for other in (gateway(), route()):
        cluster.apply(other)

    def by_gateway():
        parents = current(cluster, item)["status"]["parent"]
        names = [entry["parentRef"]["name"] for entry in parents]
        return names == ["llm-inference-gateway"] and parents

    (entry,) = eventually(by_gateway, 10, "an entry for the Gateway")
    assert told(entry["conditions"]) == READY


def as_in_v0_4(schema: dict) -> None:
    """A picker is required, references to Gateways have no group, a first status is filled in."""
    schema["properties"]["spec"]["required"].append("extensionRef")
    status = schema["properties"]["status"]
    entry = status["properties"]["parent"]["items"]
    del entry["properties"]["controllerName"]
    fields = ("apiVersion", "kind", "name", "namespace", "uid")
    reference = {"type": "object", "properties": {name: {"type": "string"} for name in fields}}
    entry["properties"]["parentRef"] = reference | {"x-kubernetes-map-type": "atomic"}
    pending = {"type": "Accepted", "status": "Unknown", "reason": "Pending", "message": ""}
    pending["lastTransitionTime"] = "1970-01-01T00:00:00Z"
    default = {"parentRef": {"kind": "Status", "name": "default"}, "conditions": [pending]}
    status["default"] = {"parent": [default]}


@pytest.mark.faults("replaces a definition")
def test_a_definition_that_keeps_less_of_a_status_is_not_written_to_again_and_again(
    cluster, start, addresses
):
    redefine(cluster, "inferencepools", "v1alpha2", as_in_v0_4)
    gate = start()
    item = pool(version="v1alpha2")
    for other in (gateway(), item, route()):
        cluster.apply(other)
    pods(cluster, addresses)
    gate.wait_for(200)
    named = {"llm-inference-gateway"}
    eventually(lambda: gateways_of(current(cluster, item)) == named, 10, "its Gateway alone")

    def conditions() -> list[dict]:
        return current(cluster, item)["status"]["parent"][0]["conditions"]

    # Until its Pods are heard of, the message says that there are none.
    eventually(lambda: "no Pod" not in conditions()[0]["message"], 10, "a word of its Pods")
    assert told(conditions()) == READY
    audited = len(cluster.double.audit)
    wait_for_renewals(cluster)
    later = cluster.double.audit[audited:]
    assert not [e for e in later if e.is_write and e.plural == "inferencepools" and e.user == USER]


def test_v1_has_an_entry_for_each_gateway_and_none_without_a_route(cluster, start, addresses):
    skip_unless_served(cluster, f"{K8S}/v1", "inferencepools")
    start()
    item = cluster.apply(pool(version="v1"))
    cluster.apply(gateway())
    cluster.apply(gateway("second", 8081))
    of_v1 = route(gateways=["llm-inference-gateway", "second"])
    of_v1["spec"]["rules"][0]["backendRefs"][0]["backendRef"]["group"] = K8S
    made = cluster.apply(of_v1)

    def parents(names: set[str]):
        entries = (current(cluster, item).get("status") or {}).get("parents") or []
        return {entry["parentRef"]["name"] for entry in entries} == names and (entries or True)

    both = {"llm-inference-gateway", "second"}
    for entry in eventually(lambda: parents(both), 10, "an entry for each Gateway"):
        assert entry["controllerName"] == CONTROLLER
        assert entry["parentRef"]["kind"] == "Gateway"
        assert told(entry["conditions"]) == READY
    cluster.delete(made)
    eventually(lambda: parents(set()), 10, "no entry without a route")


def test_entries_of_other_controllers_stay_as_they_are(cluster, start, addresses):
    skip_unless_served(cluster, f"{K8S}/v1", "inferencepools")
    item = cluster.apply(pool(version="v1"))
    cluster.patch(item, {"status": {"parents": [FOREIGN]}}, "status")
    start()
    cluster.apply(gateway())
    of_v1 = route()
    of_v1["spec"]["rules"][0]["backendRefs"][0]["backendRef"]["group"] = K8S
    made = cluster.apply(of_v1)

    def entries() -> list[dict]:
        return current(cluster, item)["status"]["parents"]

    eventually(lambda: len(entries()) == 2, 10, "our entry beside theirs")
    assert FOREIGN in entries()
    # They write again, as a controller does that knows nothing of us.
    theirs = copy.deepcopy(FOREIGN)
    theirs["conditions"][0]["message"] = "changed"
    cluster.patch(item, {"status": {"parents": [theirs]}}, "status")
    eventually(lambda: len(entries()) == 2, 10, "our entry is back")
    assert theirs in entries()
    cluster.delete(made)
    eventually(lambda: entries() == [theirs], 10, "theirs alone is left")


def test_conditions_say_which_generation_and_since_when(cluster, start, addresses):
    start()
    item = cluster.apply(model())
    missing = cluster.wait_for(item, "ResolvedRefs", "False")
    accepted = cluster.wait_for(item, "Accepted")
    assert missing["observedGeneration"] == accepted["observedGeneration"] == 1
    assert missing["message"]
    cluster.patch(item, {"spec": {"criticality": "Critical"}})

    def of_second():
        found = cluster.conditions(item)
        return all(c["observedGeneration"] == 2 for c in found.values()) and found

    found = eventually(of_second, 10, "conditions of the second generation")
    for name, before in (("ResolvedRefs", missing), ("Accepted", accepted)):
        assert found[name]["lastTransitionTime"] == before["lastTransitionTime"], name
    serve(cluster, addresses)
    resolved = cluster.wait_for(item, "ResolvedRefs")
    assert resolved["lastTransitionTime"] >= missing["lastTransitionTime"]
    assert (
        cluster.conditions(item)["Accepted"]["lastTransitionTime"] == accepted["lastTransitionTime"]
    )


def gateways_of(pool: dict) -> set[str]:
    """Those its status names; none in v1alpha1."""
    status = pool["status"]
    entries = [entry for field in ("parent", "parents") for entry in status.get(field) or ()]
    return {entry["parentRef"]["name"] for entry in entries}


def test_nothing_is_written_while_nothing_changes(cluster, start, addresses):
    """Each step waits for what is written about a new object; about the others nothing is."""
    gate = start()
    made = serve(cluster, addresses)
    gate.wait_for(200)
    first = [cluster.apply(item) for item in (model(), pool(), route(), gateway())]
    for item in first:
        cluster.wait_until_ready(item)

    def versions() -> list[str]:
        return [current(cluster, item)["metadata"]["resourceVersion"] for item in first]

    # The pool's status has changed with the route, too.
    named = {"llm-inference-gateway"}
    eventually(lambda: gateways_of(current(cluster, first[1])) <= named, 10, "its Gateway alone")
    before, audited = versions(), len(cluster.double.audit) if cluster.double else 0
    for number in range(3):
        made[number].set_ready(False)
        gate.wait_for_endpoints(*addresses[:number], *addresses[number + 1 :])
        made[number].set_ready(True)
        gate.wait_for_endpoints(*addresses)
        item = cluster.apply(model(f"step-{number}", f"step-{number}"))
        cluster.wait_until_ready(item)
    wait_for_renewals(cluster)
    assert versions() == before
    if cluster.double:
        writes = [e for e in cluster.double.audit[audited:] if e.user == USER and e.is_write]
        others = [e for e in writes if e.plural != "leases"]
        assert {entry.name for entry in others} == {"step-0", "step-1", "step-2"}
        assert all(entry.changed for entry in others), "a write that changed nothing"


@pytest.mark.faults("answers 409 on purpose")
def test_a_conflict_is_read_again_and_tried_again(cluster, start, addresses):
    start()
    refusal = cluster.double.refuse(409, "patch", "inferencemodels", times=1)
    serve(cluster, addresses)
    cluster.wait_until_ready(cluster.apply(model()))
    assert refusal.met == 1


def test_a_status_that_somebody_undoes_is_written_again(cluster, start, addresses):
    start()
    serve(cluster, addresses)
    item = cluster.apply(model())
    cluster.wait_until_ready(item)
    cluster.patch(item, {"status": None}, "status")
    cluster.wait_until_ready(item)


def test_of_two_models_of_one_name_the_older_has_it(cluster, start, addresses):
    start()
    serve(cluster, addresses)
    older = cluster.apply(model("b-older"))
    cluster.wait_for(older, "Accepted")
    # Creation times are whole seconds: the younger one is created in a later one.
    eventually(lambda: second_of(cluster) > older["metadata"]["creationTimestamp"], 3, "a second")
    younger = cluster.apply(model("a-younger"))
    refused = cluster.wait_for(younger, "Accepted", "False")
    assert refused["reason"] == "ModelNameInUse"
    cluster.delete(older)
    cluster.wait_for(younger, "Accepted")


def second_of(cluster) -> str:
    """The API server's clock."""
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}
    path = cluster.path("v1", "ConfigMap")
    return cluster.ask("POST", path, probe, dryRun="All")["metadata"]["creationTimestamp"]


def test_a_route_to_a_pool_that_is_not_there_says_so(cluster, start, addresses):
    gate = start()
    cluster.apply(gateway())
    item = cluster.apply(route(pool="nowhere"))
    missing = cluster.wait_for(item, "ResolvedRefs", "False")
    assert "nowhere" in missing["message"]
    # Its share of the requests is refused rather than sent elsewhere.
    refused = gate.wait_for(503)
    assert refused.headers["x-tokenweir-reason"] == "no_endpoints"


def test_kubectl_get_shows_what_users_look_for(cluster, start, addresses):
    start()
    serve(cluster, addresses)
    cluster.apply(model())
    for item in (pool(), model()):
        cluster.wait_until_ready(item)
        shown = cluster.table(item["apiVersion"], item["kind"], item["metadata"]["name"])
        assert "Age" in shown
        if cluster.double and item["kind"] == "InferenceModel":
            assert shown["Model"] == "tweet-summary"
            assert (shown["Accepted"], shown["ResolvedRefs"]) == ("True", "True")
    preferred = cluster.table(f"{X}/v1alpha2", "InferencePool", pool()["metadata"]["name"])
    if cluster.double:
        # The version kubectl asks for, since it is the higher one.
        assert (preferred["Port"], preferred["Accepted"]) == (8000, "True")


def test_objects_that_only_a_lenient_definition_lets_in_are_refused_in_their_status(
    cluster, start, addresses
):
    """Definitions of Istio's kinds check little; the fold checks the rest."""
    gate = start()
    serve(cluster, addresses)
    gate.wait_for(200)
    broken = gateway("broken", 8081)
    broken["spec"]["servers"][0]["port"]["protocol"] = "HTP"
    try:
        item = cluster.apply(broken)
    except Exception as error:
        pytest.skip(f"this cluster's definition refuses it: {error}")
    refused = cluster.wait_for(item, "Accepted", "False")
    assert "HTP" in refused["message"]
    assert gate.ask().status_code == 200
