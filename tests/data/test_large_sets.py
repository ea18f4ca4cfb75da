"""Memory that datasets take for each image and box: a set of Objects365's size must fit, so each is a few bytes.

Counted by tracemalloc on sets of some thousand images, by the difference of two sizes, so that what is the same for any
dataset does not count.
"""

from __future__ import annotations

import gc
import re
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from benchmarks.large_sets import Size, write_coco, write_voc, write_yolo

from tood.data import Category, ImageRecord, dataset_stats, load_dataset
from tood.data import write_coco as write_coco_json
from tood.errors import ToodError
from tood.evaluation import GroundTruth

IMAGES = 1000
# Of several blocks that are read at once, so that another one adds nothing.
COCO, FOLDERS = Size(IMAGES, 12 * IMAGES, 5, 40, 1), Size(IMAGES // 2, 2 * IMAGES, 5, 0, 1)


def grown(size: Size) -> Size:
    """A set twice as large."""
    return Size(2 * size.images, 2 * size.boxes, size.classes, size.points, size.folders)


def memory(work: Callable[[], object]) -> tuple[int, int]:
    """Bytes that are held by what some work gives, and at the most on the way."""
    work()  # what is loaded and compiled once
    # Threads get their own lasting buffers when they are first needed, and Python's table of the strings that it keeps
    # once, parts of paths among them, is laid out anew now and then: either may be in any of them.
    helds, highests = zip(*(_traced(work) for _ in range(3)), strict=True)
    return min(helds), min(highests)


def _traced(work: Callable[[], object]) -> tuple[int, int]:
    gc.collect()  # so that the collector's next turns do not depend on the tests before
    tracemalloc.start()
    kept = work()
    highest = tracemalloc.get_traced_memory()[1]
    gc.collect()  # tuples that Python keeps for use again do not count
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return held, highest


def per_image(small: Callable[[], object], large: Callable[[], object], images: int) -> tuple[float, float]:
    """Bytes held, and at the most, for each of so many images that one set has more than the other."""
    (held, highest), (more_held, more_highest) = memory(small), memory(large)
    return (more_held - held) / images, (more_highest - highest) / images


def test_a_coco_json_takes_a_few_bytes_a_box(tmp_path: Path) -> None:
    for name, size in (("small", COCO), ("large", grown(COCO))):
        write_coco(tmp_path / name, size)
    held, highest = per_image(
        partial(load_dataset, tmp_path / "small"), partial(load_dataset, tmp_path / "large"), COCO.images
    )
    boxes = 12
    assert held < boxes * 45 + 110  # 41 a box, and an image's columns with its name
    # The file alone has 900 bytes a box. What is read is there beside what is made of it, and for a moment the names.
    assert highest < boxes * 200 + 700
    held, highest = per_image(
        lambda: GroundTruth.from_json(tmp_path / "small" / "annotations" / "instances_train2017.json"),
        lambda: GroundTruth.from_json(tmp_path / "large" / "annotations" / "instances_train2017.json"),
        COCO.images,
    )
    assert held < boxes * 65 + 20
    assert highest < boxes * 220 + 300


@pytest.mark.parametrize("write", [write_yolo, write_voc])
def test_a_folder_of_files_takes_a_few_bytes_an_image(tmp_path: Path, write: Callable[[Path, Size], None]) -> None:
    for name, size in (("small", FOLDERS), ("large", grown(FOLDERS))):
        write(tmp_path / name, size)
    held, highest = per_image(
        partial(load_dataset, tmp_path / "small"), partial(load_dataset, tmp_path / "large"), FOLDERS.images
    )
    assert held < 4 * 45 + 200
    # 2,300 at the most, and each picture's path twice: one with letters beyond Latin takes four bytes a letter.
    assert 0 < highest < 2400 + 2 * sys.getsizeof(str(tmp_path / "large" / "JPEGImages" / "000000000001.jpg"))


def test_figures_of_a_dataset_take_a_few_bytes_a_box(tmp_path: Path) -> None:
    write_coco(tmp_path, COCO)
    dataset = load_dataset(tmp_path)
    _, highest = memory(lambda: dataset_stats(dataset))
    assert highest < dataset.box_count * 120 + 200_000


def test_a_json_is_written_as_it_is_made(tmp_path: Path) -> None:
    record = ImageRecord(
        1,
        Path("a.jpg"),
        640,
        480,
        np.array([[1, 2, 30, 40]] * 20, np.float32),
        np.zeros(20, np.int64),
        np.zeros(20, np.bool_),
        np.ones(20),
        np.arange(20),
    )
    _, highest = memory(lambda: write_coco_json(tmp_path / "a.json", [Category(1, "a")], (record for _ in range(1000))))
    assert (tmp_path / "a.json").stat().st_size > 2_000_000
    assert highest < 1_000_000


def cut(text: bytes) -> bytes:
    return text[:-100]


def odd_last_row(text: bytes) -> bytes:
    place = text.rindex(b'"bbox": [')
    return text[:place] + b'"bbox": [1]' + text[text.index(b"]", place) + 1 :]


def written_as_floats(text: bytes) -> bytes:
    return re.sub(rb'("image_id": \d+)', rb"\1.0", text)


def without_ids(text: bytes) -> bytes:
    return re.sub(rb', "id": \d+\}(?=, \{"segm|\], "cat)', b"}", text)


def misspelt(text: bytes) -> bytes:
    return text.replace(b'"annotations"', b'"anotations"')


def no_list(text: bytes) -> bytes:
    """Its annotations by their numbers."""
    head, rows = text.split(b'"annotations": [')
    return head + b'"annotations": {' + rows.replace(b'{"segm', b'"7": {"segm').replace(b'], "cat', b'}, "cat')


@pytest.mark.parametrize("spoil", [cut, odd_last_row, written_as_floats, without_ids, misspelt, no_list])
def test_an_odd_coco_json_takes_no_more_than_a_usual_one(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    for name, size in (("small", COCO), ("large", grown(COCO))):
        write_coco(tmp_path / name, size)
        path = tmp_path / name / "annotations" / "instances_train2017.json"
        text = spoil(path.read_bytes())
        assert text != path.read_bytes()
        path.write_bytes(text)

    def load(name: str) -> object:
        try:
            return load_dataset(tmp_path / name)
        except ToodError as error:
            return str(error)

    assert isinstance(load("large"), str) == (spoil in (cut, odd_last_row, no_list))
    _, highest = per_image(partial(load, "small"), partial(load, "large"), COCO.images)
    assert highest < 12 * 200 + 700  # as above; as objects its rows take several thousand bytes an image
