"""Statuses: in each version's shape, our own part only, and no write that changes nothing."""

from __future__ import annotations

import copy

import pytest
from cluster import ACCOUNT, SYSTEM, skip_unless_served
from harness import eventually
from objects import (
    CONTROLLER,
    K8S,
    POOL,
    X,
    gateway,
    model,
    pods,
    pool,
    route,
    seed,
    serve,
)

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
            "a renewal of the lease",
        )


def redefine(
    cluster, plural: str, version: str, change=lambda schema: None, group: str = X
) -> None:
    """As the releases of the Inference Extension do: one version of a group."""
    name = f"{plural}.{group}"
    definition = cluster.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
    spec = copy.deepcopy(definition["spec"])
    spec["versions"] = [v | {"storage": True} for v in spec["versions"] if v["name"] == version]
    change(spec["versions"][0]["schema"]["openAPIV3Schema"])
    cluster.delete(definition)
    # The API server wants to see the approval of its own project's groups.
    metadata = {"name": name, "annotations": definition["metadata"].get("annotations", {})}
    definition = {key: definition[key] for key in ("apiVersion", "kind")}
    cluster.define([definition | {"metadata": metadata, "spec": spec}])


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

    (entry,) = eventually(by_gateway, "an entry for the Gateway")
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
    del status["properties"]["conditions"]


def test_kubectl_wait_finds_the_conditions_of_the_tutorials_pool(cluster, start):
    """It looks at `status.conditions` alone, in the version the API server prefers."""
    versions = [f"{X}/{version}" for version in ("v1alpha1", "v1alpha2")]
    # Only our definition serves both.
    for version in versions:
        skip_unless_served(cluster, version, "inferencepools")
    start()
    item = cluster.apply(pool())
    cluster.wait_until_ready(item)
    for version in versions:
        found = cluster.get(version, "InferencePool", item["metadata"]["name"])
        assert told(found["status"]["conditions"]) == READY


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
    eventually(lambda: gateways_of(current(cluster, item)) == named, "its Gateway alone")

    def conditions() -> list[dict]:
        return current(cluster, item)["status"]["parent"][0]["conditions"]

    eventually(lambda: told(conditions()) == READY, "it is ready")
    assert "conditions" not in current(cluster, item)["status"], "the definition has no such field"
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
    for entry in eventually(lambda: parents(both), "an entry for each Gateway"):
        assert entry["controllerName"] == CONTROLLER
        assert entry["parentRef"]["kind"] == "Gateway"
        assert told(entry["conditions"]) == READY
    cluster.delete(made)
    eventually(lambda: parents(set()), "no entry without a route")


def test_entries_of_other_controllers_stay_as_they_are(cluster, start, addresses):
    skip_unless_served(cluster, f"{K8S}/v1", "inferencepools")
    item = cluster.apply(pool(version="v1"))
    cluster.patch(item, {"status": {"parents": [FOREIGN]}}, "status")
    start()
    cluster.apply(gateway())
    made = cluster.apply(route_of_v1())

    def entries() -> list[dict]:
        return current(cluster, item)["status"]["parents"]

    eventually(lambda: len(entries()) == 2, "our entry beside theirs")
    assert FOREIGN in entries()
    # They write again, as a controller does that knows nothing of us.
    theirs = copy.deepcopy(FOREIGN)
    theirs["conditions"][0]["message"] = "changed"
    cluster.patch(item, {"status": {"parents": [theirs]}}, "status")
    eventually(lambda: len(entries()) == 2, "our entry is back")
    assert theirs in entries()
    cluster.delete(made)
    eventually(lambda: entries() == [theirs], "theirs alone is left")


def route_of_v1() -> dict:
    item = route()
    item["spec"]["rules"][0]["backendRefs"][0]["backendRef"]["group"] = K8S
    return item


def test_our_entry_finds_room_beside_many_others(cluster, start, addresses):
    """The definition takes 32."""
    skip_unless_served(cluster, f"{K8S}/v1", "inferencepools")
    item = cluster.apply(pool(version="v1"))
    theirs = [copy.deepcopy(FOREIGN) for _ in range(31)]
    for number, entry in enumerate(theirs):
        entry["parentRef"]["name"] = f"theirs-{number}"
    cluster.patch(item, {"status": {"parents": theirs}}, "status")
    start()
    cluster.apply(gateway())
    cluster.apply(route_of_v1())

    def entries() -> list[dict]:
        return current(cluster, item)["status"]["parents"]

    eventually(lambda: len(entries()) == 32, "our entry beside theirs")
    assert entries()[:31] == theirs


def as_in_v1_0(schema: dict) -> None:
    entry = schema["properties"]["status"]["properties"]["parents"]["items"]
    del entry["properties"]["controllerName"]


@pytest.mark.faults("replaces a definition")
@pytest.mark.parametrize("version", ["v1", "v1alpha2"])
def test_an_entry_without_a_controller_goes_although_another_process_wrote_it(
    cluster, start, addresses, version
):
    """The upstream definitions of v1 in release 1.0, and of v1alpha2, know no controllerName."""
    if version == "v1":
        redefine(cluster, "inferencepools", "v1", as_in_v1_0, group=K8S)
    else:
        redefine(cluster, "inferencepools", "v1alpha2", as_in_v0_4)
    first = start()
    item = cluster.apply(pool(version=version))
    theirs = copy.deepcopy(FOREIGN)
    del theirs["controllerName"]
    key = "parents" if version == "v1" else "parent"
    cluster.patch(item, {"status": {key: [theirs]}}, "status")
    for name, port in (("llm-inference-gateway", 8080), ("second", 8081), ("third", 8082)):
        cluster.apply(gateway(name, port))
    named = ["llm-inference-gateway", "second", "third"]
    of_version = route_of_v1() if version == "v1" else route()
    made = cluster.apply(of_version | {"spec": of_version["spec"] | {"gateways": named}})

    def names_are(*names: str):
        eventually(
            lambda: gateways_of(current(cluster, item)) - {"default"} == {"theirs", *names},
            f"entries for {names}",
        )

    names_are(*named)
    # One is left out while nobody writes.
    first.stop()
    cluster.patch(made, {"spec": {"gateways": named[:2]}})
    second = start()
    names_are(*named[:2])
    # One, with its Gateway, under another leader, which has written nothing about it.
    second.stop()
    start()
    cluster.wait_until_ready(cluster.apply(model()))
    cluster.delete(gateway())
    names_are("second")
    cluster.delete(made)
    names_are()


def service_route() -> dict:
    """A VirtualService through the tutorial's Gateway to its Service."""
    item = seed("virtualservice.yaml")
    item["spec"]["gateways"] = ["llm-inference-gateway"]
    item["spec"]["http"][0]["route"][0]["destination"]["host"] = POOL
    return item


def wait_until_refused(cluster, item: dict, reason: str) -> None:
    """And all of its conditions are about its present generation."""

    def refused() -> bool:
        found = current(cluster, item)
        conditions = (found.get("status") or {}).get("conditions") or []
        accepted = [(c["status"], c["reason"]) for c in conditions if c["type"] == "Accepted"]
        # Istio's definition may have it as a string.
        about = {str(c["observedGeneration"]) for c in conditions}
        return accepted == [("False", reason)] and about == {str(found["metadata"]["generation"])}

    eventually(refused, f"{item['kind']} is refused: {reason}")


def test_what_was_accepted_is_not_any_more_when_it_cannot_be_read_or_has_no_gateway(
    cluster, start, addresses
):
    gate = start()
    cluster.apply(seed("vllm-service.yaml"))
    through = cluster.apply(gateway())
    pods(cluster, addresses)
    item = cluster.apply(service_route())
    gate.wait_for(200, host="any.host")
    cluster.wait_until_ready(item)
    lookahead = [item["spec"]["http"][0] | {"match": [{"uri": {"regex": "/(?=x)"}}]}]
    cluster.patch(item, {"spec": {"http": lookahead}})
    wait_until_refused(cluster, item, "Invalid")
    cluster.patch(item, {"spec": {"http": item["spec"]["http"]}})
    cluster.wait_until_ready(item)
    gate.wait_for(200, host="any.host")
    cluster.delete(through)
    wait_until_refused(cluster, item, "GatewayNotFound")
    gate.wait_until_closed()


def test_a_gateway_that_moves_to_other_proxies_is_said_to_have_moved_once(
    cluster, start, addresses
):
    start()
    item = cluster.apply(gateway())
    cluster.wait_until_ready(item)
    cluster.patch(item, {"spec": {"selector": {"istio": "other"}}})
    wait_until_refused(cluster, item, "SelectorMismatch")
    # Whoever serves it says so, and is not contradicted.
    status = current(cluster, item)["status"]
    for condition in status["conditions"]:
        condition |= {"status": "True", "reason": condition["type"], "message": "theirs"}
    cluster.patch(item, {"status": status}, "status")
    cluster.wait_for(cluster.apply(model()), "Accepted")
    wait_for_renewals(cluster)
    assert current(cluster, item)["status"] == status


@pytest.mark.faults("refuses one kind's status")
def test_statuses_of_one_kind_that_are_forbidden_are_told_once(cluster, start, addresses):
    role = cluster.get("rbac.authorization.k8s.io/v1", "ClusterRole", "tokenweir")
    rules = [
        rule | {"resources": [n for n in rule["resources"] if n != "inferencemodels/status"]}
        for rule in role["rules"]
    ]
    cluster.patch(role, {"rules": rules})
    gate = start()
    serve(cluster, addresses)

    def refused() -> int:
        writes = cluster.double.writes(USER)
        return sum(e.plural == "inferencemodels" and e.code == 403 for e in writes)

    def told() -> list[tuple[str, str]]:
        records = [record for record in gate.log() if "written" in record["message"]]
        return [(record["message"], record.get("resource", "")) for record in records]

    models = []
    for number in range(3):
        models.append(cluster.apply(model(f"model-{number}", f"model-{number}")))
        eventually(lambda n=number: refused() > n, "a refusal")
        # Other kinds' statuses are written in between, and the Lease is renewed.
        cluster.wait_until_ready(cluster.apply(pool(f"pool-{number}")))
    wait_for_renewals(cluster)
    once = [("statuses cannot be written", f"inferencemodels.{X}")]
    assert told() == once
    for item in models:
        cluster.delete(item)
    cluster.patch(role, {"rules": role["rules"]})
    cluster.wait_until_ready(cluster.apply(model("allowed", "allowed")))
    again = [("statuses can be written again", f"inferencemodels.{X}")]
    eventually(lambda: told() == once + again, "a word about it")


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

    found = eventually(of_second, "conditions of the second generation")
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
    eventually(lambda: gateways_of(current(cluster, first[1])) <= named, "its Gateway alone")
    before, audited = versions(), len(cluster.double.audit) if cluster.double else 0
    for number in range(3):
        # None is left, and some are again.
        for pod in made:
            pod.set_ready(False)
        gate.wait_for_endpoints()
        for pod in made:
            pod.set_ready(True)
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
    eventually(lambda: second_of(cluster) > older["metadata"]["creationTimestamp"], "a second")
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
