"""SSD's transforms: what they promise of boxes and pixels, on random pictures."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tood.data.transforms import (
    AugmentConfig,
    Circumstances,
    CropStep,
    Distort,
    DistortStep,
    Expand,
    ExpandStep,
    FitStep,
    FlipStep,
    Sample,
    SampledCrop,
    Stretch,
    StretchStep,
    build_transforms,
)
from tood.errors import ToodError
from tood.input import InputConfig


def picture(seed: int, count: int = 5) -> Sample:
    """Random pixels and boxes; the colour of each box's middle pixel is its own."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(20, 90, 2))
    low = rng.uniform(0, 0.7, (count, 2)) * (width, height)
    high = np.minimum(low + rng.uniform(4, 60, (count, 2)), (width, height))
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Sample(pixels, boxes, np.arange(count), np.zeros(count, np.bool_))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.clip(high - low, 0, None))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


@given(st.integers(0, 10_000))
def test_expansion_moves_picture_and_boxes_together(seed: int) -> None:
    sample = picture(seed)
    out = Expand(3.0, 1.0, (9, 8, 7))(sample, np.random.default_rng(seed))
    shift = out.boxes - sample.boxes
    left, top = (round(float(v)) for v in shift[0, :2])
    np.testing.assert_allclose(shift, np.broadcast_to([left, top, left, top], shift.shape), atol=1e-3)
    assert np.array_equal(out.image[top : top + sample.height, left : left + sample.width], sample.image)
    assert sample.height <= out.height <= 3 * sample.height
    outside = np.ones(out.image.shape[:2], np.bool_)
    outside[top : top + sample.height, left : left + sample.width] = False
    assert (out.image[outside] == (9, 8, 7)).all()
    assert np.array_equal(Expand(3.0, 0.0)(sample, np.random.default_rng(seed)).image, sample.image)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7]))
def test_a_crop_is_one_that_its_definition_allows(seed: int, threshold: float) -> None:
    sample = picture(seed)
    crop = SampledCrop((threshold,))
    # Marked by place, so that a crop's place shows.
    rows, columns = np.mgrid[: sample.height, : sample.width].astype(np.uint8)
    sample = replace(sample, image=np.stack([rows, columns, rows], axis=2))
    out = crop(sample, np.random.default_rng(seed))
    if out is sample:
        return
    top, left = int(out.image[0, 0, 0]), int(out.image[0, 0, 1])
    part = np.array([left, top, left + out.width, top + out.height], np.float32)
    assert np.array_equal(out.image, sample.image[top : top + out.height, left : left + out.width])
    assert max(iou(box, part) for box in sample.boxes) >= threshold
    aspect = (out.width / sample.width) / (out.height / sample.height)
    slack = 2 / min(out.width, out.height)
    assert 0.5 * (1 - slack) <= aspect <= 2 * (1 + slack)
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    kept = ((centres >= part[:2]) & (centres < part[2:])).all(axis=1)
    assert out.labels.tolist() == sample.labels[kept].tolist()
    assert len(out) > 0
    wanted = np.clip(sample.boxes[kept], part[[0, 1, 0, 1]], part[[2, 3, 2, 3]]) - part[[0, 1, 0, 1]]
    np.testing.assert_allclose(out.boxes, wanted, atol=1e-4)


def test_crops_happen_and_now_and_then_do_not() -> None:
    sample = picture(1)
    kinds = [SampledCrop()(sample, np.random.default_rng(seed)) is sample for seed in range(200)]
    assert 10 < sum(kinds) < 100
    empty = replace(sample, boxes=sample.boxes[:0], labels=sample.labels[:0], crowd=sample.crowd[:0])
    assert SampledCrop()(empty, np.random.default_rng(0)) is empty


def test_distortion_changes_one_property_at_a_time() -> None:
    sample = picture(2)
    grey = replace(sample, image=np.repeat(sample.image[..., :1], 3, axis=2))
    only = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "probability": 1.0}
    for name, value in (("saturation", 0.5), ("hue", 18.0)):
        out = Distort(**only | {name: value})(grey, np.random.default_rng(0))
        assert np.abs(out.image.astype(int) - grey.image).max() <= 1, name  # greys stay grey
    for name in ("brightness", "contrast"):
        factors = []
        for seed in range(30):
            out = Distort(**only | {name: 0.5})(sample, np.random.default_rng(seed))
            dim = (sample.image > 60) & (sample.image < 160)
            factors.append(float((out.image[dim] / sample.image[dim]).mean()))
        assert 0.49 <= min(factors) < 0.7 < 1.3 < max(factors) <= 1.51, name
    assert Distort(probability=0.0)(sample, np.random.default_rng(0)) is sample
    turned = Distort(**only | {"hue": 18.0})(
        replace(sample, image=np.full((4, 4, 3), (200, 90, 90), np.uint8)), np.random.default_rng(5)
    )
    hue = colorsys.rgb_to_hsv(*(turned.image[0, 0] / 255))[0] * 360
    assert min(hue, 360 - hue) < 20


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "area", "cubic", "lanczos"])
def test_stretching_scales_each_axis_for_itself(interpolation: str) -> None:
    sample = picture(3)
    out = Stretch(64, interpolation)(sample, np.random.default_rng(0))  # type: ignore[arg-type]
    assert out.image.shape == (64, 64, 3)
    scale = np.array([64 / sample.width, 64 / sample.height] * 2)
    np.testing.assert_allclose(out.boxes, sample.boxes * scale, rtol=1e-5)


def test_a_batch_has_one_size_and_one_interpolation() -> None:
    config = AugmentConfig((DistortStep(), ExpandStep(), CropStep(), FlipStep(), StretchStep(64, sides=(32, 64, 96))))
    input = InputConfig(64, 64, fit="stretch", interpolation="cubic")
    assert config.sides == (32, 64, 96)
    assert not config.keeps_ratio
    kinds = {
        type(transform).__name__: transform
        for transform in build_transforms(config, Circumstances(input, canvas=(96, 96), common=4)).transforms
    }
    assert list(kinds) == ["Distort", "Expand", "SampledCrop", "RandomFlip", "Stretch"]
    assert kinds["Stretch"] == Stretch(96, "lanczos")
    plain = AugmentConfig((StretchStep(64, vary_interpolation=False),))
    (only,) = build_transforms(plain, Circumstances(input)).transforms
    assert only == Stretch(64, "cubic")
    # Pictures keep all pixels that a part of them may be enlarged to.
    assert plain.largest_scale(32, 64, input) == 2
    assert config.largest_scale(96, 96, input) == pytest.approx(2**0.5 / 0.3)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: DistortStep(brightness=2.0), "distort.brightness"),
        (lambda: DistortStep(hue=-1), "distort.hue"),
        (lambda: ExpandStep(ratio=0.5), "expand.ratio"),
        (lambda: ExpandStep(fill=(0, 0, 300)), "expand.fill"),
        (lambda: CropStep(scale=(0.5, 1.5)), "crop.scale"),
        (lambda: CropStep(aspect=(1.5, 2.0)), "crop.aspect"),
        (lambda: CropStep(thresholds=(2.0,)), "crop.thresholds"),
        (lambda: StretchStep(0), "stretch.side"),
        (lambda: AugmentConfig((FitStep(), StretchStep(64))), "augment.steps"),
    ],
)
def test_impossible_steps_are_refused(make: object, key: str) -> None:
    with pytest.raises(ToodError, match=key):
        make()  # type: ignore[operator]
