"""The API server goes away, hangs, forgets, refuses: traffic goes on with what was heard last."""

from __future__ import annotations

import threading

import pytest
from cluster import SYSTEM
from harness import PATIENCE_SECONDS, answers_200, eventually
from objects import LABELS, X, model, serve

pytestmark = pytest.mark.faults("makes the API server fail")


class Traffic:
    """Requests one after the other in the background; every answer is remembered."""

    def __init__(self, gate):
        self.statuses: list[object] = []
        self._gate, self._over = gate, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.statuses.append(self._gate.ask(max_tokens=2).status_code)
            except Exception as error:
                self.statuses.append(repr(error))

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_SECONDS)

    def goes_on(self) -> None:
        """Until some more were answered, all of them well."""
        so_far = len(self.statuses)
        eventually(lambda: len(self.statuses) >= so_far + 10, "more answers")
        assert set(self.statuses) == {200}, self.statuses


@pytest.fixture
def served(cluster, start, addresses):
    gate = start()
    serve(cluster, addresses[:2])
    gate.wait_for(200)
    gate.wait_for_endpoints(*addresses[:2])
    return gate


def add_pod(cluster, addresses):
    return cluster.pod("third", addresses[2], LABELS)


def test_it_is_away_and_comes_back_knowing_nothing_of_the_past(cluster, served, addresses):
    with Traffic(served) as traffic:
        cluster.double.stop()
        traffic.goes_on()
        assert served.is_ready(), "what was heard last is enough to serve"
        assert served.endpoints() == {f"{address}:8000" for address in addresses[:2]}
        cluster.double.start()
        add_pod(cluster, addresses)
        eventually(lambda: len(served.endpoints()) == 3, "the Pod that came meanwhile")
        traffic.goes_on()
    cluster.wait_until_ready(cluster.apply(model()))


def test_what_was_deleted_while_it_was_away_goes_when_it_is_back(cluster, served, addresses):
    cluster.double.stop()
    cluster.double.start()
    # Before the gateway is back, or after: both ways the Pod has to go.
    cluster.delete(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{LABELS['app']}-0"}},
        gracePeriodSeconds=0,
    )
    eventually(lambda: served.endpoints() == {f"{addresses[1]}:8000"}, "the Pod that is left")


def test_it_hangs(cluster, served, addresses):
    with Traffic(served) as traffic:
        cluster.double.pause()
        traffic.goes_on()
        assert served.is_ready()
        cluster.double.resume()
        add_pod(cluster, addresses)
        eventually(lambda: len(served.endpoints()) == 3, "the Pod that came meanwhile")
        traffic.goes_on()


def test_it_has_forgotten_where_the_watches_were(cluster, served, addresses):
    """410: the watches list again."""
    with Traffic(served) as traffic:
        for _ in range(3):
            add_pod(cluster, addresses).end_deletion()
            so_far = len(cluster.double.audit)
            cluster.double.compact()
            cluster.double.cut()
            wait_for_watch(cluster, so_far)
        add_pod(cluster, addresses)
        eventually(lambda: len(served.endpoints()) == 3, "the Pod that came")
        traffic.goes_on()


def wait_for_watch(cluster, since: int) -> None:
    """Until Pods are watched again."""

    def watched() -> bool:
        return any(e.plural == "pods" and e.verb == "watch" for e in cluster.double.audit[since:])

    eventually(watched, "a watch of Pods")


def test_it_asks_for_patience(cluster, served, addresses):
    """429 with Retry-After to everything, for a while."""
    with Traffic(served) as traffic:
        refusal = cluster.double.refuse(429, retry_after_seconds=1, times=20)
        cluster.double.cut()
        eventually(lambda: refusal.met > 0, "a refused request")
        traffic.goes_on()
        cluster.double.refusals.clear()
        add_pod(cluster, addresses)
        eventually(lambda: len(served.endpoints()) == 3, "the Pod that came meanwhile")
        traffic.goes_on()


def test_its_own_faults_are_waited_out(cluster, served, addresses):
    """500 to lists and watches."""
    refusals = [cluster.double.refuse(500, verb, times=3) for verb in ("list", "watch")]
    cluster.double.compact()
    cluster.double.cut()
    eventually(lambda: any(refusal.met for refusal in refusals), "a failed request")
    add_pod(cluster, addresses)
    eventually(lambda: len(served.endpoints()) == 3, "the Pod that came meanwhile")


def test_one_kind_is_forbidden_and_the_others_go_on(cluster, start, addresses):
    """The log says what is wrong, once."""
    role = cluster.get("rbac.authorization.k8s.io/v1", "ClusterRole", "tokenweir")
    rules = [
        rule | {"resources": [name for name in rule["resources"] if name != "inferencemodels"]}
        for rule in role["rules"]
    ]
    cluster.patch(role, {"rules": rules})
    gate = start(wait=False)
    gate.program.wait_until(lambda: answers_200(f"{gate.health}/healthz/live"), "is alive")
    serve(cluster, addresses)
    gate.wait_for(200)

    def refused() -> int:
        return sum(e.plural == "inferencemodels" and e.code == 403 for e in cluster.double.audit)

    eventually(lambda: refused() >= 3, "several tries")
    about = [record for record in gate.errors() if "inferencemodels" in str(record)]
    assert len(about) == 1, about
    # Allowed at last.
    cluster.patch(role, {"rules": role["rules"]})
    cluster.wait_until_ready(cluster.apply(model()))


def told(gate) -> list[tuple[str, str]]:
    """What the log says of the API server and of watches, and of which kind."""
    words = ("heard", "watched")
    about = [record for record in gate.log() if any(word in record["message"] for word in words)]
    return [(record["message"], record.get("resource", "")) for record in about]


@pytest.mark.parametrize("code", [500, 429])
def test_faults_of_one_kind_are_told_once_and_of_that_kind(cluster, served, code):
    before = told(served)
    refusals = [cluster.double.refuse(code, verb, "inferencemodels") for verb in ("list", "watch")]
    cluster.double.compact()
    cluster.double.cut()
    # Meanwhile the other kinds are heard, and which kinds there are is asked for again.
    eventually(lambda: sum(refusal.met for refusal in refusals) >= 4, "several tries")
    trouble = ("cannot be watched; what is known stays", f"inferencemodels.{X}")
    assert told(served)[len(before) :] == [trouble]
    cluster.double.refusals.clear()
    cluster.wait_until_ready(cluster.apply(model()))
    again = [trouble, ("is watched again", f"inferencemodels.{X}")]
    eventually(lambda: told(served)[len(before) :] == again, "a word about it")


@pytest.mark.parametrize("code", [500, 429])
def test_faults_of_all_kinds_are_told_once_each(cluster, served, code):
    refusal = cluster.double.refuse(code)
    cluster.double.cut()
    watches = len({e.plural for e in cluster.double.audit if e.verb == "watch"})
    eventually(lambda: refusal.met >= 4 * watches, "several tries of each kind")
    found = [(record["message"], record.get("resource", "")) for record in served.errors()]
    assert len(found) == len(set(found)), found
    cluster.double.refusals.clear()
    cluster.wait_until_ready(cluster.apply(model()))


def test_a_kind_that_is_forbidden_later_keeps_what_was_heard(cluster, served, addresses):
    role = cluster.get("rbac.authorization.k8s.io/v1", "ClusterRole", "tokenweir")
    rules = [rule for rule in role["rules"] if X not in rule["apiGroups"]]
    with Traffic(served) as traffic:
        so_far = len(cluster.double.audit)
        cluster.patch(role, {"rules": rules})
        cluster.double.compact()
        cluster.double.cut()

        def refused():
            later = cluster.double.audit[so_far:]
            return any(e.plural == "inferencepools" and e.code == 403 for e in later)

        eventually(refused, "a refusal")
        traffic.goes_on()


def test_a_stop_of_the_server_is_told_once(cluster, served):
    cluster.double.stop()
    eventually(lambda: served.errors(), "a word about it")
    eventually(lambda: not cluster.double._connections, "no connection")
    told = [str(record) for record in served.errors()]
    assert len(told) == len(set(told)), told
    cluster.double.start()
    cluster.wait_until_ready(cluster.apply(model()))


def test_watches_that_end_by_themselves_are_no_trouble(cluster, served, addresses):
    """As they do every few minutes."""
    so_far = len(cluster.double.audit)
    cluster.double.cut()
    wait_for_watch(cluster, so_far)
    add_pod(cluster, addresses)
    eventually(lambda: len(served.endpoints()) == 3, "the Pod that came")
    lists = [e for e in cluster.double.audit[so_far:] if e.verb == "list" and e.plural == "pods"]
    assert not lists, "a watch goes on from where it was"


def test_the_shipped_permissions_are_enough_and_all_of_them_are_used(cluster, start, addresses):
    gate = start(namespace=None)
    serve(cluster, addresses)
    gate.wait_for(200)
    cluster.wait_until_ready(cluster.apply(model()))
    user = f"system:serviceaccount:{SYSTEM}:tokenweir"

    def asked() -> list:
        return [entry for entry in list(cluster.double.audit) if entry.user == user]

    role = cluster.get("rbac.authorization.k8s.io/v1", "ClusterRole", "tokenweir")
    granted = {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb in ("list", "watch")
    }
    wanted = {grant for grant in granted if cluster.serves_group(grant[1])}

    def used() -> set:
        return {(entry.verb, entry.group, entry.plural) for entry in asked() if not entry.subresource}

    # Requests are served before the last kinds are watched.
    eventually(lambda: wanted <= used(), f"all of {sorted(wanted)} are used")
    refused = [entry for entry in asked() if entry.code == 403]
    assert not refused, refused
