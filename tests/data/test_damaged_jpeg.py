"""JPEGs with a hole, a lost end under a proper end marker, or foreign bytes: told once by us, never by the decoder."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from data.loaders import eval_loader
from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.data import load_dataset
from tood.data.images import decode_image
from tood.data.images import jpeg_scans as scans_module
from tood.data.images.jpeg_scans import jpeg_scans
from tood.errors import ToodError

ROWS, COLUMNS = 480, 320
END = b"\xff\xd9"
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}


def picture(seed: int = 3) -> np.ndarray[Any, Any]:
    return cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8), (0, 0), 1.5)


def jpeg(kind: str = "plain", mode: str = "RGB", pixels: np.ndarray[Any, Any] | None = None) -> bytes:
    out = BytesIO()
    Image.fromarray(picture() if pixels is None else pixels).convert(mode).save(out, "JPEG", quality=90, **KINDS[kind])
    return out.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2] + END


def hole(data: bytes, at: float = 0.5, fill: bytes = b"\0") -> bytes:
    begin = int(len(data) * at)
    return data[:begin] + fill * 2000 + data[begin + 2000 :]


def blank_tail(data: bytes, share: float, end: bytes = b"") -> bytes:
    lost = int(len(data) * share)
    return data[: len(data) - lost] + bytes(lost - len(end)) + end


DAMAGE = {
    "half": half,
    "hole": hole,
    "hole of FF": lambda data: hole(data, fill=b"\xff"),
    "hole of another byte": lambda data: hole(data, fill=b"\xf6"),
    "early hole": lambda data: hole(data, 0.3),
    "fifth blank": lambda data: blank_tail(data, 0.2),
    "third blank": lambda data: blank_tail(data, 0.35),
    "fifth blank, ended": lambda data: blank_tail(data, 0.2, END),
    "foreign bytes": lambda data: (
        data[: len(data) // 2] + np.random.default_rng(0).bytes(3000) + data[len(data) // 2 + 3000 :]
    ),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_part_that_is_gone_makes_it_unreadable(kind: str, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    for reduction in (1, 2):
        with pytest.raises(ToodError, match=r"^x\.jpg: the image is truncated") as caught:
            decode_image(DAMAGE[damage](jpeg(kind)), name="x.jpg", reduction=reduction)
        assert str(caught.value).count("x.jpg") == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["plain", "optimised", "restarts"])
@pytest.mark.parametrize("share", [0.03, 0.06])
def test_a_little_that_is_gone_is_counted(kind: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    data = jpeg(kind)
    whole = decode_image(data).pixels
    cut = data[: int(len(data) * (1 - share))]
    expected = decode_image(cut).rows
    assert expected is not None
    assert 0.9 * ROWS <= expected < ROWS
    for damaged in (cut + END, blank_tail(data, share), blank_tail(data, share, END)):
        decoded = decode_image(damaged)
        assert decoded.rows is not None
        # A byte of the scan more or less may make a row of blocks.
        assert abs(decoded.rows - expected) <= 16
        np.testing.assert_array_equal(decoded.pixels[: decoded.rows - 1], whole[: decoded.rows - 1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("value", [0, 128, 255])
def test_even_pictures_are_whole(kind: str, value: int) -> None:
    """Their scans are runs of equal bytes, and grey is what a lost end looks like."""
    for pixels in (np.full((ROWS, COLUMNS, 3), value, np.uint8), picture().copy()):
        pixels[ROWS // 4 :] = value
        data = jpeg(kind, pixels=np.tile(pixels, (3, 2, 1)))
        decoded = decode_image(data)
        assert decoded.rows is None
        np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(BytesIO(data))))


def test_an_even_picture_with_a_little_in_its_last_rows_is_whole() -> None:
    """OpenCV decodes it without its last bytes, too: it does not miss the last row of blocks."""
    image = Image.new("RGB", (402, 239), (148, 67, 50))
    image.paste((253, 128, 46), (324, 228, 402, 239))
    image.paste((165, 123, 213), (102, 230, 116, 239))
    out = BytesIO()
    image.save(out, "JPEG", quality=90, optimize=True)
    decoded = decode_image(out.getvalue())
    assert decoded.rows is None
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(out)))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_files_are_whole_whatever_follows(kind: str, mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = jpeg(kind, mode)
    plain = decode_image(data)
    assert plain.rows is None
    for more in (b"\0" * 5000, b"\xff", b"trailing words", data):
        for whole in (False, True):
            decoded = decode_image(data + more, whole=whole)
            assert decoded.rows is None
            np.testing.assert_array_equal(decoded.pixels, plain.pixels)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("missing", [1, 2, 20, 60])
def test_progressive_files_of_all_colours_may_lack_their_last_bytes(mode: str, missing: int) -> None:
    data = jpeg("progressive", mode)
    whole = decode_image(data).pixels
    decoded = decode_image(data[:-missing])
    rows = ROWS if decoded.rows is None else decoded.rows
    assert rows >= 0.9 * ROWS
    np.testing.assert_array_equal(decoded.pixels[: rows - 1], whole[: rows - 1])


def test_scans_are_found_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [jpeg(kind) for kind in KINDS] + [hole(jpeg("restarts"))]
    expected = [jpeg_scans(data) for data in files]
    for piece in (7, 64, 1001):
        monkeypatch.setattr(scans_module, "_PIECE", piece)
        assert [jpeg_scans(data) for data in files] == expected
    assert [found is not None and found.plain for found in expected] == [True, True, True, False, False]


def test_bytes_that_make_no_sense_are_no_scans() -> None:
    rng = np.random.default_rng(0)
    data = jpeg("progressive")
    for _ in range(200):
        broken = bytearray(data[: int(rng.integers(2, len(data)))])
        for at in rng.integers(2, len(broken), 20).tolist() if len(broken) > 2 else ():
            broken[at] = int(rng.integers(0, 256))
        jpeg_scans(bytes(broken))


def test_training_data_is_told_once_and_by_us(tmp_path: Path) -> None:
    rows = [image_row(n, f"{n}.jpg", COLUMNS, ROWS) for n in range(1, 5)]
    write_coco_folder(tmp_path, coco(rows, [box_row(n, n) for n in range(1, 5)], {3: "cat"}), images=False)
    (tmp_path / "train2017").mkdir()
    for number, data in enumerate(
        (half(jpeg()), hole(jpeg()), blank_tail(jpeg(), 0.04, END), half(jpeg("progressive"))), start=1
    ):
        (tmp_path / "train2017" / f"{number}.jpg").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tood", "data", "check", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Corrupt JPEG" not in done.stdout + done.stderr
    assert [done.stdout.count(f"{n}.jpg") for n in range(1, 5)] == [1] * 4


def test_a_progressive_picture_is_proved_whole_once(tmp_path: Path) -> None:
    rows = [image_row(n, f"{n}.jpg", COLUMNS, ROWS) for n in (1, 2)]
    write_coco_folder(tmp_path, coco(rows, [box_row(1, 1), box_row(2, 2)], {3: "cat"}), images=False)
    (tmp_path / "train2017").mkdir()
    for number, data in ((1, jpeg("progressive")), (2, jpeg("progressive")[:-200] + END)):
        (tmp_path / "train2017" / f"{number}.jpg").write_bytes(data)
    dataset = load_dataset(tmp_path)
    first, second = (next(iter(eval_loader(dataset, (COLUMNS, ROWS), 2, workers=1))) for _ in range(2))
    assert [dataset.picture_notes.is_whole(record) for record in dataset.images] == [True, False]
    np.testing.assert_array_equal(first.images.numpy(), second.images.numpy())
