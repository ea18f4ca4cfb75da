"""A real HTTP server on the loopback interface that can misbehave in the ways that servers do."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """A file, and how it is given.

    Attributes:
        content: all of it.
        etag: its ETag, None to send none.
        ranges: whether `Range` is heeded.
        shift: bytes by which the range given is another than the one asked for.
        answers: status codes sent before the first real answer.
        cuts: of the next answers, bytes of the body after which the connection is cut.
        always_cut: the same of all later answers.
        pause: seconds in the middle of a body and at its end.
        location: redirects there.
        length: whether the length is said.
        reset: whether a connection is cut with a reset.
    """

    content: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    shift: int = 0
    answers: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    always_cut: int | None = None
    pause: float = 0.0
    location: str | None = None
    length: bool = True
    reset: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Asked:
    """A request and what became of it: `start` is the first byte of the file that was sent, `sent` their number."""

    path: str
    range: str | None
    if_range: str | None
    status: int = 0
    start: int = 0
    sent: int = 0


class FileServer:
    """Serves `files` by path and remembers every request in `asked`; over https if it has a certificate."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.address = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def serve(self, path: str, served: Served) -> str:
        """Gives the file at that path from now on; returns its URL."""
        self.files[path] = served
        return self.address + path

    @contextmanager
    def running(self) -> Iterator[FileServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield self
        self._server.shutdown()
        self._server.server_close()


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = Asked(self.path, self.headers.get("Range"), self.headers.get("If-Range"))
            server.asked.append(asked)
            served = server.files.get(self.path)
            if served is None:
                asked.status = 404
            elif served.answers:
                asked.status = served.answers.pop(0)
            if served is None or asked.status:
                self.send_error(asked.status)
                return
            if served.location is not None:
                asked.status = 302
                self.send_response(302)
                self.send_header("Location", served.location)
                self.end_headers()
                return
            self._give(served, asked)

        def _give(self, served: Served, asked: Asked) -> None:
            size = len(served.content)
            wanted = re.fullmatch(r"bytes=(\d+)-", asked.range or "") if served.ranges else None
            if wanted is not None and asked.if_range not in (None, served.etag):
                wanted = None
            asked.status = 200 if wanted is None else 206
            asked.start = 0 if wanted is None else int(wanted[1])
            if asked.start >= size > 0:
                asked.status = 416
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.end_headers()
                return
            if wanted is not None:
                asked.start += served.shift
            body = served.content[asked.start :]
            self.send_response(asked.status)
            if wanted is not None:
                self.send_header("Content-Range", f"bytes {asked.start}-{size - 1}/{size}")
            if served.length:
                self.send_header("Content-Length", str(len(body)))
            if served.etag is not None:
                self.send_header("ETag", served.etag)
            self.end_headers()
            whole = len(body)
            body = body[: served.cuts.pop(0) if served.cuts else served.always_cut]
            for piece in (body[: len(body) // 2], body[len(body) // 2 :]):
                asked.sent += len(piece)  # first: whoever has the last byte may look at once
                self.wfile.write(piece)
                time.sleep(served.pause)
            if served.reset and len(body) < whole:
                # Closed with a reset instead of an end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
