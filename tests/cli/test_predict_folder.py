"""`tood predict` in folders with other things in them, stopped and resumed: nothing that it did not write goes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import IO, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from bright_square import picture, save_picture
from cli.test_eval_predict import refused, tood
from tood.cli.picture_files import PictureFiles
from tood.cli.prediction_folder import JOURNAL, LOCK, MANIFEST, Outputs, PredictionFolder
from tood.errors import ToodError
from tood.manifest import FileStamp, Manifest
from tood.structures import Detections

TREES = int(os.environ.get("TOOD_FUZZ_TREES", "60"))


def photo(path: Path, side: int = 40) -> Path:
    save_picture(path, picture(side, side + 10, (5, 5, 25, 25)))
    return path


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_picture_that_is_there_already_is_not_replaced(weights: Path, tmp_path: Path) -> None:
    image = photo(tmp_path / "IMG.jpg")
    other = photo(tmp_path / "IMG_2.jpg", 30).read_bytes()
    (tmp_path / "IMG_3.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "IMG_4.jpg").mkdir()
    assert tood("predict", "--model", weights, image, "--out", tmp_path).exit_code == 0
    assert (tmp_path / "IMG_2.jpg").read_bytes() == other
    assert (tmp_path / "IMG_3.jpg").is_symlink()
    assert visible(tmp_path) == {"IMG.jpg", "IMG_2.jpg", "IMG_3.jpg", "IMG_4.jpg", "IMG_5.jpg"}


def test_its_own_earlier_pictures_are_replaced_and_not_looked_at(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "IMG.jpg")
    photo(tmp_path / "sub" / "IMG.jpg")
    for _ in range(3):
        result = tood("predict", "--model", weights, ".", "--out", ".", "--json", "--threshold", 0.1)
        assert result.exit_code == 0, result.output
        assert visible(tmp_path) == {"IMG.jpg", "IMG_2.jpg", "IMG_3.jpg", "predictions.json", "sub"}
        assert len(json.loads((tmp_path / "predictions.json").read_text())) == 2
    assert "2 pictures that tood predict drew are passed over" in result.stderr
    # As a shell expands *.jpg, and as a pattern.
    for sources in (sorted(tmp_path.glob("*.jpg")), ["*.jpg"]):
        result = tood("predict", "--model", weights, *sources, "--out", tmp_path / "other", "--json")
        assert len(json.loads((tmp_path / "other" / "predictions.json").read_text())) == 1
    # Named alone it is what is meant; exchanged by hand it is somebody's photograph.
    assert "passed over" not in tood("predict", "--model", weights, "IMG_2.jpg", "--out", "third").stderr
    photo(tmp_path / "IMG_2.jpg", 30)
    result = tood("predict", "--model", weights, "*.jpg", "--out", tmp_path / "other", "--json")
    assert len(json.loads((tmp_path / "other" / "predictions.json").read_text())) == 2
    refused(tood("predict", "--model", weights, "third"), "there is no other picture")


@pytest.mark.parametrize("name", ["predictions.json", "predictions.csv", MANIFEST, JOURNAL])
def test_a_file_of_somebody_else_is_refused_before_anything_is_done(weights: Path, tmp_path: Path, name: str) -> None:
    image = photo(tmp_path / "in" / "a.jpg")
    out = tmp_path / "out"
    out.mkdir()
    for content in ("mine", "[]", '{"version": 1}', '{"tood predict": 0, "settings": {}}\n'):
        (out / name).write_text(content)
        refused(tood("predict", "--model", weights, image, "--out", out, "--json", "--csv"), f"{out / name}")
        assert (out / name).read_text() == content
        assert list(out.iterdir()) == [out / name]
    (out / name).unlink()
    (out / name).symlink_to(image)
    before = image.read_bytes()
    refused(tood("predict", "--model", weights, image, "--out", out, "--json", "--csv"), f"{out / name}")
    assert image.read_bytes() == before


def test_results_that_were_changed_by_hand_stay(weights: Path, tmp_path: Path) -> None:
    image = photo(tmp_path / "in" / "a.jpg")
    out = tmp_path / "out"
    run = ("predict", "--model", weights, image, "--out", out)
    assert tood(*run, "--json").exit_code == 0
    mine = photo(out / "a.jpg", 33).read_bytes()
    (out / "predictions.json").write_text((out / "predictions.json").read_text().replace("50", "51"))
    refused(tood(*run, "--json"), "has changed since")
    assert tood(*run).exit_code == 0
    assert (out / "a.jpg").read_bytes() == mine
    assert visible(out) == {"a.jpg", "a_2.jpg", "predictions.json"}


def test_a_hard_link_to_a_source_in_the_folder_stays_it(weights: Path, tmp_path: Path) -> None:
    image = photo(tmp_path / "in" / "a.jpg")
    out = tmp_path / "out"
    assert tood("predict", "--model", weights, image, "--out", out).exit_code == 0
    drawn = (out / "a.jpg").read_bytes()
    # Its own result is a source now, under another name.
    os.link(out / "a.jpg", tmp_path / "in2.jpg")
    (tmp_path / "more").mkdir()
    os.link(out / "a.jpg", tmp_path / "more" / "a.jpg")
    assert tood("predict", "--model", weights, tmp_path / "more" / "a.jpg", "--out", out).exit_code == 0
    assert (out / "a.jpg").read_bytes() == drawn
    assert visible(out) == {"a.jpg", "a_2.jpg"}


def test_thousands_of_equal_names_take_one_look_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    link = os.link

    def counted(*arguments: Path) -> None:
        nonlocal tries
        tries += 1
        link(*arguments)

    monkeypatch.setattr(os, "link", counted)
    sources = [f"{number}/IMG.jpg" for number in range(600)]
    pixels = np.zeros((1, 1, 3), np.uint8)
    pictures = PictureFiles(tmp_path, sources, Manifest({}))
    names = [pictures.write(source, pixels) for source in sources]
    assert len(set(names)) == len(names) == len(list(tmp_path.iterdir())) == tries


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unable)
    (tmp_path / "a.png").write_text("mine")
    pictures = PictureFiles(tmp_path, [], Manifest({}))
    assert [pictures.write("a.png", np.zeros((2, 2, 3), np.uint8)) for _ in range(2)] == ["a_2.png", "a_3.png"]
    assert (tmp_path / "a.png").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_that_takes_several_names_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None can be mounted here: its answer to the one question that is asked of it is emulated."""
    link = os.link

    def key(name: str) -> str:
        return unicodedata.normalize("NFD", name).casefold()

    def particular(source: Path, target: Path) -> None:
        if key(target.name) in {key(path.name) for path in target.parent.iterdir()}:
            raise FileExistsError(17, "File exists")
        link(source, target)

    monkeypatch.setattr(os, "link", particular)
    (tmp_path / "IMG.JPG").write_text("mine")
    sources = [str(tmp_path / "IMG.JPG"), "x/img.jpg", "\u00e4.png", "y/a\u0308.png", "\u00c4.png"]
    pixels = np.zeros((2, 2, 3), np.uint8)
    for _ in range(2):
        earlier = Manifest.of(tmp_path)
        pictures = PictureFiles(tmp_path, sources, Manifest({**earlier.files, "IMG.JPG": FileStamp(0, 0, "")}))
        names = [pictures.write(source, pixels) for source in sources]
        assert names == ["IMG_2.jpg", "img_3.jpg", "\u00e4.png", "a\u0308_2.png", "\u00c4_3.png"]
    assert (tmp_path / "IMG.JPG").read_text() == "mine"


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    pictures = PictureFiles(tmp_path, [], Manifest({}))
    pixels = np.zeros((2, 2, 3), np.uint8)
    for source in (
        "https://x.org/a%00b%2F..%2Fc%3A%3F.jpg",
        f"https://x.org/{'é' * 300}.jpg",
        "https://x.org/",
        "..",
        "é" * 120,
    ):
        assert (tmp_path / pictures.write(source, pixels)).parent == tmp_path
    assert len(list(tmp_path.iterdir())) == 5


class Server(ThreadingHTTPServer):
    """Gives one picture, once `meanwhile` is through."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content = content
        self.meanwhile: Callable[[], object] = lambda: None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/3.png"


class Answer(BaseHTTPRequestHandler):
    """Of the server above."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.meanwhile()
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(photo(tmp_path / "served.png").read_bytes()) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def command(weights: Path, *arguments: object) -> list[str]:
    chosen = ("predict", "--model", weights, *arguments, "--json", "--csv", "--threshold", 0.1)
    return [str(argument) for argument in chosen]


def start(arguments: Sequence[str], **options: object) -> subprocess.Popen[str]:
    """`tood`, which after a wish to stop waits longer for what is under way: on a busy machine that takes its time."""
    code = "import tood.stop; tood.stop.PATIENCE = 300; from tood.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(("number", "batch"), [(signal.SIGTERM, 4), (signal.SIGINT, 1), (signal.SIGKILL, 2)])
def test_a_stopped_run_keeps_what_it_found_and_can_be_resumed(
    weights: Path, tmp_path: Path, server: Server, number: signal.Signals, batch: int
) -> None:
    """The signal comes while the seventh of eleven pictures is fetched."""
    for at in range(10):
        photo(tmp_path / str(at // 6) / f"{at // 2}" / f"{at % 4}.png", 50 + 3 * at)
    whole, out = tmp_path / "whole", tmp_path / "out"
    chosen = (tmp_path / "0", server.address, tmp_path / "1", "--batch-size", batch, "--out")
    assert tood(*command(weights, *chosen, whole)).exit_code == 0
    process = start(command(weights, *chosen, out))
    server.meanwhile = lambda: process.send_signal(number)
    output, errors = process.communicate(timeout=600)
    server.meanwhile = lambda: None
    journal = out / JOURNAL
    assert journal.exists()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, errors
        assert "the same command with --resume does the rest" in errors
        assert "Traceback" not in errors
        assert not list(out.glob(".*.tmp*"))
        done, expected = (json.loads((folder / "predictions.json").read_text()) for folder in (out, whole))
        # Those that were read ahead are done, too.
        assert 7 <= len(done) <= 7 + batch
        assert f"{len(done)} pictures of 11 done" in output
        certain = len(done) // batch * batch
        assert done[:certain] == expected[:certain]
        assert len(visible(out)) == len(done) + 2
        rows = (out / "predictions.csv").read_text().splitlines()
        assert len(rows) == 1 + sum(len(entry["detections"]) for entry in done)
    for _ in range(2):  # the second time nothing is left to resume
        result = tood(*command(weights, *chosen, out), "--resume")
        assert result.exit_code == 0, result.output
        assert contents(out) == contents(whole)
        assert not journal.exists()
    assert "nothing to resume" in result.stderr


def end_early(images: Sequence[str], out: Path, count: int) -> None:
    """A run that ends by an error after some pictures."""
    with PredictionFolder(out, images, {}, Outputs(json=True), 1, resume=False) as folder:
        for image in images[:count]:
            folder.add(found(image), np.zeros((8, 8, 3), np.uint8))
        raise KeyboardInterrupt


def found(image: str) -> Detections:
    return Detections(
        torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        torch.tensor([0.5]),
        torch.tensor([0]),
        ("cat",),
        image,
        np.zeros((8, 8, 3), np.uint8),
    )


def test_a_run_is_resumed_only_as_it_was_begun(weights: Path, tmp_path: Path) -> None:
    images = [str(photo(tmp_path / "in" / f"{number}.png")) for number in range(5)]
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        end_early(images, out, 3)
    assert len(json.loads((out / "predictions.json").read_text())) == 3
    before = contents(out)
    refused(tood(*command(weights, tmp_path / "in", "--out", out), "--resume"), "had other settings")
    nothing_written = ("predict", "--model", weights, tmp_path / "in", "--no-save-images", "--resume")
    refused(tood(*nothing_written), "--resume goes on with")
    assert contents(out) == before
    result = tood(*command(weights, tmp_path / "in", "--out", out))
    assert result.exit_code == 0, result.output
    assert "begun anew" in result.stderr
    assert visible(out) == {*(f"{number}.png" for number in range(5)), "predictions.json", "predictions.csv"}


def test_what_changed_in_between_is_done_again(tmp_path: Path) -> None:
    images = [str(photo(tmp_path / "in" / f"{number}.png")) for number in range(5)]
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        end_early(images, out, 0)
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt):
        end_early(images, out, 4)
    photo(Path(images[1]), 50)
    (out / "2.png").unlink()
    photo(out / "3.png")
    with PredictionFolder(out, images, {}, Outputs(), 1, resume=True) as folder:
        assert folder.to_do == [1, 2, 3, 4]


def test_a_full_disk_keeps_what_was_found_before(weights: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the drawn noise of the third picture passes it."""
    for number in range(5):
        photo(tmp_path / "in" / f"{number}.png", 40)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    save_picture(tmp_path / "in" / "2.png", noise)
    out = tmp_path / "out"
    arguments = command(weights, tmp_path / "in", "--out", out)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(arguments, preexec_fn=limit)
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 2, errors
    assert f"{out} cannot be written to: File too large" in errors
    assert "Traceback" not in errors
    assert [Path(one["image"]).name for one in json.loads((out / "predictions.json").read_text())] == ["0.png", "1.png"]
    assert not list(out.glob(".*.tmp*"))
    assert tood(*arguments, "--resume").exit_code == 0
    assert tood(*command(weights, tmp_path / "in", "--out", tmp_path / "whole")).exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")


# --- two at once ------------------------------------------------------------------------------------------------------


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    images = [str(photo(tmp_path / "in" / f"{number}.png")) for number in range(3)]
    out = tmp_path / "out"
    with PredictionFolder(out, images, {}, Outputs(json=True), 1, resume=False) as first:
        first.add(found(images[0]), None)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        for resume in (False, True):
            with (
                pytest.raises(ToodError, match=rf"another tood predict \(process {os.getpid()} on .*\) is writing to"),
                PredictionFolder(out, images, {}, Outputs(json=True), 1, resume=resume),
            ):
                pass
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        for image in images[1:]:
            first.add(found(image), None)
        first.complete = True
    assert len(json.loads((out / "predictions.json").read_text())) == 3
    assert {path.name for path in out.iterdir()} == {MANIFEST, "predictions.json"}


def test_two_commands_into_the_same_folder(weights: Path, tmp_path: Path, server: Server) -> None:
    """The second starts while the first waits for a picture; then the first is killed."""
    for number in range(3):
        photo(tmp_path / "in" / f"{number}.png", 50)
    chosen = (tmp_path / "in", server.address, "--out", tmp_path / "out")
    process = start(command(weights, *chosen))
    second = []

    def meanwhile() -> None:
        second.append(tood(*command(weights, tmp_path / "in", "--out", tmp_path / "out")))
        process.kill()

    server.meanwhile = meanwhile
    process.communicate(timeout=600)
    server.meanwhile = lambda: None
    refused(second[0], f"another tood predict (process {process.pid} on ")
    assert (tmp_path / "out" / LOCK).exists(), "of the killed one, which blocks nobody"
    assert tood(*command(weights, *chosen), "--resume").exit_code == 0
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 4
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_killed_run_s_half_picture_goes_and_somebody_s_lock_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".tood-{dead.pid}-0123456789ab.tmp").write_text("half a picture")
    with PredictionFolder(tmp_path, [], {}, Outputs(), 1, resume=False):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    (tmp_path / LOCK).write_text("mine")
    with (
        pytest.raises(ToodError, match="no lock of tood's"),
        PredictionFolder(tmp_path, [], {}, Outputs(), 1, resume=False),
    ):
        pass
    assert (tmp_path / LOCK).read_text() == "mine"


def test_a_folder_that_nothing_came_into_goes_again(weights: Path, tmp_path: Path) -> None:
    with PredictionFolder(tmp_path / "new" / "out", [], {}, Outputs(), 1, resume=False):
        assert (tmp_path / "new" / "out" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    image, out = photo(tmp_path / "a.png"), tmp_path / "file" / "out"
    (tmp_path / "file").write_text("")
    refused(tood(*command(weights, image, "--out", out)), "cannot be written to")
    unwritten = tood("predict", "--model", weights, image, "--no-save-images", "--out", out)
    assert unwritten.exit_code == 0, "nothing is written there"


def test_the_journal_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [str(photo(tmp_path / f"{number}.png")) for number in range(3)]
    out, reads = tmp_path / "out", []
    opened = Path.open

    def watched(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> IO[Any]:
        if mode == "rb":
            reads.append(path.name)
        return opened(path, mode, *arguments, **named)

    monkeypatch.setattr(Path, "open", watched)
    for resume in (True, False):
        with pytest.raises(KeyboardInterrupt):
            end_early(images, out, 2)
        reads.clear()
        with PredictionFolder(out, images, {}, Outputs(), 1, resume=resume) as folder:
            folder.add(found(images[folder.to_do[0]]), None)
        assert reads.count(JOURNAL) == 1


def test_ctrl_c_in_the_last_picture_is_the_end_of_all(weights: Path, tmp_path: Path, server: Server) -> None:
    photo(tmp_path / "a.png")
    out = tmp_path / "out"
    process = start(command(weights, tmp_path / "a.png", server.address, "--out", out))
    server.meanwhile = lambda: process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert f"2 pictures done. Results: {out}" in output
    assert "stopped" not in errors
    assert not (out / JOURNAL).exists()


NAMES = (
    "a.jpg",
    "A.jpg",
    "a_2.jpg",
    "b.png",
    "\u00e4.png",
    "a\u0308.png",
    "sub/a.jpg",
    "sub/b.png",
    "predictions.json",
)
ACTIONS = st.tuples(
    st.sampled_from(["run", "run", "stopped", "resumed", "own", "edit", "link", "drop"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
    st.sampled_from((*NAMES, "predictions.json")),
)


def test_a_disk_that_is_full_of_the_journal_itself(tmp_path: Path) -> None:
    """In a process of its own: the limit stays."""
    images = [str(photo(tmp_path / f"{number}.png")) for number in range(40)]
    code = f"""
import resource, signal
from pathlib import Path
import cli.test_predict_folder as test
from tood.cli.prediction_folder import Outputs, PredictionFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
with PredictionFolder(Path({str(tmp_path / "out")!r}), {images}, {{}}, Outputs(json=True), 1, resume=False) as folder:
    for image in {images}:
        folder.add(test.found(image), None)
"""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
    assert b"out cannot be written to" in ended.stderr
    kept = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert 5 < len(kept) < 40
    with PredictionFolder(tmp_path / "out", images, {}, Outputs(json=True), 1, resume=True) as folder:
        assert folder.to_do == list(range(len(kept), 40))
        for at in folder.to_do:
            folder.add(found(images[at]), None)
        folder.complete = True
    assert [entry["image"] for entry in json.loads((tmp_path / "out" / "predictions.json").read_text())] == images


@settings(max_examples=TREES, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, min_size=2, max_size=10), st.booleans())
def test_no_file_that_it_did_not_write_ever_changes_or_goes(
    actions: list[tuple[str, list[str], str]], in_place: bool
) -> None:
    with TemporaryDirectory() as root:
        pictures = Path(root, "in")
        out = pictures if in_place else Path(root, "out")
        for name in NAMES:
            (pictures / name).parent.mkdir(parents=True, exist_ok=True)
            (pictures / name).write_bytes(f"photograph {name}".encode())
        out.mkdir(exist_ok=True)
        shape = np.zeros((4, 4, 3), np.uint8)
        written: dict[Path, bytes] = {}

        def files() -> dict[Path, bytes]:
            kept = (path for path in Path(root).rglob("*") if path.is_file() or path.is_symlink())
            return {path: str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() for path in kept}

        for action, sources, name in actions:
            place = out / name
            before = files()
            if action in ("run", "stopped", "resumed"):
                images = [str(pictures / source) for source in sources]
                try:
                    with PredictionFolder(out, images, {}, Outputs(json=True), 1, resume=action == "resumed") as run:
                        for at in run.to_do[: 1 if action == "stopped" else None]:
                            run.add(found(images[at]), shape)
                        run.complete = action != "stopped"
                except ToodError as error:
                    event(str(error).rpartition("/")[2][:50])
                after = files()
                changed = [path for path, held in before.items() if after.get(path) != held]
                foreign = [p for p in changed if written.get(p) != before[p] and p.name not in (MANIFEST, JOURNAL)]
                assert not foreign
                assert not [path for path in after if path.name.endswith(".tmp")]
                assert all(path.parent == out for path in after if path not in before)
                written |= {path: held for path, held in after.items() if before.get(path) != held}
            elif action == "own" and not os.path.lexists(place) and place.parent.is_dir():
                place.write_text("mine")
            elif action == "edit" and place.is_file():
                place.write_bytes(place.read_bytes() + b"!")
            elif action == "link" and place.is_file() and not place.is_symlink():
                other = pictures / sources[0]
                if other != place:
                    place.unlink()
                    place.symlink_to(other)
            elif action == "drop" and os.path.lexists(place):
                place.unlink()


class Trickle(BaseHTTPRequestHandler):
    """One whole picture; the others come a byte a second."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        whole = self.path == "/whole.png"
        self.send_header("Content-Length", str(len(self.content) if whole else 100_000))
        self.end_headers()
        with suppress(OSError):
            if whole:
                self.wfile.write(self.content)
            while not whole:
                self.wfile.write(b"x")
                self.server.trickles.set()  # type: ignore[attr-defined]
                time.sleep(1)

    def log_message(self, *_: object) -> None:
        pass


def test_ctrl_c_ends_a_download_that_trickles(weights: Path, tmp_path: Path) -> None:
    Trickle.content = photo(tmp_path / "a.png").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickle)
    server.daemon_threads = True
    server.trickles = Event()  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    command = ["predict", f"{address}/whole.png", f"{address}/slow.png", "--model", str(weights), "--out", "out"]
    with subprocess.Popen(
        [sys.executable, "-m", "tood", *command, "--device", "cpu", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "whole.png" in process.stdout.readline()
        assert server.trickles.wait(600)  # type: ignore[attr-defined]
        time.sleep(1)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=600)
    server.shutdown()
    server.server_close()
    assert time.monotonic() - begin < 60
    assert process.returncode == 130, told
    assert "1 picture of 2 done: out" in out
    assert told.endswith("tood: stopped; the same command with --resume does the rest\n")
