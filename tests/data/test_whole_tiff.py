"""TIFFs that Pillow does not know or misreads are decoded whole as tifffile reads them, or refused truly."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tood.data.images import FileFacts, decode_image, file_facts, image_size, read_image
from tood.data.images.opening import open_windows
from tood.errors import ToodError
from tood.inference.sources import ImageSource, SourceConfig

HEIGHT, WIDTH = 75, 95
_ROWS, _COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
BYTES = np.stack([(_ROWS * (3 + c) + _COLUMNS * (7 - c)) % 256 for c in range(7)], axis=-1).astype(np.uint8)
WORDS = BYTES.astype(np.uint16) * 257
RGB, GREY = {"photometric": "rgb"}, {"photometric": "minisblack"}
PLANES, TILES, DEFLATE = {"planarconfig": "separate"}, {"tile": (32, 48)}, {"compression": "zlib"}


def planes(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def tiff(pixels: NDArray[Any], *options: dict[str, Any]) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, pixels, **{name: value for one in options for name, value in one.items()})
    return file.getvalue()


def alpha(count: int) -> dict[str, Any]:
    return {"extrasamples": ["unspecified"] * count}


COLOURS = {
    "planes of 16 bits": tiff(planes(WORDS[..., :3]), RGB, PLANES),
    "planes of 16 bits in tiles": tiff(planes(WORDS[..., :3]), RGB, PLANES, TILES, DEFLATE, {"predictor": True}),
    "planes of 12 of 16 bits": tiff(planes(WORDS[..., :3] >> 4), RGB, PLANES, {"rowsperstrip": 7}),
    "5 bands": tiff(BYTES[..., :5], GREY, {"planarconfig": "contig"}, TILES),
    "5 planes of 16 bits": tiff(planes(WORDS[..., :5]), GREY, PLANES, TILES),
    "planes of RGB and near infrared": tiff(planes(BYTES[..., :4]), RGB, PLANES, TILES, alpha(1)),
    "16 bits and 2 more bands": tiff(WORDS[..., :5], RGB, alpha(2)),
    "7 bands": tiff(BYTES, RGB, alpha(4), DEFLATE),
}
GREYS = {
    "planes of grey and alpha": tiff(planes(BYTES[..., :2]), GREY, PLANES, {"extrasamples": ["unassalpha"]}),
    "white is zero in 16 bits": tiff(65535 - WORDS[..., 0], {"photometric": "miniswhite"}),
}
CMYK = np.concatenate([65535 - WORDS[..., :3], np.zeros((HEIGHT, WIDTH, 1), np.uint16)], axis=-1)
REFUSED = {
    "float": (tiff(np.zeros((HEIGHT, WIDTH, 3), np.float32), RGB, TILES), "holds float32 values: convert it to 8 or"),
    "CIELab": (tiff(BYTES[..., :3], {"photometric": "cielab"}), "is of the colour space CIELAB: convert it to RGB"),
    "CIELab of 16 bits": (
        tiff(WORDS[..., :3], {"photometric": "cielab"}),
        "the colour space CIELAB: convert it to RGB",
    ),
    "signed": (tiff(BYTES[..., 0].astype(np.int8), GREY), "signed 8-bit numbers"),
}


@pytest.mark.parametrize("kind", [*COLOURS, *GREYS])
def test_pixels_are_those_that_are_stored(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = COLOURS.get(kind) or GREYS[kind]
    wanted = BYTES[..., :3] if kind in COLOURS else np.repeat(BYTES[..., :1], 3, axis=2)
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    for noise in (5, 82):  # what memory that was freed before may hold
        taken = np.full(WORDS[..., :3].size, noise, np.uint16)
        del taken
        np.testing.assert_array_equal(read_image(data), wanted)
    np.testing.assert_array_equal(read_image(path), wanted)
    np.testing.assert_array_equal(open_windows(path).read(0, 0, HEIGHT, WIDTH), wanted)
    assert image_size(data) == image_size(path) == (WIDTH, HEIGHT)
    assert file_facts(path) == FileFacts((WIDTH, HEIGHT), 1)
    assert capfd.readouterr() == ("", "")


def test_inks_of_16_bits_become_colours(capfd: pytest.CaptureFixture[str]) -> None:
    np.testing.assert_array_equal(read_image(tiff(CMYK, {"photometric": "separated"})), BYTES[..., :3])
    assert capfd.readouterr() == ("", "")


def test_few_bits_by_windows_are_as_bright_as_whole(tmp_path: Path) -> None:
    """A 4-bit grey is 17 steps of 255, not of 15."""
    grey = BYTES[..., 0] >> 4
    packed = (grey[:, :94:2] << 4 | grey[:, 1:94:2]).astype(np.uint8)
    data = bytearray(tiff(packed, GREY))
    with tifffile.TiffFile(BytesIO(data)) as file:
        tags = file.pages[0].tags
        places = {name: tags[name].valueoffset for name in ("BitsPerSample", "ImageWidth")}
    for name, value in (("BitsPerSample", 4), ("ImageWidth", 94)):
        data[places[name] : places[name] + 2] = value.to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(data)
    wanted = np.repeat(grey[:, :94, None] * 17, 3, axis=2)
    np.testing.assert_array_equal(read_image(bytes(data)), wanted)
    np.testing.assert_array_equal(open_windows(tmp_path / "a.tif").read(0, 0, HEIGHT, 94), wanted)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_photograph_is_refused_with_what_helps(kind: str, tmp_path: Path) -> None:
    data, sentence = REFUSED[kind]
    (tmp_path / "a.tif").write_bytes(data)
    assert image_size(data) == (WIDTH, HEIGHT)
    with pytest.raises(ToodError, match=rf"^mine\.tif: .*{sentence}"):
        read_image(data, name="mine.tif")
    with pytest.raises(ToodError, match=r"convert it|save it"):
        open_windows(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", COLOURS)
def test_without_tifffile_it_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ToodError, match=r"tifffile.*pip install 'tood\[big\]'"):
        read_image(COLOURS[kind])


def test_a_picture_that_pillow_misreads_is_refused() -> None:
    with (
        Image.open(BytesIO(COLOURS["planes of 16 bits"])) as picture,
        pytest.raises(ToodError, match="give the file itself"),
    ):
        ImageSource("x", picture).decode(SourceConfig())


@pytest.mark.parametrize("kind", ["5 bands", "5 planes of 16 bits", "7 bands", "planes of 16 bits"])
def test_half_a_file_is_refused(kind: str) -> None:
    data = COLOURS[kind]
    with pytest.raises(ToodError, match=r"ends too early|truncated|not an image"):
        decode_image(data[: len(data) * 2 // 3])


def test_a_piece_may_say_that_it_is_huge() -> None:
    """A few bytes that would become 20 GiB."""
    data = bytearray(tiff(np.zeros((16, 16), np.uint8), GREY, DEFLATE))
    with tifffile.TiffFile(BytesIO(data)) as file:
        places = {name: file.pages[0].tags[name].valueoffset for name in ("SamplesPerPixel", "ImageWidth")}
    data[places["SamplesPerPixel"] : places["SamplesPerPixel"] + 2] = (60000).to_bytes(2, "little")
    data[places["ImageWidth"] : places["ImageWidth"] + 2] = (60000).to_bytes(2, "little")
    with pytest.raises(ToodError, match=r"MiB: write it in tiles|truncated|not an image"):
        decode_image(bytes(data))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*COLOURS]), st.integers(0, 600), st.binary(min_size=1, max_size=6))
def test_damaged_ones_give_pixels_or_a_sentence(kind: str, at: int, junk: bytes) -> None:
    data = COLOURS[kind]
    try:
        pixels = read_image(data[:at] + junk + data[at + len(junk) :], max_pixels=1_000_000)
    except ToodError:
        return
    assert pixels.ndim == 3
    assert pixels.dtype == np.uint8
