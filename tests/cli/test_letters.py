"""The whole way, from a dataset to pictures, on paths of any letters and in the locale C, which knows none."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from benchmarks.interruptions import NARROW_SETTINGS

import tood

# Blanks, signs of YAML, Rich and the shell, letters of several scripts and beyond U+FFFF.
FOLDER = "my #1 'pictures' [red] :dog: $x & 写真 صور 📷"
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0"},
    "C, coerced": {"LANG": "C"},
    "UTF-8": {"LC_ALL": "C.UTF-8"},
}


def below(folder: Path, name: str) -> Path:
    """A path with a name in UTF-8: the tests may themselves run in the locale C, where Python has none for it."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name.encode()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A YOLO dataset of two pictures a split."""
    root = below(tmp_path, FOLDER)
    for split in ("train", "val"):
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)
            image, label = (below(root, f"{kind}/{split}/写真 {i} 📷") for kind in ("images", "labels"))
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            below(image.parent, f"写真 {i} 📷.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            below(label.parent, f"写真 {i} 📷.txt").write_text(f"{i} 0.5 0.5 0.5 0.5\n")
    names = json.dumps(["犬", "🐕 #1"], ensure_ascii=False)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {names}\n", encoding="utf-8")
    return root


def tood_in(locale: str, *arguments: Path | str | bytes, at: Path) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    environment = {**kept, **LOCALES[locale], "PYTHONPATH": str(Path(tood.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tood", *arguments]
    done = subprocess.run(command, env=environment, cwd=at, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done


def worked(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8")


@pytest.mark.parametrize("locale", ["C", "UTF-8"])
def test_the_whole_way_on_a_path_of_any_letters(folder: Path, locale: str) -> None:
    settings = [part for setting in (*NARROW_SETTINGS, "checkpoint_minutes=0") for part in ("--set", setting)]
    run, out, figures = (below(folder, name) for name in ("run #2 📷", "found 📷", "数.json"))
    length = ("--size", "32", "--workers", "0", "--batch-size", "2", "--device", "cpu", "--epochs", "1")
    what = ("--data", folder, "--model", "tood_tiny", "--out", run)
    said = worked(tood_in(locale, "train", *what, *length, *settings, at=folder)).splitlines()
    assert any(f"yolo, {os.fsencode(folder).decode()})" in line for line in said), "the path as it is"
    # The command that is printed can be pasted.
    paste = next(line for line in said if line.startswith("To use them: "))
    words = shlex.split(paste.removeprefix("To use them: ").removesuffix("PICTURE"))
    assert words[:3] == ["tood", "predict", "--model"]
    assert words[3].encode() == os.fsencode(run / "best.safetensors")
    assert (run / "tensorboard").is_dir()
    again = folder / "again"
    worked(tood_in(locale, "train", "--config", run / "config.yaml", "--out", again, at=folder))
    assert (again / "best.safetensors").is_file()

    picture = below(folder, "images/val/写真 1 📷.png")
    options = ("--model", run, "--out", out, "--json", "--csv", "--threshold", "0")
    worked(tood_in(locale, "predict", picture, *options, at=folder))
    [entry] = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert entry["image"].encode() == os.fsencode(picture)
    assert {one["name"] for one in entry["detections"]} <= {"犬", "🐕 #1"}
    rows = csv.DictReader((out / "predictions.csv").read_text(encoding="utf-8").splitlines())
    assert {row["image"].encode() for row in rows} <= {os.fsencode(picture)}
    assert below(out, "写真 1 📷.png").is_file()

    where = ("--data", folder, "--split", "val", "--workers", "0", "--json", figures)
    worked(tood_in(locale, "eval", "--model", run, *where, at=folder))
    assert figures.is_file()


@pytest.mark.parametrize("locale", LOCALES)
def test_what_is_said_shows_the_letters(folder: Path, locale: str) -> None:
    done = tood_in(locale, "data", "stats", folder, "--out", below(folder, "📷"), at=folder)
    said = worked(done)
    assert "犬" in said
    assert f"picture: {os.fsencode(below(folder, '📷')).decode()}/stats_train.png" in said
    missing = tood_in(locale, "data", "stats", "/none 写真 📷".encode(), at=folder)
    assert missing.returncode == 2
    assert missing.stderr.decode("utf-8").startswith("tood: /none 写真 📷: no such dataset")


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names are text on this system")
def test_a_name_that_is_no_utf_8_is_a_name(folder: Path, locale: str) -> None:
    missing = tood_in(locale, "data", "stats", b"/none caf\xe9", at=folder)
    assert missing.returncode == 2
    assert missing.stderr.decode("utf-8").startswith("tood: /none caf\\udce9: no such dataset")


def test_a_script_that_calls_the_command_is_not_started_twice(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text("print('once', flush=True)\nfrom tood.cli import main\nmain()\n")
    kept = {**os.environ, **LOCALES["C"], "PYTHONPATH": str(Path(tood.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(script), "--version"], env=kept, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("once") == 1
