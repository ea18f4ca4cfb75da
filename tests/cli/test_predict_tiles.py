"""`tood predict --tiles`: large pictures, resumed at the tile; and what SIGKILL leaves of this and of `tood video`."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from benchmarks.kills import make_model, make_picture, make_video, results, start
from PIL import Image

from cli.test_eval_predict import refused, tood
from cli.test_predict_folder import found
from tood.cli.prediction_folder import JOURNAL, MANIFEST, Outputs, PredictionFolder
from tood.cli.tile_journal import PREFIX, TileJournal
from tood.inference.tile_merging import TileBoxes
from tood.run_journal import RunJournal
from tood.video.results import UNFINISHED


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_picture(tmp_path_factory.mktemp("large") / "large.tif", 400)


def test_a_picture_beyond_the_limit_goes_by_tiles_and_says_so(
    model: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("predict", "--model", model, large, "--json", "--csv", "--threshold", 0.5)
    assert tood(*run, "--tiles", "--out", tmp_path / "asked").exit_code == 0
    monkeypatch.setenv("TOOD_MAX_PIXELS", "100000")
    result = tood(*run, "--out", tmp_path / "itself")
    assert result.exit_code == 0, result.output
    assert "beyond 100,000 pixels, so it is looked at by tiles" in result.stderr
    assert results(tmp_path / "itself") == results(tmp_path / "asked")
    (told,) = json.loads((tmp_path / "itself" / "predictions.json").read_text())
    assert (told["width"], told["height"]) == (400, 400)
    assert len(told["detections"]) > 20
    assert Image.open(tmp_path / "itself" / "large.png").size == (400, 400)
    assert not [path for path in (tmp_path / "itself").iterdir() if path.name.startswith(PREFIX)]


def test_how_tiles_are_is_asked_in_vain_where_nothing_goes_by_tiles(
    model: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("predict", "--model", model, large, "--json", "--out", tmp_path / "out", "--no-save-images")
    for asked in (("--tile-size", 256), ("--overlap", 0.5)):
        refused(tood(*run, *asked), "are of pictures that are looked at by tiles, and none of these has to be")
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("TOOD_MAX_PIXELS", "100000")
    assert tood(*run, "--tile-size", 256).exit_code == 0


def test_a_large_picture_is_drawn_smaller(
    model: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tood.cli.tiled_pictures._DRAWN", 50_000)
    assert tood("predict", "--model", model, large, "--tiles", "--out", tmp_path).exit_code == 0
    assert Image.open(tmp_path / "large.png").size == (200, 200)


def test_a_broken_part_is_told_and_other_pictures_are_done(model: Path, large: Path, tmp_path: Path) -> None:
    data = bytearray(large.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    (tmp_path / "bad.tif").write_bytes(data)
    result = tood(
        "predict", "--model", model, tmp_path / "bad.tif", large, "--tiles", "--out", tmp_path / "o", "--json"
    )
    refused(result, "bad.tif: cannot be read at")
    assert len(json.loads((tmp_path / "o" / "predictions.json").read_text())) == 1


@pytest.mark.parametrize("tiles", [True, False])
def test_a_picture_that_failed_is_tried_again_alone(model: Path, large: Path, tmp_path: Path, tiles: bool) -> None:
    bad, out = tmp_path / "bad.tif", tmp_path / "out"
    data = bytearray(large.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    bad.write_bytes(data if tiles else b"no picture")
    command = ["predict", "--model", model, bad, large, "--json", "--threshold", 0.5, *["--tiles"] * tiles]
    for again in (False, True):
        result = tood(*command, "--out", out, *["--resume"] * again)
        refused(result, "bad.tif")
        assert "the same command with --resume tries what failed again" in result.stderr
        assert ("1 pictures done before" in result.stderr, str(large) in result.stdout) == (again, not again)
        assert (len(list(out.glob(f"{PREFIX}*"))), (out / JOURNAL).exists()) == (tiles, True)
        assert len(json.loads((out / "predictions.json").read_text())) == 1
    bad.write_bytes(large.read_bytes())
    assert tood(*command, "--out", out, "--resume").exit_code == 0
    assert not [path for path in out.glob(".tood-predict.*") if path.name != MANIFEST]
    assert tood(*command, "--out", tmp_path / "alone").exit_code == 0
    assert results(out) == results(tmp_path / "alone")


def test_tiles_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    def batch(number: int) -> TileBoxes:
        boxes = np.array([[0.1, 0.2, number, 3]], np.float32)
        cut = np.array([[True, False, False, True]])
        return TileBoxes(boxes, np.array([0.3], np.float32), np.array([1]), cut, np.array([4]))

    begun = TileJournal(tmp_path, "a.tif", {"size": 1}, resume=False)
    for number in range(3):
        begun.add(batch(number))
    begun.close(done=False)
    with begun.path.open("ab") as file:
        file.write(b'{"b": [[1, 2')  # killed within a line
    resumed = TileJournal(tmp_path, "a.tif", {"size": 1}, resume=True)
    assert [one.boxes.tolist() for one in resumed.known()] == [batch(n).boxes.tolist() for n in range(3)]
    assert resumed.known()[0].cut.tolist() == [[True, False, False, True]]
    resumed.add(batch(3))
    resumed.close(done=False)
    assert len(TileJournal(tmp_path, "a.tif", {"size": 1}, resume=True).known()) == 4
    content = begun.path.read_text()
    assert TileJournal(tmp_path, "a.tif", {"size": 2}, resume=True).known() == []
    begun.path.write_text(content.replace('"tood tiles": 1', '"tood tiles": 0'))
    assert TileJournal(tmp_path, "a.tif", {"size": 1}, resume=True).known() == [], "of another version"


@pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills itself")
def test_a_resumed_run_killed_at_any_line_loses_no_tiled_picture(tmp_path: Path) -> None:
    """Three pictures in batches of two, so that the last of them is done again, and two that were done by tiles."""
    images = [str(tmp_path / f"{number}.png") for number in range(5)]

    def begun(out: Path) -> PredictionFolder:
        return PredictionFolder(out, images, {}, Outputs(), 2, resume=True)

    with begun(tmp_path / "before") as folder:
        for at, image in enumerate(images):
            folder.add(found(image), None, tiled=at >= 3)
    killed = True
    for line in itertools.count():
        out = shutil.copytree(tmp_path / "before", tmp_path / f"{line}")
        killed = _killed_at(line, begun(out).__enter__, (RunJournal, PredictionFolder._take_over))
        with begun(out) as folder:
            assert folder.to_do == [2]
            assert folder.done == 4
        if not killed:
            break
    assert line > 20


def _killed_at(line: int, work: Callable[[], object], places: tuple[Any, ...]) -> bool:
    """Whether a child process that works came to so many lines of some code, at which it kills itself."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    try:
        codes = {
            part.__code__
            for place in places
            for part in (vars(place).values() if isinstance(place, type) else [place])
            if hasattr(part, "__code__")
        }
        passed = itertools.count()

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if event == "line" and next(passed) == line:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(lambda frame, *_: trace if frame.f_code in codes else None)
        work()
    finally:
        os._exit(0)


def test_a_run_killed_between_a_result_and_its_tiles_leaves_nothing_for_ever(
    model: Path, large: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    images = [str(large)]
    with PredictionFolder(out, images, {}, Outputs(), 1, resume=False) as folder:
        for picture in (large, tmp_path / "other.tif"):
            TileJournal(out, str(picture), {}, resume=False).close(done=False)
        folder.add(found(str(large)), None, tiled=True)
    mine = out / f"{PREFIX}mine.jsonl"
    mine.write_text("mine")
    assert len(list(out.glob(f"{PREFIX}*"))) == 3
    with PredictionFolder(out, images, {}, Outputs(), 1, resume=True) as folder:
        assert folder.to_do == []
        folder.complete = True
    left = {json.loads(path.read_text())["source"] for path in out.glob(f"{PREFIX}*") if path != mine}
    assert left == {str(tmp_path / "other.tif")}
    assert mine.read_text() == "mine"


def hold_at(lines: int) -> None:
    """From now on this process waits where a journal of it has so many lines."""
    add = RunJournal.add

    def held(journal: RunJournal, content: Mapping[str, Any]) -> range:
        place = add(journal, content)
        while journal.path.read_bytes().count(b"\n") >= lines:
            time.sleep(1)
        return place

    RunJournal.add = held  # type: ignore[method-assign]


def kill_after(words: tuple[object, ...], out: Path, journal: str, lines: int) -> None:
    """Starts a command, and kills it as soon as its journal has so many lines; a few later it waits for that."""
    process = start((*words, "--out", out, "--resume"), out.with_suffix(".txt"), partial(hold_at, lines + 10))
    while process.is_alive() and sum(path.read_bytes().count(b"\n") for path in out.glob(journal)) < lines:
        process.join(0.01)
    assert process.is_alive(), out.with_suffix(".txt").read_text()
    process.kill()
    process.join()


@pytest.mark.parametrize("kind", ["video", "tiles"])
def test_killed_and_resumed_runs_end_as_those_left_alone(model: Path, tmp_path: Path, kind: str) -> None:
    """A few SIGKILLs; `python -m benchmarks.kills` gives a hundred."""
    words: tuple[object, ...]
    if kind == "video":
        video = make_video(tmp_path / "film.mp4", 150)
        words = ("video", video, "--model", model, "--threshold", 0.1, "--csv", "--track", "bytetrack")
        journal, moments = f"{UNFINISHED}/journal.jsonl", (40, 130)
    else:
        picture = make_picture(tmp_path / "large.tif", 700)
        words = ("predict", picture, "--model", model, "--tiles", "--json", "--threshold", 0.5)
        journal, moments = f"{PREFIX}*.jsonl", (60,)
    assert tood(*words, "--out", tmp_path / "alone").exit_code == 0
    for lines in moments:
        kill_after(words, tmp_path / "killed", journal, lines)
        assert not results(tmp_path / "killed")
    assert tood(*words, "--out", tmp_path / "killed", "--resume").exit_code == 0
    assert results(tmp_path / "killed") == results(tmp_path / "alone")
