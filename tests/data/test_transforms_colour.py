"""Photometric jitter, and the pipeline that a configuration stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.loaders import small_model
from tood.configuration import apply_overrides, from_dict
from tood.data.dataset import ImageRecord
from tood.data.image_cache import cached_shapes
from tood.data.reading import WHOLE, ImageReader
from tood.data.transforms import (
    AugmentConfig,
    AugmentStep,
    CanvasStep,
    Circumstances,
    Compose,
    FitStep,
    FlipStep,
    MosaicStep,
    PhotometricJitter,
    PhotometricStep,
    Sample,
    build_transforms,
    canvas_shape,
)
from tood.data.transforms.colour import colour_matrix
from tood.errors import ToodError
from tood.input import Fit, InputConfig, prepare


def sample_of(height: int = 48, width: int = 64) -> Sample:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = np.array([[4, 4, 30, 20], [20, 10, 60, 44]], dtype=np.float32)
    return Sample(image, boxes, np.array([0, 1]), np.array([False, True]))


def test_jitter_changes_colours_only() -> None:
    sample, rng = sample_of(), np.random.default_rng(0)
    changed = 0
    for _ in range(20):
        after = PhotometricJitter()(sample, rng)
        assert after.image.dtype == np.uint8
        assert after.image.shape == sample.image.shape
        assert after.boxes is sample.boxes
        changed += not np.array_equal(after.image, sample.image)
    assert 14 <= changed <= 20


def test_no_strength_changes_nothing() -> None:
    sample, rng = sample_of(), np.random.default_rng(0)
    for _ in range(10):
        np.testing.assert_array_equal(PhotometricJitter.of_strength(0)(sample, rng).image, sample.image)


@given(hue=st.floats(-180, 180), saturation=st.floats(0, 2), grey=st.floats(0, 255))
def test_greys_stay_grey_under_hue_and_saturation(hue: float, saturation: float, grey: float) -> None:
    matrix = colour_matrix(0, 1, saturation, hue)
    np.testing.assert_allclose(matrix @ [grey, grey, grey, 1], [grey] * 3, atol=1e-6)


def test_each_factor_does_what_it_says() -> None:
    red, green = np.array([255, 0, 0, 1]), np.array([0, 255, 0, 1])
    np.testing.assert_allclose(colour_matrix(0, 1, 1, 0) @ red, [255, 0, 0], atol=1e-9)
    np.testing.assert_allclose(colour_matrix(10, 1, 1, 0) @ red, [265, 10, 10], atol=1e-9)
    np.testing.assert_allclose(colour_matrix(0, 0.5, 1, 0) @ red, [191.25, 63.75, 63.75], atol=1e-9)
    np.testing.assert_allclose(colour_matrix(0, 1, 0, 0) @ red, [76.245] * 3, atol=1e-6)
    np.testing.assert_allclose(colour_matrix(0, 1, 1, 120) @ red, [0, 255, 0], atol=1e-6)
    np.testing.assert_allclose(colour_matrix(0, 1, 1, -120) @ green, [255, 0, 0], atol=1e-6)


WITHIN = InputConfig(800, 1333)


def transforms(config: AugmentConfig, canvas: tuple[int, int] | None = None, share: float = 0.0) -> Compose:
    return build_transforms(config, Circumstances(WITHIN, canvas, share=share))


def test_published_sizes() -> None:
    rng = np.random.default_rng(0)
    for fitted in (AugmentConfig(), AugmentConfig((FitStep(),)), AugmentConfig((FitStep((800, 1333)),))):
        assert transforms(fitted)(sample_of(480, 640), rng).image.shape == (800, 1067, 3)
    drawn = AugmentConfig((FitStep(shortest=480), FlipStep()))
    sides = {min(transforms(drawn)(sample_of(48, 64), rng).image.shape[:2]) for _ in range(60)}
    assert min(sides) >= 480
    assert max(sides) <= 800
    assert len(sides) > 20
    assert drawn.keeps_ratio


def test_letterboxed_input_is_one_setting() -> None:
    letterbox = replace(WITHIN, long=800, fit="letterbox", pad=(1, 2, 3))
    build = lambda config: build_transforms(config, Circumstances(letterbox))  # noqa: E731
    after = build(AugmentConfig((FitStep(),)))(sample_of(400, 800), np.random.default_rng(0))
    assert after.image.shape == (800, 800, 3)
    assert after.image[0, 0].tolist() == after.image[-1, -1].tolist() == [1, 2, 3]
    whole = replace(sample_of(400, 800), boxes=np.array([[0, 0, 800, 400]], np.float32))
    after = build(AugmentConfig(()))(whole, np.random.default_rng(0))
    assert after.boxes[:1].tolist() == [[0, 200, 800, 600]]
    padded = build(AugmentConfig((CanvasStep(96, scale=(0.5, 0.5)),)))(sample_of(), np.random.default_rng(0))
    assert (padded.image == [1, 2, 3]).all(axis=2).any(), "what an image leaves free has the colour of all padding"


def test_a_canvas_makes_squares_and_need_not_mirror() -> None:
    config = small_model(96, flip=0.0)
    for seed in range(10):
        after = transforms(config)(sample_of(), np.random.default_rng(seed))
        assert after.image.shape == (96, 96, 3)
    left_red = np.zeros((50, 50, 3), np.uint8)
    left_red[:, :25] = [255, 0, 0]
    still = AugmentConfig((CanvasStep(96),))
    for seed in range(30):
        after = transforms(still)(replace(sample_of(), image=left_red), np.random.default_rng(seed))
        assert after.image[48, 10, 0] > after.image[48, 85, 0]


def test_a_batch_may_choose_another_canvas() -> None:
    after = transforms(small_model(96), canvas=(64, 32))(sample_of(), np.random.default_rng(0))
    assert after.image.shape == (64, 32, 3)


@pytest.mark.parametrize(
    ("ratio", "shape"),
    [(1.0, (320, 320)), (4 / 3, (256, 320)), (3 / 4, (320, 256)), (10.0, (32, 320)), (1.01, (320, 320))],
)
def test_a_canvas_has_the_ratio_of_the_images(ratio: float, shape: tuple[int, int]) -> None:
    assert canvas_shape(320, ratio, 32) == shape


def test_mosaic_probability_and_end() -> None:
    config = small_model(64).with_step(MosaicStep(0.5, until=0.9))
    assert [step.kind for step in config.steps] == ["mosaic", "canvas", "flip", "photometric"]
    fetched = []

    def fetch(rng: np.random.Generator) -> Sample:
        fetched.append(1)
        return sample_of()

    for seed in range(100):
        build_transforms(config, Circumstances(WITHIN, fetch=fetch))(sample_of(), np.random.default_rng(seed))
    assert len(fetched) % 3 == 0
    assert 30 <= len(fetched) / 3 <= 70
    with pytest.raises(ValueError, match="fetch"):
        transforms(config)
    fetched.clear()
    late = build_transforms(config, Circumstances(WITHIN, fetch=fetch, share=0.9))
    for seed in range(100):
        late(sample_of(), np.random.default_rng(seed))
    assert not fetched


@pytest.mark.parametrize("step", [FlipStep(1.0, until=0.5), PhotometricStep(until=0.5)])
def test_a_step_acts_until_its_share_of_the_run(step: AugmentStep) -> None:
    def changed(share: float, acting: AugmentStep = step) -> bool:
        made = transforms(AugmentConfig((CanvasStep(64), acting)), share=share)
        without = transforms(AugmentConfig((CanvasStep(64),)))
        seeds = range(5)
        images = [made(sample_of(), np.random.default_rng(seed)).image for seed in seeds]
        plain = [without(sample_of(), np.random.default_rng(seed)).image for seed in seeds]
        return not all(map(np.array_equal, images, plain))

    assert changed(0.0)
    assert changed(0.49)
    assert not changed(0.5)
    assert changed(1.0, replace(step, until=1.0)), "the whole run has no end before its last step"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: FlipStep(1.5), r"flip\.horizontal is 1\.5"),
        (lambda: FlipStep(until=2), r"flip\.until"),
        (lambda: MosaicStep(-0.1), r"mosaic\.probability"),
        (lambda: FitStep((0, 10)), r"fit\.size"),
        (lambda: FitStep((800, 1333), 900), r"fit\.shortest is 900"),
        (lambda: CanvasStep(0), r"canvas\.side"),
        (lambda: CanvasStep(64, (0,)), r"canvas\.sides"),
        (lambda: CanvasStep(64, scale=(2.0, 1.0)), r"canvas\.scale"),
        (lambda: CanvasStep(64, scale=(0.0, 1.0)), r"canvas\.scale"),
        (lambda: AugmentConfig((MosaicStep(0.5),)), "needs a canvas"),
        (lambda: AugmentConfig((FitStep(), CanvasStep(64))), "fit and canvas: one step decides"),
        (lambda: PhotometricStep(-1.0), r"photometric\.strength"),
    ],
)
def test_wrong_configuration_names_its_key(wrong: Callable[[], object], named: str) -> None:
    with pytest.raises(ToodError, match=named):
        wrong()


def test_keys_of_before_there_were_steps() -> None:
    older = {"size": [300, 400], "shortest": 200, "flip": 0.25, "vertical_flip": 0.1, "canvas": None, "canvases": []}
    older |= {"scale": [1.0, 1.0], "mosaic": 0.0, "photometric": 0.0, "min_visible": 0.3, "min_side": 2.0}
    kept = from_dict(AugmentConfig, older)
    assert kept.steps == (FitStep((300, 400), 200), FlipStep(0.25, 0.1), PhotometricStep(0.0))
    canvas = older | {"canvas": 96, "canvases": [64, 96], "scale": [0.5, 2.0], "mosaic": 0.4, "photometric": 0.5}
    assert from_dict(AugmentConfig, canvas).steps == (
        MosaicStep(0.4),
        CanvasStep(96, (64, 96), (0.5, 2.0)),
        FlipStep(0.25, 0.1),
        PhotometricStep(0.5),
    )
    settings = ["scale=[1,1]", "canvas=null", "flip=0", "photometric=0"]
    found = apply_overrides(small_model(64), settings)
    assert found.steps == (FlipStep(0.0), PhotometricStep(0.0))
    assert apply_overrides(small_model(64), ["steps.flip.vertical=0.5"]).find(FlipStep) == FlipStep(0.5, 0.5)
    for setting, message in (("flip=2", r"flip\.horizontal is 2"), ("scale=[1,2]", "needs a canvas")):
        with pytest.raises(ToodError, match=message):
            apply_overrides(AugmentConfig(), [setting])
    with pytest.raises(ToodError, match=r"flip is 'much'"):
        apply_overrides(AugmentConfig(), ["flip=much"])


@given(height=st.integers(1, 2000), width=st.integers(1, 2000))
def test_largest_scale_bounds_what_training_asks_for(height: int, width: int) -> None:
    expected = pytest.approx(min(1333 / max(height, width), 800 / min(height, width)))
    assert AugmentConfig().largest_scale(height, width, InputConfig(800, 1333)) == expected
    assert AugmentConfig((FitStep((800, 1333)),)).largest_scale(height, width, InputConfig(1, 1)) == expected
    jittered = AugmentConfig((CanvasStep(64, (64, 96), (0.7, 1.5)),))
    assert jittered.largest_scale(height, width, InputConfig(1, 1)) == pytest.approx(96 / max(height, width) * 1.5)


@given(height=st.integers(1, 4000), width=st.integers(1, 4000), fit=st.sampled_from(get_args(Fit)))
def test_no_axis_is_scaled_by_more_than_the_largest_scale(height: int, width: int, fit: Fit) -> None:
    for augment, limits in (
        (AugmentConfig(), InputConfig(800, 1333, fit=fit)),
        (AugmentConfig((FitStep((64, 96)),)), InputConfig(64, 96, fit=fit)),
        (AugmentConfig((FitStep((64, 96), shortest=32),)), InputConfig(64, 96, fit=fit)),
    ):
        largest = augment.largest_scale(height, width, limits)
        # Half a pixel of rounding, and a side of one pixel, which is the least.
        sides = [
            (scaled, side)
            for scaled, side in zip(limits.geometry(height, width).scaled, (height, width), strict=True)
            if scaled > 1
        ]
        assert max((scaled - 0.5) / side for scaled, side in sides) <= largest * (1 + 1e-9)
        assert largest <= max((scaled + 0.5) / side for scaled, side in sides)


def test_stretched_pictures_are_not_decoded_at_less_than_is_wanted(tmp_path: Path) -> None:
    """4000 x 500 becomes 1333 x 800: each row is needed."""
    stripes = np.repeat((np.arange(500) % 2 * 255).astype(np.uint8)[:, None], 4000, axis=1)
    Image.fromarray(np.stack([stripes] * 3, axis=2)).save(tmp_path / "x.jpg", quality=98)
    empty = np.zeros(0)
    record = ImageRecord(
        1, tmp_path / "x.jpg", 4000, 500, np.zeros((0, 4), np.float32), empty.astype(int), empty > 0, empty, empty
    )
    stretched = InputConfig(800, 1333, fit="stretch")
    scale = partial(AugmentConfig().largest_scale, input=stretched)
    assert ImageReader(scale).reduction(record) == 1
    assert ImageReader(partial(AugmentConfig().largest_scale, input=InputConfig(800, 1333))).reduction(record) == 2
    assert cached_shapes([record], scale, 1, ImageReader(scale)) == [(500, 4000)]
    read = ImageReader(scale)(record)
    np.testing.assert_allclose(prepare(read, stretched)[0].std(), prepare(WHOLE(record), stretched)[0].std(), rtol=0.01)
