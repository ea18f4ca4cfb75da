"""A split is read in one pass, and what other splits hold is asked for by listings alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tood.data import load_dataset
from tood.data.files import file_identity, may_hold
from tood.data.formats.yolo_yaml import read_layout

PICTURES = 6


def yolo_folder(root: Path) -> Path:
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for number in range(PICTURES):
            exif = Image.Exif()
            exif[0x0112] = 1
            Image.new("RGB", (64, 48), (number, 0, len(split))).save(
                root / "images" / split / f"{number}.jpg", exif=exif
            )
            (root / "labels" / split / f"{number}.txt").write_text("0 .5 .5 .2 .2\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    return root


@pytest.mark.parametrize("split", ["train", "val"])
def test_each_file_is_opened_once(tmp_path: Path, split: str) -> None:
    code = """
import sys
from tood.data import load_dataset
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
assert len(load_dataset(sys.argv[1], sys.argv[2]).images) == 6
print("\\n".join(path for path in opened if path.startswith(sys.argv[1])))
"""
    root = yolo_folder(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, root, split], capture_output=True, text=True, check=True)
    counts = Counter(path for path in done.stdout.splitlines() if path.endswith((".jpg", ".txt")))
    expected = {root / kind / split / f"{n}.{end}" for n in range(PICTURES) for kind, end in KINDS}
    assert {Path(path) for path in counts} == expected
    assert set(counts.values()) == {1}


KINDS = (("images", "jpg"), ("labels", "txt"))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_picture_of_another_split_is_found_through_links(tmp_path: Path, link: object) -> None:
    root = yolo_folder(tmp_path)
    assert not load_dataset(root, "val").problems
    link(root / "images" / "train" / "3.jpg", root / "images" / "val" / "x.jpg")  # type: ignore[operator]
    (problem,) = (p for p in load_dataset(root, "val").problems if p.kind == "in_two_splits")
    assert problem.message == f"is in split 'train', too, as {root / 'images' / 'train' / '3.jpg'}"


def test_what_a_folder_may_hold(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path)
    own = {file_identity(path) for path in (root / "images" / "val").iterdir()}
    assert may_hold(root, own)
    assert not may_hold(root / "images" / "train", own)
    assert not may_hold(root / "images" / "train", set())
    assert may_hold(root / "data.yaml", own), "of a list nothing is known"
    (root / "images" / "train" / "deep").mkdir()
    assert not may_hold(root / "images" / "train", own)
    os.link(root / "images" / "val" / "0.jpg", root / "images" / "train" / "deep" / "0.jpg")
    assert may_hold(root / "images" / "train", own)


def test_the_names_of_many_classes_are_read_in_time_for_their_number(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path)

    def seconds(classes: int) -> float:
        names = "".join(f"  {number}: class {number}\n" for number in range(classes))
        (root / "data.yaml").write_text(f"train: images/train\nnames:\n{names}")
        gc.collect()
        gc.disable()  # else it looks through what tests before left, too
        try:
            begin = time.process_time()
            assert len(read_layout(root / "data.yaml").categories) == classes
            return time.process_time() - begin
        finally:
            gc.enable()

    seconds(100)
    pairs = [(seconds(4000), seconds(16_000)) for _ in range(4)]
    few, many = map(min, zip(*pairs, strict=True))
    assert many < 8 * few
