"""A model server that speaks HTTP/2 with prior knowledge and nothing else."""

from __future__ import annotations

import json
import socket
import threading

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded
from h2.exceptions import ProtocolError

ANSWER = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "tweet-summary",
    "choices": [{"index": 0, "text": "fine", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class H2cServer:
    """Healthy, without metrics, and always of the same answer."""

    def __init__(self, address: str, port: int):
        self._listener = socket.create_server((address, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        http = H2Connection(H2Configuration(client_side=False))
        http.initiate_connection()
        paths: dict[int, bytes] = {}
        with connection:
            connection.sendall(http.data_to_send())
            while data := connection.recv(65536):
                try:
                    events = http.receive_data(data)
                except ProtocolError:
                    return
                for event in events:
                    if isinstance(event, RequestReceived):
                        paths[event.stream_id] = dict(event.headers)[b":path"]
                    elif isinstance(event, StreamEnded):
                        self._answer(http, event.stream_id, paths.pop(event.stream_id))
                connection.sendall(http.data_to_send())

    def _answer(self, http: H2Connection, stream: int, path: bytes) -> None:
        status = "404" if path == b"/metrics" else "200"
        headers = [(":status", status), ("content-type", "application/json")]
        http.send_headers(stream, headers)
        http.send_data(stream, json.dumps(ANSWER).encode(), end_stream=True)

    def stop(self) -> None:
        self._listener.close()
