"""Decoders keep their remarks to themselves, and one limit of pixels holds for all kinds of files."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.data import check_dataset, image_size, read_image
from tood.data.images.pillow import pillow_quiet
from tood.errors import ToodError

RGB = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(kind: str, pixels: np.ndarray[Any, Any] = RGB, **options: Any) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def odd_pngs() -> dict[str, bytes]:
    """Whole pictures with something in them that libpng warns of."""
    png = encoded("PNG")
    extra = {
        "profile": chunk(b"iCCP", b"x\0\0junk"),
        "bits": chunk(b"sBIT", b"\x10\x10\x10"),
        "text": chunk(b"tEXt", b"a\0b", wrong=1),
        "gamma": chunk(b"gAMA", b"\0\0\0\0") * 2,
        "transparency": chunk(b"tRNS", b"\0"),
        "background": chunk(b"bKGD", b"\0"),
    }
    return {name: png[:33] + more + png[33:] for name, more in extra.items()}


@pytest.mark.parametrize("name", list(odd_pngs()))
def test_what_pixels_do_not_need_changes_none_and_says_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    np.testing.assert_array_equal(read_image(odd_pngs()[name]), RGB)
    assert capfd.readouterr() == ("", "")


def test_broken_pngs_say_nothing_but_their_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    png = encoded("PNG")
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(png)
        data[int(rng.integers(33, len(png) - 12))] ^= int(rng.integers(1, 256))
        try:
            read_image(bytes(data), name="broken.png")
        except ToodError as error:
            assert str(error).count("broken.png") == 1  # noqa: PT017
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_pixels_of_clean_and_of_dirty_pngs_are_the_same(mode: str) -> None:
    out = BytesIO()
    Image.fromarray(RGB).convert(mode).save(out, "PNG", compress_level=0)
    data = out.getvalue()
    at = data.index(b"IDAT") - 4
    np.testing.assert_array_equal(read_image(data[:at] + chunk(b"tEXt", b"a\0b") + data[at:]), read_image(data))
    with_alpha_gone = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(read_image(data), with_alpha_gone)


def test_pillow_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    out = BytesIO()
    Image.new("1", (12_000, 8_000)).save(out, "TIFF", compression="group4")  # 96 million pixels
    data = out.getvalue()
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(BytesIO(data))
    recwarn.clear()
    assert image_size(data) == (12_000, 8_000)
    assert read_image(data).shape == (8_000, 12_000, 3)
    assert not recwarn.list


def test_pillow_s_own_limit_is_as_before() -> None:
    with pillow_quiet(10):
        pass  # the filter stays
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    ready = threading.Barrier(4, timeout=60)
    found: list[int | None] = []
    errors: list[BaseException] = []

    def inside() -> None:
        try:
            for _ in range(50):
                ready.wait()
                with pillow_quiet(1000):
                    found.append(Image.MAX_IMAGE_PIXELS)
                    ready.wait()
        except BaseException as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=inside) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert found == [500] * 200
    with pytest.raises(KeyError), pillow_quiet(10):
        raise KeyError
    assert (before, filters) == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))


def test_warnings_of_other_modules_are_shown_once_a_place_as_python_does() -> None:
    code = """
import warnings
from io import BytesIO
from PIL import Image
from tood.data import read_image
out = BytesIO()
Image.new("RGB", (8, 8)).save(out, "WEBP")
def say(): warnings.warn("once a place")
for _ in range(5):
    read_image(out.getvalue())
    say()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("once a place") == 1 + done.stderr.count("def say")


KINDS = ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_limit_for_all_kinds_and_the_remedy_exists(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(kind, **({"sizes": [(64, 48)]} if kind == "ICO" else {}))
    monkeypatch.setenv("TOOD_MAX_PIXELS", "3000")
    with pytest.raises(ToodError, match=r"x: .*more .*the limit of 3,000; .*TOOD_MAX_PIXELS") as caught:
        read_image(data, name="x")
    if "TOOD_MAX_PIXELS=" in str(caught.value):
        monkeypatch.setenv("TOOD_MAX_PIXELS", str(caught.value).split("TOOD_MAX_PIXELS=")[1])
    else:
        monkeypatch.setenv("TOOD_MAX_PIXELS", "3072")
    assert read_image(data).shape == (48, 64, 3)
    with pytest.raises(ToodError, match="limit of 100;"):
        read_image(data, max_pixels=100)


def test_beyond_pillow_s_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """190 million pixels, which Pillow alone refuses, as GIF and TIFF: within the limit here."""
    out = BytesIO()
    Image.new("1", (19_000, 10_000)).save(out, "TIFF", compression="group4")
    assert image_size(out.getvalue()) == (19_000, 10_000)
    monkeypatch.setenv("TOOD_MAX_PIXELS", "300_000_000")
    gif = bytearray(encoded("GIF"))
    gif[6:10] = struct.pack("<HH", 17_000, 17_000)
    assert image_size(bytes(gif)) == (17_000, 17_000)
    monkeypatch.delenv("TOOD_MAX_PIXELS")
    with pytest.raises(ToodError, match=r"limit of 200,000,000; .*TOOD_MAX_PIXELS"):
        read_image(bytes(gif))


@pytest.mark.parametrize("value", ["many", "0", "-5", "1.5"])
def test_a_limit_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOD_MAX_PIXELS", value)
    with pytest.raises(ToodError, match=r"TOOD_MAX_PIXELS is .*: expected a whole number"):
        read_image(encoded("PNG"))


def test_check_follows_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco_folder(tmp_path, coco([image_row(1)], [box_row(1, 1)], {3: "cat"}))
    assert check_dataset(tmp_path).ok
    monkeypatch.setenv("TOOD_MAX_PIXELS", "3000")
    (error,) = (p for p in check_dataset(tmp_path).problems if p.severity == "error")
    assert "TOOD_MAX_PIXELS=3072" in error.message


def test_a_command_prints_no_remark_of_a_decoder(tmp_path: Path) -> None:
    rows = [image_row(number) for number in range(1, 8)]
    write_coco_folder(tmp_path, coco(rows, [box_row(n, n) for n in range(1, 8)], {3: "cat"}), images=False)
    (tmp_path / "train2017").mkdir()
    broken = bytearray(encoded("PNG"))
    broken[200] ^= 255
    for number, data in enumerate([*odd_pngs().values(), bytes(broken)], start=1):
        (tmp_path / "train2017" / f"{number}.png").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tood", "data", "check", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "libpng" not in done.stdout + done.stderr
    assert done.stdout.count("7.png") == 1
