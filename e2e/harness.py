"""Programs under test: started on free ports, logged to files, always ended."""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
BASE_MODEL = "/model/llama2"
ADAPTERS = [
    "sql-lora", "sql-lora-1", "sql-lora-2", "sql-lora-3", "sql-lora-4",
    "tweet-summary", "tweet-summary-1", "tweet-summary-2", "tweet-summary-3", "tweet-summary-4",
]  # fmt: skip
# How long is waited for what has to come. No promise of ours: a wait ends with what it waits for, and only a failure takes
# as long as this, which has to be longer than other work on the machine can hold us up.
PATIENCE_SECONDS = 60
# Made once: nothing here is TLS, and every client would make one.
TLS = ssl.create_default_context()
# As httpx has them, on a connection of their own, but as patient as everything here.
get = partial(httpx.get, timeout=PATIENCE_SECONDS, verify=TLS)
post = partial(httpx.post, timeout=PATIENCE_SECONDS, verify=TLS)
put = partial(httpx.put, timeout=PATIENCE_SECONDS, verify=TLS)


def binary() -> str:
    path = os.environ.get("TOKENWEIR_BIN")
    if not path or not Path(path).exists():
        pytest.exit(f"TOKENWEIR_BIN is {path!r}: run `cargo xtask test --only build` first", 2)
    return path


def real_endpoints() -> list[str]:
    """Real vLLM servers to use instead of simulated ones; see README.md."""
    return [url.rstrip("/") for url in os.environ.get("TOKENWEIR_ENDPOINTS", "").split(",") if url]


_given_ports: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Consecutive free ports, below the range that outgoing connections take theirs from.

    None is given twice: it may have to be free until its program listens, after it was killed, or for good.
    """
    for _ in range(200):
        ports = [random.randrange(20_000, 32_000 - count)]
        ports += [ports[0] + i for i in range(1, count)]
        if not _given_ports.isdisjoint(ports):
            continue
        with ExitStack() as held:
            try:
                for port in ports:
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            _given_ports.update(ports)
            return ports
    raise RuntimeError(f"no {count} consecutive free ports")


def eventually(condition, what: str, seconds: float = PATIENCE_SECONDS):
    """The first true value of `condition`, or a failure that says what did not come."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s: {what} (last: {value!r})")
        time.sleep(0.02)


def run(*arguments: str, timeout: float = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    command = [binary(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


class Program:
    """A `tokenweir` that runs until it is stopped; or another program."""

    started: list[Program] = []

    def __init__(
        self,
        folder: Path,
        name: str,
        *arguments: str,
        command: str | None = None,
        env: dict[str, str] | None = None,
    ):
        """`command`: another program than ours; `env`: variables besides our own."""
        self.name = f"{name}-{len(Program.started)}"
        self.arguments = list(map(str, arguments))
        self.out_path, self.err_path = folder / f"{self.name}.out", folder / f"{self.name}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            command = [command or binary(), *self.arguments]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=os.environ | (env or {}),
            )
        Program.started.append(self)

    @property
    def output(self) -> str:
        return self.out_path.read_text(errors="replace") + self.err_path.read_text(errors="replace")

    def wait_until(self, answers, what: str) -> None:
        """Until `answers()` is true; a program that ends before is a failure at once."""

        def condition():
            if self.process.poll() is not None:
                pytest.fail(f"{self.name} ended with {self.process.returncode}")
            return answers()

        eventually(condition, f"{self.name}: {what}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {seconds} s")

    def stop(self) -> None:
        """For the end of a test: ends it whatever it thinks of that."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def tail(self, lines: int = 40) -> str:
        parts = [f"$ tokenweir {' '.join(self.arguments)}"]
        for path in (self.out_path, self.err_path):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            parts += [f"--- last lines of {path.name}", *text]
        return "\n".join(parts)


@atexit.register
def _end_all() -> None:
    for program in Program.started:
        if program.process.poll() is None:
            program.process.kill()


def answers_200(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.HTTPError:
        return False


SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")


def samples(url: str) -> list[tuple[str, str, float]]:
    """The samples of a Prometheus text page: name, labels as written, value."""
    response = get(url)
    response.raise_for_status()
    found = (SAMPLE.match(line) for line in response.text.splitlines() if line[:1] != "#")
    return [(m[1], m[2] or "", float(m[3])) for m in found if m]


def total(pages: list[str], name: str) -> float:
    """Sum of all series of one name over several pages; a name nowhere found is a failure."""
    values = [value for page in pages for found, _, value in samples(page) if found == name]
    assert values, f"no series {name} on {pages}"
    return sum(values)


class Fleet:
    """vLLM servers, simulated or real."""

    def __init__(self, urls: list[str], programs: list[Program]):
        self.urls, self.programs = urls, programs

    @classmethod
    def simulated(cls, folder: Path, replicas: int = 3, speedup: float = 20, apart: bool = False):
        """`apart`: one process each, so that one can be killed."""
        ports = free_ports(replicas)
        adapters = [word for name in ADAPTERS for word in ("--lora", name)]
        settings = ["--model", BASE_MODEL, *adapters, "--speedup", speedup]
        groups = [[port] for port in ports] if apart else [ports]
        programs = []
        for group in groups:
            listen = ["--listen", f"127.0.0.1:{group[0]}", "--replicas", len(group)]
            programs.append(Program(folder, "sim", "sim", *listen, *settings))
        fleet = cls([f"http://127.0.0.1:{port}" for port in ports], programs)
        for i, url in enumerate(fleet.urls):
            program = programs[i if apart else 0]
            program.wait_until(lambda url=url: answers_200(f"{url}/health"), f"{url} is healthy")
        return fleet

    @property
    def ports(self) -> list[int]:
        return [int(url.rsplit(":", 1)[1]) for url in self.urls]

    def total(self, name: str) -> float:
        return total([f"{url}/metrics" for url in self.urls], name)

    def running(self) -> int:
        return int(self.total("vllm:num_requests_running"))

    def fault(self, fault: str) -> None:
        """Sets a fault of the simulator on every server: `stall` holds answers where they are, until `none`."""
        for url in self.urls:
            post(f"{url}/admin/fault", content=fault).raise_for_status()

    def stop(self) -> None:
        for program in self.programs:
            program.stop()


def pools(port: int, endpoints: list[int], **policies: dict) -> str:
    """Objects of a gateway: pools over the same endpoints, each for the host `NAME.test` and with an InferencePolicy."""
    group = "inference.networking.x-k8s.io"
    items = []

    def add(version: str, kind: str, name: str, **spec) -> None:
        items.append({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})

    server = {"port": {"number": port, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    istio, labels = "networking.istio.io/v1", {"app": "vllm"}
    add(istio, "Gateway", "gateway", selector={"istio": "ingressgateway"}, servers=[server])
    for number in endpoints:
        ports = {"http": number}
        add(istio, "WorkloadEntry", f"vllm-{number}", address="127.0.0.1", labels=labels, ports=ports)
    for name, policy in policies.items():
        target = {"group": group, "kind": "InferencePool", "name": name}
        rules = [{"backendRefs": [{"backendRef": target}]}]
        add(f"{group}/v1alpha2", "InferencePool", name, targetPortNumber=8000, selector=labels)
        add("tokenweir.dev/v1alpha1", "InferencePolicy", name, targetRef=target, **policy)
        host = f"{name}.test"
        add("istio.alibabacloud.com/v1", "LLMRoute", name, gateways=["gateway"], host=host, rules=rules)
    return yaml.safe_dump_all(items)


class Gateway:
    """A `tokenweir serve` or `tokenweir demo` and its four addresses."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None):
        traffic, admin, health, stats = free_ports(4)
        self.url = f"http://127.0.0.1:{port or traffic}"
        self.admin = f"http://127.0.0.1:{admin}"
        self.health = f"http://127.0.0.1:{health}"
        self.stats = f"http://127.0.0.1:{stats}/stats/prometheus"
        if port is None:
            arguments = (*arguments, "--port", traffic)
        addresses = ["--bind", "127.0.0.1", "--admin", f"127.0.0.1:{admin}"]
        addresses += ["--health", f"127.0.0.1:{health}", "--stats", f"127.0.0.1:{stats}"]
        self.program = Program(folder, "gateway", "serve", *arguments, *addresses)
        self.program.wait_until(lambda: answers_200(f"{self.health}/healthz/ready"), "is ready")

    @classmethod
    def before(cls, folder: Path, fleet: Fleet, *arguments: str):
        """In front of a fleet, without any file."""
        return cls(folder, *[w for url in fleet.urls for w in ("--endpoint", url)], *arguments)

    def log(self) -> list[dict]:
        """The access log so far."""
        records = []
        for line in self.program.out_path.read_text(errors="replace").split("\n")[:-1]:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "response_code" in record:
                records.append(record)
        return records

    def get(self, kind: str, name: str, output: str) -> str:
        done = run("get", kind, name, "-o", output, "--admin", self.admin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        self.program.stop()


class Demo(Gateway):
    """`tokenweir demo`, which is a gateway as well."""

    def __init__(self, folder: Path, *arguments: str):
        traffic, admin, health, stats = free_ports(4)
        self.url, self.admin = f"http://127.0.0.1:{traffic}", f"http://127.0.0.1:{admin}"
        addresses = ["--port", traffic, "--admin", f"127.0.0.1:{admin}"]
        addresses += ["--health", f"127.0.0.1:{health}", "--stats", f"127.0.0.1:{stats}"]
        self.program = Program(folder, "demo", "demo", *arguments, *addresses)
        self.program.wait_until(lambda: "Try it" in self.program.output, "is ready")
