"""The process: sockets, patience with slow senders, and an end that leaves nobody without an answer."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tood.errors import ToodError
from tood.serving.app import create_app
from tood.serving.log import LoggingToJson
from tood.serving.service import Service

_BACKLOG = 512
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 37\r\n\r\n"
    b'{"error":"the headers took too long"}'
)


class Server(uvicorn.Server):
    """As uvicorn's, with a service that is told at once that the end has come."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A wish to stop: /ready says no from now on, what was taken is answered."""
        self._service.closing.set()
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ToodError: if it cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ToodError(
            f"cannot listen at {host}, port {port}: {reason}; choose others with --host and --port"
        ) from error


def serve(service: Service, listening: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM; then finishes what was taken, and returns."""
    limits = service.config.limits
    config = uvicorn.Config(
        create_app(service),
        http=_protocol(limits.header_seconds),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(2 * limits.seconds) + 5,
    )
    with _logged(service), _signals_kept():
        Server(config, service).run(sockets=[listening])


@contextmanager
def _logged(service: Service) -> Iterator[None]:
    """What libraries have to say goes into the service's log."""
    handler = LoggingToJson(service.log)
    handler.setLevel(logging.WARNING)
    root, forms = logging.getLogger(), logging.getLogger("python_multipart")
    root.addHandler(handler)
    forms.setLevel(logging.ERROR)  # its warnings are of broken forms, which are answered
    try:
        yield
    finally:
        root.removeHandler(handler)
        forms.setLevel(logging.NOTSET)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """uvicorn raises, when all is done, the signals that it was stopped by once more; here that is the end's sign."""
    former = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which ends a connection whose headers do not arrive within so many seconds."""

    class Impatient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(seconds, self._give_up)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _forget(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            busy = self.cycle is not None and not self.cycle.response_complete
            if not busy and not self.transport.is_closing():
                self.transport.write(_TOO_SLOW)
                self.transport.close()

    return Impatient
