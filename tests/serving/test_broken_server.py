"""What is answered where the server itself breaks, and where its memory is full."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import torch
from server_process import picture_bytes

from bright_square import BrightRectangle
from tood import Detector
from tood.serving.app import create_app
from tood.serving.config import Limits, ServeConfig
from tood.serving.log import JsonLog
from tood.serving.served_model import ModelSource
from tood.serving.service import Service


class Breaking(BrightRectangle):
    broken = False

    def forward(self, images: torch.Tensor):  # type: ignore[no-untyped-def]
        if self.broken:
            raise RuntimeError("no memory left")
        return super().forward(images)


def served(path: Path, network: BrightRectangle, config: ServeConfig, log: io.StringIO) -> Service:
    path.write_bytes(b"weights")
    detector = Detector.from_model(network, ["small", "bright"], "cpu")
    return Service([ModelSource("it", str(path))], lambda _: detector, config, JsonLog(log))


def asked(service: Service, **body: object) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(service))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://it") as client:
            return await client.post("/detect", **body)  # type: ignore[arg-type]

    return asyncio.run(ask())


def test_what_breaks_is_answered_in_json_and_told_in_the_log(tmp_path: Path) -> None:
    network, log = Breaking(), io.StringIO()
    service = served(tmp_path / "model", network, ServeConfig(), log)
    network.broken = True
    answer = asked(service, content=picture_bytes())
    service.close()
    assert answer.status_code == 500
    assert "its log says" in answer.json()["error"]
    assert "no memory left" in json.loads(log.getvalue().splitlines()[-1])["trace"]


def test_fetched_bytes_are_counted_with_the_bodies(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(5000))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{elsewhere.server_port}"
        config = ServeConfig(Limits(held_bytes=4000), url_hosts=(place,))
        service = served(tmp_path / "model", BrightRectangle(), config, io.StringIO())
        answer = asked(service, json={"pictures": [{"url": f"http://{place}/"}]})
        service.close()
        elsewhere.shutdown()
    assert (answer.status_code, "large requests" in answer.text) == (429, True)
    assert int(answer.headers["retry-after"]) >= 1
    assert "tood_held_bytes 0.0" in service.metrics.text().decode()
