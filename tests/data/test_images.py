"""Any image decodes to RGB, and what is none is refused in one sentence."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tood.data import image_size, read_image
from tood.errors import ToodError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_give_their_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(encoded(Image.fromarray(RGB), kind))
    np.testing.assert_array_equal(read_image(path), RGB)
    assert image_size(path) == (30, 20)


def of_every_mode() -> Iterator[tuple[str, str, bytes]]:
    """Every pixel mode in every kind of file that can hold it."""
    rgb = Image.fromarray(RGB)
    for mode in ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "I;16", "YCbCr"):
        image = rgb.convert("L").convert(mode) if mode == "I;16" else rgb.convert(mode)
        for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
            with contextlib.suppress(OSError, KeyError, ValueError):
                yield mode, kind, encoded(image, kind)


EVERY_MODE = list(of_every_mode())


@pytest.mark.parametrize(("mode", "kind", "data"), EVERY_MODE, ids=[f"{mode}-{kind}" for mode, kind, _ in EVERY_MODE])
def test_every_mode_becomes_rgb(mode: str, kind: str, data: bytes) -> None:
    pixels = read_image(data)
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    if mode != "I;16":
        expected = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
        assert np.abs(pixels.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(suffix: str, channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (9, 8, channels), dtype=np.uint16)
    data = cv2.imencode(suffix, deep)[1].tobytes()
    expected = np.broadcast_to(deep[..., ::-1] / 257.0, (9, 8, 3))
    assert np.abs(read_image(data) - expected).max() <= 1


def test_alpha_is_dropped_and_colours_stay() -> None:
    rgba = np.dstack([RGB, np.zeros((20, 30), np.uint8)])
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(rgba), "PNG")), RGB)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(data)[0, 0], [255, 0, 0])


def test_one_pixel() -> None:
    for kind in ("PNG", "JPEG", "GIF", "BMP"):
        data = encoded(Image.new("RGB", (1, 1), "white"), kind)
        assert read_image(data).tolist() == [[[255, 255, 255]]]
        assert image_size(data) == (1, 1)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_ignored_unless_asked_for(turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(Image.fromarray(RGB), kind, exif=exif)
    plain = encoded(Image.fromarray(RGB), kind)
    np.testing.assert_array_equal(read_image(data), read_image(plain))
    assert image_size(data) == (30, 20)
    with Image.open(BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.abs(read_image(data, exif=True).astype(int) - upright).max() <= 2
    assert image_size(data, exif=True) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.85])
def test_truncated_files_are_refused_by_name(tmp_path: Path, kind: str, keep: float) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (120, 100, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ToodError, match=rf"cut\.{kind}"):
        read_image(path)


def test_jpeg_without_its_last_bytes_or_with_more_behind() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (120, 100, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(ToodError, match="truncated"):
        read_image(data[: len(data) - 3000])
    np.testing.assert_array_equal(read_image(data + b"\0" * 10), read_image(data))


@pytest.mark.parametrize(
    "content", [b"no image at all", b"%PDF-1.4", b"<svg/>", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    for function in (read_image, image_size):
        with pytest.raises(ToodError, match=r"x\.jpg: "):
            function(path)


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for name, sentence in (("gone.jpg", "no such image"), ("empty.jpg", "zero bytes"), (".", "is a folder")):
        with pytest.raises(ToodError, match=sentence):
            read_image(tmp_path / name)
    with pytest.raises(ToodError, match="cannot be read"):
        read_image("bad\0name.jpg")


def png_that_says(width: int, height: int) -> bytes:
    """A tiny file that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_decompression_bomb_is_refused_before_decoding() -> None:
    with pytest.raises(ToodError, match="50000x50000 pixels are more than the limit of 200,000,000"):
        read_image(png_that_says(50_000, 50_000))
    with pytest.raises(ToodError, match="more than the limit of 100"):
        read_image(encoded(Image.fromarray(RGB), "JPEG"), max_pixels=100)
    gif = bytearray(encoded(Image.fromarray(RGB), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    with pytest.raises(ToodError, match=r"limit|too large"):
        read_image(bytes(gif))


def test_size_other_than_that_of_the_annotations_is_refused() -> None:
    data = encoded(Image.fromarray(RGB), "PNG")
    assert read_image(data, expected_size=(30, 20)).shape == (20, 30, 3)
    with pytest.raises(ToodError, match=r"mine\.png: is 30x20 pixels, but its annotations are for 20x30 .*EXIF"):
        read_image(data, expected_size=(20, 30), name="mine.png")


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ToodError, match="floating-point"):
        read_image(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]),
    at=st.integers(0, 2000),
    junk=st.binary(min_size=1, max_size=6),
    cut=st.booleans(),
)
def test_damaged_files_give_pixels_or_a_sentence(kind: str, at: int, junk: bytes, cut: bool) -> None:
    data = encoded(Image.fromarray(RGB), kind)
    at %= len(data)
    damaged = data[:at] + junk + (b"" if cut else data[at + len(junk) :])
    try:
        pixels = read_image(damaged, max_pixels=1_000_000)
    except ToodError:
        return
    assert pixels.ndim == 3
    assert pixels.dtype == np.uint8
