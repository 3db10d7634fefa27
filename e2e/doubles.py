"""Doubles of servers beside the gateway, in this process: HTTP at an address, as an endpoint or a collector of spans."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Asked(BaseHTTPRequestHandler):
    """One request, and the way to answer it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(self.server.double.page.encode())

    def do_POST(self) -> None:
        self.server.double.post(self, self.rfile.read(int(self.headers["content-length"])))

    def answer(self, body: bytes = b"{}", status: int = 200, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Double:
    """Listens at `url` inside its `with`. Every GET is answered with `page`."""

    page = "{}"

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
        self._server.daemon_threads = True
        self._server.double = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, asked: Asked, body: bytes) -> None:
        raise NotImplementedError


class Echo(Double):
    """An endpoint that remembers the heads it was sent."""

    def __init__(self) -> None:
        self.heads: list[list[tuple[str, str]]] = []

    def post(self, asked: Asked, body: bytes) -> None:
        self.heads.append(asked.headers.items())
        asked.answer()

    def told(self, name: str) -> list[str]:
        """What the last request said under this name."""
        return [value for key, value in self.heads[-1] if key.lower() == name]


class Collector(Double):
    """Takes OTLP over HTTP as protobuf and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict] = []
        self.requests: list[tuple[str, str]] = []

    def post(self, asked: Asked, body: bytes) -> None:
        self.requests.append((asked.path, asked.headers["content-type"]))
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(group.resource))
            for scope in group.scope_spans:
                self.spans.extend(scope.spans)
        asked.answer(ExportTraceServiceResponse().SerializeToString(), kind="application/x-protobuf")


def attributes(thing) -> dict:
    """The attributes of a span, an event or a resource as plain values."""

    def plain(value):
        kind = value.WhichOneof("value")
        if kind == "array_value":
            return [plain(one) for one in value.array_value.values]
        return getattr(value, kind)

    return {pair.key: plain(pair.value) for pair in thing.attributes}
