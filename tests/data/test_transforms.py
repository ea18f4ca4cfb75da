"""Transforms that move pixels: the boxes go with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import effort
from tood.data.transforms import (
    Mosaic,
    MultiScaleResize,
    RandomFlip,
    Resize,
    Sample,
    ScaleJitter,
    Transform,
    clip_boxes,
    flip,
    place,
)
from tood.input import fitting_scale, scaled_size

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)


def coloured(rng: np.random.Generator, height: int, width: int) -> Sample:
    """Three rectangles of pure colours that do not touch, one in each third; the label is the colour."""
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    boxes = []
    for colour in range(3):
        left, right = width * colour // 3, width * (colour + 1) // 3
        x1, x2 = left + 1 + int(rng.integers(0, 6)), right - 1 - int(rng.integers(0, 6))
        y1, y2 = int(rng.integers(0, height // 3)), height - int(rng.integers(0, height // 3))
        image[y1:y2, x1:x2] = COLOURS[colour]
        boxes.append([x1, y1, x2, y2])
    return Sample(image, np.array(boxes, dtype=np.float32), np.arange(3), np.array([False, True, False]))


def many(count: int, height: int = 300, width: int = 400) -> Sample:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [width - 12, height - 12], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 12, (count, 2))], axis=1).astype(np.float32)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(image, boxes, rng.integers(0, 80, count), rng.random(count) < 0.1)


def another(rng: np.random.Generator) -> Sample:
    return coloured(rng, 60, 150)


GEOMETRIC: list[Transform] = [
    Resize(80, 200),
    MultiScaleResize(60, 200, 300),
    RandomFlip(0.5, 0.5),
    ScaleJitter(96, 160, (0.4, 2.0)),
    Mosaic(160, 192, another, (0.6, 1.5)),
]


@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda transform: type(transform).__name__)
@given(seed=st.integers(0, 10_000), height=st.integers(60, 120), width=st.integers(90, 220))
@settings(max_examples=40)
def test_boxes_stay_on_their_pixels(transform: Transform, seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    before = coloured(rng, height, width)
    after = transform(before, rng)

    assert after.image.dtype == np.uint8
    assert after.boxes.dtype == np.float32
    assert len(after.boxes) == len(after.labels) == len(after.crowd)
    assert (after.boxes[:, :2] >= 0).all()
    assert (after.boxes[:, 2:] <= [after.width, after.height]).all()
    assert (after.boxes[:, 2:] > after.boxes[:, :2]).all()
    assert (after.crowd == (after.labels == 1)).all()
    if isinstance(transform, Mosaic):
        return  # several rectangles of a colour: see the test of the mosaic
    for box, label in zip(after.boxes, after.labels, strict=True):
        # More than half this colour: a bilinear edge pixel belongs to the side that has more of it.
        here = np.abs(after.image.astype(int) - COLOURS[label]).max(axis=2) < 64
        rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(np.array(found) - box).max() <= 1.0


@given(seed=st.integers(0, 10_000))
def test_mosaic_boxes_cover_their_colour_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    after = Mosaic(160, 192, another, (0.8, 1.5), min_visible=0, min_side=0)(another(rng), rng)
    assert after.image.shape == (160, 192, 3)
    for box, label in zip(after.boxes, after.labels, strict=True):
        x1, y1, x2, y2 = np.concatenate([np.ceil(box[:2] + 1), np.floor(box[2:] - 1)]).astype(int)
        inside = after.image[y1 : max(y1, y2), x1 : max(x1, x2)].reshape(-1, 3)  # none of a sliver
        assert (np.abs(inside.astype(int) - COLOURS[label]) < 64).all()
    # Nothing of a colour outside all boxes, but for a pixel of border.
    for label in range(3):
        left = np.abs(after.image.astype(int) - COLOURS[label]).max(axis=2) < 64
        for box in after.boxes[after.labels == label]:
            x1, y1, x2, y2 = np.concatenate([np.floor(box[:2] - 1), np.ceil(box[2:] + 1)]).astype(int).clip(0)
            left[y1:y2, x1:x2] = False
        assert not left.any()


@pytest.mark.parametrize(
    ("height", "width", "short", "long", "expected"),
    [
        (480, 640, 800, 1333, (800, 1067)),  # COCO's most frequent size: 1066.67 rounded half up
        (640, 480, 800, 1333, (1067, 800)),
        (500, 375, 800, 1333, (1067, 800)),
        (333, 1000, 800, 1333, (444, 1333)),  # the long side limits
        (427, 640, 800, 1333, (800, 1199)),
        (480, 640, 320, 320, (240, 320)),
        (1, 1, 800, 1333, (800, 800)),
        (1, 5000, 800, 1333, (1, 1333)),  # never 0 pixels
    ],
)
def test_resize_rule(height: int, width: int, short: int, long: int, expected: tuple[int, int]) -> None:
    assert scaled_size(height, width, fitting_scale(height, width, short, long)) == expected
    image = np.zeros((height, width, 3), dtype=np.uint8)
    sample = Sample(image, np.array([[0, 0, width, height]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    after = Resize(short, long)(sample, np.random.default_rng(0))
    assert after.image.shape[:2] == expected
    np.testing.assert_allclose(after.boxes, [[0, 0, expected[1], expected[0]]], rtol=1e-6)


def test_resize_scales_each_axis_by_its_own_rounding() -> None:
    sample = many(50, 333, 500)
    after = Resize(200, 299)(sample, np.random.default_rng(0))
    factors = [after.width / 500, after.height / 333] * 2
    assert factors[0] != factors[1]
    np.testing.assert_allclose(after.boxes, sample.boxes * factors, rtol=1e-5)


def test_multi_scale_draws_every_short_side_including_both_ends() -> None:
    transform, rng = MultiScaleResize(30, 33, 100), np.random.default_rng(0)
    seen = {min(transform(many(1), rng).image.shape[:2]) for _ in range(100)}
    assert seen == {30, 31, 32, 33}


@given(seed=st.integers(0, 1000), horizontal=st.booleans())
def test_flip_twice_is_identity(seed: int, horizontal: bool) -> None:
    sample = coloured(np.random.default_rng(seed), 40, 100)
    once = flip(sample, horizontal)
    twice = flip(once, horizontal)
    assert not np.array_equal(once.boxes, sample.boxes) or np.array_equal(once.image, sample.image)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(twice.boxes, sample.boxes)


def test_flip_probability() -> None:
    sample, rng = many(5), np.random.default_rng(0)
    assert all(RandomFlip(0.0, 0.0)(sample, rng) is sample for _ in range(20))
    np.testing.assert_array_equal(RandomFlip(1.0, 0.0)(sample, rng).image, sample.image[:, ::-1])
    np.testing.assert_array_equal(RandomFlip(0.0, 1.0)(sample, rng).image, sample.image[::-1])
    flipped = sum(RandomFlip(0.3)(sample, rng) is not sample for _ in range(500))
    assert 110 < flipped < 190


def test_too_little_left_of_a_box_drops_it() -> None:
    boxes = np.array(
        [
            [-10, 0, 10, 20],
            [-15, 0, 5, 20],
            [90, 90, 101, 101],
            [98.5, 0, 140, 100],
            [50, 50, 50, 60],
            [-9, -9, -1, -1],
        ],
        dtype=np.float32,
    )
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    sample = Sample(image, boxes, np.arange(6), np.array([True] * 6))
    after = clip_boxes(sample, min_visible=0.4, min_side=2)
    assert after.labels.tolist() == [0, 2]
    assert after.crowd.tolist() == [True, True]
    assert after.boxes.tolist() == [[0, 0, 10, 20], [90, 90, 100, 100]]
    # With no demands, only what has no area goes.
    assert clip_boxes(sample, 0, 0).labels.tolist() == [0, 1, 2, 3]


def test_place_fills_what_is_free_and_cuts_what_is_over() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8)
    sample = replace(many(1), image=image, boxes=np.array([[0, 0, 20, 10]], dtype=np.float32))
    after = place(sample, 8, 40, -4, 5, (1, 2, 3), 0, 0)
    assert after.boxes.tolist() == [[5, 0, 25, 6]]
    np.testing.assert_array_equal(after.image[:6, 5:25], sample.image[4:])
    assert (after.image[6:] == [1, 2, 3]).all()
    assert (after.image[:, 25:] == [1, 2, 3]).all()


def test_scale_jitter_uses_its_whole_range_and_always_fills_its_canvas() -> None:
    transform, rng = ScaleJitter(64, 64, (0.5, 2.0), min_visible=0, min_side=0), np.random.default_rng(0)
    widths = []
    for _ in range(200):
        sample = Sample(
            np.full((64, 64, 3), 255, np.uint8),
            np.array([[31, 31, 33, 33]], np.float32),
            np.zeros(1, int),
            np.zeros(1, bool),
        )
        after = transform(sample, rng)
        assert after.image.shape == (64, 64, 3)
        widths += [float(box[2] - box[0]) / 2 for box in after.boxes]
    assert min(widths) < 0.6
    assert max(widths) > 1.7


@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda transform: type(transform).__name__)
def test_empty_images_pass(transform: Transform) -> None:
    after = transform(many(0), np.random.default_rng(3))
    if not isinstance(transform, Mosaic):
        assert after.boxes.shape == (0, 4)
        assert len(after.labels) == len(after.crowd) == 0


@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda transform: type(transform).__name__)
def test_inputs_are_never_written(transform: Transform) -> None:
    sample = many(20)
    for array in (sample.image, sample.boxes, sample.labels, sample.crowd):
        array.setflags(write=False)  # a write would raise
    for seed in range(5):
        transform(sample, np.random.default_rng(seed))


def test_ten_thousand_boxes_cost_little() -> None:
    few, all_of_them = many(100), many(10_000)
    for transform in GEOMETRIC:
        of_few = effort(lambda transform=transform: transform(few, np.random.default_rng(0)))
        of_all = effort(lambda transform=transform: transform(all_of_them, np.random.default_rng(0)))
        assert of_all.calls <= of_few.calls, "nothing is done box by box"
        assert of_all.memory < of_few.memory + 10_000 * 500, "nor each box with each other one"
