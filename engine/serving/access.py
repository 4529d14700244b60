"""The middleware of every route: the API key, the size of a request, counting."""

from __future__ import annotations

import hmac
import json
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import ServeSettings

OPEN = ("/", "/healthz", "/readyz")
PAGE = "/page/"
"""Paths that need no key: the page holds nothing of the runs, its calls need the key."""


def is_authorized(header: str, api_key: str | None) -> bool:
    """Return whether an `Authorization` header holds the key."""
    return api_key is None or hmac.compare_digest(
        header.encode("utf-8", "replace"), f"Bearer {api_key}".encode()
    )


class Counters:
    """The figures of `/metrics`, in Prometheus' format."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sensorium_requests", "Answered requests", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "sensorium_request_seconds", "Time to the answer", ["route"], registry=self.registry
        )
        self.batches = Histogram(
            "sensorium_batch_size",
            "Requests answered in one batch",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "sensorium_waiting", "Requests that wait", ["model"], registry=self.registry
        )
        self.encoded = Gauge(
            "sensorium_encoded_items",
            "Items that encoders computed; those that were remembered are not among them",
            ["model"],
            registry=self.registry,
        )


class Access:
    """ASGI middleware: refuse without the key (401) or beyond `max_bytes` (413), and count."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, counters: Counters) -> None:
        self.app, self.settings, self.counters = app, settings, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), [500]
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        refusal = self._refusal(scope["path"], headers)
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.settings.max_bytes:
                raise HTTPException(413, self._limit())  # of a length that was not announced
            return message

        try:
            if refusal is not None:
                await _refuse(counted, *refusal)
            else:
                await self.app(scope, limited, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.counters.requests.labels(route, str(status[0])).inc()
            self.counters.seconds.labels(route).observe(time.perf_counter() - start)

    def _refusal(self, path: str, headers: dict[bytes, str]) -> tuple[int, str] | None:
        is_open = path in OPEN or path.startswith(PAGE)
        if not is_open and not is_authorized(
            headers.get(b"authorization", ""), self.settings.api_key
        ):
            return 401, "the API key is missing or wrong; send Authorization: Bearer KEY"
        length = headers.get(b"content-length", "")
        if length.isdecimal() and int(length) > self.settings.max_bytes:
            return 413, self._limit()
        return None

    def _limit(self) -> str:
        return f"the request is larger than {self.settings.max_bytes:,} bytes"


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps(error_body(status, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(status: int, message: str) -> dict[str, object]:
    """Return an error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    message = message.encode("utf-8", "backslashreplace").decode()  # halves of a pair
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
