"""The access log, the counters, and the endpoints agree on every token."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ADAPTERS, BASE_MODEL, Fleet, Gateway, eventually, get, post, total

REQUESTS = 120


def body(number: int) -> tuple[str, dict]:
    model = [BASE_MODEL, *ADAPTERS][number % 11]
    body: dict = {"model": model, "max_tokens": 1 + number % 40, "ignore_eos": True}
    match number % 3:
        case 1:
            body |= {"stream": True}
        case 2:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
    text = f"Question {number}: " + "why? " * (number % 60)
    if number % 2:
        return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
    return "/v1/completions", body | {"prompt": text}


@pytest.mark.simulated
def test_token_totals_agree(own):
    fleet = own(Fleet.simulated)
    gateway = own(Gateway.before, fleet)

    def ask(number: int) -> None:
        path, content = body(number)
        response = post(gateway.url + path, json=content)
        assert response.status_code == 200, response.text

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(REQUESTS)))
    # An answer that is no generation, and one that fails, cost nothing.
    get(f"{gateway.url}/v1/models").raise_for_status()
    unknown = {"model": "no-such-model", "prompt": "Hello"}
    assert post(f"{gateway.url}/v1/completions", json=unknown).status_code == 404

    eventually(lambda: len(gateway.log()) >= REQUESTS + 2, "a log line for every request")
    log = gateway.log()
    assert len(log) == REQUESTS + 2
    for record in log:
        for key in ("request_prompt_tokens", "request_completion_tokens"):
            assert record.get(key) is None or isinstance(record[key], int), record
    completed = sum(1 + number % 40 for number in range(REQUESTS))
    assert sum(r.get("request_completion_tokens") or 0 for r in log) == completed
    assert total([gateway.stats], "asm_llm_proxy_completion_tokens") == completed
    what = f"the endpoints count {completed} tokens as well"
    eventually(lambda: fleet.total("vllm:generation_tokens_total") == completed, what)
    prompted = fleet.total("vllm:prompt_tokens_total")
    assert prompted > REQUESTS
    assert sum(r.get("request_prompt_tokens") or 0 for r in log) == prompted
    assert total([gateway.stats], "asm_llm_proxy_prompt_tokens") == prompted


def test_every_request_is_one_log_line(gateway, model):
    """With what the seed promises: the model and its tokens."""
    before = len(gateway.log())
    content = {"model": model, "prompt": "Hello", "max_tokens": 3, "ignore_eos": True}
    headers = {"x-request-id": "e2e-log", "user-agent": "e2e/1"}
    response = post(f"{gateway.url}/v1/completions", json=content, headers=headers)
    usage = response.json()["usage"]
    mine = eventually(
        lambda: [r for r in gateway.log()[before:] if r.get("request_id") == "e2e-log"], "a line"
    )
    assert len(mine) == 1
    expected = {
        "method": "POST",
        "path": "/v1/completions",
        "protocol": "HTTP/1.1",
        "response_code": 200,
        "user_agent": "e2e/1",
        "request_model": model,
        "request_prompt_tokens": usage["prompt_tokens"],
        "request_completion_tokens": 3,
        "attempts": 1,
    }
    assert {key: mine[0].get(key) for key in expected} == expected
    assert mine[0]["bytes_sent"] == len(response.content)
