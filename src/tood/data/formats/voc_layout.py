"""Where a Pascal VOC dataset keeps its xml files, pictures and lists, in the shapes that tools leave behind.

- `Annotations/` (also `annotations/`, `annots/`, `xmls/` and so on) beside `JPEGImages/` or `images/`, with sub-folders
  or without, and lists in `ImageSets/Main/`, `ImageSets/` or, as `train.txt`, beside them.
- A folder for each split, with its annotations and its images in folders of their own, or the xml beside the images.
- One folder with xml files beside their images, as labelImg leaves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tood.data.files import IMAGE_SUFFIXES, find_files, subfolders
from tood.data.formats.folder import SplitInfo, canonical
from tood.data.formats.voc_lists import USUAL, less_usual_splits, list_files, named_like, unused_lists
from tood.data.formats.voc_names import KnownNames, Pictures, list_names
from tood.errors import ToodError, quoted

_ANNOTATION_FOLDERS = ("annotations", "annotation", "annots", "xmls", "xml")
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "pictures", "photos")
# So deep is a folder searched for xml files beside their images: deeper there may be a person's whole disk.
_DEPTH = 3
_PROBED = 20
_ROOT_TAG = re.compile(rb"<(?:\w+:)?annotation[\s>/]")


@dataclass(frozen=True)
class VocLayout:
    """What a VOC dataset is made of.

    Attributes:
        splits: by name, in a steady order.
        names: the images of each split, by name: the place of its xml below the annotations, without suffix.
        xml_files: the annotation file of each name that has one, as text.
        pictures: the image files.
        listed: whether lists say which images a split has; else it has those that are annotated.
        notes: what is to be told about how the folder was read.
    """

    splits: Mapping[str, SplitInfo]
    names: Mapping[str, tuple[str, ...]]
    xml_files: Mapping[str, str]
    pictures: Pictures
    listed: bool
    notes: tuple[str, ...] = ()


def voc_layout(root: Path) -> VocLayout | None:
    """The VOC dataset in a folder, or in its only sub-folder with an `Annotations`; None if there is none.

    Raises:
        ToodError: if several sub-folders hold one each, or a list cannot be read.
    """
    if (own := _annotation_folder(root)) is not None:
        return _standard(root, own)
    inner = {child: child / "Annotations" for child in subfolders(root)}
    return _only(root, {child: found for child, found in inner.items() if found.is_dir()})


def labels_in_xml(root: Path) -> Path | None:
    """The folder of annotations in a folder, whatever else lies beside it."""
    for path in named_like(root, _ANNOTATION_FOLDERS):
        if any(map(is_annotation, islice(find_files(path, ".xml", _DEPTH), _PROBED))):
            return path
    return None


def layout_below(root: Path) -> VocLayout | None:
    """The VOC dataset somewhere below a folder that no other format explains; None if there is none.

    It is that of a sub-folder, or of a sub-folder's; else the xml files lie beside their images, in a folder for each
    split or all in one.

    Raises:
        ToodError: as `voc_layout`.
    """
    below = subfolders(root)
    for folders in (below, [inside for child in below for inside in subfolders(child)]):
        found = {folder: own for folder in folders if (own := _annotation_folder(folder)) is not None}
        if (layout := _only(root, found)) is not None:
            return layout
    for place in (root, *named_like(root, _IMAGE_FOLDERS)):
        folders = [child for child in subfolders(place) if canonical(child.name) in USUAL and _has_xml(child)]
        if folders:
            return _split_folders([(folder, folder, (folder,)) for folder in folders])
    # A zip for each split, unpacked into a folder of its own.
    folders = [inside for child in below for inside in subfolders(child) if canonical(inside.name) in USUAL]
    folders = [folder for folder in folders if any(map(_has_picture, find_files(folder, ".xml", _DEPTH)))]
    if folders and len({canonical(folder.name) for folder in folders}) == len(folders):
        return _split_folders([(folder, folder, (folder,)) for folder in folders])
    for labels in named_like(root, ("labels", "label")):
        if (layout := _standard(root, labels)) is not None and list(layout.splits) != ["all"]:
            return layout
    xml_files = {
        name: path
        for name, path in _xml_files(root, _DEPTH).items()
        if _has_picture(Path(path)) or is_annotation(Path(path))
    }
    # One that is cut off beside its picture is told of when it is read; where all are so, nothing says that it is VOC.
    if not any(is_annotation(Path(path)) for path in xml_files.values()):
        return None
    splits = {"all": SplitInfo("all", root)}
    return VocLayout(splits, {"all": tuple(xml_files)}, xml_files, Pictures((("", root),)), False)


def _only(root: Path, inner: Mapping[Path, Path]) -> VocLayout | None:
    """The dataset of the folders `inner` below the root, each with its annotations: one alone, or one a split."""
    names = {folder.name for folder in inner}
    splits = len(names) == len(inner) and all(canonical(name) in USUAL for name in names)
    if inner and splits and not any(map(list_files, inner)):
        return _split_folders([(folder, found, _image_folders(folder)) for folder, found in inner.items()])
    if len(inner) > 1:
        told = ", ".join(path.relative_to(root).as_posix() for path in inner)
        first = quoted(next(iter(inner)))
        raise ToodError(f"{root}: holds several VOC datasets ({told}): name one of them, as `tood data check {first}`")
    for folder, found in inner.items():
        return _standard(folder, found)
    return None


def _standard(home: Path, annotations: Path) -> VocLayout | None:
    """`home` has a folder of annotations, maybe lists, and a folder of images."""
    xml_files = _xml_files(annotations)
    pictures = Pictures(tuple(("", folder) for folder in _image_folders(home)))
    known = KnownNames(xml_files, pictures)
    names: dict[str, tuple[str, ...]] = {}
    sources: dict[str, Path] = {}
    notes: list[str] = []
    for path in list_files(home):
        split = canonical(path.stem.removesuffix("_list"))
        names[split], sources[split] = list_names(path, known), path
    if not names and xml_files:
        names, sources, notes = less_usual_splits(home, annotations, xml_files, known)
    listed = bool(names)
    if not listed:
        if not xml_files:
            return None
        names, sources = _splits_by_folder(xml_files, annotations)
        unused = [] if len(names) > 1 else unused_lists(home, annotations, known)
        if unused:
            told = ", ".join(path.relative_to(home).as_posix() for path in unused[:3])
            told += ", ..." if len(unused) > 3 else ""
            notes = [f"lists of pictures were seen and not used ({told}): call those of splits train.txt, val.txt ..."]
    splits = {
        name: SplitInfo(name, sources[name], not names[name] or any(n in xml_files for n in names[name]))
        for name in sorted(names, key=_rank)
    }
    return VocLayout(splits, names, xml_files, pictures, listed, tuple(notes))


def _splits_by_folder(
    xml_files: Mapping[str, str], annotations: Path
) -> tuple[dict[str, tuple[str, ...]], dict[str, Path]]:
    """Sub-folders of the annotations named as splits are splits, if no xml lies outside of them; else all are one."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in xml_files}
    if not all(canonical(top) in USUAL for top in tops):
        return {"all": tuple(xml_files)}, {"all": annotations}
    names = {canonical(top): tuple(name for name in xml_files if name.startswith(f"{top}/")) for top in tops}
    return names, {canonical(top): annotations / top for top in tops}


def _split_folders(parts: Sequence[tuple[Path, Path, tuple[Path, ...]]]) -> VocLayout:
    """Every split a folder; `parts` are the folder, where its xml files are, and where its images are."""
    xml_files: dict[str, str] = {}
    names: dict[str, tuple[str, ...]] = {}
    splits: dict[str, SplitInfo] = {}
    places: list[tuple[str, Path]] = []
    for folder, marked, images in sorted(parts, key=lambda part: _rank(canonical(part[0].name))):
        # Equal names in two splits are two images.
        prefix, split = f"{folder.name}/", canonical(folder.name)
        own = {prefix + name: path for name, path in _xml_files(marked).items()}
        xml_files |= own
        names[split] = (*names.get(split, ()), *own)
        splits[split] = SplitInfo(split, folder)
        places += [(prefix, place) for place in images]
    return VocLayout(splits, names, xml_files, Pictures(tuple(places)), False)


def _rank(split: str) -> tuple[int, str]:
    return (USUAL.index(split) if split in USUAL else len(USUAL), split)


def _annotation_folder(home: Path) -> Path | None:
    """The sub-folder that holds annotations.

    Only by the very name of VOC's it is one whatever else there is: others may have a COCO json in them, or lie beside
    a YOLO yaml, which then says more.
    """
    found = named_like(home, _ANNOTATION_FOLDERS)
    for path in found:
        if path.name == "Annotations":
            return path
    if any(home.glob("data*.y*ml")):
        return None
    for path in found:
        if _has_xml(path) and not any(_named_as_split(json) for json in path.glob("*.json")):
            return path
    return None


def _named_as_split(json: Path) -> bool:
    return json.name.startswith("instances_") or canonical(json.stem) in USUAL


def _image_folders(home: Path) -> tuple[Path, ...]:
    return named_like(home, _IMAGE_FOLDERS) or (home,)


def _has_xml(folder: Path) -> bool:
    return next(find_files(folder, ".xml", _DEPTH), None) is not None


def _xml_files(folder: Path, depth: int | None = None) -> dict[str, str]:
    """The xml files of a folder and its sub-folders, by their place in it without the suffix, in its order."""
    files = find_files(folder, ".xml", depth)
    found = {path.relative_to(folder).with_suffix("").as_posix(): str(path) for path in files}
    return {name: found[name] for name in sorted(found)}


def _has_picture(xml: Path) -> bool:
    return any(xml.with_suffix(suffix).is_file() for end in IMAGE_SUFFIXES for suffix in (end, end.upper()))


def is_annotation(xml: Path) -> bool:
    """Whether a file begins as a VOC annotation does; many other things are written in xml."""
    try:
        with xml.open("rb") as file:
            return _ROOT_TAG.search(file.read(1024)) is not None
    except OSError:
        return False
