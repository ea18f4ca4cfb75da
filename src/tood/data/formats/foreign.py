"""Labels in formats that are not read: which tool or dataset they are of, and what makes readable ones of them.

Texts and masks, which no tool's name stands in, are in `foreign_texts`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tood.data.formats.foreign_texts import Foreign, masks_among, text_told
from tood.data.formats.json_stream import JsonStream
from tood.data.formats.survey import Survey
from tood.errors import quoted

_MOST_PROBED = 40
_LARGEST_JSON = 1 << 27
_START = 1 << 14
_XML_ROOT = re.compile(rb"<(?!\?|!)(?:\w+:)?(?P<name>\w+)")

_LABELME = Foreign(
    "LabelMe's json", "LabelMe's own labelme2coco.py makes a COCO json of the folder, labelme2voc.py xml"
)
_VIA = Foreign(
    "a project of the VGG Image Annotator (VIA)", "export from it with Annotation > Export Annotations (COCO)"
)
_VOTT = Foreign("VoTT's json", "choose Pascal VOC as the provider in its Export Settings and export again")
_SUPERVISELY = Foreign("Supervisely's json", "export from it with its apps Export to COCO, to YOLOv8 or to Pascal VOC")
_LABEL_STUDIO = Foreign("Label Studio's json", "export from it again as 'COCO with images' or 'YOLO with images'")
_CREATE_ML = Foreign("Apple's CreateML json", "export again as COCO, YOLO or Pascal VOC from the tool that wrote it")
_FIFTYONE = Foreign(
    "FiftyOne's own format",
    "load it there and call dataset.export(export_dir=..., dataset_type=fiftyone.types.COCODetectionDataset)",
)
_DATUMARO = Foreign(
    "Datumaro's json", "Datumaro writes it as COCO (datum convert -if datumaro -f coco); from CVAT export COCO 1.0"
)
_SCALABEL = Foreign("BDD100K's (Scalabel's) json", "convert it to COCO with its toolkit (bdd100k.label.to_coco)")
_LABELBOX = Foreign("Labelbox' json", "export from it as COCO")
_CVAT = Foreign(
    "CVAT's own xml ('CVAT for images' or 'for video')",
    "export the task from CVAT again as COCO 1.0, YOLO 1.1 or PASCAL VOC 1.1, with 'Save images'",
)
_BOX_TABLE = Foreign(
    "a table of boxes, as TensorFlow's tutorials, Keras-RetinaNet and Roboflow's csv have them",
    "export again as COCO, YOLO or Pascal VOC from the tool that wrote it",
)
_OPEN_IMAGES = Foreign("Open Images' table", "download or export it as COCO, for instance with FiftyOne's zoo")


def foreign_labels(found: Survey) -> str | None:
    """A sentence on the first labels in a folder that are in a format of another tool; None if there are none."""
    kinds: Sequence[tuple[Sequence[str], Callable[[Path], Foreign | None]]] = (
        ((".json",), json_kind),
        ((".xml",), xml_kind),
        ((".csv",), _csv_kind),
    )
    for suffixes, kind in kinds:
        for path in found.of(*suffixes)[:_MOST_PROBED]:
            if (known := kind(path)) is not None:
                return known.told(path)
    nameless = [path for path in found.others if not path.suffix and _root_of(path) == b"annotation"]
    if nameless:
        return _nameless_told(nameless)
    for path in found.of(".txt")[:_MOST_PROBED]:
        if (told := text_told(path)) is not None:
            return told
    return masks_among(found.pictures)


def json_kind(path: Path) -> Foreign | None:
    """The tool that wrote a json, if it is a known one."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            return None
        with path.open("rb") as file:
            stream = JsonStream(file)
            if not stream.is_list():
                return _object_kind(stream)
            pieces = stream.pieces()
            first = next((stream.parse(piece)[0] for piece in pieces), None)
            for piece in pieces:
                stream.check(piece)
            return _listed_kind(first) if isinstance(first, dict) else None
    except (OSError, ValueError):
        return None


def xml_kind(path: Path) -> Foreign | None:
    """CVAT, if an xml is of its own format."""
    return _CVAT if _root_of(path) == b"annotations" else None


def _object_kind(stream: JsonStream) -> Foreign | None:
    # Of the values only the first one is wanted, and what kind of brackets the categories have.
    found: dict[str, Any] = {}
    for key in stream.sections():
        if stream.is_object() and not found:
            found[key] = stream.value()
        else:
            found[key] = {} if stream.is_object() else None
            stream.skip()

    def has(*keys: str) -> bool:
        return all(key in found for key in keys)

    if has("shapes", "imagePath"):
        return _LABELME
    first = next(iter(found.values()), None)
    if has("_via_img_metadata") or has("_via_settings") or (isinstance(first, dict) and "regions" in first):
        return _VIA
    if has("assets", "tags") or has("asset", "regions"):
        return _VOTT
    if has("objects", "size") or (has("classes", "tags") and not has("images")):
        return _SUPERVISELY
    if has("samples"):
        return _FIFTYONE
    if has("items") and isinstance(found.get("categories"), dict):
        return _DATUMARO
    return None


def _listed_kind(first: dict[str, Any]) -> Foreign | None:
    annotations = first.get("annotations")
    if ("image" in first or "imagefilename" in first) and isinstance(annotations, list | dict):
        return _CREATE_ML
    if "data" in first and {"annotations", "completions", "predictions"} & first.keys():
        return _LABEL_STUDIO
    if "image" in first and ("id" in first or "annotation_id" in first):
        return _LABEL_STUDIO  # its JSON-MIN
    if "name" in first and "labels" in first:
        return _SCALABEL
    if {"External ID", "Labeled Data", "data_row"} & first.keys():
        return _LABELBOX
    return None


def _csv_kind(path: Path) -> Foreign | None:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row, _ in zip(csv.reader(file), range(2), strict=False)]
    except (OSError, ValueError, csv.Error):
        return None
    head = {word.strip().lower() for word in rows[0]} if rows else set()
    if {"imageid", "xmin", "xmax"} <= head:
        return _OPEN_IMAGES
    if "region_shape_attributes" in head:
        return _VIA
    bare = rows and len(rows[0]) == 6 and all(re.fullmatch(r"-?\d+(\.\d+)?", word.strip()) for word in rows[0][1:5])
    return _BOX_TABLE if bare or {"xmin", "ymin"} <= head or {"x1", "y1"} <= head or "bbox" in head else None


def _root_of(path: Path) -> bytes | None:
    """The name of the root element of what may be an xml."""
    try:
        with path.open("rb") as file:
            start = file.read(_START).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return None
    found = _XML_ROOT.search(start) if start.startswith(b"<") else None
    return found["name"] if found is not None else None


def _nameless_told(paths: Sequence[Path]) -> str:
    """Stanford's dogs: Pascal VOC's xml without the suffix, in a folder for each breed."""
    top = Path(paths[0])
    while top.parent.name and not all(top in path.parents for path in paths):
        top = top.parent
    command = f"find {quoted(top)} -type f ! -name '*.*' -exec mv {{}} {{}}.xml \\;"
    return f"{paths[0]} and {len(paths) - 1} more are Pascal VOC's xml without the suffix: `{command}`"
