"""An image's way into a network's input, and its boxes' way there and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tood.errors import ToodError
from tood.input import Fit, InputConfig, normalise, prepare, stacked
from tood.input.normalise import _computed

SMALL = InputConfig(short=48, long=64, divisor=16, pad=(114, 7, 200))
FITS = st.sampled_from(["keep_ratio", "letterbox", "stretch"])
SIDES = st.integers(1, 200)


@given(SIDES, SIDES, FITS)
def test_boxes_come_back(height: int, width: int, fit: Fit) -> None:
    geometry = replace(SMALL, fit=fit).geometry(height, width)
    boxes = np.array([[0, 0, width, height], [0.25 * width, 0, width, 0.5 * height]], np.float32)
    there = geometry.to_input(boxes)
    (top, left), (down, across) = geometry.offset, geometry.scaled
    assert there[0].tolist() == [left, top, left + across, top + down]
    np.testing.assert_allclose(geometry.to_image(there), boxes, rtol=1e-5, atol=1e-4)


@given(SIDES, SIDES, FITS)
def test_an_image_lies_where_its_geometry_says(height: int, width: int, fit: Fit) -> None:
    image = np.full((height, width, 3), 255, np.uint8)
    config = replace(SMALL, fit=fit)
    pixels, geometry = prepare(image, config)
    assert pixels.shape == (*geometry.canvas, 3)
    (top, left), (down, across) = geometry.offset, geometry.scaled
    inside = np.zeros(geometry.canvas, np.bool_)
    inside[top : top + down, left : left + across] = True
    assert (pixels[inside] == 255).all()
    assert (pixels[~inside] == config.canvas_colour).all()
    limits = (48, 64) if width >= height else (64, 48)
    if fit == "keep_ratio":
        assert geometry.canvas == geometry.scaled
        assert all(side <= limit for side, limit in zip(geometry.scaled, limits, strict=True))
    else:
        assert geometry.canvas == limits
    if fit == "stretch":
        assert geometry.scaled == limits


def test_a_letterbox_is_centred() -> None:
    geometry = replace(SMALL, short=64, fit="letterbox").geometry(100, 200)
    assert (geometry.scaled, geometry.offset, geometry.canvas) == ((32, 64), (16, 0), (64, 64))


def test_a_letterbox_at_the_corner() -> None:
    config = replace(SMALL, short=64, fit="letterbox", letterbox="corner")
    geometry = config.geometry(100, 200)
    assert (geometry.scaled, geometry.offset, geometry.canvas) == ((32, 64), (0, 0), (64, 64))
    pixels, _ = prepare(np.full((100, 200, 3), 255, np.uint8), config)
    assert (pixels[:32] == 255).all()
    assert (pixels[32:] == config.pad).all()


@pytest.mark.parametrize("pad", [None, (114, 7, 200)])
def test_a_network_may_see_blue_first(pad: tuple[int, int, int] | None) -> None:
    config = replace(SMALL, pad=pad, mean=(1.0, 2, 3), std=(4.0, 5, 6))
    images = torch.randint(256, (2, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[32, 48], [20, 31]])
    seen, usual = (normalise(images, sizes, replace(config, channels=channels)) for channels in ("bgr", "rgb"))
    assert torch.equal(seen, usual.flip(1))
    assert seen.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pad", [None, (114, 7, 200)])
def test_padding_has_its_colour_on_every_device(pad: tuple[int, int, int] | None) -> None:
    config = replace(SMALL, pad=pad)
    images = [np.full(shape, 9, np.uint8) for shape in ((20, 30, 3), (33, 10, 3))]
    pixels = torch.from_numpy(stacked(images, config)).permute(0, 3, 1, 2)
    assert pixels.shape == (2, 3, 48, 32)
    sizes = torch.tensor([[20, 30], [33, 10]])
    found = normalise(pixels, sizes, config)
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    colour = mean if pad is None else torch.tensor(pad)[:, None, None]
    expected = ((colour - mean) / std).expand(3, 48, 32).repeat(2, 1, 1, 1)
    expected[0, :, :20, :30] = expected[1, :, :33, :10] = (9 - mean) / std
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(_computed(pixels, sizes, config), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short": 70}, "short and input.long are 70 and 64"),
        ({"divisor": 0}, "divisor is 0"),
        ({"std": (1.0, 0.0, 1.0)}, "std is"),
        ({"pad": (0, 256, 0)}, "pad is"),
    ],
)
def test_a_wrong_input_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ToodError, match=message):
        replace(SMALL, **changes)  # type: ignore[arg-type]
