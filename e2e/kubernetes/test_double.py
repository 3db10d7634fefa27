"""The double answers as a real server did."""

from __future__ import annotations

import json
import re
import threading

import httpx
import pytest
from cluster import Cluster, documents
from double.store import Options
from double.table import json_path
from harness import PATIENCE_SECONDS, REPOSITORY, eventually

RECORDED = REPOSITORY / "e2e" / "kubernetes" / "testdata" / "recorded"
pytestmark = pytest.mark.faults("is about the double")


class Exchange:
    """A recorded request and its answer."""

    def __init__(self, name: str):
        (path,) = RECORDED.glob(f"{name}-*.txt")
        asked, _, answered = path.read_text().partition("HTTP/1.1 ")
        lines = [line.removeprefix("> ") for line in asked.splitlines()]
        self.method, self.path = lines[0].split(" ", 1)
        self.headers = dict(re.split(r":\s*", line, maxsplit=1) for line in lines[1:2])
        self.body = lines[2] if len(lines) > 2 else None
        head, _, self.text = answered.partition("\n\n")
        self.code = int(head.split()[0])
        self.media = re.search(r"Content-Type: (\S+)", head)[1]

    @property
    def answer(self) -> dict:
        return json.loads(self.text)

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.text.splitlines()]

    def ask(self, cluster: Cluster, token: str = "") -> httpx.Response:
        headers = self.headers | ({"authorization": f"Bearer {token}"} if token else {})
        headers |= {"user-agent": "curl/8"}
        return cluster.client.request(self.method, self.path, content=self.body, headers=headers)

    def compare(self, cluster: Cluster, token: str = "") -> dict:
        """The same code and the same body, but for what counts or tells time."""
        response = self.ask(cluster, token)
        assert response.status_code == self.code, response.text
        assert response.headers["content-type"].startswith(self.media)
        assert without_counts(response.json()) == without_counts(self.answer)
        return response.json()


def without_counts(value, key: str = ""):
    if isinstance(value, dict):
        return {k: without_counts(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [without_counts(item) for item in value]
    if key in ("uid", "time", "creationTimestamp", "resourceVersion"):
        return key
    if key == "message":
        return re.sub(r"(version|current): \d+( \(\d+\))?", r"\1: N", value)
    return value


@pytest.fixture
def api(tmp_path):
    cluster = Cluster.of_double(tmp_path)
    folder = REPOSITORY / "deploy" / "crds"
    cluster.define(documents(folder / "inference.networking.k8s.io_inferencepools.yaml"))
    yield cluster
    cluster.stop()


@pytest.fixture
def pool(api):
    """The object that the recording begins with."""
    created = Exchange("03")
    response = created.ask(api)
    assert response.status_code == created.code
    answer = response.json()
    assert answer["metadata"].keys() == created.answer["metadata"].keys()
    assert [e["manager"] for e in answer["metadata"]["managedFields"]] == ["curl"]
    return answer


def test_what_exists_is_not_created_again(api, pool):
    Exchange("04").compare(api)


def test_a_status_is_applied_and_applied_again_without_a_change(api, pool):
    first = Exchange("08").ask(api).json()
    recorded = Exchange("08").answer
    # Upstream's definition fills in more of the reference.
    mine, theirs = (item["status"]["parents"][0]["conditions"] for item in (first, recorded))
    assert mine == theirs
    entries = [e for e in recorded["metadata"]["managedFields"] if e["manager"] == "gw"]
    mine = [e for e in first["metadata"]["managedFields"] if e["manager"] == "gw"]
    assert without_counts(mine) == without_counts(entries)
    assert first["metadata"]["generation"] == pool["metadata"]["generation"]
    again = Exchange("09").ask(api).json()
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_another_manager_of_an_atomic_list_is_a_conflict(api, pool):
    Exchange("08").ask(api)
    Exchange("10").compare(api)


def test_a_stale_version_is_a_conflict(api, pool):
    Exchange("11").compare(api)


def test_what_is_not_there_is_not_found(api):
    Exchange("15").compare(api)


def test_a_kind_that_is_not_there_has_no_page(api):
    recorded = Exchange("16")
    response = recorded.ask(api)
    assert (response.status_code, response.text.strip()) == (404, recorded.text.strip())
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_who_may_not_is_told_what(api):
    api.make_namespace("gateway-system")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "gateway"}}
    api.apply(account, "gateway-system")
    config = json.loads(api.gateway_kubeconfig("gateway", "gateway-system").read_text())
    Exchange("17").compare(api, config["users"][0]["user"]["token"])


def test_a_wrong_token_is_nobodys(api):
    Exchange("18").compare(api, "wrong")


def test_a_version_that_is_yet_to_come_times_out(api):
    Exchange("24").compare(api)


class Watch:
    """A watch in the background."""

    def __init__(self, cluster: Cluster, path: str, **query):
        self.events: list[dict] = []
        self._cluster, self._path = cluster, path
        self._query = {"watch": "1", "timeoutSeconds": str(10 * PATIENCE_SECONDS)} | query
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._cluster.client.stream(
                "GET", self._path, params=self._query, timeout=PATIENCE_SECONDS
            ) as response:
                for line in response.iter_lines():
                    self.events.append(json.loads(line))
        except httpx.HTTPError:
            pass

    def wait_for(self, types: list[str]) -> list[dict]:
        eventually(lambda: self.types() == types, f"the events {types}")
        return self.events

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def wait_for_its_end(self) -> None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()


PODS = "/api/v1/namespaces/default/pods"


def test_a_watch_with_a_selector_tells_what_the_recorded_one_told(api):
    api.namespace = "default"
    recorded = Exchange("20").events()
    first = api.pod("p0", "", {"app": "vllm"}, ready=False)
    second = api.pod("p1", "", {"app": "vllm"}, ready=False)
    version = api.ask("GET", PODS)["metadata"]["resourceVersion"]
    watch = Watch(api, PODS, labelSelector="app=vllm", resourceVersion=version)
    first.report("127.0.0.2", True)
    second.report("127.0.0.3", True)
    second.begin_deletion()
    first.label({"app": "other"})
    second.end_deletion()
    wanted = [event["type"] for event in recorded if event["type"] != "BOOKMARK"]
    found = watch.wait_for(wanted)
    for mine, theirs in zip(found, recorded, strict=False):
        mine, theirs = (event["object"]["metadata"] for event in (mine, theirs))
        for key in ("name", "labels", "generation", "deletionGracePeriodSeconds"):
            assert mine.get(key) == theirs.get(key), (mine, theirs)
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in found]
    assert versions == sorted(set(versions))


def test_a_watch_from_too_long_ago_is_told_in_its_stream(api):
    version = api.ask("GET", PODS)["metadata"]["resourceVersion"]
    api.make_namespace("another")
    api.double.compact()
    watch = Watch(api, PODS, resourceVersion=version)
    watch.wait_for_its_end()
    (recorded,) = Exchange("23").events()
    (event,) = watch.events
    assert without_counts(event) == without_counts(recorded)


def test_a_watch_that_wants_bookmarks_gets_one_before_its_end(api):
    watch = Watch(api, PODS, allowWatchBookmarks="true", timeoutSeconds="1")
    watch.wait_for_its_end()
    (event,) = watch.events
    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["resourceVersion"] == str(api.double.store.revision)


def test_a_cut_watch_ends_and_one_that_hangs_goes_on(api):
    api.namespace = "default"
    watch = Watch(api, PODS)
    api.pod("p0", "127.0.0.2", {})
    watch.wait_for(["ADDED", "MODIFIED"])
    api.double.pause()
    api.double.store.delete(
        api.double.store.kind("", "v1", "pods"),
        "default",
        "p0",
        {"gracePeriodSeconds": 0},
        Options(),
    )
    assert watch.types() == ["ADDED", "MODIFIED"]
    api.double.resume()
    watch.wait_for(["ADDED", "MODIFIED", "DELETED"])
    api.double.cut()
    watch.wait_for_its_end()


def test_lists_come_in_pages(api):
    for number in range(5):
        api.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}}, "default"
        )
    path, names, token = "/api/v1/namespaces/default/configmaps", [], ""
    while True:
        page = api.ask("GET", path, limit=2, **({"continue": token} if token else {}))
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue")
        if not token:
            break
    assert names == [f"c{number}" for number in range(5)]


def test_of_two_writers_of_one_version_the_second_is_told(api):
    """As leases are fought for."""
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    made = api.apply(lease | {"metadata": {"name": "l"}, "spec": {}}, "default")
    path = api.path(*lease.values(), "l", "default")
    api.ask("PUT", path, made | {"spec": {"holderIdentity": "a"}})
    with pytest.raises(httpx.HTTPStatusError) as refused:
        api.ask("PUT", path, made | {"spec": {"holderIdentity": "b"}})
    assert refused.value.response.status_code == 409


def test_paths_of_printer_columns_are_followed():
    item = {"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B"}]}}
    assert json_path(item, '.status.conditions[?(@.type=="A")].status') == ["True"]
    assert json_path(item, ".status.conditions[*].type") == ["A", "B"]
    assert json_path(item, ".status.conditions[1].type") == ["B"]
    assert json_path(item, ".status.nothing") == []
