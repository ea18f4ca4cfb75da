"""Photometric jitter, and the pipeline that a configuration stands for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tood.data.transforms import (
    AugmentConfig,
    PhotometricJitter,
    Sample,
    build_transforms,
    canvas_shape,
    published_1x,
    published_2x,
    small_model,
)
from tood.data.transforms.colour import colour_matrix
from tood.errors import ToodError


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


def test_published_recipes() -> None:
    rng = np.random.default_rng(0)
    sample = sample_of(480, 640)
    assert build_transforms(published_1x())(sample, rng).image.shape == (800, 1067, 3)
    sides = {min(build_transforms(published_2x())(sample_of(48, 64), rng).image.shape[:2]) for _ in range(60)}
    assert min(sides) >= 480
    assert max(sides) <= 800
    assert len(sides) > 20
    for recipe in (published_1x(), published_2x()):
        assert (recipe.flip, recipe.photometric, recipe.mosaic) == (0.5, 0, 0)
        assert recipe.keeps_ratio


def test_small_model_recipe_makes_squares_and_need_not_mirror() -> None:
    config = small_model(96, flip=0.0)
    for seed in range(10):
        after = build_transforms(config)(sample_of(), np.random.default_rng(seed))
        assert after.image.shape == (96, 96, 3)
    left_red = np.zeros((50, 50, 3), np.uint8)
    left_red[:, :25] = [255, 0, 0]
    still = replace(config, photometric=0.0, scale=(1.0, 1.0))
    for seed in range(30):
        after = build_transforms(still)(replace(sample_of(), image=left_red), np.random.default_rng(seed))
        assert after.image[48, 10, 0] > after.image[48, 85, 0]


def test_a_batch_may_choose_another_canvas() -> None:
    after = build_transforms(small_model(96), canvas=(64, 32))(sample_of(), np.random.default_rng(0))
    assert after.image.shape == (64, 32, 3)


@pytest.mark.parametrize(
    ("ratio", "shape"),
    [(1.0, (320, 320)), (4 / 3, (256, 320)), (3 / 4, (320, 256)), (10.0, (32, 320)), (1.01, (320, 320))],
)
def test_a_canvas_has_the_ratio_of_the_images(ratio: float, shape: tuple[int, int]) -> None:
    assert canvas_shape(320, ratio, 32) == shape


def test_mosaic_probability() -> None:
    config = replace(small_model(64), mosaic=0.5)
    fetched = []

    def fetch(rng: np.random.Generator) -> Sample:
        fetched.append(1)
        return sample_of()

    for seed in range(100):
        build_transforms(config, fetch=fetch)(sample_of(), np.random.default_rng(seed))
    assert len(fetched) % 3 == 0
    assert 30 <= len(fetched) / 3 <= 70
    with pytest.raises(ValueError, match="fetch"):
        build_transforms(config)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"flip": 1.5}, "augment.flip"),
        ({"mosaic": -0.1, "canvas": 64}, "augment.mosaic"),
        ({"size": (0, 10)}, "augment.size"),
        ({"shortest": 900}, "augment.shortest"),
        ({"canvas": 0}, "augment.canvas"),
        ({"canvases": (64, 96)}, "augment.canvases"),
        ({"scale": (0.5, 1.5)}, "augment.canvas"),
        ({"canvas": 64, "scale": (2.0, 1.0)}, "augment.scale"),
        ({"canvas": 64, "scale": (0.0, 1.0)}, "augment.scale"),
        ({"mosaic": 0.5}, "augment.canvas"),
        ({"photometric": -1.0}, "augment.photometric"),
    ],
)
def test_wrong_configuration_names_its_key(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ToodError, match=named):
        AugmentConfig(**wrong)  # type: ignore[arg-type]


@given(height=st.integers(1, 2000), width=st.integers(1, 2000))
def test_largest_scale_bounds_what_training_asks_for(height: int, width: int) -> None:
    assert published_2x().largest_scale(height, width) == pytest.approx(
        min(1333 / max(height, width), 800 / min(height, width))
    )
    jittered = replace(small_model(64), canvases=(64, 96))
    assert jittered.largest_scale(height, width) == pytest.approx(96 / max(height, width) * 1.5)
