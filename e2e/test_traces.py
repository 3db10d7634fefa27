"""Traces: spans at a collector, and the client's context on its way to vLLM."""

from __future__ import annotations

import json
import re

import pytest
from doubles import Collector, Echo, attributes
from harness import Fleet, Gateway, eventually, free_ports, get, post, samples

pytestmark = pytest.mark.simulated

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CHAT = {"model": "tweet-summary", "max_tokens": 8, "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


@pytest.fixture
def traced(own, tmp_path, collector, monkeypatch):
    """A gateway that is told of its collector as any program is."""

    def traced(fleet: Fleet, **environment: str) -> Gateway:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return own(Gateway.before, fleet)

    return traced


def test_a_request_becomes_one_span_that_tells_its_story(own, traced, collector):
    fleet = own(Fleet.simulated, replicas=2)
    gateway = traced(
        fleet, OTEL_SERVICE_NAME="edge", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test"
    )
    headers = {"traceparent": PARENT, "tracestate": "vendor=1", "authorization": "Bearer sk-secret"}
    ask = {"json": CHAT | {"stream": True}, "headers": headers}
    answer = post(f"{gateway.url}/v1/chat/completions?key=sk-secret", **ask)
    assert answer.text.endswith("data: [DONE]\n\n")
    eventually(lambda: collector.spans, "a span")
    (span,) = collector.spans
    assert span.name == "chat tweet-summary"
    assert span.trace_id.hex() == PARENT.split("-")[1]
    assert span.parent_span_id.hex() == PARENT.split("-")[2]
    assert span.trace_state == "vendor=1"
    (record,) = eventually(gateway.log, "a line in the access log")
    endpoint = answer.headers["x-tokenweir-endpoint"]
    found = attributes(span)
    assert found | {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tweet-summary",
        "gen_ai.response.model": "tweet-summary",
        "gen_ai.usage.input_tokens": record["request_prompt_tokens"],
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.response.finish_reasons": ["length"],
        "server.address": endpoint.split(":")[0],
        "server.port": int(endpoint.split(":")[1]),
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "tokenweir.policy": record["policy"],
        "tokenweir.reason": record["reason"],
        "tokenweir.request_id": record["request_id"],
    } == found
    steps = [event.name for event in span.events]
    assert steps == ["queue", "pick", "connect", "first_byte", "first_token", "stream_end"]
    assert span.kind == span.SPAN_KIND_SERVER
    times = [span.start_time_unix_nano, *[event.time_unix_nano for event in span.events]]
    assert times == sorted(times) and times[-1] <= span.end_time_unix_nano
    (resource,) = collector.resources
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("edge", "test")
    assert collector.requests == [("/v1/traces", "application/x-protobuf")]
    assert "sk-secret" not in str(span)


def test_a_refusal_and_a_dead_endpoint_have_spans_too(own, traced, collector):
    fleet = own(Fleet.simulated, replicas=1)
    gateway = traced(fleet)
    assert post(f"{gateway.url}/v1/chat/completions", content="{").status_code == 400
    fleet.stop()
    lost = post(f"{gateway.url}/v1/chat/completions", json=CHAT)
    assert lost.status_code in (502, 503)
    eventually(lambda: len(collector.spans) == 2, "both spans")
    codes = {attributes(span)["error.type"]: span.status.code for span in collector.spans}
    # An error in the sense of a trace is the second alone.
    assert codes == {"invalid_body": 0, lost.headers["x-tokenweir-reason"]: 2}


def test_what_still_waits_at_a_stop_is_sent(own, traced, collector):
    gateway = traced(own(Fleet.simulated, replicas=1))
    for _ in range(5):
        assert post(f"{gateway.url}/v1/chat/completions", json=CHAT).status_code == 200
    gateway.program.process.terminate()
    assert gateway.program.wait() == 0
    assert len(collector.spans) == 5


def test_only_the_traces_that_are_sampled_are_sent(own, traced, collector):
    """And who has decided already is followed."""
    with Echo() as echo:
        never = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
        gateway = traced(Fleet([echo.url], []), **never)

        def ask(**headers: str) -> str:
            post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=headers)
            (told,) = echo.told("traceparent")
            return told

        assert ask().endswith("-00")
        assert ask(traceparent=PARENT[:-1] + "0").endswith("-00")
        told = ask(traceparent=PARENT, tracestate="vendor=1")
        eventually(lambda: collector.spans, "the sampled one")
        (span,) = collector.spans
        # The span is the endpoint's parent.
        assert told == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
        assert echo.told("tracestate") == ["vendor=1"]
        ask(traceparent="nonsense", tracestate="vendor=1")
        assert echo.told("tracestate") == [], "it belongs to a trace that nobody can read"


def test_without_a_collector_the_clients_context_is_passed_on_as_it_is(own):
    with Echo() as echo:
        gateway = own(Gateway.before, Fleet([echo.url], []))
        for headers in (
            [],
            [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")],
            [("traceparent", "nonsense"), ("tracestate", "")],
        ):
            post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=headers)
            for name in ("traceparent", "tracestate"):
                sent = [value for key, value in headers if key == name]
                assert echo.told(name) == sent


def test_spans_nobody_takes_are_counted_and_told_once(own, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"traces: {{endpoint: 'http://127.0.0.1:{free_ports(1)[0]}/v1/traces'}}\n")
    gateway = own(Gateway.before, own(Fleet.simulated, replicas=1), "--config", settings)

    def dropped() -> float:
        found = [it[2] for it in samples(gateway.stats) if it[0] == "tokenweir_spans_dropped_total"]
        return sum(found)

    for number in (1, 2):
        assert post(f"{gateway.url}/v1/chat/completions", json=CHAT).status_code == 200
        eventually(lambda number=number: dropped() == number, "the span is missed")
    assert len(re.findall("spans cannot be exported", gateway.program.output)) == 1
    shown = json.loads(get(f"{gateway.admin}/config_dump").text)["settings"]["traces"]
    assert shown["sampler"] == "parentbased_traceidratio" and shown["sampler-ratio"] == 1.0
