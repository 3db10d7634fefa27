"""A closed-loop load in the background, which remembers every answer it got."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field

import httpx
from harness import PATIENCE_SECONDS


@dataclass
class Answer:
    """What a client saw of one request."""

    status: int | None = None
    endpoint: str | None = None
    body: bytes = b""
    error: str | None = None
    stream: bool = False

    @property
    def started(self) -> bool:
        """Whether a client has seen anything of the answer itself."""
        return self.status == 200 and b"data:" in self.body if self.stream else self.body != b""

    @property
    def whole(self) -> bool:
        if self.status != 200 or self.error:
            return False
        if not self.stream:
            return b'"usage"' in self.body
        return self.body.endswith(b"data: [DONE]\n\n") and b'"error"' not in self.body

    def __str__(self) -> str:
        return f"status {self.status}, {self.error or 'no error'}, ends {self.body[-200:]!r}"


@dataclass
class Load:
    """`with Load(url, ...) as load:` keeps `concurrency` requests going until the block ends, then
    waits for those under way. With `requests`, it stops by itself after so many."""

    url: str
    concurrency: int = 8
    requests: int | None = None
    max_tokens: int = 50
    model: str = "tweet-summary"
    host: str | None = None
    streams: str = "both"  # "yes", "no", "both" by turns
    answers: list[Answer] = field(default_factory=list)
    under_way: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stopped = threading.Event()
        self._sent = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.requests is None:
            self._stopped.set()
        self._thread.join(2 * PATIENCE_SECONDS)
        assert not self._thread.is_alive(), f"{len(self.under_way)} requests never ended"

    def failures(self) -> list[str]:
        return [str(answer) for answer in self.answers if not answer.whole]

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=self.concurrency)
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, limits=limits) as client:
            await asyncio.gather(*[self._client(client) for _ in range(self.concurrency)])

    async def _client(self, client: httpx.AsyncClient) -> None:
        while not self._stopped.is_set() and (self.requests is None or self._sent < self.requests):
            number, self._sent = self._sent, self._sent + 1
            answer = Answer(
                stream=self.streams == "yes" or (self.streams == "both" and number % 2 == 1)
            )
            self.under_way.append(answer)
            await self._one(client, number, answer)
            self.under_way.remove(answer)
            self.answers.append(answer)

    async def _one(self, client: httpx.AsyncClient, number: int, answer: Answer) -> None:
        body = {
            "model": self.model,
            "prompt": f"Request {number}: say something.",
            "temperature": 0,
        }
        body |= {"max_tokens": self.max_tokens, "ignore_eos": True, "stream": answer.stream}
        headers = {"content-type": "application/json"}
        if self.host:
            headers["host"] = self.host
        url = f"{self.url}/v1/completions"
        try:
            async with client.stream("POST", url, content=json.dumps(body), headers=headers) as got:
                answer.status = got.status_code
                answer.endpoint = got.headers.get("x-tokenweir-endpoint")
                async for part in got.aiter_raw():
                    answer.body += part
        except httpx.HTTPError as error:
            answer.error = repr(error)
