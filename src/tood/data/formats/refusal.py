"""Why a folder is no dataset: what was found, in what it differs from each format, and what mends it."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tood.data.files import IMAGE_SUFFIXES, is_hidden, subfolders
from tood.data.formats.folder import DatasetFolder
from tood.data.formats.text import read_text
from tood.data.formats.yolo_labels import NAMES_FILES, LabelFinder, looks_like_labels
from tood.data.formats.yolo_plain import folder_splits
from tood.errors import ToodError, quoted

WANTED = (
    "a COCO folder (annotations/*.json), a YOLO folder (data.yaml), a Pascal VOC folder (Annotations/*.xml), "
    "or a path straight to a json or yaml"
)

_ARCHIVES = {".zip": "unzip", ".tar": "tar -xf", ".gz": "tar -xf", ".tgz": "tar -xf", ".7z": "7z x", ".rar": "unrar x"}
_MOST_FILES, _MOST_FOLDERS, _DEEPEST = 50_000, 200, 3
_SHOWN_FOLDERS = 6
_JSON_START = 1 << 16


@dataclass(frozen=True)
class _Survey:
    """What lies in a folder and its sub-folders, hidden things aside."""

    root: Path
    pictures: tuple[Path, ...]
    others: tuple[Path, ...]

    def of(self, *suffixes: str) -> list[Path]:
        return [path for path in self.others if path.suffix.lower() in suffixes]

    def told(self) -> str:
        counts = Counter(path.suffix.lower() or "nameless" for path in self.others)
        parts = [f"{len(self.pictures)} picture{'' if len(self.pictures) == 1 else 's'}"] if self.pictures else []
        parts += [f"{count} {suffix} file{'' if count == 1 else 's'}" for suffix, count in counts.most_common(4)]
        folders = [f"{path.name}/" for path in subfolders(self.root)]
        more = f" and {len(folders) - _SHOWN_FOLDERS} more" if len(folders) > _SHOWN_FOLDERS else ""
        where = f" (folders: {', '.join(folders[:_SHOWN_FOLDERS])}{more})" if folders else ""
        return (", ".join(parts) or "no file at all") + where


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
    survey = _survey(root)
    if not survey.pictures and not survey.others:
        return f"{root}: is no dataset that is known: there is no file in it; give {WANTED}"
    differs = "; ".join((_coco_differs(survey), _yolo_differs(survey), _voc_differs(survey)))
    return (
        f"{root}: is no dataset that is known: it holds {survey.told()}; {differs}; "
        f"{_mend(survey, find) or f'give {WANTED}'}"
    )


def nothing_to_learn(root: Path) -> str:
    """The sentence for a folder of pictures alone, where labels are needed."""
    return (
        f"{root}: holds pictures, but no labels: there is nothing to learn from or to measure on; `tood predict` takes "
        f"it; to train, label them (labelImg, CVAT, Label Studio, Roboflow) and give the export, {WANTED}"
    )


def _file_told(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in _ARCHIVES:
        return f"it is an archive: unpack it (`{_ARCHIVES[suffix]} {quoted(path)}`) and give the folder"
    if suffix in IMAGE_SUFFIXES:
        return "it is a picture, which `tood predict` takes"
    if suffix == ".xml":
        return "it is one annotation: give the folder that has them all"
    if suffix == ".txt":
        return "it is a text: give the data.yaml that names it, or the folder"
    return f"nothing reads a {suffix or 'nameless'} file"


def _survey(root: Path) -> _Survey:
    pictures: list[Path] = []
    others: list[Path] = []
    for parent, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if not is_hidden(name):
                path = Path(parent, name)
                (pictures if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
        if len(pictures) + len(others) > _MOST_FILES:
            break
    return _Survey(root, tuple(pictures), tuple(others))


def _coco_differs(survey: _Survey) -> str:
    jsons = survey.of(".json")
    if not jsons:
        return "for COCO there is no json with the annotations"
    return f"for COCO no json lies in annotations/ or beside the images as _annotations.coco.json (there is {jsons[0]})"


def _yolo_differs(survey: _Survey) -> str:
    named = _names_file(survey)
    if named is not None:
        return f"for YOLO {named} names the classes, but no label txt is beside a picture, or in labels/ for images/"
    labels = sum(looks_like_labels(path) for path in survey.of(".txt")[:100])
    names = "for YOLO there is no data.yaml, nor a classes.txt with the names of the classes"
    if not survey.of(".txt"):
        return f"{names}, nor a label txt"
    return names if labels else f"{names}, and no txt is a label file (`class cx cy w h`)"


def _voc_differs(survey: _Survey) -> str:
    xmls = survey.of(".xml")
    if not xmls:
        return "for Pascal VOC there is no xml"
    return f"for Pascal VOC the xml files lie in {xmls[0].parent}, not in {survey.root / 'Annotations'}"


def _mend(survey: _Survey, find: Callable[[Path], DatasetFolder | None]) -> str | None:
    """The command or rename that makes a dataset of the folder."""
    return (
        _inner_dataset(survey, find)
        or _json_itself(survey)
        or _labels_named(survey)
        or _xml_folder(survey)
        or _archive(survey)
        or _labels_elsewhere(survey)
    )


def _inner_dataset(survey: _Survey, find: Callable[[Path], DatasetFolder | None]) -> str | None:
    folders: list[Path] = [survey.root]
    for _ in range(_DEEPEST):
        folders = [inner for folder in folders for inner in subfolders(folder)][:_MOST_FOLDERS]
        for folder in folders:
            try:
                found = find(folder)
            except (ToodError, OSError):
                continue
            if found is not None:
                return f"{folder} is a {found.format.upper()} dataset: name that folder"
    return None


def _json_itself(survey: _Survey) -> str | None:
    for path in survey.of(".json")[:20]:
        try:
            with path.open("rb") as file:
                start = file.read(_JSON_START)
        except OSError:
            continue
        if sum(key in start for key in (b'"images"', b'"annotations"', b'"categories"')) >= 2:
            return f"name the json itself: `tood data check {quoted(path)}`"
    return None


def _labels_named(survey: _Survey) -> str | None:
    """What a data.yaml would be, if there are labels, but no names of their classes."""
    labels = [path for path in survey.of(".txt") if looks_like_labels(path)]
    if not labels:
        return None
    if not survey.pictures:
        return f"there are {len(labels)} label files, but no pictures: export the dataset with its pictures"
    finder, moves = LabelFinder(), ""
    found = [label for path in survey.pictures if (label := finder.find(path)) is not None]
    if not found:
        stems = {path.stem: path for path in survey.pictures}
        pair = next(((stems[label.stem], label) for label in labels if label.stem in stems), None)
        if pair is None:
            return "no label file has the name of a picture: give both the same names"
        image_folder, label_folder = pair[0].parent, pair[1].parent
        target = image_folder
        if image_folder.name.lower() == "images" and not (image_folder.parent / "labels").exists():
            target = image_folder.parent / "labels"
            moves = f"`mv {quoted(label_folder)} {quoted(target)}`, then "
        else:
            moves = f"`mv {quoted(label_folder)}/*.txt {quoted(target)}/`, then "
    if _names_file(survey) is not None:
        return moves.removesuffix(", then ") or None
    classes = _most_class(found or labels) + 1
    splits = folder_splits(survey.root)
    lines = [
        f"{'train' if name == 'all' else name}: {_relative(places, survey.root)}" for name, places in splits.items()
    ]
    names = ", ".join(f"class{number}" for number in range(min(classes, 100)))
    text = "\\n".join([*lines, f"names: [{names}]"])
    write = f"printf {quoted(text + chr(92) + 'n')} > {quoted(survey.root / 'data.yaml')}"
    return f"name the {classes} classes: {moves}`{write}`, with their names for class0 and so on"


def _names_file(survey: _Survey) -> Path | None:
    return next((path for path in survey.others if path.name.lower() in NAMES_FILES or path.suffix == ".names"), None)


def _relative(places: Sequence[Path], root: Path) -> str:
    texts = [path.relative_to(root).as_posix() for path in places]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _most_class(labels: Sequence[Path]) -> int:
    most = 0
    for path in labels:
        try:
            words = [line.split()[0] for line in read_text(path).replace(",", " ").splitlines() if line.split()]
            most = max([most, *(int(float(word)) for word in words)])
        except (OSError, ValueError, OverflowError):
            continue
    return most


def _xml_folder(survey: _Survey) -> str | None:
    xmls = survey.of(".xml")
    if not xmls:
        return None
    folder, target = xmls[0].parent, survey.root / "Annotations"
    if folder == survey.root:
        moved = f"mkdir {quoted(target)} && mv {quoted(folder)}/*.xml {quoted(target)}/"
    else:
        moved = f"mv {quoted(folder)} {quoted(target)}"
    parents = {path.parent for path in survey.pictures}
    if len(parents) == 1 and survey.root not in parents and folder not in parents:
        (pictures,) = parents
        if pictures.name.lower() not in ("jpegimages", "images"):
            moved += f" && mv {quoted(pictures)} {quoted(survey.root / 'JPEGImages')}"
    return f"`{moved}`"


def _archive(survey: _Survey) -> str | None:
    archives = survey.of(*_ARCHIVES)
    if not archives:
        return None
    return f"unpack the archive: `{_ARCHIVES[archives[0].suffix.lower()]} {quoted(archives[0])}`"


def _labels_elsewhere(survey: _Survey) -> str | None:
    tables = survey.of(".csv", ".parquet", ".tfrecord", ".jsonl")
    if tables:
        return f"{tables[0].name} is in no format that is read: export the dataset as COCO, YOLO or Pascal VOC"
    return None
