"""Addresses, and what downloads keep to: the web alone, no redirect to a less safe place, one deadline."""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import IO, Any
from urllib.parse import urlsplit

ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+)://", re.IGNORECASE)
"""How an address of any kind begins, a web server's or a file system's."""


class UnsafeRedirectError(Exception):
    """The server sends to an address that is not as safe as its own; the text names it."""


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and never from a secure address to one that is not.

    It raises UnsafeRedirectError instead, out of the opener's `open`.
    """

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not is_web_address(newurl) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            raise UnsafeRedirectError(f"the server redirects to {newurl}, which is not as safe")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        fp.close()  # else urllib reads the redirect's body first, which may have no end
        return request


class OneDeadline(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Connects over http and https, and ends everything that comes of it at one time: names, connections, headers,
    redirects, bodies.

    Each wait within keeps to the timeout of the opener's `open`, too. Where either is over, TimeoutError is raised,
    out of `open` also as the reason of a URLError.

    Args:
        latest: when all must be there, by `time.monotonic`.
        may_connect: judges each numeric address and port that a host stands for; that very one is connected to.
    """

    def __init__(self, latest: float, may_connect: Callable[[str, int], bool] = lambda address, port: True) -> None:
        super().__init__()
        self._latest, self._may_connect = latest, may_connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Over http."""
        return self.do_open(self._makes(http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Over https."""
        context = self._context  # type: ignore[attr-defined]
        return self.do_open(self._makes(partial(http.client.HTTPSConnection, context=context)), req)

    def _makes(self, kind: Callable[..., Any]) -> Any:
        def make(host: str, timeout: float) -> Any:
            made = kind(host, timeout=timeout)
            made._create_connection, made.response_class = self._connect, self._response
            return made

        return make

    def _connect(self, address: tuple[str, int], timeout: float, source_address: None = None) -> socket.socket:
        """In place of `socket.create_connection`."""
        host, port = address
        places = _looked_up(host, port, self._wait(timeout))
        # One private address among public ones is reason enough.
        if not all(self._may_connect(place, port) for place in places):
            raise UnsafeRedirectError(f"{host} is at an address that this server does not connect to")
        problem: OSError = OSError(f"{host} has no address")
        for place in places:
            try:
                connected = socket.create_connection((place, port), self._wait(timeout))
            except OSError as error:
                problem = error
            else:
                connected.settimeout(self._wait(timeout))  # for TLS
                return connected
        raise problem

    def _response(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> Any:
        response = http.client.HTTPResponse(sock, debuglevel, method)
        response.fp.close()
        response.fp = io.BufferedReader(_Timed(sock, self._wait))
        return response

    def _wait(self, timeout: float) -> float:
        """Seconds that the next step may wait."""
        left = self._latest - time.monotonic()
        if left <= 0:
            raise TimeoutError("not whole in time")
        return min(timeout, left)


class _Timed(io.RawIOBase):
    """Bytes of a socket, each piece waited for as long as `wait` says, given the socket's timeout."""

    def __init__(self, sock: socket.socket, wait: Callable[[float], float]) -> None:
        self._socket, self._wait, self._timeout = sock, wait, sock.gettimeout() or 0.0
        self._bytes: Any = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._wait(self._timeout))
        count: int | None = self._bytes.readinto(buffer)
        return count

    def close(self) -> None:
        self._bytes.close()
        super().close()


def _looked_up(host: str, port: int, seconds: float) -> list[str]:
    """The numeric addresses of a host; asked for in a thread of its own, as no resolver can be told to hurry."""
    answer: Future[list[str]] = Future()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.set_result([str(place[4][0]) for place in found])
        except Exception as error:  # raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=ask, name="look up", daemon=True).start()
    try:
        return answer.result(seconds)
    except concurrent.futures.TimeoutError as error:  # another one than TimeoutError before Python 3.11
        raise TimeoutError(f"{host} is not looked up in time") from error


def is_web_address(url: str) -> bool:
    """Whether this is an http or https address with a server in it."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def is_remote(source: str) -> bool:
    """Whether a text is an address of a file system (`s3://...`, `file://...`) other than a web server's."""
    found = ADDRESS.match(source)
    return found is not None and found["protocol"].lower() not in ("http", "https")
