"""Which splits a dataset offers, which of them to train and evaluate on, and the loading of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tood.data.dataset import DetectionDataset, Problem
from tood.data.formats import DatasetFolder, SplitInfo, find_name, open_folder
from tood.errors import ToodError, quoted


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


def load_dataset(root: str | Path, split: str | None = None, *, images_required: bool = True) -> DetectionDataset:
    """Load one split, without opening the images (COCO, VOC) or reading their headers only (YOLO).

    Boxes that reach outside their image are clipped, those without area dropped: each is a warning in `problems`.

    Args:
        root: a COCO, YOLO or VOC folder, a COCO json or a YOLO yaml.
        split: name of a split, also as `train2017` or `valid`; None takes the only one, or what one trains on.
        images_required: False if the image files themselves are not needed (only COCO and VOC can do without).

    Raises:
        ToodError: no dataset, no such split, a broken file, duplicate ids, unknown category ids, missing images, or no
            image at all. The sentence tells the first such error; `check_dataset` lists them all.
    """
    folder = open_folder(root)
    return load_split(folder, resolve_split(folder, split), images_required=images_required)


def load_split(folder: DatasetFolder, split: str, *, images_required: bool = True) -> DetectionDataset:
    """As `load_dataset`, from a folder that is recognised already; `split` is one of `folder.splits`."""
    dataset = folder.read(split, images_required)
    errors = [problem for problem in dataset.problems if problem.severity == "error"]
    if errors:
        raise ToodError(_sentence(errors, folder.root))
    require_images(dataset)
    return dataset


def read_leniently(root: str | Path, split: str | None = None) -> DetectionDataset:
    """As `load_dataset`, but errors stay in `problems` as long as anything can be read at all."""
    folder = open_folder(root)
    return folder.read(resolve_split(folder, split), True)


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
        ToodError: if there is no dataset, no such split, or nothing to train on.
    """
    folder = open_folder(root)
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


def _overlapping(trained: str) -> set[str]:
    """Splits that share images with `trained`, by VOC's naming."""
    return {"trainval"} if trained in ("train", "val") else set()


def _note(folder: DatasetFolder, trained: str, validated: str | None) -> str:
    if validated is None:
        return f"{folder.root}: has no split besides {trained!r} to validate on"
    if validated == "test":
        why = "val is part of what is trained on" if trained == "trainval" else "there is no val split"
        return f"training on {trained!r}, validating on 'test', because {why}"
    return ""


def _default_split(folder: DatasetFolder) -> str:
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
    if found is None:
        raise ToodError(f"{folder.root}: has no split {split!r}; it has {', '.join(folder.splits)}")
    return found


def _sentence(errors: list[Problem], root: Path) -> str:
    told = str(errors[0])
    if len(errors) == 1:
        return told
    return f"{told} (and {len(errors) - 1} more: `tood data check {quoted(root)}` lists them)"
