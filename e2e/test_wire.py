"""What goes over the wire: protocols, and every byte of every answer."""

from __future__ import annotations

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from harness import PATIENCE_SECONDS, post

STREAMS, CONNECTIONS = 200, 32


def test_http2_with_prior_knowledge(gateway, model):
    with httpx.Client(http1=False, http2=True, timeout=PATIENCE_SECONDS) as client:
        body = {"model": model, "prompt": "Hello", "max_tokens": 5, "ignore_eos": True}
        plain = client.post(f"{gateway.url}/v1/completions", json=body)
        streamed = client.post(f"{gateway.url}/v1/completions", json=body | {"stream": True})
    assert (plain.http_version, plain.status_code) == ("HTTP/2", 200)
    assert plain.json()["usage"]["completion_tokens"] == 5
    assert (streamed.http_version, streamed.status_code) == ("HTTP/2", 200)
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_expect_100_continue(gateway, model):
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 2}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: test.com\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
    )
    address = httpx.URL(gateway.url)
    with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode())
        interim = connection.recv(4096)
        assert interim.startswith(b"HTTP/1.1 100 "), interim
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert b'"completion_tokens":2' in answer.replace(b" ", b"")


def test_large_prompt_passes_whole(gateway, fleet, model):
    """Many packets up: the endpoint counts the same tokens with and without us."""
    body = {"model": model, "prompt": "word " * 1500, "max_tokens": 1}
    counts = [
        post(f"{url}/v1/completions", json=body).json()["usage"]["prompt_tokens"]
        for url in (fleet.urls[0], gateway.url)
    ]
    assert counts[0] == counts[1] > 1000


def request(number: int) -> tuple[str, dict]:
    """Chat and completions, with and without usage, of different lengths."""
    body: dict = {"model": "tweet-summary", "max_tokens": 5 + number % 60, "temperature": 0}
    body |= {"stream": True, "ignore_eos": True}
    if number % 3 == 0:
        body["stream_options"] = {"include_usage": True}
    text = f"Question {number}: " + "why? " * (number % 40)
    if number % 2:
        return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
    return "/v1/completions", body | {"prompt": text}


def answer(client: httpx.Client, url: str, number: int) -> bytes:
    path, body = request(number)
    with client.stream("POST", url + path, json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return b"".join(response.iter_raw())


def alike(body: bytes) -> bytes:
    """But for what differs from one request to the next on the same server."""
    body = re.sub(rb'"id":\s*"[^"]*"', b'"id":"..."', body)
    return re.sub(rb'"created":\s*\d+', b'"created":0', body)


@pytest.mark.simulated
def test_streams_are_the_same_byte_for_byte(gateway, fleet):
    """200 streams over 32 connections: nothing added, lost, reordered, or mixed up."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    with httpx.Client(timeout=PATIENCE_SECONDS, limits=limits) as client, ThreadPoolExecutor(CONNECTIONS) as pool:
        numbers = range(STREAMS)
        through = list(pool.map(lambda n: answer(client, gateway.url, n), numbers))
        direct = list(
            pool.map(lambda n: answer(client, fleet.urls[n % len(fleet.urls)], n), numbers)
        )
    assert len(set(map(alike, direct))) > STREAMS / 2, "the answers differ from each other"
    for number in numbers:
        assert alike(through[number]) == alike(direct[number]), request(number)
        asked = b'"choices":[]' in direct[number]
        assert asked == (number % 3 == 0), "the endpoint sends usage to who asks for it"
