"""What holds for every transform, whatever the picture, the boxes and the draw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.loaders import small_model
from tood.data.dataset import ImageRecord
from tood.data.sampler import SampleKey
from tood.data.samples import TrainImages
from tood.data.transforms import (
    AugmentConfig,
    CanvasStep,
    Circumstances,
    FitStep,
    FlipStep,
    Mosaic,
    MosaicStep,
    MultiScaleResize,
    PhotometricJitter,
    RandomFlip,
    Resize,
    Sample,
    ScaleJitter,
    Transform,
    build_transforms,
    place,
)
from tood.input import InputConfig

SIDES = st.integers(1, 90)
THIN = np.float32(1e-6)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """A picture with boxes inside it: whole, at the borders, thinner than any pixel, in any order."""
    height, width = draw(SIDES), draw(SIDES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 12))
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * [width, height]
    boxes = corners.reshape(count, 4).astype(np.float32)
    for row in range(count):
        kind = draw(st.sampled_from(("any", "any", "whole", "thin", "corner")))
        if kind == "whole":
            boxes[row] = [0, 0, width, height]
        elif kind == "thin":
            boxes[row, 2] = np.nextafter(boxes[row, 0], np.float32(np.inf))
        elif kind == "corner":
            boxes[row] = [np.nextafter(np.float32(width), np.float32(0)), 0, width, THIN]
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(image, boxes, np.arange(len(boxes)), rng.random(len(boxes)) < 0.3)


def require_sound(before: Sample, after: Sample) -> None:
    assert after.image.dtype == np.uint8
    assert after.image.ndim == 3
    assert after.image.shape[2] == 3
    assert min(after.height, after.width) >= 1
    assert after.boxes.dtype == np.float32
    assert after.boxes.shape == (len(after), 4)
    assert len(after.labels) == len(after.crowd) == len(after)
    assert np.isfinite(after.boxes).all()
    assert (after.boxes >= 0).all()
    assert (after.boxes <= np.array([after.width, after.height] * 2)).all()
    assert (after.boxes[:, 2:] > after.boxes[:, :2]).all(), "a width or height that is not positive"
    # Labels number the boxes of `before`: each stays with its flag.
    assert (after.crowd == before.crowd[after.labels]).all()


ALL: list[Transform] = [
    Resize(30, 50),
    Resize(800, 1333),
    MultiScaleResize(7, 33, 60),
    RandomFlip(0.5, 0.5),
    ScaleJitter(48, 64, (0.1, 3.0)),
    ScaleJitter(48, 64, (0.1, 3.0), min_visible=0, min_side=0),
    PhotometricJitter.of_strength(2.0),
]


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
@given(sample=samples(), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_boxes_stay_sound(transform: Transform, sample: Sample, seed: int) -> None:
    require_sound(sample, transform(sample, np.random.default_rng(seed)))


@given(sample=samples(), seed=st.integers(0, 1000), min_side=st.sampled_from((0.0, 2.0)))
@settings(max_examples=40)
def test_boxes_stay_sound_in_a_mosaic(sample: Sample, seed: int, min_side: float) -> None:
    mosaic = Mosaic(40, 56, lambda rng: sample, (0.2, 2.5), min_visible=0.0, min_side=min_side)
    require_sound(sample, mosaic(sample, np.random.default_rng(seed)))


RECIPES = [
    AugmentConfig((FitStep(), FlipStep())),
    AugmentConfig((FitStep(shortest=480), FlipStep())),
    small_model(64).with_step(MosaicStep(0.5)).with_step(FlipStep(0.5, 0.5)),
    small_model(64).with_step(CanvasStep(64, scale=(0.7, 1.5), min_visible=0.0, min_side=0.0)),
]


@pytest.mark.parametrize("config", RECIPES, ids=["1x", "2x", "small", "keeping all"])
@given(sample=samples(), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_whole_recipes_keep_boxes_sound_and_large_enough(config: AugmentConfig, sample: Sample, seed: int) -> None:
    # One pixel beside 1,000 would become the published recipes' smallest input; they take sides of 32 and more.
    after = build_transforms(config, Circumstances(InputConfig(), fetch=lambda rng: sample))(
        sample, np.random.default_rng(seed)
    )
    require_sound(sample, after)
    if config.canvas is not None:
        assert after.image.shape == (64, 64, 3)
        # Of a mosaic's tile the corner is added after the sides were measured: a float32 step at 64.
        assert (after.boxes[:, 2:] - after.boxes[:, :2] >= config.canvas.min_side - 1e-5).all()


@given(
    sample=samples(),
    top=st.integers(-80, 80),
    left=st.integers(-80, 80),
    visible=st.sampled_from((0.0, 0.3, 0.9)),
    side=st.sampled_from((0.0, 2.0, 10.0)),
)
@settings(max_examples=150)
def test_the_area_filter_is_the_one_that_is_told(
    sample: Sample, top: int, left: int, visible: float, side: float
) -> None:
    after = place(sample, 50, 40, top, left, (0, 0, 0), visible, side)
    require_sound(sample, after)
    kept = set(after.labels.tolist())
    for number, box in enumerate(sample.boxes.astype(np.float64)):
        x1, y1, x2, y2 = box + np.array([left, top, left, top])
        width, height = min(x2, 40) - max(x1, 0), min(y2, 50) - max(y1, 0)
        part = max(width, 0) * max(height, 0) / ((x2 - x1) * (y2 - y1))
        # Rounding decides where a number is as good as the limit, or as nothing.
        if min(width, height) > side + 1e-4 and part > visible + 1e-3:
            assert number in kept
        elif min(width, height) < side - 1e-4 or min(width, height) < 0 or part < visible - 1e-3:
            assert number not in kept


def records(folder: Path, count: int = 5) -> list[ImageRecord]:
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8))
        boxes = np.array([[3, 4, 30, 33], [10, 0, 50, 40]], np.float32)
        found.append(
            ImageRecord(number, path, 50, 40 + number, boxes, np.arange(2), np.zeros(2, bool), np.ones(2), np.arange(2))
        )
    return found


@given(seed=st.integers(0, 10**6), epoch=st.integers(0, 10**6), image=st.integers(0, 4), order=st.randoms())
@settings(max_examples=25)
def test_a_sample_depends_on_seed_epoch_and_image_alone(
    tmp_path_factory: pytest.TempPathFactory, seed: int, epoch: int, image: int, order: object
) -> None:
    folder = tmp_path_factory.getbasetemp() / "pictures"
    folder.mkdir(exist_ok=True)
    augment = small_model(64).with_step(MosaicStep(0.5))
    one, other = (TrainImages(records(folder), augment, InputConfig(), seed) for _ in range(2))
    # The other one has given other samples before, as another number of workers would have it.
    keys = [SampleKey(e, i) for e in (epoch, epoch + 1) for i in range(5)]
    order.shuffle(keys)  # type: ignore[attr-defined]
    for key in keys[:4]:
        other[key]
    first, second = one[SampleKey(epoch, image)], other[SampleKey(epoch, image)]
    np.testing.assert_array_equal(first[0].image, second[0].image)
    np.testing.assert_array_equal(first[0].boxes, second[0].boxes)
    assert first[1] == second[1]
    assert not np.array_equal(first[0].image, one[SampleKey(epoch + 1, image)][0].image)
    assert not np.array_equal(
        first[0].image, TrainImages(one.records, augment, InputConfig(), seed + 1)[SampleKey(epoch, image)][0].image
    )
