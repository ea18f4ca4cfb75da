"""`hf://` through the real library, against a hub on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import tood
from tood.errors import ToodError
from tood.weights import locate_weights

CONTENT = b"tensors"
# What the hub has: of each repository, its revisions and files.
HUB = {
    ("ann/net", "main"): (
        "model.safetensors",
        "deep/other.safetensors",
        "deep/model.xml",
        "deep/model.bin",
        "half.xml",
    ),
    ("ann/net", "v1"): ("model.safetensors", "model.ONNX"),
}

SCRIPT = """
import sys
from tood.errors import ToodError
from tood.weights import locate_weights
for address in sys.argv[1:]:
    try:
        print(*(path.read_bytes().decode() for path in locate_weights(address).files))
    except ToodError as error:
        print(error)
"""


SHIPPED = """
import sys
from tood.clusters import ShippedModel
for address in sys.argv[1:]:
    model = ShippedModel.of(address)
    print(*model.files, model.is_exported)
"""


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        parts = self.path.split("/")
        repository, revision, name = "/".join(parts[1:3]), "/".join(parts[4:5]), "/".join(parts[5:])
        if all(repository != known for known, _ in HUB):
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
        elif (repository, revision) not in HUB:
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif name not in HUB[repository, revision]:
            self._answer(404, {"X-Error-Code": "EntryNotFound"})
        else:
            commit = f"{revision:0<40}".encode().hex()[:40]
            self._answer(200, {"X-Repo-Commit": commit, "ETag": f'"{commit}"'}, CONTENT)

    do_GET = do_HEAD  # noqa: N815 - the base class's name

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def located(endpoint: str, home: Path, *addresses: str, offline: bool = False, script: str = SCRIPT) -> list[str]:
    """What comes of each address, in a process whose hub is there: the library reads its settings when imported."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(tood.__file__).parents[1]),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", script, *addresses]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=True)
    return done.stdout.splitlines()


def test_files_of_a_hub_and_what_it_lacks(hub: str, tmp_path: Path) -> None:
    lines = located(
        hub,
        tmp_path,
        "hf://ann/net",
        "hf://ann/net@v1",
        "hf://ann/net/deep/other.safetensors",
        "hf://bob/net",
        "hf://ann/net@v2",
        "hf://ann/net/none.safetensors",
        "hf://ann/net/deep/model.xml",
        "hf://ann/net/half.xml",
    )
    assert lines[:3] == ["tensors"] * 3
    assert "there is no repository bob/net, or it is private" in lines[3]
    assert "hf://ann/net@v2 cannot be fetched: ann/net has no revision 'v2'" in lines[4]
    assert "ann/net has no file none.safetensors" in lines[5]
    assert lines[6] == "tensors tensors", "OpenVINO's numbers come with its graph"
    assert "ann/net has no file half.bin" in lines[7]
    assert len(lines) == 8

    cached, missing = located("http://127.0.0.1:9", tmp_path, "hf://ann/net", "hf://ann/other", offline=True)
    assert cached == "tensors", "without a network, what is in the cache is used"
    assert missing.startswith("hf://ann/other cannot be fetched: huggingface.co is not reached")


def test_a_hub_that_is_not_there_is_told_at_once(hub: str, tmp_path: Path) -> None:
    assert located(hub, tmp_path, "hf://ann/net") == ["tensors"]
    loud = SCRIPT.replace("import sys", "import sys; sys.stderr = sys.stdout")  # with what the library prints
    # Nobody listens at this port.
    cached, missing = located("http://127.0.0.1:9", tmp_path, "hf://ann/net", "hf://ann/other", script=loud)
    assert cached == "tensors"
    assert missing.startswith("hf://ann/other cannot be fetched: huggingface.co is not reached")


def test_exported_files_of_a_hub_are_shipped_to_clusters(hub: str, tmp_path: Path) -> None:
    addresses = ("hf://ann/net@v1/model.ONNX", "hf://ann/net/deep/model.xml")
    assert located(hub, tmp_path, *addresses, script=SHIPPED) == ["model.ONNX True", "model.xml model.bin True"]


@pytest.mark.parametrize(
    "address", ["hf://", "hf://net", "hf://ann/", "hf://a b/c", "hf://ann/net/../../x", "hf://ann/n@"]
)
def test_what_is_no_address_is_one_sentence(address: str) -> None:
    with pytest.raises(ToodError, match="is no address on the Hugging Face Hub") as caught:
        locate_weights(address)
    assert "\n" not in str(caught.value)
