"""The tutorial, verbatim: its manifests, its commands, both of its ways to balance."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from harness import REPOSITORY, Fleet, Gateway, eventually, free_ports, post, run
from load import Load

pytestmark = pytest.mark.simulated

SEED = REPOSITORY / "examples" / "seed"
POOL = "vllm-llama2-7b-pool"
TRADITIONAL = ["virtualservice.yaml"]
INFERENCE = ["inferencepool.yaml", "inferencemodel.yaml", "llmroute.yaml"]

# As in the tutorial's curl.
HEADERS = {"host": "test.com", "content-type": "application/json"}
BODY = """{
"model": "tweet-summary",
"prompt": "Write as if you were a critic: San Francisco",
"max_tokens": 100,
"temperature": 0
}"""


class Folder:
    """A copy of the example in which only the ports differ."""

    def __init__(self, path: Path, fleet: Fleet):
        self.path, self.port, self.fleet = path, free_ports(1)[0], fleet
        path.mkdir()
        self.add("vllm-service.yaml", "gateway.yaml", "endpoints.yaml")

    def add(self, *names: str) -> None:
        for name in names:
            text = (SEED / name).read_text()
            if name == "gateway.yaml":
                text, changed = re.subn("number: 8080", f"number: {self.port}", text)
                assert changed == 1
            if name == "endpoints.yaml":
                for seed_port, port in zip((8001, 8002, 8003), self.fleet.ports, strict=True):
                    text, changed = re.subn(f"http: {seed_port}", f"http: {port}", text)
                    assert changed == 1
            # As editors and kubectl do: a file is there whole or not at all.
            partial = self.path.parent / f"{name}.partial"
            partial.write_text(text)
            partial.rename(self.path / name)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink()


@pytest.fixture
def serve(own, tmp_path):
    """A gateway over three simulated servers and a copy of the example's files."""

    def serve(*names: str) -> tuple[Fleet, Folder, Gateway]:
        fleet = own(Fleet.simulated)
        folder = Folder(tmp_path / "seed", fleet)
        folder.add(*names)
        return fleet, folder, own(Gateway, "-f", folder.path, port=folder.port)

    return serve


def curl(gateway: Gateway, **headers: str) -> httpx.Response:
    url = f"{gateway.url}/v1/completions"
    return post(url, content=BODY, headers=HEADERS | headers)


def assert_tutorial_answer(response: httpx.Response) -> None:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tweet-summary"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 100
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 100


def conditions(gateway: Gateway, kind: str, name: str) -> dict[str, str]:
    status = json.loads(gateway.get(kind, name, "json"))["status"]
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def test_llm_route(serve):
    _, _, gateway = serve(*INFERENCE)
    assert_tutorial_answer(curl(gateway))
    other = curl(gateway, host="other.com")
    assert other.status_code == 404
    assert other.headers["x-tokenweir-reason"] == "no_route"


def test_status_is_what_the_tutorial_waits_for(serve):
    _, _, gateway = serve(*INFERENCE)
    ready = {"Accepted": "True", "ResolvedRefs": "True"}
    for kind, name in [("inferencepool", POOL), ("inferencemodel", "inferencemodel-sample")]:
        eventually(lambda k=kind, n=name: conditions(gateway, k, n) == ready, f"{kind} is ready")
        text = gateway.get(kind, name, "yaml")
        assert f"name: {name}" in text
        items = re.split(r"\n\s*- ", text.split("\nstatus:", 1)[1])
        for condition in ready:
            item = next(item for item in items if re.search(rf"type: {condition}\b", item))
            assert re.search(r"""\bstatus: ["']True["']""", item), text
        assert name in gateway.get(kind, name, "table")


def test_status_says_what_is_missing(serve):
    """The model's pool is not there."""
    _, _, gateway = serve("inferencemodel.yaml")
    what = ("inferencemodel", "inferencemodel-sample")
    eventually(lambda: conditions(gateway, *what).get("ResolvedRefs") == "False", "it says so")


def test_traditional_balancing_goes_round(serve):
    fleet, _, gateway = serve(*TRADITIONAL)
    for _ in range(30):
        assert_tutorial_answer(curl(gateway))
    assert curl(gateway, host="any.other").status_code == 200, "the VirtualService's host is `*`"

    def served() -> list[float]:
        return [Fleet([url], []).total("vllm:request_success_total") for url in fleet.urls]

    eventually(lambda: sum(served()) == 31, "all are counted")
    counts = served()
    assert max(counts) - min(counts) <= 1, counts


def test_changing_the_way_of_balancing_under_load_loses_nothing(serve):
    _, folder, gateway = serve(*TRADITIONAL)

    def policy() -> str | None:
        log = gateway.log()
        return log[-1].get("policy") if log else None

    with Load(gateway.url, concurrency=8, host="test.com", max_tokens=20) as load:
        eventually(lambda: len(load.answers) >= 30, "answers")
        assert {record["policy"] for record in gateway.log()} == {"round-robin"}
        folder.add(*INFERENCE)
        folder.remove(*TRADITIONAL)
        eventually(lambda: policy() == "predicted", "the LLMRoute is in force")
        so_far = len(load.answers)
        eventually(lambda: len(load.answers) >= so_far + 50, "more answers")
        folder.add(*TRADITIONAL)
        # The route first: each step may be seen alone.
        folder.remove(*reversed(INFERENCE))
        eventually(lambda: policy() == "round-robin", "the VirtualService is in force")
        so_far = len(load.answers)
        eventually(lambda: len(load.answers) >= so_far + 50, "more answers")
    assert load.failures() == []
    assert {record["response_code"] for record in gateway.log()} == {200}


def test_every_example_is_accepted_by_check():
    folders = {path.parent for path in (REPOSITORY / "examples").rglob("*.yaml")}
    assert SEED in folders
    for folder in sorted(folders):
        done = run("check", "-f", folder)
        assert done.returncode == 0, f"{folder}:\n{done.stdout}{done.stderr}"


def test_the_folder_as_it_is_serves_both_ways(own, tmp_path):
    """A user who points us at the whole folder: the exact host wins over `*`."""
    fleet = own(Fleet.simulated)
    folder = Folder(tmp_path / "seed", fleet)
    folder.add(*INFERENCE, *TRADITIONAL)
    assert sorted(p.name for p in folder.path.iterdir()) == sorted(p.name for p in SEED.glob("*"))
    gateway = own(Gateway, "-f", folder.path, port=folder.port)
    assert_tutorial_answer(curl(gateway))
    assert curl(gateway, host="any.other").status_code == 200
    log = eventually(lambda: len(log := gateway.log()) == 2 and log, "two log lines")
    policies = {record["authority"]: record["policy"] for record in log}
    assert policies == {"test.com": "predicted", "any.other": "round-robin"}
