"""Records kept as columns are those that were given, however they are picked, and small in loading processes."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.loaders import small_model, train_loader
from dataset_files import box_row, coco, image_row, write_coco_folder, write_image
from tood.data import load_dataset
from tood.data.columns import PathColumn, TextColumn
from tood.data.dataset import Category, DetectionDataset, ImageRecord
from tood.data.records import ImageRecords

TEXTS = st.text(st.characters(exclude_characters="\0/", exclude_categories=()), min_size=1, max_size=8).filter(
    lambda text: text not in (".", "..")
)
NAMES = st.lists(TEXTS, min_size=1, max_size=3).map("/".join)


@st.composite
def records(draw: st.DrawFn) -> list[ImageRecord]:
    found = []
    for number in range(draw(st.integers(0, 7))):
        name = draw(NAMES)
        count = draw(st.integers(0, 3))
        rng = np.random.default_rng(number)
        found.append(
            ImageRecord(
                id=7 * number - 3,
                path=Path(
                    draw(st.sampled_from(("/top", "top", "/top/inner"))), *([name] if draw(st.booleans()) else ["x"])
                ),
                width=draw(st.integers(1, 1 << 24)),
                height=50 + number,
                boxes=rng.uniform(0, 50, (count, 4)).astype(np.float32),
                labels=rng.integers(0, 5, count),
                crowd=rng.random(count) < 0.5,
                areas=rng.uniform(1, 9, count),
                annotation_ids=rng.integers(0, 1 << 62, count),
                file_name=draw(st.sampled_from((name, "", "elsewhere/x"))),
                turned=draw(st.booleans()),
                size_from_file=draw(st.booleans()),
                orientation=draw(st.sampled_from((None, 1, 8))),
            )
        )
    return found


def assert_alike(found: ImageRecord, wanted: ImageRecord) -> None:
    assert found.name == wanted.name
    for field in fields(ImageRecord):
        own, other = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(other, np.ndarray):
            assert own.dtype == other.dtype
            np.testing.assert_array_equal(own, other)
        else:
            assert own == other
            assert type(own) is type(other)


@given(given_ones=records(), data=st.data())
def test_records_come_back_as_they_were(given_ones: list[ImageRecord], data: st.DataObject) -> None:
    columns = ImageRecords.of(given_ones)
    again = pickle.loads(pickle.dumps(columns))
    start, stop = data.draw(st.integers(-8, 8)), data.draw(st.integers(-8, 8))
    picked = data.draw(st.lists(st.integers(0, len(given_ones) - 1), max_size=5)) if given_ones else []
    pairs = [
        (columns, given_ones),
        (again, given_ones),
        (columns[start:stop], given_ones[start:stop]),
        (columns[::-2], given_ones[::-2]),
        (columns.take(np.array(picked, np.int64)), [given_ones[at] for at in picked]),
        (ImageRecords.join([columns, columns]), given_ones * 2),
        (ImageRecords.of([*columns, *columns[:1]]), given_ones + given_ones[:1]),
    ]
    if given_ones:
        other = replace(given_ones[0].select(np.zeros(len(given_ones[0].labels), bool)), id=1000, file_name="new")
        pairs.append((columns.replaced({len(given_ones) - 1: other}), [*given_ones[:-1], other]))
        assert columns[-1].id == given_ones[-1].id
    for found, wanted in pairs:
        assert len(found) == len(wanted)
        assert list(found.names()) == [record.name for record in wanted]
        for own, other in zip(found, wanted, strict=True):
            assert_alike(own, other)
    for at in (len(given_ones), -len(given_ones) - 1):
        with pytest.raises(IndexError):
            columns[at]


@given(texts=st.lists(st.text(st.characters(exclude_categories=()), max_size=6)), data=st.data())
def test_texts_come_back_as_they_were(texts: list[str], data: st.DataObject) -> None:
    column = TextColumn.of(texts)
    assert list(column) == [column[at] for at in range(len(texts))] == texts
    picked = data.draw(st.lists(st.integers(0, len(texts) - 1))) if texts else []
    assert list(column.take(np.array(picked, np.int64))) == [texts[at] for at in picked]


@given(names=st.lists(NAMES), top=st.sampled_from(("/", "", "/a/b", "a")))
def test_paths_come_back_as_they_were(names: list[str], top: str) -> None:
    paths = [Path(top, name) for name in names]
    column = PathColumn.of(map(str, paths))
    assert column == paths
    assert column == tuple(paths)
    assert list(column.texts()) == [str(path) for path in paths]
    assert column != [*paths, Path("x")]
    found = {int(at): folder / column.bases[int(at)] for folder, own in column.by_folder() for at in own}
    assert found == dict(enumerate(paths))


def made(folder: Path, images: int) -> DetectionDataset:
    """A dataset that names its images only."""
    rows = [
        ImageRecord(
            number,
            folder / f"{number:09}.jpg",
            640,
            480,
            np.array([[1, 2, 30, 40]] * 8, np.float32),
            np.arange(8),
            np.zeros(8, np.bool_),
            np.ones(8),
            np.arange(8),
            f"{number:09}.jpg",
        )
        for number in range(images)
    ]
    return DetectionDataset(folder, "train", "coco", tuple(Category(c, str(c)) for c in range(8)), tuple(rows))


def test_loading_processes_are_handed_no_records(tmp_path: Path) -> None:
    """A process that is spawned gets what is pickled here: a few handles, however many images there are."""
    sizes = []
    for images in (500, 5000):
        loader = train_loader(made(tmp_path, images), small_model(64), 2, 0, cache=False)
        sizes.append(len(ForkingPickler.dumps(loader.dataset)))
    assert sizes[1] - sizes[0] < 500
    assert sizes[1] < 20_000


def test_what_is_handed_over_is_the_same_and_there_once(tmp_path: Path) -> None:
    columns = made(tmp_path, 100).columns
    first, second = (pickle.loads(ForkingPickler.dumps(columns)) for _ in range(2))
    for found in (first, second):
        for own, other in zip(found, columns, strict=True):
            assert_alike(own, other)
    first.boxes.areas[5] = 77
    assert second.boxes.areas[5] == 77, "one block of memory"


def test_plain_copies_are_flat(tmp_path: Path) -> None:
    columns = made(tmp_path, 3000).columns
    # 41 bytes a box and some 60 an image, the name among them.
    assert len(pickle.dumps(columns)) < 3000 * (8 * 41 + 100) + 10_000


def test_the_digest_is_that_of_the_records_one_by_one(tmp_path: Path) -> None:
    dataset = made(tmp_path, 5)
    turned = replace(dataset, images=dataset.columns.replaced({2: replace(dataset.images[2], turned=True)}))
    assert dataset.digest() == "f0f31caf5b2ed084087f00301e0c106b91deaa27e61602214166e5295f891538"
    assert turned.digest() != dataset.digest()


def places(folder: Path, names: list[str], there: list[str]) -> list[str]:
    """Where the names of a COCO json start from, below its folder of pictures, of which these are there."""
    images = [image_row(number, name) for number, name in enumerate(names, start=1)]
    write_coco_folder(folder, coco(images, [box_row(1, 1)], {3: "cat"}), images=False)
    home = folder / "train2017"
    for name in there:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(home / name)
    return sorted(str(place.relative_to(home)) for place in load_dataset(folder).columns.places())


def test_names_that_lead_elsewhere_start_from_no_place(tmp_path: Path) -> None:
    outside = write_image(tmp_path / "outside.png")
    assert places(tmp_path / "d", ["a/b.png", str(outside), "../../outside.png"], ["a/b.png"]) == ["."]
