"""Real servers in processes of their own, small models for them, and a client that may also speak badly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from narrow_models import FREE, lively
from tood.input import InputConfig
from tood.models import build_model
from tood.weights import save_weights

CLASSES = ("cat", "dog", "hen", "cow", "ant", "bee", "owl")
_ROOT = Path(__file__).parents[2]

# Tells of every file that Python opens to write, and of what else changes a folder.
_AUDITED = """
import os, sys
out = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def tell(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or isinstance(path, int):
            return
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate", "os.chmod"):
        path = arguments[0]
    else:
        return
    os.write(out, (event + " " + os.path.abspath(os.fsdecode(path)) + "\\n").encode("utf-8", "surrogateescape"))
sys.addaudithook(tell)
from tood.cli.main import app
app()
"""


def small_model(path: Path, names: Sequence[str] = CLASSES, seed: int = 0) -> Path:
    """Writes weights of a narrow network that finds dozens of things in any picture, with all kinds of scores."""
    config = replace(FREE, classes=len(names), input=InputConfig(short=128, long=192))
    model = lively(build_model(config))
    if seed:
        for parameter in model.parameters():
            parameter.data.mul_(1 + seed / 50)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    save_weights(temporary, model, list(names))
    temporary.replace(path)
    return path


def picture_bytes(seed: int = 0, height: int = 96, width: int = 144, kind: str = "PNG") -> bytes:
    """A picture file of coloured noise in large cells."""
    cells = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    pixels = np.kron(cells, np.ones((8, 8, 1), np.uint8))[:height, :width]
    out = BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        process: it.
        address: http://host:port
        events: the lines of its log so far.
    """

    process: subprocess.Popen[str]
    address: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    told_all: threading.Event = field(default_factory=threading.Event)  # its log has ended

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def client(self, **settings: Any) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=300, trust_env=False, **settings)

    def event(self, name: str, seconds: float = 300.0, after: int = 0, **also: object) -> dict[str, Any]:
        """The first event of a name, from place `after` of the log on, which says this also; waited for."""
        wanted, until = {"event": name, **also}.items(), time.monotonic() + seconds
        while time.monotonic() < until:
            ended = self.told_all.is_set()  # asked before its last words are looked through
            for event in self.events[after:]:
                if wanted <= event.items():
                    return event
            if ended:
                raise AssertionError(f"the server ended with {self.process.wait()}: {self.other}")
            time.sleep(0.02)
        raise AssertionError(f"no event {name} in {self.events} {self.other}")

    def metric(self, name: str) -> float:
        """A figure of /metrics by its name with labels."""
        with self.client() as client:
            for line in client.get("/metrics").text.splitlines():
                if line.startswith(name + " "):
                    return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def becomes(self, name: str, value: float, seconds: float = 300.0) -> bool:
        """Whether a figure of /metrics has this value, now or soon: an answer may come before it is counted."""
        until = time.monotonic() + seconds
        while self.metric(name) != value:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def resident(self) -> int:
        """Bytes of memory that the process has."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, seconds: float = 300.0) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def serving(
    models: Sequence[str | Path], *options: str, home: Path, audit: Path | None = None
) -> Iterator[ServerProcess]:
    """A server on a free port of the loopback interface, with a folder of its own for all that it might write."""
    home.mkdir(parents=True, exist_ok=True)
    temporary = home / "tmp"
    temporary.mkdir(exist_ok=True)
    start = [sys.executable, "-m", "tood"] if audit is None else [sys.executable, "-c", _AUDITED, str(audit)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [*start, "serve", *map(str, models), "--port", "0", "--device", "cpu", "--precision", "fp32", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=home,
        env=environment,
        text=True,
        encoding="utf-8",
    )
    server = ServerProcess(process)

    def follow() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                server.events.append(json.loads(line))
            except ValueError:
                server.other.append(line)
        server.told_all.set()

    threading.Thread(target=follow, daemon=True).start()
    try:
        server.address = server.event("serving")["address"]
        with server.client() as client:
            until = time.monotonic() + 300
            while time.monotonic() < until:
                with suppress(httpx.TransportError):
                    if client.get("/ready").status_code == 200:
                        break
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def spoken(port: int, *pieces: bytes, pause: float = 0.0, wait: float = 300.0) -> int | None:
    """Sends bytes as they are; the status of the answer, None where the connection ended without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:  # an answer may have come before the end
            pass
        answer = b""
        try:
            while b"\r\n" not in answer and (block := connection.recv(4096)):
                answer += block
        except ConnectionError:
            pass
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else None


def post(body: bytes, content_type: str, path: str = "/detect", *headers: str) -> bytes:
    """The bytes of a whole request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: test",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
