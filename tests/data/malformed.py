"""Small datasets with things wrong in them: annotations, lists, names, pictures; in all three formats.

A dataset is a mapping from file name to content. Each strategy begins with a sound one and spoils it in up to a few
places, so most of it still makes sense, as in the folders that people have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from hypothesis import strategies as st

Files = dict[str, bytes]
SIZES = ((48, 32), (33, 40), (64, 64))  # width, height of the pictures

# What stands where something else should.
WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    1.5,
    1e308,
    -1e-9,
    2**31,
    2**63,
    2**70,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    " ",
    "1",
    "cat",
    "x" * 300,
    "\0",
    "\ud800",
    "ÄÖ $ [b]",
    [],
    [1, 2],
    [[]],
    {},
    {"id": 1},
)
NUMBERS = st.one_of(
    st.sampled_from((0, 1, -1, 5, 16, 32, 48, 64, 1e-30, -1e-30, 1e308, -1e308, 2**53, float("nan"), float("inf"))),
    st.floats(-80, 160, allow_nan=False),
    st.floats(width=32),
)
TOKENS = (*"01", "-1", "2.0", "0.5", "1e999", "nan", "-inf", "x", "0x1", "1,5", "", "\u0660", "9" * 400, "None")
NAMES = (
    "",
    ".",
    "..",
    "../0.png",
    "sub/../../0.png",
    "/etc/hostname",
    "C:\\pictures\\0.png",
    "sub\\0.png",
    "a\0b.png",
    "n" * 300 + ".png",
    "0.PNG",
    "nowhere.png",
    "\ud800.png",
    "annotations",
)


@lru_cache
def picture(number: int, suffix: str = ".png") -> bytes:
    """A sound picture."""
    width, height = SIZES[number % len(SIZES)]
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return bytes(cv2.imencode(suffix, pixels)[1])


def write(root: Path, files: Mapping[str, bytes]) -> None:
    """The dataset in a folder; a name that ends in a slash becomes a folder."""
    for name, content in files.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        elif not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@st.composite
def boxes(draw: st.DrawFn) -> list[Any]:
    """Four numbers, most of them of a box."""
    if not rarely(draw):
        x, y = draw(st.floats(0, 30)), draw(st.floats(0, 30))
        return [x, y, draw(st.floats(0.5, 40)), draw(st.floats(0.5, 40))]
    return draw(st.lists(NUMBERS, min_size=4, max_size=4))


def rarely(draw: st.DrawFn) -> bool:
    """True one time in sixteen; nought, which hypothesis is fond of, is False."""
    return draw(st.integers(0, 15)) == 9


def spoiled_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A file that was cut, overwritten, re-encoded or emptied."""
    how = draw(st.sampled_from(("cut", "flip", "insert", "bom", "utf16", "empty", "noise", "twice")))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:at]
    if how == "flip":
        return content[:at] + draw(st.binary(min_size=1, max_size=4)) + content[at + 1 :]
    if how == "insert":
        return content[:at] + draw(st.sampled_from((b"\0", b"\xff", b'"', b"[", b"<", b"&", b"\n"))) + content[at:]
    if how == "bom":
        return b"\xef\xbb\xbf" + content
    if how == "utf16":
        return content.decode("utf-8", "replace").encode("utf-16")
    if how == "twice":
        return content + content
    return b"" if how == "empty" else draw(st.binary(min_size=1, max_size=60))


def spoil_pictures(draw: st.DrawFn, files: Files) -> None:
    """Pictures that are missing, broken, of another size, or no pictures."""
    names = sorted(name for name in files if name.endswith((".png", ".jpg")))
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 0, 0, 1, 2)))):
        name = draw(st.sampled_from(names))
        how = draw(st.sampled_from(("missing", "other size", "folder", "other kind", "spoiled")))
        if how == "missing":
            files.pop(name, None)
        elif how == "folder" and name in files:
            files.pop(name)
            files[f"{name}/"] = b""
        elif how == "other size":
            files[name] = picture(draw(st.integers(0, 5)))
        elif how == "other kind":
            files[name] = picture(draw(st.integers(0, 5)), draw(st.sampled_from((".jpg", ".bmp", ".webp"))))
        elif name in files:
            files[name] = spoiled_bytes(draw, files[name])


# --- COCO ------------------------------------------------------------------------------------------------------------


def spoil_coco(draw: st.DrawFn, content: dict[str, Any]) -> None:
    section = draw(st.sampled_from(("images", "annotations", "annotations", "categories")))
    rows = content.get(section)
    how = draw(
        st.sampled_from(
            ("field", "field", "field", "drop field", "box", "box", "box", "twice", "row", "section", "name")
        )
    )
    if how == "section":
        content[section] = draw(st.sampled_from(WEIRD))
        if draw(st.booleans()):
            del content[section]
        return
    if not isinstance(rows, list) or not rows:
        return
    at = draw(st.integers(0, len(rows) - 1))
    row = rows[at]
    if how == "twice":
        rows.append(row)
    elif how == "row":
        rows[at] = draw(st.sampled_from(WEIRD))
    elif isinstance(row, dict) and row:
        key = draw(st.sampled_from(sorted(row)))
        if how == "field":
            row[key] = draw(st.sampled_from(WEIRD))
        elif how == "drop field":
            del row[key]
        elif section == "annotations":
            length = draw(st.sampled_from((4, 4, 4, 4, 3, 5, 0)))
            row["bbox"] = [*draw(boxes()), 1][:length]
        elif section == "images":
            row["file_name"] = draw(st.sampled_from(NAMES))


@st.composite
def coco_datasets(draw: st.DrawFn) -> Files:
    """A COCO folder."""
    count = draw(st.integers(1, 4))
    images = [
        {"id": n + 1, "file_name": f"{n}.png", "width": SIZES[n % 3][0], "height": SIZES[n % 3][1]}
        for n in range(count)
    ]
    annotations = [
        {
            "id": n,
            "image_id": draw(st.integers(1, count)),
            "category_id": draw(st.sampled_from((3, 9))),
            "bbox": draw(boxes()),
            "area": draw(st.floats(0, 900)),
            "iscrowd": draw(st.sampled_from((0, 0, 0, 1))),
        }
        for n in range(draw(st.integers(1, 6)))
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2, 3)))):
        spoil_coco(draw, content)
    text = json.dumps(content).encode()
    if rarely(draw):
        text = spoiled_bytes(draw, text)
    files = {"annotations/instances_train.json": text}
    files |= {f"train/{n}.png": picture(n) for n in range(count)}
    spoil_pictures(draw, files)
    return files


# --- YOLO ------------------------------------------------------------------------------------------------------------


@st.composite
def yolo_lines(draw: st.DrawFn) -> str:
    """A line of a label file."""
    how = draw(st.sampled_from(("sound", "sound", "sound", "numbers", "polygon", "token", "label", "words")))
    label = draw(st.sampled_from(("2", "0.5", "-1", "1e0", "nan") if how == "label" else ("0", "1")))
    if how in ("sound", "label"):
        return " ".join([label, *(f"{draw(st.floats(0.05, 0.95)):.6f}" for _ in range(4))])
    if how == "numbers":
        return " ".join([label, *map(repr, draw(st.lists(NUMBERS, min_size=4, max_size=4)))])
    if how == "polygon":
        return " ".join([label, *map(repr, draw(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=10)))])
    if how == "token":
        words = [label, "0.5", "0.5", "0.4", "0.4"]
        words[draw(st.integers(0, 4))] = draw(st.sampled_from(TOKENS))
        return " ".join(words)
    return draw(st.text(max_size=20))


@st.composite
def yolo_datasets(draw: st.DrawFn) -> Files:
    """A YOLO folder."""
    settings: dict[str, Any] = {"train": "images/train", "names": ["cat", "dog"]}
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        key = draw(st.sampled_from(("train", "names", "nc", "path", "val")))
        value = draw(st.sampled_from((*WEIRD, {0: "cat", 1: "dog"}, {0: "cat", 2: "dog"}, "list.txt", "images", "..")))
        if isinstance(value, str):
            value = value.replace("\ud800", "").replace("\0", "")
        settings[key] = value
    text = yaml.safe_dump(settings, allow_unicode=True).encode()
    if rarely(draw):
        text = spoiled_bytes(draw, text)
    files = {"data.yaml": text}
    for n in range(draw(st.integers(1, 4))):
        files[f"images/train/{n}.png"] = picture(n)
        if not rarely(draw):
            lines = "\n".join(draw(st.lists(yolo_lines(), max_size=4))).encode("utf-8", "surrogatepass")
            files[f"labels/train/{n}.txt"] = spoiled_bytes(draw, lines) if rarely(draw) else lines
    if draw(st.booleans()):
        listed = draw(st.lists(st.sampled_from((*NAMES, "images/train/0.png", "./images/train/1.png")), max_size=4))
        files["list.txt"] = "\n".join(listed).encode("utf-8", "surrogatepass")
    spoil_pictures(draw, files)
    return files


# --- VOC -------------------------------------------------------------------------------------------------------------


@st.composite
def voc_xmls(draw: st.DrawFn, number: int) -> bytes:
    """One annotation."""
    width, height = SIZES[number % 3]
    objects = []
    for _ in range(draw(st.integers(0, 4))):
        x, y, w, h = draw(boxes())
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(repr, (x + 1, y + 1, x + w, y + h)), strict=True))
        if rarely(draw):
            corners[draw(st.sampled_from(sorted(corners)))] = draw(st.sampled_from(TOKENS))
        if rarely(draw):
            del corners[draw(st.sampled_from(sorted(corners)))]
        inner = "".join(f"<{name}>{text}</{name}>" for name, text in corners.items())
        label = draw(st.sampled_from(("", "<b/>", "&c;") if rarely(draw) else ("cat", "dog", " dog ", "a &amp; b")))
        difficult = draw(st.sampled_from(("0", "0", "1", "", "true", "x")))
        objects.append(
            f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>{inner}</bndbox></object>"
        )
    told = {"width": str(width), "height": str(height)}
    if rarely(draw):
        told[draw(st.sampled_from(("width", "height")))] = draw(st.sampled_from(TOKENS))
    size = "<size>" + "".join(f"<{name}>{text}</{name}>" for name, text in told.items()) + "</size>"
    head = '<!DOCTYPE a [<!ENTITY b "c">]>' if rarely(draw) else draw(st.sampled_from(("", '<?xml version="1.0"?>')))
    name = draw(st.sampled_from((f"{number}.png", "other.png", "../0.png", "")))
    text = f"{head}<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>".encode()
    return spoiled_bytes(draw, text) if rarely(draw) else text


@st.composite
def voc_datasets(draw: st.DrawFn) -> Files:
    """A VOC folder."""
    count = draw(st.integers(1, 4))
    files = {f"Annotations/{n}.xml": draw(voc_xmls(n)) for n in range(count)}
    files |= {f"JPEGImages/{n}.png": picture(n) for n in range(count)}
    if not rarely(draw):
        names = [str(n) for n in range(count)]
        for _ in range(draw(st.sampled_from((0, 0, 0, 0, 0, 1, 2)))):
            names.append(draw(st.sampled_from(("0", "7", "../0", "0 1", "0 -1", "\0", "x y z", *NAMES))))
        text = "\n".join(names).encode("utf-8", "surrogatepass")
        files["ImageSets/Main/train.txt"] = spoiled_bytes(draw, text) if rarely(draw) else text
    spoil_pictures(draw, files)
    return files


STRATEGIES: Mapping[str, Callable[[], st.SearchStrategy[Files]]] = {
    "coco": coco_datasets,
    "yolo": yolo_datasets,
    "voc": voc_datasets,
}
