"""What a large cluster costs the gateway: measured and printed, and only when asked for.

    cargo xtask test --only build --only kubernetes -- --scale

Processor time and memory are read from the gateway's process. Times are also those of whatever
else runs on this machine: one server stands for all Pods but the one whose changes are followed, and
gives way to the gateway, since in a cluster it would be elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import threading
import time
from contextlib import suppress

import httpx
import pytest
from cluster import Cluster
from gateway import Gateway, Network
from harness import PATIENCE_SECONDS, TLS, Program, answers_200, eventually, free_ports, total
from objects import gateway, pool, route

PODS, POOLS = 5_000, 200
MEMORY_MIB_MAX = 200
EVENTS = 100
STEADY_SECONDS = 15
# Making the cluster takes longest.
LIMIT_SECONDS = 900
TICKS = os.sysconf("SC_CLK_TCK")


def make_cluster(cluster: Cluster, prefix: str, port: int) -> None:
    """Pools with a route each, and Pods in turn; one server stands for all of them."""
    cluster.apply(gateway())
    for number in range(POOLS):
        name = f"pool-{number}"
        labels = {"app": name}
        cluster.apply(pool(name, labels=labels, targetPortNumber=port))
        cluster.apply(route(f"route-{number}", name, host=f"{name}.example.com"))
    for number in range(PODS):
        name, address = f"pool-{number % POOLS}", f"{prefix}.{number // 250}.{number % 250 + 1}"
        labels = {"app": name, "pod-template-hash": "6d4cf56db6", "part-of": "inference"}
        cluster.pod(f"{name}-{number}", address, labels)


class Process:
    """What the kernel says of a program."""

    def __init__(self, program: Program):
        self.folder = f"/proc/{program.process.pid}"

    def give_way(self) -> None:
        for task in os.listdir(f"{self.folder}/task"):
            os.setpriority(os.PRIO_PROCESS, int(task), 10)

    def memory_mib(self, field: str) -> int:
        with open(f"{self.folder}/status", encoding="utf-8") as status:
            line = next(line for line in status if line.startswith(f"{field}:"))
        return int(line.split()[1]) // 1024

    def processor_seconds(self) -> dict[str, float]:
        """By name of the threads."""
        found: dict[str, float] = {}
        for task in os.listdir(f"{self.folder}/task"):
            with open(f"{self.folder}/task/{task}/stat", encoding="utf-8") as stat:
                name, fields = stat.read().split("(", 1)[1].rsplit(")", 1)
            ticks = sum(map(int, fields.split()[11:13]))
            found[name] = found.get(name, 0) + ticks / TICKS
        return found


class Watcher(threading.Thread):
    """Another client that watches one Pod: when it is told of a change, the gateway is as well."""

    def __init__(self, cluster: Cluster, name: str):
        super().__init__(daemon=True)
        self.path = cluster.path("v1", "Pod")
        self.client, self.name_of_pod = cluster.client, name
        self.told: list[float] = []
        self.listed = threading.Event()

    def run(self) -> None:
        query = {"watch": "1", "fieldSelector": f"metadata.name={self.name_of_pod}"}
        # At the end of the test the API server is no more.
        with (
            suppress(httpx.HTTPError),
            self.client.stream("GET", self.path, params=query, timeout=None) as answer,
        ):
            for line in answer.iter_lines():
                if json.loads(line)["type"] == "MODIFIED":
                    self.told.append(time.monotonic())
                self.listed.set()


def follow_events(cluster: Cluster, started: Gateway, pod, host: str) -> list[float]:
    """Seconds from when another watcher is told of a change until requests are routed by it."""
    watcher = Watcher(cluster, pod.name)
    watcher.start()
    assert watcher.listed.wait(PATIENCE_SECONDS)
    taken = []
    body = {"model": "tweet-summary", "prompt": "x", "max_tokens": 1}
    with httpx.Client(verify=TLS, timeout=PATIENCE_SECONDS, headers={"host": host}) as client:
        url = f"{started.url()}/v1/completions"
        for number in range(EVENTS):
            ready = number % 2 == 1
            before = len(watcher.told)
            pod.set_ready(ready)
            wanted = 200 if ready else 503
            while client.post(url, json=body).status_code != wanted:
                time.sleep(0.001)
            routed = time.monotonic()
            eventually(lambda n=before: len(watcher.told) > n, "the other watcher is told")
            taken.append(routed - watcher.told[-1])
            # Somewhere between two folds, not always at the same place.
            time.sleep(0.1 + number % 10 / 100)
    return taken


@pytest.mark.scale
def test_a_cluster_of_five_thousand_pods_is_held(
    cluster: Cluster, network: Network, start, tmp_path, capsys
):
    signal.alarm(LIMIT_SECONDS)

    def say(what: str, figure: str) -> None:
        with capsys.disabled():
            print(f"{what:<60} {figure}", flush=True)

    port, events_port = free_ports(2)
    servers = Program(tmp_path, "sim", "sim", "--listen", f"0.0.0.0:{port}", "--speedup", "100")
    servers.wait_until(lambda: answers_200(f"http://127.0.0.1:{port}/health"), "is healthy")
    Process(servers).give_way()
    make_cluster(cluster, network.prefix, port)
    # The one whose changes are followed is on a server of its own: the other answers late.
    address = f"{network.prefix}.250.1"
    listen = f"{address}:{events_port}"
    prompt = Program(tmp_path, "prompt", "sim", "--listen", listen, "--speedup", "1000")
    prompt.wait_until(lambda: answers_200(f"http://{listen}/health"), "is healthy")
    cluster.apply(pool("events", labels={"app": "events"}, targetPortNumber=events_port))
    cluster.apply(route("events", "events", host="events.example.com"))
    pod = cluster.pod("events-0", address, {"app": "events"})
    say("Pods, pools", f"{PODS}, {POOLS}")

    began = time.monotonic()
    started = start(wait=False)
    process = Process(started.program)
    eventually(started.is_ready, "the gateway is ready", seconds=300)
    say("ready after", f"{time.monotonic() - began:.2f} s")
    say("processor time until then", shown(process.processor_seconds()))
    say("resident then", f"{process.memory_mib('VmRSS')} MiB")

    # The log is looked at and not the metrics: their page is large here, and would be asked for often.
    eventually(lambda: heard(started) > PODS, "every endpoint is healthy", seconds=300)
    say("every endpoint asked for its health after", f"{time.monotonic() - began:.2f} s")
    before, asked = process.processor_seconds(), metric(started, "tokenweir_scrapes_total")
    time.sleep(STEADY_SECONDS)
    after = process.processor_seconds()
    asked = metric(started, "tokenweir_scrapes_total") - asked
    used = {name: (after[name] - before.get(name, 0)) / STEADY_SECONDS for name in after}
    say("processors used in steady state", shown(used, ""))
    say("scrapes a second", f"{asked / STEADY_SECONDS:.0f}")

    taken = sorted(follow_events(cluster, started, pod, "events.example.com"))
    middle, worst = statistics.median(taken), taken[-1]
    late = taken[len(taken) * 95 // 100]
    say(
        f"a Pod's change is routed by after (of {EVENTS})",
        f"median {middle * 1000:.0f} ms, 95 % {late * 1000:.0f} ms, all {worst * 1000:.0f} ms",
    )
    resident, peak = process.memory_mib("VmRSS"), process.memory_mib("VmHWM")
    say("resident at the end, and at most", f"{resident} MiB, {peak} MiB")
    assert peak < MEMORY_MIB_MAX


def heard(started: Gateway) -> int:
    """Endpoints whose health check has succeeded."""
    time.sleep(0.2)
    return len(set(re.findall(r'"endpoint is ready","endpoint":"([^"]+)"', started.program.output)))


def metric(started: Gateway, name: str) -> float:
    """Over all its series."""
    return total([f"http://{started.address}:15090/metrics"], name)


def shown(by_thread: dict[str, float], unit: str = " s") -> str:
    told = {name: used for name, used in sorted(by_thread.items()) if used >= 0.005}
    return ", ".join(f"{name} {used:.2f}{unit}" for name, used in told.items())
