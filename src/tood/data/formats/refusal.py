"""Why a folder is no dataset: what was found, in what it differs from each format, and what mends it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from tood.data.files import IMAGE_SUFFIXES
from tood.data.formats.folder import DatasetFolder
from tood.data.formats.foreign import foreign_labels, xml_kind
from tood.data.formats.remedies import inner_dataset, mend, names_file, unpacking
from tood.data.formats.survey import Survey, survey
from tood.data.formats.yolo_labels import looks_like_labels

WANTED = (
    "a COCO folder (annotations/*.json), a YOLO folder (data.yaml), a Pascal VOC folder (Annotations/*.xml), "
    "or a path straight to a json or yaml"
)


def no_such_dataset(root: Path) -> str:
    """The sentence for a path where nothing is."""
    near: list[str] = []
    if "\0" not in str(root) and root.parent.is_dir():
        near = difflib.get_close_matches(root.name, sorted(os.listdir(root.parent)), n=1)  # noqa: PTH208  (names alone)
    meant = f"; is {root.parent / near[0]} meant?" if near else ""
    return f"{root}: no such dataset; give {WANTED}{meant}"


def refusal(root: Path, find: Callable[[Path], DatasetFolder | None]) -> str:
    """The sentence for a file or folder that is no dataset; `find` recognises one."""
    if root.is_file():
        return f"{root}: is no dataset that is known: {_file_told(root)}; give {WANTED}"
    found = survey(root)
    if not found.pictures and not found.others:
        return f"{root}: is no dataset that is known: there is no file in it; give {WANTED}"
    inner, foreign = inner_dataset(found, find), foreign_labels(found)
    if inner is None and foreign is not None:
        return f"{root}: is no dataset that is known: it holds {found.told()}; {foreign}"
    differs = "; ".join((_coco_differs(found), _yolo_differs(found), _voc_differs(found)))
    return (
        f"{root}: is no dataset that is known: it holds {found.told()}; {differs}; "
        f"{inner or mend(found) or f'give {WANTED}'}"
    )


def nothing_to_learn(root: Path) -> str:
    """The sentence for a folder of pictures alone, where labels are needed."""
    return (
        f"{root}: holds pictures, but no labels: there is nothing to learn from or to measure on; `tood predict` takes "
        f"it; to train, label them (labelImg, CVAT, Label Studio, Roboflow) and give the export, {WANTED}"
    )


def _file_told(path: Path) -> str:
    suffix = path.suffix.lower()
    if (command := unpacking(path)) is not None:
        return f"it is an archive: unpack it (`{command}`) and give the folder"
    if suffix in IMAGE_SUFFIXES:
        return "it is a picture, which `tood predict` takes"
    if suffix == ".xml":
        kind = xml_kind(path)
        return kind.told(path) if kind else "it is one annotation: give the folder that has them all"
    if suffix == ".txt":
        return "it is a text: give the data.yaml that names it, or the folder"
    return f"nothing reads a {suffix or 'nameless'} file"


def _coco_differs(found: Survey) -> str:
    jsons = found.of(".json")
    if not jsons:
        return "for COCO there is no json with the annotations"
    return f"for COCO no json lies in annotations/ or beside the images as _annotations.coco.json (there is {jsons[0]})"


def _yolo_differs(found: Survey) -> str:
    named = names_file(found)
    if named is not None:
        return f"for YOLO {named} names the classes, but no label txt is beside a picture, or in labels/ for images/"
    labels = sum(looks_like_labels(path) for path in found.of(".txt")[:100])
    names = "for YOLO there is no data.yaml, nor a classes.txt with the names of the classes"
    if not found.of(".txt"):
        return f"{names}, nor a label txt"
    return names if labels else f"{names}, and no txt is a label file (`class cx cy w h`)"


def _voc_differs(found: Survey) -> str:
    xmls = found.of(".xml")
    if not xmls:
        return "for Pascal VOC there is no xml"
    return f"for Pascal VOC the xml files lie in {xmls[0].parent}, not in {found.root / 'Annotations'}"
