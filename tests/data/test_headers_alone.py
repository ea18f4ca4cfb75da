"""Of picture files the headers alone are read until they are decoded, however large what stands before the pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.data import image_size, load_dataset
from tood.data.images import file_facts, file_orientation, orientation

WIDTH, HEIGHT = 640, 480
FILES = 20
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def jpeg(exif: Image.Exif) -> bytes:
    out = BytesIO()
    Image.fromarray(PIXELS).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def camera(value: int) -> bytes:
    """EXIF as large as a camera's with its preview."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = value, "x" * 20_000
    return jpeg(exif)


def edited(value: int) -> bytes:
    """EXIF behind two long segments of other metadata, all of it more than 64 KB."""
    exif = Image.Exif()
    exif[0x0112] = value
    data = jpeg(exif)
    return data[:2] + (b"\xff\xe2" + (60_002).to_bytes(2, "big") + b"x" * 60_000) * 2 + data[2:]


def tiff(value: int, order: str = "<", big: bool = False) -> bytes:
    """Its directory lies behind the pixels, as libtiff writes it."""
    entries = [(256, 3, WIDTH), (257, 3, HEIGHT), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 16)]
    entries += [(274, 3, value), (277, 3, 1), (278, 3, HEIGHT), (279, 4, WIDTH * HEIGHT)]
    end = 16 + WIDTH * HEIGHT
    mark = b"II" if order == "<" else b"MM"
    if big:
        start = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, end)
        rows = [
            struct.pack(f"{order}HHQ", t, k, 1) + struct.pack(order + "HI"[k - 3], v).ljust(8, b"\0")
            for t, k, v in entries
        ]
        directory = struct.pack(f"{order}Q", len(rows)) + b"".join(rows) + bytes(8)
    else:
        start = (mark + struct.pack(f"{order}HI", 42, end)).ljust(16, b"\0")
        rows = [
            struct.pack(f"{order}HHI", t, k, 1) + struct.pack(order + "HI"[k - 3], v).ljust(4, b"\0")
            for t, k, v in entries
        ]
        directory = struct.pack(f"{order}H", len(rows)) + b"".join(rows) + bytes(4)
    return start + np.ascontiguousarray(PIXELS[..., 0]).tobytes() + directory


MAKERS: dict[str, Callable[[int], bytes]] = {
    "camera": camera,
    "edited": edited,
    "tiff": tiff,
    "tiff, big-endian": lambda value: tiff(value, ">"),
    "bigtiff": lambda value: tiff(value, "<", True),
}


def bytes_read() -> int:
    """By this process so far, by Linux's own count."""
    line = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar"))
    return int(line.split()[1])


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_header_is_read_whole_files_are_not(kind: str, tmp_path: Path) -> None:
    for value in range(1, 9):
        data = MAKERS[kind](value)
        path = tmp_path / f"{value}.img"
        path.write_bytes(data)
        file_facts(path)
        before = bytes_read()
        facts = file_facts(path)
        assert bytes_read() - before < 40_000 < len(data) / 5
        assert (facts.size, facts.orientation) == ((WIDTH, HEIGHT), value)
        assert file_orientation(path) == orientation(data) == value
        assert image_size(path) == image_size(data) == (WIDTH, HEIGHT)
        assert image_size(path, exif=True) == ((WIDTH, HEIGHT) if value < 5 else (HEIGHT, WIDTH))


@pytest.mark.parametrize("kind", ["camera", "edited", "tiff"])
def test_loading_reads_little_of_each_picture(kind: str, tmp_path: Path) -> None:
    data = MAKERS[kind](1)
    rows = [image_row(number, f"{number}.img", WIDTH, HEIGHT) for number in range(1, FILES + 1)]
    write_coco_folder(tmp_path, coco(rows, [box_row(n, n) for n in range(1, FILES + 1)], {3: "cat"}), images=False)
    (tmp_path / "train2017").mkdir(exist_ok=True)
    for number in range(1, FILES + 1):
        (tmp_path / "train2017" / f"{number}.img").write_bytes(data)
    assert len(load_dataset(tmp_path, "train").images) == FILES
    before = bytes_read()
    load_dataset(tmp_path, "train")
    assert bytes_read() - before < FILES * 20_000 < FILES * len(data) / 10


def test_entries_that_point_out_of_their_block_are_none() -> None:
    data = camera(6)
    at = data.index(b"Exif\0\0") + 6
    order = "<" if data[at : at + 2] == b"II" else ">"
    for place in (21_000, 60_000, 0xFFFFFFFF):
        broken = data[: at + 4] + struct.pack(f"{order}I", place) + data[at + 8 :]
        assert orientation(broken) == 1
    for cut in range(2, at + 60):
        assert orientation(data[:cut]) in (1, 6)
