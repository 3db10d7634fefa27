"""The log: its levels at run time, and what is never in it."""

from __future__ import annotations

import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import pytest
from doubles import Asked, Double
from harness import PATIENCE_SECONDS, TLS, Fleet, Gateway, eventually, free_ports, get, pools, post, put, samples, total

pytestmark = pytest.mark.simulated

SECRETS = ("sk-in-a-header", "sk-in-a-body", "sk-in-a-query", "sk-in-a-cookie")
HEADERS = {
    "authorization": f"Bearer {SECRETS[0]}",
    "x-api-key": SECRETS[0],
    "x-anything": SECRETS[0],
    "cookie": f"session={SECRETS[3]}",
    "content-type": "application/json",
}
BODY = (
    '{"model": "tweet-summary", "prompt": "%s", "max_tokens": 20, "user": "%s", "stream": %s}'
    % (SECRETS[1], SECRETS[1], "%s")
)
QUERY = f"?api_key={SECRETS[2]}&{SECRETS[2]}"


def ask(gateway: Gateway, path: str = "/v1/completions", body: str = BODY % "false", **extra):
    return post(f"{gateway.url}{path}{QUERY}", content=body, headers=HEADERS | extra)


def stream(gateway: Gateway, body: str, **extra):
    options = {"content": body, "headers": HEADERS | extra, "timeout": PATIENCE_SECONDS, "verify": TLS}
    return httpx.stream("POST", f"{gateway.url}/v1/completions{QUERY}", **options)


def test_levels_change_at_run_time_by_room(own):
    gateway = own(Gateway.before, own(Fleet.simulated, replicas=1))
    admin = f"{gateway.admin}/logging"
    first = get(admin).json()
    assert first["level"] == "info" and set(first["rooms"].values()) == {"info"}

    def refused() -> int:
        """Lines of the proxy at debug: each client that sends no HTTP leaves one."""
        address = httpx.URL(gateway.url)
        with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as client:
            client.sendall(b"nonsense\r\n\r\n")
            client.recv(1000)
        return gateway.program.output.count("head refused")

    assert refused() == 0
    answer = post(f"{admin}?proxy=debug").json()
    assert (answer["rooms"]["proxy"], answer["rooms"]["picker"]) == ("debug", "info")
    eventually(lambda: refused() > 0, "the proxy tells more")
    wrong = put(f"{admin}?level=warn&proxies=debug")
    assert wrong.status_code == 400 and "proxies cannot be set" in wrong.json()["error"]["message"]
    assert get(admin).json() == answer, "all of it or nothing"
    assert post(f"{admin}?level=warn").json()["rooms"]["proxy"] == "warn"
    assert httpx.delete(admin, timeout=PATIENCE_SECONDS).status_code == 405


@pytest.fixture
def talkative(monkeypatch):
    """Every room tells all it can."""
    monkeypatch.setenv("TOKENWEIR_LOG", "trace")


def ends_without_secrets(gateway: Gateway, *words: str) -> None:
    """Its logs have these words, so that the way there was taken, and nothing of what is secret."""
    gateway.program.signal(signal.SIGTERM)
    assert gateway.program.wait() == 0
    lines = gateway.program.output.splitlines()
    missing = [word for word in words if not any(word in line for line in lines)]
    assert missing == []
    assert [line[:400] for line in lines if any(secret in line for secret in SECRETS)] == []


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("format", ["json", "text"])
def test_no_prompt_and_no_key_is_logged_of_what_clients_send(own, tmp_path, format):
    fleet = own(Fleet.simulated, replicas=2, speedup=5, apart=True)
    settings = tmp_path / "settings.yaml"
    settings.write_text("limits: {body-timeout: 4s, header-timeout: 4s}\n")
    gateway = own(Gateway.before, fleet, "--log-format", format, "--config", settings)
    whole, streamed = ask(gateway), ask(gateway, body=BODY % "true")
    assert (whole.status_code, streamed.status_code) == (200, 200)
    # In builds for tests this asks for a panic (crates/tokenweir/tests/it/panics.rs); what is shipped knows nothing of it.
    asked = [
        ask(gateway, **{"x-tokenweir-panic": place}).status_code
        for place in ("waiting", "assigned")
    ]
    assert asked == [200, 200]
    statuses = [
        ask(gateway, body=BODY % "false" + "}").status_code,
        ask(gateway, body=f'"{SECRETS[1]}"').status_code,
        ask(gateway, body=f'{{"model": ["{SECRETS[1]}"], "prompt": "x"}}').status_code,
        ask(gateway, path=f"/v1/completions/{'x' * 2000}").status_code,
        ask(gateway, body=BODY.replace("tweet-summary", "unknown") % "false").status_code,
        ask(gateway, big=SECRETS[0] * 10_000).status_code,
        ask(gateway, body=(BODY % "false").ljust(40 * 2**20)).status_code,
        get(f"{gateway.url}/v1/models{QUERY}", headers=HEADERS).status_code,
    ]
    assert all(200 <= status < 500 for status in statuses), statuses
    raw(
        gateway,
        f"POST /{QUERY} HTTP/1.1\r\nx-key: {SECRETS[0]}\r\n\r\n",
        f"POST /v1/completions{QUERY} HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        f"POST /v1/completions HTTP/1.1\r\nhost: a\r\nx: {SECRETS[0]}\x00\r\n\r\n",
        f"POST / HTTP/1.1\r\nhost: a\r\nx: {SECRETS[0]}\r\ncontent-length: 1x\r\n\r\n",
        # A head and a body that do not come to their end in time.
        f"POST /{QUERY} HTTP/1.1\r\nx-key: {SECRETS[0]}",
        f"POST /v1/completions{QUERY} HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\n{BODY}",
    )
    http2 = {"http1": False, "http2": True, "timeout": PATIENCE_SECONDS}
    with httpx.Client(**http2) as client, suppress(httpx.HTTPError):
        client.post(f"{gateway.url}/v1/completions{QUERY}", content=BODY % "true", headers=HEADERS)
    long = (BODY % "true").replace("20", "2000")
    with stream(gateway, long) as it:
        next(it.iter_raw())
    # An endpoint that dies inside answers, then the other, then nobody is left.
    with stream(gateway, long) as it, suppress(httpx.HTTPError):
        parts = it.iter_raw()
        next(parts)
        for program in fleet.programs:
            program.signal(signal.SIGKILL)
        for _ in parts:
            pass
    assert ask(gateway).status_code in (502, 503)
    eventually(lambda: ask(gateway).status_code == 503, "no endpoint is left")
    words = ["client_gone", "endpoint_gone", "header_timeout", "body_timeout", "no_endpoints"]
    ends_without_secrets(gateway, "/v1/completions", "invalid_body", "too_large", *words)


def raw(gateway: Gateway, *requests: str) -> None:
    """What no client library sends, at once on a connection each."""
    address = httpx.URL(gateway.url)
    with ExitStack() as connections:
        clients = []
        for request in requests:
            client = socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS)
            clients.append(connections.enter_context(client))
            client.sendall(request.encode())
        for client in clients:
            assert client.recv(12).startswith(b"HTTP/1.1 4")


class Quoting(Double):
    """An endpoint whose answers quote the request, as vLLM's messages of errors do."""

    # Its cache has room for one prompt of three tokens and not for two, so that others wait. One block holds nothing.
    page = """vllm:cache_config_info{block_size="2",num_gpu_blocks="3"} 1
vllm:num_requests_running 0
vllm:num_requests_waiting 0
vllm:kv_cache_usage_perc 0
"""

    def post(self, asked: Asked, body: bytes) -> None:
        quote = json.dumps(f"{asked.path} {asked.headers} {body.decode()}")
        error = f'{{"error": {{"message": {quote}, "type": "BadRequestError", "code": 400}}}}'
        asked.close_connection = True
        answer = asked.headers["x-answer"]
        if answer.isdecimal():
            return asked.answer(error.encode(), int(answer))
        if answer == "no JSON":
            return asked.answer(quote.encode())
        stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        event = f'data: {{"choices": [{{"index": 0, "text": {quote}}}]}}\n\n'
        begun = f"{stream}content-length: 99999\r\n\r\n{event}"
        answers = {
            "error event": f"{stream}\r\ndata: {error}\n\ndata: [DONE]\n\n",
            "no event": f"{stream}\r\n{quote}\ndata: {quote}\n\n",
            "broken chunk": f"{stream}transfer-encoding: chunked\r\n\r\n{quote}\r\n",
            "broken header": f"HTTP/1.1 200 OK\r\nx: {quote}\0\r\n\r\n",
            "broken status": f"{quote}\r\n\r\n",
            "event, cut": begun,
            "event, silence": begun,
            "head, silence": f"{stream}\r\n",
            "silence": "",
        }
        asked.wfile.write(answers[answer].encode())
        if answer.endswith("silence"):
            # Until the gateway gives up.
            asked.rfile.read(1)
        return None


# An answer and what the client sees of it: a status, the gateway's reason, or an end that is none.
SEEN = {
    "400": "400",
    "500": "500",
    "503": "503",
    "no JSON": "200",
    "error event": "200",
    "no event": "200",
    "broken chunk": "reset",
    "broken header": "reset",
    "broken status": "reset",
    "event, cut": "cut",
}
# A pool whose patience has one bound, a silence, and what the client sees of it.
SILENCES = [
    ("idle", "event, silence", "cut"),
    ("idle", "head, silence", "idle_timeout"),
    ("first", "silence", "first_token_timeout"),
    ("whole", "silence", "route_timeout"),
]
SHEDDABLE = """
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: low}
spec: {priority: -1, poolRef: {name: queue}}
"""


@pytest.mark.usefixtures("talkative")
def test_no_prompt_and_no_key_is_logged_of_what_endpoints_answer(own, tmp_path):
    """Nor of what they do not answer in time, and of what waits for them or may not."""
    port = free_ports(1)[0]
    stays = {"outlierDetection": {"maxEjectionPercent": 0}}
    # Longer than an answer can take to begin, so that it is the silence that is waited out.
    times = {"idle": "idle", "first": "firstToken", "whole": "request"}
    policies = {name: stays | {"timeouts": {time: "5s"}} for name, time in times.items()}
    policies["patient"] = stays
    # Longer than it takes to be refused while somebody waits.
    policies["queue"] = stays | {"flowControl": {"maxRequests": 1, "maxWait": "10s"}}
    with Quoting() as endpoint, ThreadPoolExecutor() as threads:
        file = tmp_path / "objects.yaml"
        file.write_text(pools(port, [httpx.URL(endpoint.url).port], **policies) + SHEDDABLE)
        gateway = own(Gateway, "-f", file, port=port)

        def seen(pool: str, answer: str, **extra: str) -> str:
            head = {"host": f"{pool}.test", "x-answer": answer} | extra
            try:
                response = ask(gateway, body=BODY % "true", **head)
            except httpx.HTTPError:
                return "cut"
            return response.headers.get("x-tokenweir-reason", str(response.status_code))

        eventually(lambda: seen("patient", "400") == "400", "an endpoint")
        assert {answer: seen("patient", answer) for answer in SEEN} == SEEN
        # Nobody waits for room before the endpoint has told how little it has.
        eventually(lambda: "tokenweir_endpoint_kv_usage" in {it[0] for it in samples(gateway.stats)}, "a scrape")
        # One is at work, another waits, and there is no room for a third.
        with stream(gateway, BODY % "true", **{"host": "queue.test", "x-answer": "event, silence"}):
            waits = threads.submit(seen, "queue", "400")
            eventually(lambda: total([gateway.stats], "tokenweir_queue_requests") == 1, "it waits")
            assert seen("queue", "400") == "queue_full"
            assert seen("queue", "400", **{"x-gateway-inference-objective": "low"}) == "shed"
            silences = [threads.submit(seen, pool, answer) for pool, answer, _ in SILENCES]
            assert waits.result() == "queue_timeout"
        ends = [end for _, _, end in SILENCES]
        assert [silence.result() for silence in silences] == ends
    ends_without_secrets(gateway, "reset", "endpoint_gone", "idle_timeout", "queue_timeout", "shed")
