"""Which splits a dataset offers, which of them to train and evaluate on, and the loading of one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tood.choices import Exif
from tood.data.columns import PathColumn
from tood.data.dataset import DetectionDataset, Problem
from tood.data.exif import oriented
from tood.data.files import UNNAMED_PICTURES, find_images, passed_over_line
from tood.data.formats import (
    DatasetFolder,
    SplitInfo,
    also_held,
    canonical,
    find_name,
    nothing_to_learn,
    open_folder,
)
from tood.errors import ToodError, quoted
from tood.file_identity import file_identity
from tood.processes import speaks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PickedSplits:
    """The splits of a dataset by their use.

    Attributes:
        train: trained on.
        val: evaluated on while training; None if the dataset offers no other annotated split.
        test: annotated test split; None if there is none.
        note: one sentence to tell the person where the choice may surprise; else empty.
    """

    train: str
    val: str | None
    test: str | None
    note: str = ""

    @property
    def evaluation(self) -> str:
        """What `tood eval` measures on by default: the test split if it has annotations, else the validation split."""
        return self.test or self.val or self.train


def available_splits(root: str | Path) -> dict[str, SplitInfo]:
    """The splits of a dataset by name, in a steady order (train, val, trainval, test first).

    Raises:
        ToodError: if there is no dataset that is known.
    """
    return dict(open_folder(root).splits)


def load_dataset(
    root: str | Path,
    split: str | None = None,
    *,
    images_required: bool = True,
    exif: Exif = "auto",
    keep_going: bool = False,
) -> DetectionDataset:
    """Load one split, without opening the images (COCO, VOC) or reading their headers only (YOLO).

    Boxes that reach outside their image are clipped, those without area dropped: each is a warning in `problems`.

    Args:
        root: a COCO, YOLO or VOC folder, a COCO json or a YOLO yaml.
        split: name of a split, also as `train2017` or `valid`; None takes the only one, or what one trains on.
        images_required: False if the image files themselves are not needed (only COCO and VOC can do without).
        exif: what the labels of pictures with an EXIF orientation were made on, where they do not tell by a picture's
            size: the pixels as `stored`, or the `turned` picture; `auto` takes them as stored, and a warning in the log
            tells how many there are.
        keep_going: leave out pictures that cannot even be measured, where the labels tell no size, with a warning in
            the log; else they are an error.

    Raises:
        ToodError: no dataset, no such split, a broken file, duplicate ids, unknown category ids, missing images, or no
            image at all. The sentence tells the first such error; `check_dataset` lists them all.
    """
    folder = open_folder(root)
    name = resolve_split(folder, split)
    dataset = load_split(folder, name, images_required=images_required, exif=exif, keep_going=keep_going)
    left_out = [problem for problem in dataset.problems if problem.kind == "image_unreadable"]
    if left_out:
        what = "1 picture" if len(left_out) == 1 else f"{len(left_out)} pictures, the first of which is here"
        log.warning("%s: left out of split %r (%s)", left_out[0], dataset.split, what)
    return dataset


def shared_images(first: DetectionDataset, second: DetectionDataset) -> int:
    """How many images of the second split are in the first, too: files of one name, through links and spellings."""
    names = set(second.columns.paths.bases)
    paths = first.columns.paths
    # Files of other names are never looked at: of two usual splits that is all of them.
    alike = np.array([at for at, base in enumerate(paths.bases) if base in names], np.int64)
    if not len(alike):
        return 0
    known = {file_identity(path) for path in paths.take(alike)}
    return sum(file_identity(path) in known for path in second.columns.paths)


def load_split(
    folder: DatasetFolder, split: str, *, images_required: bool = True, exif: Exif = "auto", keep_going: bool = False
) -> DetectionDataset:
    """As `load_dataset`, from a folder that is recognised already; `split` is one of `folder.splits`.

    With `keep_going` pictures that cannot be read are no error: those are left in `problems`.
    """
    dataset = _read(folder, split, images_required)
    errors = [
        problem
        for problem in dataset.problems
        if problem.severity == "error" and not (keep_going and problem.kind == "image_unreadable")
    ]
    if errors:
        raise ToodError(_sentence(errors, folder.root))
    require_images(dataset)
    dataset, sentence = oriented(dataset, exif, look=images_required)
    if sentence and speaks():
        log.warning("%s", sentence)
    return dataset


def read_leniently(root: str | Path, split: str | None = None, exif: Exif = "auto") -> DetectionDataset:
    """As `load_dataset`, but errors stay in `problems` as long as anything can be read at all."""
    folder = open_folder(root)
    dataset, sentence = oriented(_read(folder, resolve_split(folder, split), True), exif)
    if not sentence:
        return dataset
    problem = Problem("exif_unknown", str(dataset.source or dataset.root), sentence, severity="warning")
    return replace(dataset, problems=(*dataset.problems, problem))


def resolve_split(folder: DatasetFolder, split: str | None) -> str:
    """The name in `folder.splits` that is meant; None means what one trains on. ToodError if there is none."""
    return _default_split(folder) if split is None else _named(folder, split)


def require_images(dataset: DetectionDataset) -> None:
    """Raise a ToodError if a dataset has no image."""
    if not dataset.images:
        raise ToodError(f"{dataset.source or dataset.root}: split {dataset.split!r} is empty: it has no image")


def pick_splits(
    root: str | Path, train: str | None = None, val: str | None = None, test: str | None = None
) -> PickedSplits:
    """Choose the splits to train, validate and test on, as the dataset's makers mean them.

    - train: `trainval` where there is an annotated `test` to measure on, else `train` (else the only split).
    - val: an annotated `val` that is no part of what is trained on, else the annotated `test`, else None. So a dataset
      trained on `trainval` is validated on `test`, which `note` says.
    - test: an annotated `test`, else None.

    A split named by the caller is taken as it is.

    Raises:
        ToodError: if there is no dataset, no such split, or nothing to train on, as in a folder of pictures alone.
    """
    folder = open_folder(root)
    if folder.format == "pictures":
        raise ToodError(nothing_to_learn(folder.root))
    annotated = {name for name, info in folder.splits.items() if info.annotated}
    tests = test if test is None else _named(folder, test)
    if tests is None and "test" in annotated:
        tests = "test"
    trained = _default_split(folder) if train is None else _named(folder, train)
    if val is not None:
        return PickedSplits(trained, _named(folder, val), tests)
    parts = {"train", "val", "trainval"} if trained == "trainval" else {trained}
    free = annotated - parts - _overlapping(trained)
    validated: str | None = "val" if "val" in free else "test" if "test" in free else None
    if validated is None and tests is not None and tests != trained:
        validated = tests
    return PickedSplits(trained, validated, tests, _note(folder, trained, validated))


def _read(folder: DatasetFolder, split: str, images_required: bool) -> DetectionDataset:
    """A split, with a note of the files of its image folders that are not its pictures."""
    dataset = folder.read(split, images_required)
    if split == next(iter(folder.splits)) and (told := also_held(folder)) is not None:
        dataset = replace(dataset, notes=(told, *dataset.notes))
    if dataset.format not in ("coco", "voc"):  # the others look through folders themselves
        return dataset
    passed_over: dict[str, tuple[Path, ...]] = {}
    for place in dataset.columns.places():
        if not place.is_dir():
            continue
        found = find_images(place)
        passed_over |= {reason: (*passed_over.get(reason, ()), *paths) for reason, paths in found.passed_over.items()}
        if any(problem.kind == "unannotated" for problem in dataset.problems):
            continue  # those are told already
        # In a folder that splits share, the other pictures are theirs.
        if len(folder.splits) == 1 or canonical(place.name) == split:
            unnamed = _unnamed(found.images, dataset.columns.paths)
            passed_over[UNNAMED_PICTURES] = (*passed_over.get(UNNAMED_PICTURES, ()), *unnamed)
    line = passed_over_line({reason: paths for reason, paths in passed_over.items() if paths})
    return replace(dataset, notes=(*dataset.notes, line)) if line else dataset


def _unnamed(found: PathColumn, known: PathColumn) -> list[Path]:
    """Those of the files that are none of the known ones, under whatever name."""
    known_in = dict(known.by_folder())
    left: list[Path] = []
    for folder, own in found.by_folder():
        names = set(known.bases.take(known_in[folder])) if folder in known_in else set()
        bases = found.bases.take(own)
        left.extend(folder / base for base in bases if base not in names)
    # A link may lead to a known one.
    identities = {file_identity(path) for path in left}
    named = {same for path in known if (same := file_identity(path)) in identities} if left else set()
    return sorted(path for path in left if file_identity(path) not in named)


def _overlapping(trained: str) -> set[str]:
    """Splits that share images with `trained`, by VOC's naming."""
    return {"trainval"} if trained in ("train", "val") else set()


def _note(folder: DatasetFolder, trained: str, validated: str | None) -> str:
    unannotated = "val" in folder.splits and not folder.splits["val"].annotated
    if validated is None and unannotated:
        return f"{folder.root}: split 'val' has no annotations to validate on"
    if validated is None:
        return f"{folder.root}: has no split besides {trained!r} to validate on"
    if validated == "test":
        why = "val is part of what is trained on" if trained == "trainval" else "there is no val split"
        why = "val has no annotations" if unannotated else why
        return f"training on {trained!r}, validating on 'test', because {why}"
    return ""


def _default_split(folder: DatasetFolder) -> str:
    if "train" in folder.missing:  # what is left is not what was meant to be trained on
        raise ToodError(folder.missing["train"])
    annotated = [name for name, info in folder.splits.items() if info.annotated]
    if "trainval" in annotated and ("test" in annotated or "train" not in annotated):
        return "trainval"
    if "train" in folder.splits:
        return "train"
    if len(folder.splits) == 1:
        return next(iter(folder.splits))
    raise ToodError(f"{folder.root}: has no split 'train'; name one of its splits: {', '.join(folder.splits)}")


def _named(folder: DatasetFolder, split: str) -> str:
    found = find_name(split, folder.splits)
    if found is None and canonical(split) in folder.missing:
        raise ToodError(folder.missing[canonical(split)])
    if found is None:
        raise ToodError(f"{folder.root}: has no split {split!r}; it has {', '.join(folder.splits)}")
    return found


def _sentence(errors: list[Problem], root: Path) -> str:
    told = str(errors[0])
    if len(errors) == 1:
        return told
    return f"{told} (and {len(errors) - 1} more: `tood data check {quoted(root)}` lists them)"
