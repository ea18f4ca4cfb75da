"""Around every request: its number, its line in the log, its figures."""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, TypeAlias

from tood.serving.log import JsonLog
from tood.serving.metrics import Metrics

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

ROUTES = ("/", "/detect", "/health", "/ready", "/metrics", "/models", "/openapi.json", "/docs")
GONE = 499
"""In log and figures: whoever asked hung up before there was an answer."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# No script, style, picture or connection but of the server itself; pages that the browser made itself (blob:).
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
        b"base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    ),
)
# Of a request's address and headers. The parser has the same limit, but lets more pass that comes in one piece.
_HEAD_BYTES = 64 << 10
# Seconds in which the rest of a refused body is taken, so that who sends it reads the answer.
_DRAIN_SECONDS = 2.0


class Observed:
    """Passes requests on to `app`."""

    def __init__(self, app: App, log: JsonLog, metrics: Metrics, drain_bytes: int) -> None:
        self._app, self._log, self._metrics, self._drain_bytes = app, log, metrics, drain_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._drain_bytes)
        told: dict[str, object] = {}
        scope.setdefault("state", {})["told"] = told
        trace = None
        try:
            if _head_bytes(scope) > _HEAD_BYTES:
                await exchange.answer(431, "the address and the headers are too long")
                return
            # HEAD is GET without the body of its answer, wherever GET is.
            asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._app(asked, exchange.receive, exchange.send)
        except Exception as error:
            trace = "".join(traceback.format_exception(error))  # the application has answered already
        finally:
            self._tell(scope, exchange, told, trace)

    def _tell(
        self, scope: Mapping[str, Any], exchange: _Exchange, told: Mapping[str, object], trace: str | None
    ) -> None:
        seconds = time.perf_counter() - exchange.started
        status = GONE if told.get("gone") else exchange.status
        path = str(scope["path"])
        route = path if path in ROUTES else "page" if path.startswith("/page/") else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        client = scope.get("client")
        fields: dict[str, object] = {
            "id": exchange.number,
            "method": scope["method"],
            "path": path[:200],
            "status": status,
            "seconds": round(seconds, 4),
            "bytes": exchange.bytes,
            "client": client[0] if client else None,
            **{name: value for name, value in told.items() if name != "gone"},
        }
        if trace is not None:
            fields["trace"] = trace
        self._log("error" if status >= 500 else "info", "request", fields)


def _head_bytes(scope: Mapping[str, Any]) -> int:
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return target + sum(len(name) + len(value) for name, value in scope["headers"])


def _allowed(methods: bytes) -> bytes:
    """The header `Allow` of an address: HEAD is wherever GET is, which the application does not know."""
    listed = {method.strip() for method in methods.split(b",")}
    return b", ".join(sorted(listed | {b"HEAD"} if b"GET" in listed else listed))


class _Exchange:
    """One request's messages, as they pass."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send, drain_bytes: int) -> None:
        self._receive, self._send, self._drain_bytes = receive, send, drain_bytes
        headers = dict(scope["headers"])
        self._arrived = not (headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers)
        # Far larger ones are not even begun.
        length = headers.get(b"content-length", b"")
        self._drainable = not length.isdigit() or int(length[:20]) <= drain_bytes
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        self.number = given if _ID.fullmatch(given) else uuid.uuid4().hex
        self.started, self.status, self.bytes = time.perf_counter(), 0, 0
        self._head_alone = scope["method"] == "HEAD"

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes += len(message.get("body", b""))
            self._arrived = self._arrived or not message.get("more_body", False)
        else:
            self._arrived = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *_HEADERS, (b"x-request-id", self.number.encode())]
            if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
                headers = [(name, _allowed(value) if name == b"allow" else value) for name, value in headers]
            if not self._arrived and self._drainable:
                await self._drain()
            if not self._arrived:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self._head_alone:
            message = {**message, "body": b""}
        await self._send(message)

    async def answer(self, status: int, told: str) -> None:
        body = json.dumps({"error": told}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Takes and drops what is still on its way of a body: a sender whose connection is reset reads no answer."""

        async def rest() -> None:
            while not self._arrived and self.bytes <= self._drain_bytes:
                await self.receive()

        try:
            await asyncio.wait_for(rest(), _DRAIN_SECONDS)
        except asyncio.TimeoutError:
            return
