"""Pictures of 10, 12 and 14 bits in 16-bit files keep their grey levels, in every kind of file and source alike."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from data.loaders import eval_loader
from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.data import check_dataset, load_dataset, read_image
from tood.data.images import decode_image
from tood.inference.sources import ImageSource, SourceConfig


def ramp(bits: int, largest: int | None = None) -> NDArray[np.uint16]:
    """[32, 64] all levels from 0 to the largest, evenly."""
    top = (1 << bits) - 1 if largest is None else largest
    return np.linspace(0, top, 32 * 64).round().astype(np.uint16).reshape(32, 64)


def expected(values: NDArray[np.uint16], bits: int) -> NDArray[np.float64]:
    return np.repeat((values / ((1 << bits) - 1) * 255.0)[:, :, None], 3, axis=2)


def pil_bytes(values: NDArray[np.uint16], kind: str) -> bytes:
    out = BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize(
    ("kind", "colour"),
    # Pillow has no pictures of 16-bit colours.
    [*((kind, False) for kind in ("PNG", "TIFF", "picture")), *product((".png", ".tiff", "array"), (False, True))],
)
def test_levels_are_kept(bits: int, kind: str, colour: bool) -> None:
    values = ramp(bits)
    want = expected(values, bits)
    shown = values
    if colour:
        shown = np.stack([values, values[::-1], values // 2], axis=2)
        want = np.stack([expected(shown[:, :, channel], bits)[:, :, 0] for channel in range(3)], axis=2)
    if kind.startswith("."):
        ok, buffer = cv2.imencode(kind, shown[:, :, ::-1] if colour else shown)
        assert ok
        content: bytes | NDArray[np.uint16] | Image.Image = buffer.tobytes()
    elif kind == "array":
        content = shown
    else:
        content = Image.fromarray(values) if kind == "picture" else pil_bytes(values, kind)
    decoded = ImageSource("x", content).decode(SourceConfig())  # type: ignore[arg-type]
    assert decoded.bits == bits
    assert np.abs(decoded.pixels - want).max() <= 1
    assert len(np.unique(decoded.pixels)) == 256
    if isinstance(content, bytes):
        np.testing.assert_array_equal(read_image(content), decoded.pixels)
        with Image.open(BytesIO(content)) as image:
            if not colour:  # of colours Pillow itself keeps the high bytes alone
                again = ImageSource("x", image).decode(SourceConfig())
                np.testing.assert_array_equal(again.pixels, decoded.pixels)


def test_true_sixteen_bits_are_their_high_bytes() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (30, 40, 3), dtype=np.uint16)
    for suffix in (".png", ".tiff"):
        data = cv2.imencode(suffix, values)[1].tobytes()
        np.testing.assert_array_equal(read_image(data), (values >> 8)[:, :, ::-1])


@pytest.mark.parametrize("largest", [1000, 30])
def test_pgm_says_its_largest_value(largest: int) -> None:
    """A dark picture stays dark: 1023 is white, whatever is there."""
    values = ramp(10, largest)
    data = b"P5 64 32 1023\n" + values.astype(">u2").tobytes()
    assert np.abs(read_image(data) - expected(values, 10)).max() <= 1


def with_sbit(data: bytes, bits: int) -> bytes:
    body = b"sBIT" + bytes([bits])
    return data[:33] + struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def test_png_says_its_bits() -> None:
    dark = ramp(10, 200)
    data = with_sbit(pil_bytes(dark, "PNG"), 10)
    assert decode_image(data).bits == 10
    assert np.abs(read_image(data) - expected(dark, 10)).max() <= 1
    # As PNG's specification wants them: spread over all 16, and dark.
    for spread in (dark % 16 << 6, (dark % 16 << 6) | (dark % 16 >> 4)):
        data = with_sbit(pil_bytes(spread.astype(np.uint16), "PNG"), 10)
        np.testing.assert_array_equal(read_image(data)[:, :, 0], spread >> 8)


def test_tiff_says_its_largest_value() -> None:
    dark = ramp(12, 200)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 4095
    out = BytesIO()
    Image.fromarray(dark).save(out, "TIFF", tiffinfo=tags)
    decoded = decode_image(out.getvalue())
    assert decoded.bits == 12
    assert np.abs(decoded.pixels - expected(dark, 12)).max() <= 1


def test_whole_numbers_of_32_bits_within_16() -> None:
    values = ramp(12).astype(np.int32)
    out = BytesIO()
    Image.fromarray(values).save(out, "TIFF")
    assert np.abs(read_image(out.getvalue()) - expected(ramp(12), 12)).max() <= 1


def test_it_is_told_in_check_and_once_in_loading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [image_row(number, f"{number}.png", 64, 32) for number in (1, 2, 3)]
    write_coco_folder(tmp_path, coco(rows, [box_row(n, n) for n in (1, 2, 3)], {3: "cat"}), images=False)
    (tmp_path / "train2017").mkdir()
    for number, bits in ((1, 10), (2, 12), (3, 16)):
        (tmp_path / "train2017" / f"{number}.png").write_bytes(pil_bytes(ramp(bits), "PNG"))
    notes = [p for p in check_dataset(tmp_path).problems if p.kind == "few_bits"]
    assert [(p.image_id, p.severity) for p in notes] == [(1, "note"), (2, "note")]
    assert "uses 10 of 16 bits" in notes[0].message
    dataset = load_dataset(tmp_path)
    for _ in range(2):
        batches = list(eval_loader(dataset, (32, 64), 3, workers=0))
        dataset.picture_notes.tell()
    assert all(len(np.unique(batches[0].images[row].numpy())) == 256 for row in range(3))
    (record,) = caplog.records
    assert "2 pictures, such as" in record.getMessage()
    assert "fewer are used" in record.getMessage()


def narrow() -> dict[str, NDArray[np.uint16]]:
    thermal = np.linspace(7000, 8500, 32 * 64).round().astype(np.uint16).reshape(32, 64)
    high = np.linspace(30000, 31000, 32 * 64).round().astype(np.uint16).reshape(32, 64)
    hot = ramp(10).copy()
    hot[3, 5] = 65535
    return {"thermal": thermal, "high": high, "hot pixel": hot}


@pytest.mark.parametrize("name", list(narrow()))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "array", "picture"])
def test_few_levels_of_many_are_told(name: str, kind: str) -> None:
    values = narrow()[name]
    content = {"array": values, "picture": Image.fromarray(values)}.get(kind)
    found = ImageSource("x", pil_bytes(values, kind) if content is None else content).decode(SourceConfig())  # type: ignore[arg-type]
    assert found.levels == len(np.unique(found.pixels)) < 32


def test_as_many_levels_as_there_are_are_no_loss() -> None:
    masks = np.repeat(np.array([0, 20000, 65535], np.uint16), 100).reshape(30, 10)
    for values in (masks, ramp(16), ramp(9), np.zeros((4, 4), np.uint16)):
        assert decode_image(pil_bytes(values, "PNG")).levels is None


def test_few_levels_are_told_with_a_count_and_a_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [image_row(number, f"{number}.png", 64, 32) for number in (1, 2, 3)]
    write_coco_folder(tmp_path, coco(rows, [box_row(n, n) for n in (1, 2, 3)], {3: "cat"}), images=False)
    (tmp_path / "train2017").mkdir()
    for number, values in ((1, narrow()["high"]), (2, narrow()["hot pixel"]), (3, ramp(16))):
        (tmp_path / "train2017" / f"{number}.png").write_bytes(pil_bytes(values, "PNG"))
    warned = [p for p in check_dataset(tmp_path).problems if p.kind == "few_levels"]
    assert [(p.image_id, p.severity) for p in warned] == [(1, "warning"), (2, "warning")]
    assert all("save 8-bit pictures with the range in use spread" in p.message for p in warned)
    for _ in range(2):
        dataset = load_dataset(tmp_path)
        list(eval_loader(dataset, (32, 64), 3, workers=0))
        dataset.picture_notes.tell()
    told = [record.getMessage() for record in caplog.records if "few grey levels" in record.getMessage()]
    assert all(text.startswith("2 pictures, such as") for text in told)
    assert told
