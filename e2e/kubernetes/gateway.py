"""Gateways that follow an API server, simulated vLLM servers with addresses of Pods, requests."""

from __future__ import annotations

import json
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from cluster import Cluster
from harness import ADAPTERS, BASE_MODEL, PATIENCE_SECONDS, TLS, Program, answers_200, eventually, get

# As in the tutorial's curl.
BODY = {
    "model": "tweet-summary",
    "prompt": "Write as if you were a critic: San Francisco",
    "max_tokens": 100,
    "temperature": 0,
}
HOST = "test.com"
CONCURRENCY = 10


class Network:
    """Loopback addresses that nobody else uses: all Pods of a pool have the same port numbers."""

    def __init__(self):
        self.prefix = f"127.{random.randrange(1, 255)}"
        self._net, self._next = random.randrange(255), 0

    def address(self) -> str:
        self._next += 1
        return f"{self.prefix}.{self._net}.{self._next}"


class Server:
    """A simulated vLLM server as one Pod: an address of its own, ports from 8000 on."""

    def __init__(self, folder: Path, address: str, ports: int = 1, speedup: float = 100):
        self.address, self.port = address, 8000
        adapters = [word for name in ADAPTERS for word in ("--lora", name)]
        listen = ["--listen", f"{address}:{self.port}", "--replicas", ports]
        settings = ["--model", BASE_MODEL, *adapters, "--speedup", speedup]
        self.program = Program(folder, "sim", "sim", *listen, *settings)
        self.url = f"http://{address}:{self.port}"

    def wait(self) -> None:
        self.program.wait_until(lambda: answers_200(f"{self.url}/health"), "is healthy")

    def stop(self) -> None:
        self.program.stop()


class Gateway:
    """A `tokenweir serve --kubernetes` on an address of its own, with the usual ports."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        address: str,
        *arguments: str,
        kubeconfig: Path | None = None,
        namespace: str | None = "",
        wait: bool = True,
    ):
        """`namespace`: the test's if empty, all if None."""
        self.cluster, self.address = cluster, address
        self.admin, self.health = f"http://{address}:15000", f"http://{address}:15021"
        addresses = ["--bind", address, "--admin", f"{address}:15000"]
        addresses += ["--health", f"{address}:15021", "--stats", f"{address}:15090"]
        if namespace is not None:
            arguments = ("--namespace", namespace or cluster.namespace, *arguments)
        kubeconfig = kubeconfig or cluster.gateway_kubeconfig()
        self.program = Program(
            folder,
            "gateway",
            "serve",
            "--kubernetes",
            *arguments,
            *addresses,
            env={"KUBECONFIG": str(kubeconfig)},
        )
        if wait:
            self.wait()

    def wait(self) -> None:
        self.program.wait_until(self.is_ready, "is ready")

    def is_ready(self) -> bool:
        return answers_200(f"{self.health}/healthz/ready")

    def url(self, port: int = 8080) -> str:
        return f"http://{self.address}:{port}"

    def ask(self, port: int = 8080, host: str = HOST, path: str = "/v1/completions", **body):
        """As the tutorial's curl, on a connection of its own; `body` changes fields of its body."""
        with httpx.Client(verify=TLS, timeout=PATIENCE_SECONDS) as client:
            headers = {"host": host}
            return client.post(self.url(port) + path, json=BODY | body, headers=headers)

    def answer(self, port: int = 8080, **more) -> httpx.Response | None:
        """The answer, or none as long as nobody listens."""
        try:
            return self.ask(port, **more)
        except httpx.ConnectError:
            return None

    def wait_for(self, *statuses: int, port: int = 8080, **more) -> httpx.Response:
        """Until a request is answered with one of these."""

        def answered():
            response = self.answer(port, **more)
            return response if response is not None and response.status_code in statuses else None

        return eventually(answered, f"an answer {statuses} on port {port}")

    def wait_until_closed(self, port: int = 8080) -> None:
        eventually(lambda: self.answer(port) is None, f"port {port} is closed")

    def endpoints(self) -> set[str]:
        """`address:port` of every endpoint that takes requests."""
        pools = get(f"{self.admin}/endpoints").json()
        return {endpoint["endpoint"] for pool in pools for endpoint in pool["endpoints"]}

    def wait_for_endpoints(self, *addresses: str, port: int = 8000) -> None:
        wanted = {address if ":" in address else f"{address}:{port}" for address in addresses}
        eventually(lambda: self.endpoints() == wanted, f"the endpoints are {sorted(wanted)}")

    def served_by(self, requests: int, port: int = 8080, host: str = HOST) -> dict[str, int]:
        """Requests by endpoint, some at a time, all of them answered."""
        limits = httpx.Limits(max_connections=CONCURRENCY)
        counts: dict[str, int] = {}
        with (
            httpx.Client(verify=TLS, timeout=PATIENCE_SECONDS, limits=limits) as client,
            ThreadPoolExecutor(CONCURRENCY) as pool,
        ):

            def ask(number: int) -> httpx.Response:
                body = BODY | {"prompt": f"{number}: {BODY['prompt']}", "max_tokens": 5}
                url = f"{self.url(port)}/v1/completions"
                return client.post(url, json=body, headers={"host": host})

            for response in pool.map(ask, range(requests)):
                assert response.status_code == 200, response.text
                endpoint = response.headers["x-tokenweir-endpoint"]
                counts[endpoint] = counts.get(endpoint, 0) + 1
        return counts

    def kill(self) -> None:
        self.program.signal(signal.SIGKILL)
        self.program.wait()

    def log(self) -> list[dict]:
        """What it said so far; requests are told of elsewhere."""
        found = []
        for line in self.program.output.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "message" in record:
                found.append(record)
        return found

    def errors(self) -> list[dict]:
        """Warnings and errors of the log."""
        return [record for record in self.log() if record.get("level") in ("WARN", "ERROR")]

    def stop(self) -> None:
        self.program.stop()
