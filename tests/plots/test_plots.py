"""Pictures: what is drawn where, and that nothing odd breaks them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tood.errors import ToodError
from tood.plots import (
    SheetRow,
    class_colour,
    contact_sheet,
    draw_boxes,
    draw_detections,
    training_curves,
    write_image,
)
from tood.structures import Detections


def detections(boxes: list[list[float]], labels: list[int] | None = None) -> Detections:
    count = len(boxes)
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(
        tensor, torch.linspace(0.9, 0.4, count), torch.tensor(labels or [0] * count), ["cat", "näme", "犬"]
    )


def test_a_box_is_drawn_in_its_class_s_colour_and_the_image_is_left_alone() -> None:
    image = np.full((300, 400, 3), 128, np.uint8)
    drawn = draw_detections(image, detections([[100, 100, 200, 220]], [1]))
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert tuple(drawn[160, 100]) == class_colour(1)
    assert tuple(drawn[220, 150]) == class_colour(1)
    assert (drawn[120:210, 110:190] == 128).all()  # the object stays visible
    assert (drawn[250:] == 128).all()
    assert (drawn[75:98, 100:150] != 128).any()  # the caption above


def test_classes_have_colours_of_their_own() -> None:
    assert len({class_colour(label) for label in range(16)}) == 16
    assert class_colour(0) == class_colour(16)


def test_chips_do_not_overlap() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    same = [[100.0, 100.0, 180.0, 180.0]] * 3
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    alone = [(draw_boxes(image, np.array(same[:1]), [colour], ["words"]) == colour).all(2).sum() for colour in colours]
    together = draw_boxes(image, np.array(same), colours, ["words"] * 3)
    outline = (draw_boxes(image, np.array(same[:1]), [colours[1]]) == colours[1]).all(2).sum()
    # The chip of the second box is whole, although its outline lies under that of the first.
    assert (together == colours[1]).all(2).sum() >= alone[1] - outline


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_any_box_on_any_image(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-100, 160, (5, 4))
    boxes[0, 0], boxes[1, 2] = np.nan, np.inf
    drawn = draw_boxes(
        np.zeros((height, width, 3), np.uint8), boxes, [(255, 0, 0)] * 5, ["a", "", "long words", "犬", "b"]
    )
    assert drawn.shape == (height, width, 3)


def test_very_many_boxes_are_drawn_without_captions() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 900, (10_000, 2))
    boxes = np.concatenate([corners, corners + 20], 1)
    image = np.zeros((1000, 1000, 3), np.uint8)
    drawn = draw_boxes(image, boxes, [(255, 0, 0)] * 10_000, ["words"] * 10_000)
    np.testing.assert_array_equal(drawn, draw_boxes(image, boxes, [(255, 0, 0)] * 10_000))


def test_contact_sheet_shows_truth_beside_predictions(tmp_path: Path) -> None:
    image = np.full((60, 120, 3), 200, np.uint8)
    truth, found = detections([[20, 10, 60, 50]], [0]), detections([[20, 10, 60, 50], [70, 10, 100, 50]], [1, 2])
    rows = [SheetRow(image, truth, found, f"{'long/' * 60}{i}.jpg") for i in range(3)]
    sheet = contact_sheet(rows, tmp_path / "new" / "sheet.png", title="AP 0.9", side=240)
    with Image.open(tmp_path / "new" / "sheet.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), sheet)
    half = 32 + 240 + 8

    def drawn(label: int, part: np.ndarray) -> bool:
        return bool((part == class_colour(label)).all(2).any())

    assert drawn(0, sheet[:, :half])
    assert not drawn(1, sheet[:, :half])
    assert drawn(1, sheet[:, half : 2 * half])
    below = contact_sheet(rows[:1], side=240, threshold=0.95)
    assert not drawn(1, below)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


CURVES = "epoch,lr,loss,loss_cls,loss_box,AP,AP50,AP75\n1,0.1,2,1,1,,,\n2,0.1,1.5,1,.5,0.3,0.5,0.2\n3,0.05,1,.6,.4,,,\n"


@pytest.mark.parametrize(
    "content",
    [
        CURVES,
        "epoch,loss\n1,2\n",
        "loss,AP\n1,0.5\nnan,\n",
        "a,b\n1,2\n",
        "epoch,AP\n1,\n2,-1\n",
        "epoch,loss\n1\n2,3,4\n",
    ],
)
def test_curves_of_any_columns(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    training_curves(tmp_path / "m.csv", tmp_path / "new" / "c.png", title="run")
    with Image.open(tmp_path / "new" / "c.png") as picture:
        assert picture.width > 1000
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c.png"]


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "no metrics file"), ("epoch,loss\n", "no row"), ("", "no row")]
)
def test_wrong_metrics_are_one_sentence(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "m.csv").write_text(content)
    with pytest.raises(ToodError, match=sentence):
        training_curves(tmp_path / "m.csv", tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_pictures_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    write_image(tmp_path / "deep" / "a.png", image)
    write_image(tmp_path / "deep" / "a.jpg", image)
    with Image.open(tmp_path / "deep" / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), image)
    with pytest.raises(ToodError, match=r"a\.xyz cannot be written"):
        write_image(tmp_path / "deep" / "a.xyz", image)
    with pytest.raises(ToodError, match="cannot be written"):
        write_image(tmp_path / "deep" / "a.png" / "b.png", image)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.jpg", "a.png"]
