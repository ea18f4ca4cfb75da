"""Windows of TIFF files of every layout are what the whole picture has there."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bright_square import save_picture
from tood.data.images import decode_image
from tood.data.images.cut_tiff import require_end
from tood.data.images.opening import open_windows
from tood.data.images.tiff_windows import tiff_pixels
from tood.data.images.windows import reduced, starts
from tood.errors import PictureError

HEIGHT, WIDTH = 150, 190


def colours(dtype: type = np.uint8, top: int = 256, samples: int = 3) -> NDArray[np.generic]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    channels = [(rows * (3 + c) + columns * (7 - c)) * (top // 256) * 3 % top for c in range(samples)]
    return np.stack(channels, axis=-1).astype(dtype)


RGB, GREY = {"photometric": "rgb"}, {"photometric": "minisblack"}
PALETTE = np.stack([np.arange(256) * factor % 256 * 257 for factor in (1, 3, 7)]).astype(np.uint16)
KINDS = {
    "tiled": (colours(), {**RGB, "tile": (32, 48), "compression": "zlib"}),
    "striped": (colours(), {**RGB, "rowsperstrip": 16, "compression": "lzw"}),
    "one strip": (colours(), {**RGB, "rowsperstrip": HEIGHT}),
    "planar": (np.moveaxis(colours(), -1, 0), {**RGB, "planarconfig": "separate", "tile": (32, 32)}),
    "planar strips": (np.moveaxis(colours(), -1, 0), {**RGB, "planarconfig": "separate", "rowsperstrip": 7}),
    "big": (colours(), {**RGB, "tile": (64, 64)}),
    "alpha": (colours(samples=4), {**RGB, "tile": (64, 64), "extrasamples": ["unassalpha"]}),
    "grey": (
        colours()[..., 0],
        {"photometric": "minisblack", "tile": (64, 64), "predictor": True, "compression": "lzw"},
    ),
    "white is zero": (colours()[..., 0], {"photometric": "miniswhite", "tile": (64, 64)}),
    "12 of 16 bits": (colours(np.uint16, 4096), {**RGB, "tile": (64, 64), "compression": "zstd"}),
    "many bands": (colours(samples=6), {**GREY, "tile": (64, 64), "planarconfig": "contig"}),
    "palette": (colours()[..., 0], {"photometric": "palette", "colormap": PALETTE, "tile": (64, 64)}),
    "big-endian": (colours(np.uint16, 65536), {**RGB, "rowsperstrip": HEIGHT}),
}


def wanted(kind: str, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    if kind.startswith("planar"):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype == np.uint16:
        pixels = pixels >> (4 if kind.startswith("12") else 8)
    if kind == "palette":
        return np.moveaxis(PALETTE[:, pixels.astype(int)] >> 8, 0, -1).astype(np.uint8)
    if pixels.ndim == 2:
        grey = 255 - pixels if kind == "white is zero" else pixels
        pixels = np.repeat(grey[..., None], 3, axis=2)
    return pixels[..., :3].astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiffs")
    for kind, (pixels, options) in KINDS.items():
        order = ">" if kind == "big-endian" else "<"
        tifffile.imwrite(folder / f"{kind}.tif", pixels, bigtiff=kind == "big", byteorder=order, **options)
    return {kind: folder / f"{kind}.tif" for kind in KINDS}


@pytest.mark.parametrize("large_pieces", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_every_kind(
    files: dict[str, Path], kind: str, large_pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large_pieces:  # read row by row, where that can be
        monkeypatch.setattr("tood.data.images.tiff_windows._LARGE_PIECE", 1)
    picture, whole = open_windows(files[kind]), wanted(kind, KINDS[kind][0])
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)

    @settings(max_examples=15)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        top, left = data.draw(st.integers(0, HEIGHT - 1)), data.draw(st.integers(0, WIDTH - 1))
        height, width = data.draw(st.integers(1, HEIGHT - top)), data.draw(st.integers(1, WIDTH - left))
        assert np.array_equal(picture.read(top, left, height, width), whole[top : top + height, left : left + width])

    check()


def test_a_reduced_window_is_the_mean_of_its_squares(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = wanted("tiled", KINDS["tiled"][0])
    picture = open_windows(files["tiled"])
    for band in (1, 1 << 20):
        monkeypatch.setattr("tood.data.images.tiff_windows._BAND", band)
        found = picture.read(8, 4, 130, 170, 4)
        assert found.shape == (32, 42, 3)
        means = whole[8:136, 4:172].reshape(32, 4, 42, 4, 3).mean(axis=(1, 3))
        assert np.abs(found - means).max() <= 0.51


def test_the_smaller_copies_of_a_pyramid_are_read(tmp_path: Path) -> None:
    """A whole-slide picture: marks in a copy that the full one does not have show which was read."""
    full = np.zeros((512, 768, 3), np.uint8)
    copies = [np.full((512 // factor, 768 // factor, 3), 10 * factor, np.uint8) for factor in (2, 4)]
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as writer:
        writer.write(full, subifds=2, tile=(64, 64), photometric="rgb")
        for copy in copies:
            writer.write(copy, subfiletype=1, tile=(64, 64), photometric="rgb")
    picture = open_windows(tmp_path / "a.tif")
    assert picture.read(0, 0, 512, 768, 1).max() == 0
    for reduction, mark in ((2, 20), (4, 40), (8, 40), (3, 0), (6, 20)):
        small = picture.read(0, 0, 512, 768, reduction)
        assert small.shape == (512 // reduction, 768 // reduction, 3)
        assert set(np.unique(small)) == {mark}


@pytest.mark.parametrize("value", range(1, 9))
def test_a_tiff_is_turned_as_its_orientation_says(tmp_path: Path, value: int) -> None:
    tag = [(274, "H", 1, value, True)]
    tifffile.imwrite(tmp_path / "a.tif", colours(), tile=(32, 48), photometric="rgb", extratags=tag)
    whole = decode_image(tmp_path / "a.tif", exif=True).pixels
    picture = open_windows(tmp_path / "a.tif", exif=True)
    assert (picture.height, picture.width) == whole.shape[:2]
    assert np.array_equal(picture.read(5, 6, 40, 31), whole[5:45, 6:37])
    assert np.array_equal(picture.read(4, 8, 42, 31, 4), reduced(whole[4:46, 8:39], 4))
    assert np.array_equal(open_windows(tmp_path / "a.tif").read(0, 0, HEIGHT, WIDTH), colours().astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_channels_that_pillow_does_not_know_are_measured(tmp_path: Path, dtype: type) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 4), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "a.tif")
    assert tiff_pixels(tmp_path / "a.tif") == HEIGHT * WIDTH
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + bytes(40))
    assert tiff_pixels(tmp_path / "broken.tif") == 0


def test_other_pictures_are_decoded_whole(tmp_path: Path) -> None:
    pixels = colours().astype(np.uint8)
    picture = open_windows(save_picture(tmp_path / "a.png", pixels))
    assert np.array_equal(picture.read(5, 6, 40, 30), pixels[5:45, 6:36])


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((20, 20), np.float32))
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + bytes(40))
    for name, sentence in (
        ("float.tif", "convert it to 8 or 16 bits"),
        ("broken.tif", "is no TIFF that can be read"),
    ):
        with pytest.raises(PictureError, match=sentence):
            open_windows(tmp_path / name)
    tifffile.imwrite(tmp_path / "a.tif", colours(), tile=(32, 32), photometric="rgb", compression="zlib")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(PictureError, match=r"cannot be read at 0,0 .*copy or download it again"):
        open_windows(tmp_path / "a.tif").read(0, 0, HEIGHT, WIDTH)
    monkeypatch.setattr("tood.data.images.tiff_pieces._LARGEST_PIECE", 1000)
    tifffile.imwrite(tmp_path / "b.tif", colours(), rowsperstrip=HEIGHT, compression="zlib", photometric="rgb")
    assert tiff_pixels(tmp_path / "b.tif") == HEIGHT * WIDTH
    monkeypatch.setenv("TOOD_MAX_PIXELS", "100")
    with pytest.raises(PictureError, match="write it in tiles"):
        open_windows(tmp_path / "b.tif")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(PictureError, match=r"pip install 'tood\[big\]'"):
        open_windows(tmp_path / "b.tif")


@pytest.mark.parametrize("large_piece", [0, 8 << 20])
@pytest.mark.parametrize("kind", [*KINDS, "the directory last"])
def test_a_file_that_ends_too_early_says_so(
    files: dict[str, Path], tmp_path: Path, kind: str, large_piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tood.data.images.tiff_windows._LARGE_PIECE", large_piece)
    if kind in files:
        data = files[kind].read_bytes()
    else:
        Image.fromarray(colours().astype(np.uint8)).save(tmp_path / "whole.tif", compression="tiff_lzw")
        data = (tmp_path / "whole.tif").read_bytes()
        assert int.from_bytes(data[4:8], "little") > len(data) // 2
    cut = tmp_path / "cut.tif"
    for length in (40, 180, len(data) // 2, len(data) - 4):
        cut.write_bytes(data[:length])
        told = f"cut.tif: the file ends too early \\({length:,} of at least .*copy or download it again"
        with pytest.raises(PictureError, match=told):
            open_windows(cut).read(0, 0, HEIGHT, WIDTH)


def test_the_last_piece_may_say_more_than_its_rows_have(tmp_path: Path) -> None:
    """Some writers tell of each strip as of a whole one."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colours(), rowsperstrip=100, **RGB)
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = file.pages[0].tags["StripByteCounts"]
        counts.overwrite((counts.value[0], counts.value[0]))
    assert np.array_equal(open_windows(path).read(0, 0, HEIGHT, WIDTH), colours())


@settings(max_examples=100)
@given(
    st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]),
    st.integers(0, 60),
    st.binary(max_size=200),
)
def test_whatever_a_file_says_of_its_end_is_read_or_refused(magic: bytes, place: int, rest: bytes) -> None:
    order = "little" if magic.startswith(b"II") else "big"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        path.write_bytes(magic + place.to_bytes(len(magic), order) + rest)
        with suppress(PictureError):
            require_end(path)


def test_what_is_decoded_whole_alone_is_cut_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = Image.fromarray(colours().astype(np.uint8))
    for mode in ("CMYK", "1"):
        rgb.convert(mode).save(tmp_path / f"{mode}.tif")
        picture, whole = open_windows(tmp_path / f"{mode}.tif"), decode_image(tmp_path / f"{mode}.tif").pixels
        assert np.array_equal(picture.read(5, 6, 40, 31), whole[5:45, 6:37])
    monkeypatch.setenv("TOOD_MAX_PIXELS", "100")
    with pytest.raises(PictureError, match="convert it to RGB"):
        open_windows(tmp_path / "CMYK.tif")


@pytest.mark.filterwarnings("error")
def test_ycbcr_without_jpeg_becomes_rgb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = Image.fromarray(colours().astype(np.uint8))
    stored = np.asarray(rgb.convert("YCbCr"))
    options = {"photometric": "ycbcr", "tile": (32, 48), "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    found = open_windows(tmp_path / "a.tif").read(0, 0, HEIGHT, WIDTH).astype(int)
    assert np.abs(found - np.asarray(rgb.convert("YCbCr").convert("RGB"))).max() <= 2
    # The range of video: black at 16.
    narrow = (532, "2I", 6, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1), True)
    tifffile.imwrite(tmp_path / "b.tif", stored, **options, extratags=[narrow])
    monkeypatch.setenv("TOOD_MAX_PIXELS", "100")
    with pytest.raises(PictureError, match="YCbCr, in a rare way"):
        open_windows(tmp_path / "b.tif")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="where Linux lists open files")
def test_no_file_stays_open(files: dict[str, Path], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((20, 20), np.float32))
    pictures = [open_windows(path) for path in files.values()]
    for picture in pictures:
        picture.read(0, 0, 40, 40)
    with pytest.raises(PictureError) as kept:
        open_windows(tmp_path / "float.tif")
    assert kept.value.__traceback__ is not None  # as long as it is kept, so are the pictures
    targets = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [target for target in targets if target.endswith(".tif")]


@given(st.integers(1, 5000), st.integers(2, 900), st.floats(0, 0.8))
def test_windows_cover_a_side_with_their_overlap(length: int, size: int, share: float) -> None:
    overlap = round(share * size)
    if overlap >= size:
        return
    places = list(starts(length, size, overlap))
    assert places[0] == 0
    assert all(later - earlier <= size - overlap for earlier, later in pairwise(places))
    assert places[-1] + size == max(length, size)


def test_reduction_of_an_array() -> None:
    assert reduced(np.full((9, 7, 3), 4, np.uint8), 4).shape == (2, 1, 3)
