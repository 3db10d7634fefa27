"""Endings: our own under load, and an endpoint's."""

from __future__ import annotations

import signal
import socket

import httpx
import pytest
from harness import PATIENCE_SECONDS, REPOSITORY, Demo, Fleet, Gateway, Program, eventually, post, run
from load import Load

pytestmark = pytest.mark.simulated


def accepts(url: str) -> bool:
    address = httpx.URL(url)
    try:
        socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


def test_sigterm_lets_running_streams_finish(own):
    fleet = own(Fleet.simulated, speedup=2)
    gateway = own(Gateway.before, fleet)
    with Load(gateway.url, concurrency=8, requests=8, max_tokens=600, streams="yes") as load:
        eventually(lambda: sum(answer.started for answer in load.under_way) == 8, "8 streams started")
        # None is over before everything was looked at.
        fleet.fault("stall")
        gateway.program.signal(signal.SIGTERM)
        eventually(lambda: not accepts(gateway.url), "new connections are refused")
        assert len(load.under_way) == 8, "the streams still run"
        assert gateway.program.process.poll() is None
        fleet.fault("none")
    assert load.failures() == []
    assert all(answer.body.count(b"data: ") > 20 for answer in load.answers)
    assert gateway.program.wait() == 0
    assert [record["response_code"] for record in gateway.log()] == [200] * 8


def test_sigterm_when_idle_ends_at_once(own):
    # Whoever waited out the time to drain would not be seen to end.
    gateway = own(Gateway.before, own(Fleet.simulated, replicas=1), "--drain-timeout", "1h")
    gateway.program.signal(signal.SIGTERM)
    assert gateway.program.wait() == 0


def test_a_killed_endpoint_is_routed_around(own):
    """Nobody notices but the clients whose answer had begun there; and those are told."""
    fleet = own(Fleet.simulated, speedup=5, apart=True)
    gateway = own(Gateway.before, fleet)
    with Load(gateway.url, concurrency=12, max_tokens=40) as load:
        eventually(lambda: len(load.answers) >= 24, "a warm gateway")
        # Where requests go is up to the policy: the victim is the one that has this answer to write.
        with Load(gateway.url, concurrency=1, requests=1, max_tokens=2000, streams="yes") as long:
            (cut,) = eventually(lambda: [it for it in long.under_way if it.started], "a long answer")
            victim = fleet.programs[fleet.urls.index(f"http://{cut.endpoint}")]
            victim.signal(signal.SIGKILL)
            victim.wait()
        answered = len(load.answers)
        eventually(lambda: len(load.answers) >= answered + 150, "answers from the others")
    failed = [answer for answer in load.answers if not answer.whole]
    not_started = [str(answer) for answer in failed if not answer.started]
    assert not_started == []
    assert len(failed) <= 12, "only answers that were under way"
    for answer in [cut, *failed]:
        assert answer.stream
        assert b"[DONE]" not in answer.body, "a cut answer must not look whole"
        assert b'"error"' in answer.body and answer.error, "the client is told, twice"
    after = load.answers[-50:]
    assert [str(answer) for answer in after if not answer.whole] == []


def test_an_endpoint_that_comes_back_is_used_again(own, tmp_path):
    fleet = own(Fleet.simulated, replicas=2, speedup=20, apart=True)
    gateway = own(Gateway.before, fleet)
    fleet.programs[0].signal(signal.SIGKILL)
    fleet.programs[0].wait()
    with Load(gateway.url, concurrency=4, requests=40, max_tokens=10) as load:
        pass
    assert load.failures() == []
    again = Program(tmp_path, "sim-again", *fleet.programs[0].arguments)
    victim = Fleet(fleet.urls[:1], [again])
    eventually(lambda: accepts(fleet.urls[0]), "the endpoint is back")
    with Load(gateway.url, concurrency=4, max_tokens=10) as load:
        eventually(
            lambda: victim.total("vllm:generation_tokens_total") > 0, "it gets requests again"
        )
    assert load.failures() == []


def test_demo_does_what_it_prints(own):
    """The README's first command: the printed curl line works, Ctrl-C ends it."""
    demo = own(Demo)
    assert f"{demo.url}/v1/" in demo.program.output
    body = {"model": "tweet-summary", "max_tokens": 10, "temperature": 0}
    body |= {"prompt": "Write as if you were a critic: San Francisco"}
    response = post(f"{demo.url}/v1/completions", json=body, headers={"host": "test.com"})
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] == 10
    demo.program.signal(signal.SIGINT)
    assert demo.program.wait() == 0


def test_wrong_usage_is_exit_code_2():
    done = run("serve", "--no-such-flag")
    assert done.returncode == 2
    assert "--no-such-flag" in done.stderr


def test_check_lists_every_problem_with_its_place(tmp_path):
    good = (REPOSITORY / "examples/seed/inferencepool.yaml").read_text()
    bad = good.replace("8000", "eighty").replace("  selector:\n", "  selector: 5\n  other:\n")
    assert bad.count("eighty") == 1
    path = tmp_path / "pool.yaml"
    path.write_text(bad)
    done = run("check", "-f", path)
    assert done.returncode == 2, done.stdout + done.stderr
    told = done.stdout + done.stderr
    assert "pool.yaml:6" in told and "targetPortNumber" in told, told
    assert "pool.yaml:7" in told and "selector" in told, told


def test_check_of_a_missing_file_names_it(tmp_path):
    done = run("check", "-f", tmp_path / "no-such.yaml")
    assert done.returncode == 2
    assert "no-such.yaml" in done.stdout + done.stderr
