"""The official OpenAI client notices no difference, but for what we promise."""

from __future__ import annotations

import asyncio
from itertools import islice

import httpx
import openai
import pytest
from conftest import client_of
from harness import PATIENCE_SECONDS, Fleet, Gateway, eventually

PROMPT = "Write as if you were a critic: San Francisco"
MESSAGES = [{"role": "user", "content": PROMPT}]
WHOLE = {"ignore_eos": True}  # as many tokens as asked for, whatever the model would like to say


def test_completion(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=10, extra_body=WHOLE)
    assert answer.object == "text_completion"
    assert answer.model == model
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 10


def test_chat(client, model):
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=10, extra_body=WHOLE
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 10


@pytest.mark.parametrize("kind", ["completions", "chat"])
@pytest.mark.parametrize("asked", [True, False], ids=["usage asked", "usage not asked"])
def test_stream_shows_usage_only_to_who_asked(client, model, kind, asked):
    options = {"model": model, "max_tokens": 12, "stream": True, "extra_body": WHOLE}
    if asked:
        options["stream_options"] = {"include_usage": True}
    if kind == "chat":
        chunks = list(client.chat.completions.create(messages=MESSAGES, **options))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    else:
        chunks = list(client.completions.create(prompt=PROMPT, **options))
        text = "".join(c.choices[0].text for c in chunks if c.choices)
    assert text
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "length" and set(reasons[:-1]) == {None}
    with_usage = [c for c in chunks if c.usage is not None]
    without_choices = [c for c in chunks if not c.choices]
    if asked:
        assert with_usage == without_choices == chunks[-1:]
        assert chunks[-1].usage.completion_tokens == 12
    else:
        assert with_usage == without_choices == []


@pytest.mark.simulated
def test_stream_comes_as_it_is_made(own):
    """Not collected first: the first token is there long before the last."""
    fleet = own(Fleet.simulated, replicas=1, speedup=2)
    gateway = own(Gateway.before, fleet)
    stream = client_of(gateway.url).completions.create(
        model="tweet-summary", prompt=PROMPT, max_tokens=2000, stream=True, extra_body=WHOLE
    )
    chunks = iter(stream)
    next(chunks)
    assert fleet.running() == 1, "the endpoint still writes when the client reads its first token"
    assert len(list(islice(chunks, 20))) == 20
    stream.close()


def test_async_client(gateway, model):
    async def ask() -> list[int]:
        async with client_of(gateway.url, openai.AsyncOpenAI) as client:

            async def plain(tokens: int) -> int:
                answer = await client.chat.completions.create(
                    model=model, messages=MESSAGES, max_tokens=tokens, extra_body=WHOLE
                )
                return answer.usage.completion_tokens

            async def streamed(tokens: int) -> int:
                usage = {"include_usage": True}
                stream = await client.chat.completions.create(
                    model=model,
                    messages=MESSAGES,
                    max_tokens=tokens,
                    stream=True,
                    stream_options=usage,
                    extra_body=WHOLE,
                )
                return [chunk async for chunk in stream][-1].usage.completion_tokens

            asked = [plain(n) if n % 2 else streamed(n) for n in range(5, 21)]
            return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == list(range(5, 21))


def test_models(client, fleet):
    direct = {model.id for model in client_of(fleet.urls[0]).models.list()}
    assert direct
    assert {model.id for model in client.models.list()} == direct


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model_is_not_found(client, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="no-such-model", prompt=PROMPT, stream=stream)
    assert "no-such-model" in caught.value.message
    assert "x-tokenweir-reason" not in caught.value.response.headers, "vLLM's own answer"


def test_bad_parameter_is_bad_request_in_the_words_of_vllm(client, fleet, model):
    bad = {"model": model, "prompt": PROMPT, "max_tokens": -1}
    with pytest.raises(openai.BadRequestError) as direct:
        client_of(fleet.urls[0]).completions.create(**bad)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**bad)
    assert caught.value.body == direct.value.body


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"model": 5}', b'{"model": "a", "prompt": "", "model": "b"}'],
    ids=["not json", "not an object", "model not a string", "two models"],
)
def test_malformed_body_is_bad_request(client, body):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(
            "/completions",
            content=body,
            cast_to=object,
            options={"headers": {"content-type": "application/json"}},
        )
    assert caught.value.response.headers["x-tokenweir-reason"] == "invalid_body"
    assert set(caught.value.body) == {"message", "type", "param", "code"}


def test_request_id_is_kept(client, model):
    answer = client.completions.with_raw_response.create(
        model=model, prompt=PROMPT, max_tokens=2, extra_headers={"x-request-id": "e2e-7"}
    )
    assert answer.headers["x-request-id"] == "e2e-7"


@pytest.mark.simulated
def test_no_endpoint_is_an_error_of_ours(own):
    fleet = own(Fleet.simulated, replicas=1)
    gateway = own(Gateway.before, fleet)
    fleet.stop()
    with pytest.raises(openai.InternalServerError) as caught:
        client_of(gateway.url).completions.create(model="tweet-summary", prompt=PROMPT)
    assert caught.value.status_code in (502, 503)
    reason = caught.value.response.headers["x-tokenweir-reason"]
    assert reason in ("unreachable", "reset", "no_endpoints")


# At the speed of the real machine, an answer of so many takes a minute.
TOKENS = 2000


def assert_aborted(fleet: Fleet, gateway: Gateway) -> None:
    """The endpoint is told, long before its answer would have ended; the log says who left."""
    (record,) = eventually(gateway.log, "a line in the access log")
    assert record["response_code"] == 499
    assert record["finish"] == "client_gone"
    eventually(lambda: fleet.running() == 0, "the endpoint stops the request")
    assert fleet.total("vllm:request_success_total") == 0, "it had come to its end"
    assert fleet.total("vllm:generation_tokens_total") < TOKENS / 2


@pytest.mark.simulated
def test_abort_in_mid_stream_frees_the_endpoint(own):
    fleet = own(Fleet.simulated, replicas=1, speedup=1)
    gateway = own(Gateway.before, fleet)
    stream = client_of(gateway.url).completions.create(
        model="tweet-summary", prompt=PROMPT, max_tokens=TOKENS, stream=True, extra_body=WHOLE
    )
    chunks = iter(stream)
    for _ in range(3):
        next(chunks)
    assert fleet.running() == 1
    stream.close()
    assert_aborted(fleet, gateway)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("settings", "speedup"),
    [
        ({"prompt": PROMPT, "max_tokens": TOKENS}, 1),
        # So slow that the prompt alone takes many seconds, and no event has come yet.
        ({"prompt": "word " * 3000, "max_tokens": 10, "stream": True}, 0.02),
    ],
    ids=["plain", "streamed"],
)
def test_timeout_frees_the_endpoint(own, settings, speedup):
    """A client whose patience ends before the answer begins."""
    fleet = own(Fleet.simulated, replicas=1, speedup=speedup)
    gateway = own(Gateway.before, fleet)
    client = client_of(gateway.url).with_options(timeout=httpx.Timeout(PATIENCE_SECONDS, read=1))
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(model="tweet-summary", extra_body=WHOLE, **settings)
    assert_aborted(fleet, gateway)
