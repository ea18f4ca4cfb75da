"""A JPEG that lacks its last bytes is used if nine tenths of its rows are there, and that is told."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bright_square import BrightRectangle
from data.loaders import eval_loader, train_loader
from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.data import check_dataset, convert_dataset, load_dataset, read_image, split_dataset
from tood.data.images import decode_image
from tood.data.transforms import AugmentConfig
from tood.errors import ToodError
from tood.inference import Detector

ROWS = 480
PICTURE = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (ROWS, 200, 3), dtype=np.uint8), (0, 0), 2)


def jpeg(picture: np.ndarray[Any, Any] = PICTURE, **options: Any) -> bytes:
    out = BytesIO()
    Image.fromarray(picture).save(out, "JPEG", **options)
    return out.getvalue()


def restarts(data: bytes) -> list[int]:
    """Where each restart marker stands: between two rows of blocks, as the file is made here."""
    return [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]


@pytest.mark.parametrize(("subsampling", "block"), [(0, 8), (1, 8), (2, 16)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_rows_are_counted_to_the_block(mode: str, subsampling: int, block: int) -> None:
    block = 8 if mode != "RGB" else block
    options = {"subsampling": subsampling} if mode == "RGB" else {}
    out = BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(out, "JPEG", restart_marker_rows=1, quality=85, **options)
    data = out.getvalue()
    whole = read_image(data)
    places = restarts(data)
    assert len(places) == -(-ROWS // block) - 1
    for missing in range(1, len(places) + 1):
        at, rows = places[-missing], ROWS - missing * block - (ROWS % block and ROWS % block - block)
        for cut in (at, at + 1, at + 2):
            if rows >= 0.9 * ROWS:
                decoded = decode_image(data[:cut])
                assert decoded.rows == rows
                # The row above the cut may show a little of the colours below.
                np.testing.assert_array_equal(decoded.pixels[: rows - 1], whole[: rows - 1])
                assert decoded.pixels.shape == whole.shape
            else:
                with pytest.raises(ToodError, match=rf"truncated: {rows} of its {ROWS} rows are there"):
                    decode_image(data[:cut])
        if rows < 0.7 * ROWS:
            break


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.02, 1.0), options=st.sampled_from([{}, {"progressive": True}, {"quality": 30}]))
def test_any_cut_gives_the_right_rows_or_a_sentence(share: float, options: dict[str, Any]) -> None:
    data = jpeg(**options)
    whole = read_image(data)
    try:
        decoded = decode_image(data[: int(len(data) * share)], name="cut.jpg")
    except ToodError as error:
        assert "cut.jpg: " in str(error)  # noqa: PT017
        return
    rows = ROWS if decoded.rows is None else decoded.rows
    assert rows >= 0.9 * ROWS
    np.testing.assert_array_equal(decoded.pixels[: rows - 1], whole[: rows - 1])


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_the_last_bytes_may_lack(options: dict[str, Any]) -> None:
    data = jpeg(**options)
    for missing in (1, 2, 3, 20, 100):
        decoded = decode_image(data[:-missing])
        assert decoded.rows is None or decoded.rows >= 0.9 * ROWS
    assert decode_image(data).rows is None
    with pytest.raises(ToodError, match="truncated"):
        decode_image(data[: len(data) // 2])


def test_a_progressive_file_without_its_last_scans_is_refused() -> None:
    """All rows are there, but drawn coarsely."""
    data = jpeg(progressive=True)
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    for at in scans[1:]:
        with pytest.raises(ToodError, match="truncated"):
            decode_image(data[:at])


def cut_dataset(root: Path, cut: int = 60) -> Path:
    """Four JPEGs; of the first its end lacks, the third is half."""
    rows = [image_row(number, f"{number}.jpg", 200, ROWS) for number in range(1, 5)]
    write_coco_folder(root, coco(rows, [box_row(n, n) for n in range(1, 5)], {3: "cat"}), images=False)
    folder = root / "train2017"
    folder.mkdir()
    for number in range(1, 5):
        (folder / f"{number}.jpg").write_bytes(jpeg())
    (folder / "1.jpg").write_bytes(jpeg()[:-cut])
    (folder / "3.jpg").write_bytes(jpeg()[: len(jpeg()) // 2])
    return root


def test_check_warns_of_one_and_refuses_the_other(tmp_path: Path) -> None:
    report = check_dataset(cut_dataset(tmp_path))
    found = {(p.kind, p.image_id, p.severity) for p in report.problems if p.severity != "note"}
    assert found == {("image_cut", 1, "warning"), ("image_unreadable", 3, "error")}
    assert not report.ok


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [False, True])
def test_loading_tells_once_with_a_count(
    tmp_path: Path, workers: int, cache: bool, caplog: pytest.LogCaptureFixture
) -> None:
    root = cut_dataset(tmp_path)
    for number in (2, 3):
        (root / "train2017" / f"{number}.jpg").write_bytes(jpeg()[:-60])
    dataset = load_dataset(root)
    loader = train_loader(dataset, AugmentConfig(), 2, workers, cache=cache)
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        assert sum(len(batch) for batch in loader) == 4
        dataset.picture_notes.tell()
    for _ in range(2):
        assert sum(len(batch) for batch in eval_loader(dataset, (64, 64), 2, workers)) == 4
        dataset.picture_notes.tell()
    (record,) = caplog.records
    assert "3 pictures, such as" in record.getMessage()
    assert "1.jpg: the end of the file is missing or damaged" in record.getMessage()


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_what_is_written_can_be_trained_on(tmp_path: Path, to: str) -> None:
    root = cut_dataset(tmp_path / "in")
    (root / "train2017" / "4.jpg").write_bytes(b"")
    report = convert_dataset(root, tmp_path / "out", to)
    assert report.images == {"train": 2}
    (told,) = [sentence for sentence in report.lost if "cannot be read" in sentence]
    assert "left out, as it cannot be read, 2 pictures: " in told
    written = load_dataset(tmp_path / "out")
    for image in written.images:
        read_image(image.path)
    divided = split_dataset(tmp_path / "out", tmp_path / "split", val=0.5)
    assert divided.images == {"train": 1, "val": 1}


def test_division_leaves_out_what_cannot_be_read_and_tells(tmp_path: Path) -> None:
    report = split_dataset(cut_dataset(tmp_path / "in"), tmp_path / "out", val=0.34)
    assert sum(report.images.values()) == 3
    assert any("3.jpg" in note and "left out" in note for note in report.notes)
    for name in ("train", "val"):
        for image in load_dataset(tmp_path / "out", name).images:
            read_image(image.path)


def test_a_yolo_picture_without_a_header_is_left_out_too(tmp_path: Path) -> None:
    convert_dataset(cut_dataset(tmp_path / "in"), tmp_path / "yolo", "yolo")
    first = sorted((tmp_path / "yolo" / "images" / "train").iterdir())[0]
    first.unlink()
    first.write_bytes(b"nothing")
    report = split_dataset(tmp_path / "yolo", tmp_path / "out", val=0.5)
    assert sum(report.images.values()) == 2
    assert any(first.name in note for note in report.notes)


def test_nothing_readable_is_refused(tmp_path: Path) -> None:
    root = cut_dataset(tmp_path / "in")
    for path in (root / "train2017").iterdir():
        path.write_bytes(jpeg()[:3000])
    with pytest.raises(ToodError, match="none of its pictures can be read"):
        convert_dataset(root, tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


def test_prediction_tells_once_with_a_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = cut_dataset(tmp_path)
    detector = Detector.from_model(BrightRectangle(), ["dark", "bright"], "cpu")  # type: ignore[arg-type]
    failed: list[str] = []
    found = list(detector.stream(root / "train2017", on_error=lambda name, _: failed.append(name)))
    assert len(found) == 3
    assert [Path(name).name for name in failed] == ["3.jpg"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "1.jpg: the end of the file is missing or damaged" in record.getMessage()
