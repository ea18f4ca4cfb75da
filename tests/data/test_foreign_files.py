"""Files that are no pictures are named for what they are, with what helps; none is passed over without a word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from bright_square import BrightRectangle
from dataset_files import box_row, coco, write_coco_folder, write_image, write_voc_folder, write_yolo_folder
from tood.cli.predict_local import _images
from tood.data import DataConfig, check_dataset, image_size, load_dataset, read_image
from tood.errors import ToodError
from tood.inference import Detector, expand
from tood.training.run import open_datasets

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
FILES = {
    "HEIC": (HEIC, "is a HEIC picture, which is not read: save it as JPEG or PNG"),
    "another HEIC": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(90), "HEIC picture.*save it as JPEG or PNG"),
    "raw": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(90), "raw picture.*save it as JPEG or PNG"),
    "video": (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + bytes(90), "is a video"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "`git lfs pull`"),
    "page": (b"\xef\xbb\xbf\n <!DOCTYPE html><html>404</html>", "web page, saved in the place of the picture"),
    "old page": (b"<HTML><BODY>sorry</BODY></HTML>", "web page, saved in the place of the picture"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "server's answer"),
    "json": (b'{"error": "not found"}', "server's answer"),
    "svg": (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG drawing.*save it as"),
    "zip": (b"PK\3\4" + bytes(50), "unpack"),
    "zeros": (bytes(5000), "nothing but zero bytes"),
    "mac": (b"\0\5\x16\7" + bytes(80), "side file of macOS"),
    "words": (b"no picture at all", "is not an image, or too broken"),
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    data, sentence = FILES[name]
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for look in (read_image, image_size):
        with pytest.raises(ToodError, match=sentence) as caught:
            look(path)
        assert str(caught.value).count("x.jpg") == 1
    with pytest.raises(ToodError, match=sentence):
        list(Detector.from_model(BrightRectangle(), ["a", "b"], "cpu").stream(path))  # type: ignore[arg-type]


def test_predicting_in_a_folder_tells_what_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "1.png")
    (tmp_path / "2.heic").write_bytes(HEIC)
    (tmp_path / "3.HEIC").write_bytes(HEIC)
    (tmp_path / ".4.jpg").write_bytes(b"")
    failures: list[ToodError] = []
    assert [Path(image).name for image in _images([str(tmp_path), str(tmp_path / "1.png")], failures)] == ["1.png"] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("3 files passed over: ")
    assert "2 of kinds that are not read: save them as JPEG or PNG" in line
    assert not failures
    (tmp_path / "1.png").unlink()
    with pytest.raises(ToodError, match=r"no image in the folder .*2 of kinds that are not read: save them"):
        list(expand(tmp_path))


def yolo(root: Path) -> Path:
    labels = {f"{part}/{n}": "0 0.5 0.5 0.2 0.2\n" for part in ("train", "val") for n in "123"}
    write_yolo_folder(root, labels)
    return root


def voc(root: Path) -> Path:
    body = (
        "<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object>"
    )
    names = [f"{part}{n}" for part in ("train", "val") for n in "123"]
    write_voc_folder(
        root,
        {name: f"<annotation><filename>{name}.jpg</filename>{body}</annotation>" for name in names},
        {"train": names[:3], "val": names[3:]},
    )
    return root


def untold_coco(root: Path) -> Path:
    for part in ("train", "val"):
        rows = [{"id": n, "file_name": f"{n}.png"} for n in (1, 2, 3)]
        write_coco_folder(root, coco(rows, [box_row(n, n) for n in (1, 2, 3)], {3: "cat"}), part, images=False)
        for n in (1, 2, 3):
            write_image(root / f"{part}2017" / f"{n}.png")
    return root


@pytest.mark.parametrize("make", [yolo, voc, untold_coco])
@pytest.mark.parametrize("content", [b"", b"<html></html>"])
def test_skip_covers_pictures_that_cannot_be_measured(
    make: Callable[[Path], Path], content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path / "data")
    for part in ("train", "val"):
        path = sorted(image.path for image in load_dataset(root, part).images)[0]
        path.write_bytes(content)
        with pytest.raises(ToodError) as caught:
            load_dataset(root, part)
        assert str(caught.value).count(str(path)) == 1
        assert sum(p.kind == "image_unreadable" for p in check_dataset(root, part).problems) == 1
    caplog.clear()
    found = open_datasets(DataConfig(path=str(root), unreadable="skip"))
    assert [len(found.training.images), len(found.validation.images)] == [2, 2]  # type: ignore[union-attr]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [("left out of split" in text, "1 picture" in text) for text in told] == [(True, True)] * 2
