"""`tood weights push`: into a folder, and through the real library to a hub on the loopback interface."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

import tood
import tood.weights.push
from half_written import half_written
from signals_at import signal_at
from tood.cli import app
from tood.inference import Detector
from tood.models import build_model
from tood.weights import recorded_figures, save_weights
from tood.zoo import named_models


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training run."""
    folder = tmp_path_factory.mktemp("runs") / "cells"
    model = build_model(replace(named_models()["tood_tiny"].config(), classes=3))
    names = ["red `cell`", "white|cell", "血小板"]
    save_weights(folder / "best.safetensors", model, names, figures={"AP": 0.63519, "step": 10})
    return folder


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"ap": 0.5, "ap50": 0.75, "ap_large": -1.0, "per_class": {"a": 0.5}, "images": 3}))
    return path


def push(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["weights", "push", *map(str, arguments)])


def metadata_of(card: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_a_folder_is_a_repository_to_be(run: Path, report: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "cells"
    done = push(run, f"file://{out}", "--report", report, "--dataset", "BCCD, test split", "--licence", "CC-BY-4.0")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.safetensors"]
    assert recorded_figures(out / "model.safetensors")["AP"] == 0.63519
    assert Detector(out / "model.safetensors", "cpu").class_names[2] == "血小板"
    card = (out / "README.md").read_text("utf-8")
    metadata = metadata_of(card)
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["pipeline_tag"] == "object-detection"
    (entry,) = metadata["model-index"]  # type: ignore[misc]
    (result,) = entry["results"]
    assert result["dataset"] == {"name": "BCCD, test split", "type": "bccd-test-split"}
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [("mAP", 0.5), ("mAP@50", 0.75)]
    assert "| AP (IoU 0.50:0.95) | 50.0 |" in card
    assert "`red 'cell'`, `white/cell`, `血小板`" in card
    assert f'Detector("{out / "model.safetensors"}", threshold=0.3)' in card
    assert "# cells\n" in card

    again = push(run, f"file://{out}")
    assert (again.exit_code, (out / "README.md").read_text("utf-8")) == (2, card)
    assert "exists already" in again.stderr


def test_without_a_report_the_card_has_what_training_measured(run: Path, tmp_path: Path) -> None:
    assert push(run, f"file://{tmp_path / 'a'}", "--title", "Cells <b>").exit_code == 0
    card = (tmp_path / "a" / "README.md").read_text("utf-8")
    assert "| AP (IoU 0.50:0.95) | 63.5 |" in card
    assert "The validation split during its training" in card
    assert "# Cells (b)\n" in card
    assert "license" not in metadata_of(card)


def test_refusals(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[1]")
    for arguments, sentence in (
        ((run, "https://huggingface.co/a/b"), "is no place to push to"),
        ((run, "hf://alone"), "is no place to push to"),
        ((tmp_path / "no", "file://x"), "there is no weights file"),
        ((tmp_path / "a.onnx", "file://x"), "is exported already: name the weights that it was made of"),
        ((run, "file://x", "--report", tmp_path / "no.json"), "there is no report"),
        ((run, "file://x", "--report", tmp_path / "bad.json"), "is no report of tood eval"),
    ):
        done = push(*arguments)
        assert done.exit_code == 2, done.output
        assert sentence in " ".join(done.stderr.split())


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_one_that_is_stopped_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    called, target = (
        ("model_card", f"file://{tmp_path / 'new'}") if place == "folder" else ("_upload", "hf://ann/cells")
    )
    with signal_at(tood.weights.push, called):
        done = push(run, target)
    assert (done.exit_code, done.stdout) == (128 + signal.SIGTERM, "")
    assert done.stderr == "tood: stopped; what was not finished is removed\n"
    assert [*tmp_path.glob("new"), *tmp_path.glob(".tood*"), *tmp_path.rglob("*.safetensors")] == []


def test_what_a_killed_one_left_is_gone_the_next_time(run: Path, tmp_path: Path) -> None:
    half_written(tmp_path / "new", "whole_folder")
    assert push(run, f"file://{tmp_path / 'new'}").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


class Hub(BaseHTTPRequestHandler):
    """Of the hub's interface what a push and a download ask for; `taken` gets what is committed."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            self.taken["create"] = asked
            self._answer(200, {"url": f"http://{self.headers['Host']}/{asked['organization']}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.taken[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                else:
                    self.taken[entry["key"]] = entry["value"]
            commit = f"http://{self.headers['Host']}/ann/cells/commit/{'a' * 40}"
            self._answer(200, {"commitUrl": commit, "commitOid": "a" * 40})
        else:
            self._answer(404, {"error": self.path})

    def do_GET(self) -> None:
        self._answer(404, {"error": self.path})

    @property
    def taken(self) -> dict[str, object]:
        found: dict[str, object] = self.server.taken  # type: ignore[attr-defined]
        return found

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.taken = {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_gets_weights_and_card_in_one_commit(run: Path, hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    def pushed(token: str, port: int) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(tood.__file__).parents[1]),
            "HF_ENDPOINT": f"http://127.0.0.1:{port}",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": "0",
        }
        command = [sys.executable, "-m", "tood", "weights", "push", str(run), "hf://ann/cells", "--private"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    done = pushed("hf_right", hub.server_port)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pushed to hf://ann/cells\n"
    taken: dict[str, object] = hub.taken  # type: ignore[attr-defined]
    assert taken["create"] == {"name": "cells", "organization": "ann", "visibility": "private"}
    (tmp_path / "got.safetensors").write_bytes(taken["model.safetensors"])  # type: ignore[arg-type]
    assert recorded_figures(tmp_path / "got.safetensors")["AP"] == 0.63519
    assert b'Detector("hf://ann/cells", threshold=0.3)' in taken["README.md"]  # type: ignore[operator]

    refused = pushed("hf_wrong", hub.server_port)
    assert refused.returncode == 2
    assert "hf auth login" in refused.stderr
    assert "Traceback" not in refused.stderr
