"""Boxes lie where they were drawn, whichever way a picture's EXIF orientation turns it and whatever the format."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin
from typer.testing import CliRunner

from data.loaders import eval_loader
from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.cli.data import app
from tood.data import (
    DetectionDataset,
    ImageTransfer,
    check_dataset,
    convert_dataset,
    dataset_stats,
    image_size,
    load_dataset,
    read_image,
    split_dataset,
)
from tood.data.disk_cache import DiskCache
from tood.data.exif import oriented
from tood.data.image_cache import build_cache
from tood.data.images import file_orientation, orientation, turn_boxes
from tood.data.reading import WHOLE
from tood.errors import ToodError
from tood.inference.sources import SourceConfig, expand

ORIENTATIONS = range(1, 9)
QUARTERS = (5, 6, 7, 8)
# The box of the one thing on the stored picture, x1 y1 x2 y2.
BOX = (4.0, 6.0, 20.0, 12.0)
WIDTH, HEIGHT = 64, 48


def stored_pixels(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A dim picture with something bright in `BOX`."""
    pixels = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[6:12, 4:20] = (250, 240, 230)
    return pixels


def save(path: Path, value: int, width: int = WIDTH, height: int = HEIGHT, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.fromarray(stored_pixels(width, height)), value, kind))
    return path


def encoded(image: Image.Image, value: int, kind: str) -> bytes:
    out, exif = BytesIO(), Image.Exif()
    exif[0x0112] = value
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if kind in ("JPEG", "MPO"):
        options = {"quality": 100, "subsampling": 0}
    image.save(out, kind, exif=exif, **options)
    return out.getvalue()


def turned_pixels(value: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """What Pillow makes of it, as an oracle."""
    exif = Image.Exif()
    exif[0x0112] = value
    image = Image.fromarray(stored_pixels(width, height))
    image.info["exif"] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(image))


def turned_box(value: int, width: int = WIDTH, height: int = HEIGHT) -> list[float]:
    found: list[float] = turn_boxes(np.array([BOX], np.float32), (width, height), value)[0].tolist()
    return found


def require_bright(dataset: DetectionDataset, index: int = 0) -> None:
    """The box of an image holds what is bright on its pixels as they are read, and nothing else does."""
    image = dataset.images[index]
    pixels = WHOLE(image)
    assert pixels.shape[:2] == (image.height, image.width)
    x1, y1, x2, y2 = (round(side) for side in image.boxes[0].tolist())
    bright = pixels.max(axis=2) > 150
    assert bright[y1:y2, x1:x2].all()
    assert bright.sum() == (y2 - y1) * (x2 - x1) == 6 * 16


@pytest.mark.parametrize("value", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_every_kind_is_turned_once_and_only_when_asked_for(value: int, kind: str, tmp_path: Path) -> None:
    path = save(tmp_path / "x.img", value, kind=kind)
    assert orientation(path.read_bytes()) == file_orientation(path) == value
    stored, turned = stored_pixels(), turned_pixels(value)
    for exif, expected in ((False, stored), (True, turned)):
        near = 6 if kind in ("JPEG", "MPO") else 0
        for name, pixels in {
            "path": read_image(path, exif=exif),
            "bytes": read_image(path.read_bytes(), exif=exif),
            "PIL": next(expand(Image.open(path))).read(SourceConfig(exif=exif)),
        }.items():
            assert pixels.shape == expected.shape, name
            assert np.abs(pixels.astype(int) - expected).max() <= near, name
        assert image_size(path, exif=exif) == expected.shape[1::-1]


def test_exif_behind_long_metadata(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(stored_pixels()), 6, "JPEG")
    profile = b"\xff\xe2" + (9002).to_bytes(2, "big") + b"x" * 9000
    (tmp_path / "x.jpg").write_bytes(data[:2] + profile + data[2:])
    assert file_orientation(tmp_path / "x.jpg") == orientation((tmp_path / "x.jpg").read_bytes()) == 6


def test_broken_exif_is_none(tmp_path: Path) -> None:
    for value in (0, 9, 255):
        assert orientation(encoded(Image.fromarray(stored_pixels()), value, "JPEG")) == 1
    data = encoded(Image.fromarray(stored_pixels()), 6, "JPEG")
    at = data.index(b"Exif\0\0")
    for cut in range(at, at + 40):
        assert orientation(data[:cut]) in (1, 6)
    assert file_orientation(tmp_path / "gone.jpg") == 1


@pytest.mark.parametrize("value", ORIENTATIONS)
def test_boxes_turn_like_pixels(value: int) -> None:
    x1, y1, x2, y2 = (round(side) for side in turned_box(value))
    bright = turned_pixels(value).max(axis=2) > 150
    assert bright[y1:y2, x1:x2].all()
    assert bright.sum() == 6 * 16


def coco_dataset(root: Path, value: int, turned: bool, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A COCO folder whose labels were made on the stored or the turned picture."""
    pixels = turned_pixels(value, width, height) if turned else stored_pixels(width, height)
    x1, y1, x2, y2 = turned_box(value, width, height) if turned else BOX
    rows = [image_row(1, "1.png", pixels.shape[1], pixels.shape[0])]
    content = coco(rows, [box_row(1, 1, (x1, y1, x2 - x1, y2 - y1))], {3: "cat"})
    write_coco_folder(root, content, images=False)
    save(root / "train2017" / "1.png", value, width, height)
    return root


def yolo_dataset(root: Path, value: int, turned: bool, width: int = WIDTH, height: int = HEIGHT) -> Path:
    save(root / "images" / "train" / "1.png", value, width, height)
    shape = turned_pixels(value, width, height).shape if turned else (height, width)
    box = np.array(turned_box(value, width, height) if turned else BOX) / np.array([shape[1], shape[0]] * 2)
    x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "1.txt").write_text(f"0 {x:.10f} {y:.10f} {w:.10f} {h:.10f}\n")
    (root / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    return root


def voc_dataset(root: Path, value: int, turned: bool, size: bool, box: tuple[float, ...] = ()) -> Path:
    save(root / "JPEGImages" / "1.png", value)
    shape = turned_pixels(value).shape if turned else (HEIGHT, WIDTH)
    x1, y1, x2, y2 = box or (turned_box(value) if turned else BOX)
    told = f"<size><width>{shape[1]}</width><height>{shape[0]}</height></size>" if size else ""
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("1\n")
    (root / "Annotations" / "1.xml").write_text(
        f"<annotation><filename>1.png</filename>{told}<object><name>cat</name><bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"
    )
    return root


@pytest.mark.parametrize("value", QUARTERS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_the_size_in_the_labels_tells(
    tmp_path: Path, kind: str, turned: bool, value: int, caplog: pytest.LogCaptureFixture
) -> None:
    root = coco_dataset(tmp_path, value, turned) if kind == "coco" else voc_dataset(tmp_path, value, turned, size=True)
    for setting in ("auto", "stored", "turned"):
        dataset = load_dataset(root, exif=setting)  # type: ignore[arg-type]
        assert dataset.images[0].turned == turned
        require_bright(dataset)
    assert not caplog.records
    assert check_dataset(root).ok


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("kind", "value"),
    [("coco", 2), ("coco", 3), ("coco", 4), *(("yolo", v) for v in range(2, 9)), *(("voc", v) for v in range(2, 7))],
)
def test_where_nothing_tells_the_setting_decides_and_is_offered(
    tmp_path: Path, kind: str, value: int, turned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    root = (
        coco_dataset(tmp_path, value, turned)
        if kind == "coco"
        else yolo_dataset(tmp_path, value, turned)
        if kind == "yolo"
        else voc_dataset(tmp_path, value, turned, size=False)
    )
    dataset = load_dataset(root, exif="turned" if turned else "stored")
    assert not caplog.records
    require_bright(dataset)
    plain = load_dataset(root)
    assert not plain.images[0].turned
    (record,) = caplog.records
    assert "1 picture has an EXIF orientation" in record.getMessage()
    assert "--exif turned" in record.getMessage()
    if not turned:
        require_bright(plain)
    told = [problem for problem in check_dataset(root).problems if problem.severity == "warning"]
    assert [problem.kind for problem in told] == ["exif_unknown"]
    assert not [p for p in check_dataset(root, exif="turned").problems if p.severity == "warning"]
    assert (dataset.digest() == plain.digest()) == (not turned)


def test_square_pictures_do_not_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = coco_dataset(tmp_path, 6, turned=True, width=50, height=50)
    assert not load_dataset(root).images[0].turned
    assert len(caplog.records) == 1
    require_bright(load_dataset(root, exif="turned"))


def test_pictures_that_tell_speak_for_those_that_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = {1: 6, 2: 3, 3: 8, 4: 1}
    for turned in (True, False):
        rows, boxes = [], []
        root = tmp_path / str(turned)
        for number, value in values.items():
            pixels = turned_pixels(value) if turned else stored_pixels()
            x1, y1, x2, y2 = turned_box(value) if turned else BOX
            rows.append(image_row(number, "", pixels.shape[1], pixels.shape[0]))
            boxes.append(box_row(number, number, (x1, y1, x2 - x1, y2 - y1)))
            save(root / "train2017" / f"{number}.png", value)
        write_coco_folder(root, coco(rows, boxes, {3: "cat"}), images=False)
        caplog.clear()
        dataset = load_dataset(root)
        for index in range(4):
            require_bright(dataset, index)
        (record,) = caplog.records
        assert "1 picture has" in record.getMessage()
        assert f"taken as {'turned' if turned else 'stored'}, like those" in record.getMessage()


def test_boxes_tell_where_they_fit_one_way_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """VOC without a size: the box reaches below the 48 rows that are stored."""
    root = voc_dataset(tmp_path / "a", 6, True, size=False, box=(3, 10, 30, 60))
    image = load_dataset(root).images[0]
    assert (image.width, image.height, image.turned) == (48, 64, True)
    assert image.boxes.tolist() == [[3, 10, 30, 60]]
    root = voc_dataset(tmp_path / "b", 6, False, size=False, box=(3, 10, 60, 30))
    image = load_dataset(root, exif="turned").images[0]
    assert (image.width, image.height, image.turned) == (64, 48, False)
    assert not caplog.records


def test_one_warning_counts_them_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = yolo_dataset(tmp_path, 6, turned=True)
    for number in range(2, 13):
        save(root / "images" / "train" / f"{number}.png", 3)
        (root / "labels" / "train" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    save(root / "images" / "train" / "empty.png", 3)
    load_dataset(root)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "12 pictures have an EXIF orientation" in record.getMessage()


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("value", range(2, 9))
def test_conversion_and_division_keep_the_boxes_on_their_things(
    tmp_path: Path, value: int, turned: bool, to: str, caplog: pytest.LogCaptureFixture
) -> None:
    setting = "turned" if turned else "stored"
    for kind, root in {
        "coco": coco_dataset(tmp_path / "c", value, turned),
        "yolo": yolo_dataset(tmp_path / "y", value, turned),
        "voc": voc_dataset(tmp_path / "v", value, turned, size=False),
    }.items():
        out = tmp_path / f"{kind}-{to}"
        convert_dataset(root, out, to, exif=setting, transfer=ImageTransfer.COPY)  # type: ignore[arg-type]
        caplog.clear()
        written = load_dataset(out)
        require_bright(written)
        if to == "yolo":
            assert yaml.safe_load((out / "data.yaml").read_text())["exif"] == setting
            assert not caplog.records
        else:
            require_bright(load_dataset(out, exif="stored"))
        assert file_orientation(written.images[0].path) == value


def test_division_keeps_them_too(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "y", 6, turned=True)
    save(root / "images" / "train" / "2.png", 6)
    (root / "labels" / "train" / "2.txt").write_text((root / "labels" / "train" / "1.txt").read_text())
    split_dataset(root, tmp_path / "out", val=0.5, exif="turned")
    for name in ("train", "val"):
        require_bright(load_dataset(tmp_path / "out", name))


def test_a_yaml_may_say_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = yolo_dataset(tmp_path, 6, turned=True)
    with (root / "data.yaml").open("a") as file:
        file.write("exif: turned\n")
    require_bright(load_dataset(root))
    assert not caplog.records
    assert not load_dataset(root, exif="stored").images[0].turned
    (root / "data.yaml").write_text("train: images/train\nnames: [cat]\nexif: sideways\n")
    with pytest.raises(ToodError, match="'exif' is 'sideways': expected auto, stored, turned"):
        load_dataset(root)


def test_caches_loaders_and_figures_follow(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "d", 6, turned=True)
    dataset, plain = load_dataset(root, exif="turned"), load_dataset(root, exif="stored")
    expected = turned_pixels(6)
    for _ in range(2):  # written, then read; neither takes the other's
        for part, pixels in ((dataset, expected), (plain, stored_pixels())):
            disk = DiskCache(tmp_path / "cache", part.images, lambda _h, _w: 1.0, 10**9)
            np.testing.assert_array_equal(disk[0], pixels)
            memory = build_cache(part.images, lambda _h, _w: 1.0, 10**9)
            assert memory is not None
            np.testing.assert_array_equal(memory[0], pixels)
    batch = next(iter(eval_loader(dataset, (48, 64), workers=0)))
    assert batch.sizes.tolist() == [[64, 48]]
    np.testing.assert_allclose(batch.targets[0].boxes.numpy()[0], turned_box(6), atol=1e-3)
    stats = dataset_stats(dataset)
    assert (stats.widths.tolist(), stats.heights.tolist()) == ([48], [64])
    assert stats.areas.tolist() == pytest.approx([96.0])


def test_commands_take_it(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "d", 6, turned=True)
    runner = CliRunner()
    for command in (
        ["check", str(root), "--exif", "turned"],
        ["stats", str(root), "--exif", "turned"],
        ["convert", str(root), str(tmp_path / "out"), "--to", "coco", "--exif", "turned"],
    ):
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
        assert "do not tell" not in result.output
    require_bright(load_dataset(tmp_path / "out"))
    assert "--exif turned" in runner.invoke(app, ["check", str(root)]).output.replace("\n", "")


def test_of_very_many_pictures_a_part_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tood.data.exif._LOOKED_AT", 2)
    root = tmp_path
    rows = [image_row(number) for number in range(1, 6)]
    boxes = [box_row(number, number) for number in range(1, 6)]
    write_coco_folder(root, coco(rows, boxes, {3: "cat"}))
    assert oriented(load_dataset(root))[1] == ""
    for number in (1, 3):
        save(root / "train2017" / f"{number}.png", 3)
    assert "2 pictures have" in oriented(load_dataset(root, exif="stored"))[1]


def with_text_profile(value: int, kind: str) -> bytes:
    """A PNG with EXIF where ImageMagick keeps it: in hexadecimal digits, in a text."""
    exif = Image.Exif()
    exif[0x0112] = value
    block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    digits = block.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    text = f"\nexif\n{len(block):8d}\n" + "\n".join(lines) + "\n"
    info, out = PngImagePlugin.PngInfo(), BytesIO()
    info.add_text("Comment", "nothing")
    if kind.startswith("iTXt"):
        info.add_itxt("Raw profile type exif", text, zip=kind.endswith("z"))
    else:
        info.add_text("Raw profile type exif", text, zip=kind == "zTXt")
    Image.fromarray(stored_pixels()).save(out, "PNG", pnginfo=info)
    return out.getvalue()


@pytest.mark.parametrize("value", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt z"])
def test_a_png_may_keep_exif_in_a_text(value: int, kind: str, tmp_path: Path) -> None:
    data = with_text_profile(value, kind)
    (tmp_path / "x.png").write_bytes(data)
    assert orientation(data) == file_orientation(tmp_path / "x.png") == value
    with Image.open(BytesIO(data)) as image:
        np.testing.assert_array_equal(read_image(data, exif=True), np.asarray(ImageOps.exif_transpose(image)))


def test_broken_texts_are_no_exif() -> None:
    for kind in ("tEXt", "zTXt", "iTXt z"):
        data = bytearray(with_text_profile(6, kind))
        at = data.index(b"Raw profile type exif") + 22
        for place in range(at, at + 60, 3):
            broken = bytes(data[:place]) + b"zz" + bytes(data[place + 2 :])
            assert orientation(broken) in range(1, 9)


def test_the_advice_names_each_command_s_own_option(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`tood predict --exif` is a switch: the sentence must not be taken for it."""
    save(tmp_path / "images" / "a.png", 3)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    load_dataset(tmp_path)
    (record,) = [r for r in caplog.records if "EXIF orientation" in r.getMessage()]
    assert "in `tood train` --set data.exif=turned" in record.getMessage()
    assert "in `tood eval` and `tood data check|convert|split|stats` --exif turned" in record.getMessage()
    for command in ("check", "convert", "split", "stats"):
        assert "--exif" in CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
