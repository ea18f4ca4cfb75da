"""COCO json folders: where the splits are, and the reading of one.

Recognised layouts: `annotations/instances_train2017.json` with `train2017/` (COCO), `annotations/train.json` with
`images/` or `train/`, `train/_annotations.coco.json` beside its images (Roboflow), one json in the root with the images
below it (`result.json` of Label Studio), and a path straight to a json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tood.data.columns import PathColumn
from tood.data.dataset import Category, DetectionDataset, ImageRecord, ImageRecords, Problem
from tood.data.files import find_images, subfolders
from tood.data.formats.coco_content import holds_boxes, is_annotated
from tood.data.formats.coco_images import BESIDE_IMAGES, LocatedImages, locate_images
from tood.data.formats.coco_json import read_coco_json
from tood.data.formats.folder import SplitInfo, canonical, empty_record
from tood.data.images import file_facts
from tood.errors import ToodError

_USUAL = ("train", "val", "trainval", "test", "test-dev")
# COCO's other annotation files, which hold no object boxes, or but those of people.
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_unlabeled")


@dataclass(frozen=True)
class CocoFolder:
    """A COCO dataset; `splits` tell the json of each, or the image folder where a test split has none."""

    root: Path
    home: Path
    splits: Mapping[str, SplitInfo]
    format: str = "coco"
    missing: Mapping[str, str] = field(default_factory=dict)

    def read(self, split: str, images_required: bool) -> DetectionDataset:
        """See `DatasetFolder.read`."""
        info = self.splits[split]
        if info.source.is_dir():
            return self._read_bare(info)
        parsed = read_coco_json(
            info.source, lambda names: locate_images(info.source, self.home, names, images_required)
        )
        return DetectionDataset(
            self.root,
            split,
            "coco",
            parsed.categories,
            parsed.images,
            parsed.problems,
            parsed.annotated,
            info.source,
        )

    def _read_bare(self, info: SplitInfo) -> DetectionDataset:
        """A test split of images alone, with the categories of a split that has some."""
        categories: tuple[Category, ...] = ()
        for other in self.splits.values():
            if other.source.is_file():
                categories = read_coco_json(other.source, _nowhere).categories
                break
        images, problems = bare_images(info.source)
        return DetectionDataset(self.root, info.name, "coco", categories, images, problems, False, info.source)


def find_coco(root: Path) -> CocoFolder | None:
    """The COCO dataset in a folder or a json file; None if there is none."""
    if root.is_file():
        if root.suffix.lower() != ".json":
            return None
        name = canonical(root.parent.name if root.name in BESIDE_IMAGES else root.stem)
        home = root.parent.parent if root.parent.name.lower() == "annotations" else root.parent
        return CocoFolder(root, home, {name: SplitInfo(name, root, is_annotated(root))})
    sources = (
        _json_sources(_annotations(root), usual_only=False)
        or _json_sources(root, usual_only=True)
        or _jsons_beside_images(root)
        or _root_jsons(root)
    )
    if not sources:
        return None
    splits = {name: SplitInfo(name, path) for name, path in sources.items()}
    for folder in _bare_test_folders(root):
        name = canonical(folder.name)
        splits.setdefault(name, SplitInfo(name, folder, annotated=False))
    for name, info in list(splits.items()):
        if info.source.name.startswith("image_info_") or (info.source.is_file() and not is_annotated(info.source)):
            splits[name] = SplitInfo(name, info.source, annotated=False)
    order = sorted(splits, key=lambda name: (_USUAL.index(name) if name in _USUAL else len(_USUAL), name))
    return CocoFolder(root, root, {name: splits[name] for name in order})


def _annotations(root: Path) -> Path:
    """The folder of annotations, whatever the case of its name."""
    alike = [path for path in root.iterdir() if path.name.lower() == "annotations" and path.is_dir()]
    return min(alike, key=lambda path: path.name != "annotations", default=root / "annotations")


def _json_sources(folder: Path, usual_only: bool) -> dict[str, Path]:
    """Annotation files of a folder by split name."""
    if not folder.is_dir():
        return {}
    files = _object_jsons(folder)
    if any(path.name.startswith("instances_") for path in files):
        files = [path for path in files if path.name.startswith(("instances_", "image_info_"))]
    if usual_only:
        files = [path for path in files if canonical(path.stem) in _USUAL]
    elif len(files) > 1:
        # Beside them may lie captions, or the settings of a tool. Names that say enough are not opened.
        told = [p for p in files if canonical(p.stem) in _USUAL or p.name.startswith("instances_") or holds_boxes(p)]
        files = told or files
    return _by_split(files)


def _object_jsons(folder: Path) -> list[Path]:
    """The jsons that may hold boxes: of people's keypoints only where there is no other."""
    found = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    files = [path for path in found if not path.name.startswith(_OTHER_TASKS)]
    return files or [path for path in found if path.name.startswith("person_keypoints_") and holds_boxes(path)]


def _by_split(files: Sequence[Path]) -> dict[str, Path]:
    names = [canonical(path.stem) for path in files]
    # Two years of one split keep their years apart.
    return {
        name if names.count(name) == 1 else path.stem.removeprefix("instances_"): path
        for name, path in zip(names, files, strict=True)
    }


def _jsons_beside_images(root: Path) -> dict[str, Path]:
    """Roboflow's way: every split a folder with its json and images."""
    found = {}
    for folder in subfolders(root):
        for name in BESIDE_IMAGES:
            if (folder / name).is_file():
                found[canonical(folder.name)] = folder / name
                break
    return found


def _root_jsons(root: Path) -> dict[str, Path]:
    """Jsons of any name in the root; one alone, by a name that a tool gives to all its files, is split `all`."""
    files = [path for path in _object_jsons(root) if path.is_file() and holds_boxes(path)]
    if len(files) == 1 and files[0].name in (*BESIDE_IMAGES, "result.json", "dataset.json"):
        return {"all": files[0]}
    return _by_split(files)


def _bare_test_folders(root: Path) -> list[Path]:
    """Folders of test images that no json belongs to."""
    places = [folder for parent in (root, root / "images") for folder in subfolders(parent)]
    return sorted(path for path in places if canonical(path.name) == "test" and find_images(path).images)


def bare_images(folder: Path) -> tuple[ImageRecords, tuple[Problem, ...]]:
    """Records of a folder of images without annotations, numbered from 1 (or by their names, where all are numbers)."""
    paths = find_images(folder).images
    numbers = [int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1 for path in paths]
    if min(numbers, default=-1) < 0 or len(set(numbers)) < len(numbers) or max(numbers) >= 1 << 62:
        numbers = list(range(1, len(paths) + 1))
    problems: list[Problem] = []

    def records() -> Iterator[ImageRecord]:
        for number, path in zip(numbers, paths, strict=True):
            try:
                facts = file_facts(path)
            except ToodError as error:
                problems.append(Problem.unreadable(path, error))
                continue
            yield empty_record(number, path, facts, path.relative_to(folder).as_posix())

    return ImageRecords.of(records()), tuple(problems)


def _nowhere(names: Sequence[str]) -> LocatedImages:
    """Where no image is wanted."""
    return LocatedImages(PathColumn.of(str(Path(name)) for name in names), names)
