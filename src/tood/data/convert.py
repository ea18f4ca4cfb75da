"""Write a dataset in another format: all or nothing, and with everything told that the new format cannot hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import get_args

import numpy as np

from tood.choices import DatasetFormat, Exif, ImageTransfer
from tood.data.dataset import Category, DetectionDataset, ImageRecord, ImageRecords, require_same_categories
from tood.data.exif import WrittenFrames, frames_to_write
from tood.data.formats import DatasetFolder, open_folder, write_coco
from tood.data.formats.writing import voc_holds, voc_xml, write_text, xml_can_hold, yolo_labels, yolo_yaml
from tood.data.formats.yolo import label_path
from tood.data.image_transfer import transfer_image
from tood.data.images import image_size
from tood.data.output_folder import MANIFEST, OldDataset, require_free, require_sources_elsewhere
from tood.data.readable import without_unreadable
from tood.data.splits import load_split, resolve_split
from tood.errors import ToodError
from tood.manifest import FileStamp, Manifest
from tood.stop import StopSignal
from tood.whole_file import whole_folder

FORMATS: tuple[DatasetFormat, ...] = get_args(DatasetFormat)


@dataclass(frozen=True)
class ConversionReport:
    """What was written.

    Attributes:
        out: the new folder.
        format: `coco`, `yolo` or `voc`.
        images: number of images by split.
        boxes: number of boxes written by split.
        lost: a sentence for each thing that the new format could not hold or that was mended.
    """

    out: Path
    format: str
    images: dict[str, int]
    boxes: dict[str, int]
    lost: tuple[str, ...]


def convert_dataset(
    root: str | Path,
    out: str | Path,
    to: str,
    *,
    splits: Sequence[str] | None = None,
    exif: Exif = "auto",
    transfer: ImageTransfer = ImageTransfer.HARDLINK,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Convert a dataset; `out` appears whole or not at all.

    Written are, for coco: `annotations/instances_<split>.json`, `<split>/`; yolo: `data.yaml`, `images/<split>/`,
    `labels/<split>/`; voc: `Annotations/`, `JPEGImages/`, `ImageSets/Main/<split>.txt`. Pictures that cannot be read
    are left out. Picture files stay as they are, with their EXIF: labels are written so that they are read as the same
    boxes again.

    Args:
        root: the dataset, as for `load_dataset`.
        out: folder to write; must not exist, be empty, or (with `overwrite`) hold what this function wrote there and
            nothing else, which it then replaces.
        to: `coco`, `yolo` or `voc`.
        splits: which ones; None takes all (but a `trainval` that is only train and val together goes to VOC alone).
        exif: as for `load_dataset`.
        transfer: how the image files get there.
        overwrite: replace an earlier result that is in `out`.
        progress: called with the images done and their total.

    Raises:
        ToodError: if the dataset does not load, `out` is not free, holds anything that the dataset is read from, or
            cannot be written.
        StoppedError: after SIGINT, SIGTERM or SIGHUP; `out` is as it was.
    """
    if to not in FORMATS:
        raise ToodError(f"there is no dataset format {to!r}; there are {', '.join(FORMATS)}")
    source, target = Path(root), Path(out)
    old = require_free(source, target, overwrite)
    folder = open_folder(source)
    datasets = _load(folder, splits, exif)
    if old is not None:
        require_sources_elsewhere(folder, datasets, target)
    datasets, lost = _chosen(datasets, splits, to)
    report = write_datasets(datasets, target, to, transfer, progress, old)
    return replace(report, lost=(*lost, *report.lost))


def write_datasets(
    datasets: Sequence[DetectionDataset],
    out: Path,
    to: str,
    transfer: ImageTransfer = ImageTransfer.HARDLINK,
    progress: Callable[[int, int], None] | None = None,
    old: OldDataset | None = None,
) -> ConversionReport:
    """Write splits into a new folder, which appears whole or not at all.

    Arguments are as for `convert_dataset`; `old` is what `require_free` gives.

    Raises:
        ToodError: if the folder cannot be written, or a file that an annotation names as its image is none.
        StoppedError: after SIGINT, SIGTERM or SIGHUP; `out` is as it was.
    """
    _require_folder_names(datasets)
    total = sum(map(len, datasets))
    if to == "voc":  # an image may be in several lists
        total = len({path for dataset in datasets for path in dataset.columns.paths.texts()})
    frames = frames_to_write(datasets, to)
    datasets = frames.datasets
    left = "nothing is left there" if old is None else "what is there stays as it was"
    stop = StopSignal()
    stamps: dict[str, FileStamp] = {}

    def place(image: ImageRecord, path: Path) -> None:
        stop.obey(f"stopped before {out} was whole: {left}")
        _require_image(image)
        stamps[str(path)] = transfer_image(image.path, path, transfer)
        if progress is not None:
            progress(len(stamps), total)

    try:
        with stop, whole_folder(out, old) as folder:
            if to == "yolo":
                lost = _write_yolo(folder, datasets, place, frames)
            else:
                lost = (_write_coco if to == "coco" else _write_voc)(folder, datasets, place)
            Manifest.of(folder, stamps).write(folder / MANIFEST)
            stop.obey(f"stopped before {out} was whole: {left}")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ToodError(f"{out}: cannot be written ({why}); {left}") from error
    outside = [name for dataset in datasets for name in dataset.columns.names() if _leaves_its_folder(name)]
    if outside:
        lost.append(f"{len(outside)} image files lie outside their folder, such as {outside[0]}: written inside it")
    counted = {dataset.split: _written_boxes(dataset, to) for dataset in datasets}
    images = {dataset.split: len(dataset.images) for dataset in datasets}
    return ConversionReport(out, to, images, counted, tuple(lost))


def _require_image(image: ImageRecord) -> None:
    """Refuse a file that is no image: an annotation file from elsewhere may name any file of this machine as one."""
    try:
        image_size(image.path)
    except ToodError as error:
        raise ToodError(f"{error}; nothing is written: `tood data check` lists such files") from None


def _require_folder_names(datasets: Sequence[DetectionDataset]) -> None:
    """Refuse a split whose name, taken from a file's, would lead out of the new folder."""
    for dataset in datasets:
        path = PurePosixPath(dataset.split)
        if path.is_absolute() or not path.parts or ".." in path.parts:
            raise ToodError(f"{dataset.source}: split {dataset.split!r} cannot be a folder's name: rename that file")


def _load(folder: DatasetFolder, splits: Sequence[str] | None, exif: Exif) -> list[DetectionDataset]:
    names = [resolve_split(folder, split) for split in splits] if splits else list(folder.splits)
    datasets = [load_split(folder, name, exif=exif, keep_going=True) for name in dict.fromkeys(names)]
    if not any(dataset.annotated for dataset in datasets):
        raise ToodError(f"{folder.root}: has no annotations to convert")
    return datasets


def _chosen(
    datasets: Sequence[DetectionDataset], splits: Sequence[str] | None, to: str
) -> tuple[list[DetectionDataset], list[str]]:
    """The splits to write, and what is lost by loading and choosing them."""
    datasets, lost = without_unreadable(datasets)
    if splits is None and to != "voc":
        by_name = {dataset.split: dataset.columns.paths for dataset in datasets}
        if {"train", "val", "trainval"} <= by_name.keys() and set(by_name["trainval"].texts()) <= {
            path for part in ("train", "val") for path in by_name[part].texts()
        }:
            datasets = [dataset for dataset in datasets if dataset.split != "trainval"]
            lost.append("split trainval is left out: it is train and val together (name it with --split to have it)")
    for dataset in datasets:
        if to != "coco" and dataset.annotated:
            require_same_categories(next(d for d in datasets if d.annotated), dataset)
        counts = dataset.problem_counts()
        for kind, what in (("box_dropped", "without area left out"), ("box_clipped", "clipped to their image")):
            if counts.get(kind):
                lost.append(f"{dataset.split}: {counts[kind]} boxes {what}")
    return datasets, lost


def _written_boxes(dataset: DetectionDataset, to: str) -> int:
    if to == "yolo":
        return dataset.object_count
    if to == "voc":
        return int(voc_holds(dataset.columns.boxes.boxes).sum())
    return dataset.box_count


Place = Callable[[ImageRecord, Path], None]


def _write_coco(folder: Path, datasets: Sequence[DetectionDataset], place: Place) -> list[str]:
    lost = []
    for dataset in datasets:
        names = _unique_names(dataset.columns)
        for image, name in zip(dataset.images, names, strict=True):
            place(image, folder / dataset.split / name)
        if not dataset.annotated:
            if dataset.split != "test":
                raise ToodError(f"{dataset.root}: split {dataset.split!r} has no annotations to convert")
            continue
        images = (replace(image, file_name=name) for image, name in zip(dataset.images, names, strict=True))
        write_coco(folder / "annotations" / f"instances_{dataset.split}.json", dataset.categories, images)
        if dataset.format == "coco":
            lost.append(f"{dataset.split}: masks, licences and other fields besides boxes are not carried over")
        if dataset.crowds_are_difficult and (count := dataset.crowd_count):
            what = "difficult objects become crowds: COCO has none, and a crowd excuses every box within it"
            lost.append(f"{dataset.split}: {count} {what}")
    return lost


def _write_yolo(folder: Path, datasets: Sequence[DetectionDataset], place: Place, frames: WrittenFrames) -> list[str]:
    lost = []
    categories = next((dataset.categories for dataset in datasets if dataset.annotated), ())
    for dataset in datasets:
        # Labels are told from images by the suffix alone: a.jpg and a.png would share a.txt.
        names = _unique_names(dataset.columns, by_stem=True)
        for image, name in zip(dataset.images, names, strict=True):
            path = folder / "images" / dataset.split / name
            place(image, path)
            if dataset.annotated:
                write_text(_yolo_label(folder, path), yolo_labels(image))
        if crowds := dataset.crowd_count:
            lost.append(f"{dataset.split}: {crowds} crowd boxes left out: YOLO has no crowd flag")
    lost.extend(_lost_ids(categories, range(len(categories)), "image and annotation ids and areas"))
    folders = {dataset.split: f"images/{dataset.split}" for dataset in datasets}
    write_text(folder / "data.yaml", yolo_yaml(categories, folders, frames.exif))
    lost.extend(frames.sentences())
    return lost


def _yolo_label(folder: Path, image: Path) -> Path:
    """Label file of an image inside the folder; the reader's rule, applied below the folder alone."""
    return folder / label_path(image.relative_to(folder))


def _write_voc(folder: Path, datasets: Sequence[DetectionDataset], place: Place) -> list[str]:
    lost: list[str] = []
    taken: set[str] = set()
    # An image that is in two lists (train and trainval) is one file.
    keys: dict[str, str] = {}
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    categories = next((dataset.categories for dataset in datasets if dataset.annotated), ())
    bad = [category.name for category in categories if not xml_can_hold(category.name)]
    if bad:
        raise ToodError(f"the class name {bad[0]!r} cannot be written in an xml file; rename it")
    for dataset in datasets:
        listed, thin = [], 0
        for image in dataset.images:
            path = str(image.path.resolve())
            if path not in keys:
                keys[path] = _flat_name(image, dataset.split, taken)
                file_name = keys[path] + image.path.suffix
                place(image, folder / "JPEGImages" / file_name)
                held = voc_holds(image.boxes)
                thin += int((~held).sum())
                if dataset.annotated:
                    xml = voc_xml(image.select(held), file_name, dataset.categories)
                    (folder / "Annotations" / f"{keys[path]}.xml").write_bytes(xml)
            listed.append(keys[path])
        write_text(folder / "ImageSets" / "Main" / f"{dataset.split}.txt", "".join(f"{key}\n" for key in listed))
        if not dataset.crowds_are_difficult and (count := dataset.crowd_count):
            lost.append(f"{dataset.split}: {count} crowds become difficult objects: VOC has no crowds")
        if thin:
            lost.append(
                f"{dataset.split}: {thin} boxes left out: in VOC one of at most a pixel's width or height has no area"
            )
    lost.extend(_lost_classes(datasets))
    lost.extend(_lost_ids(categories, range(1, len(categories) + 1), "image and annotation ids and areas"))
    return lost


def _lost_ids(categories: Sequence[Category], new: range, more: str) -> list[str]:
    lost = [f"{more} are not carried over"]
    if [category.id for category in categories] != list(new) and categories:
        ids = f"{categories[0].id} to {categories[-1].id}"
        lost.append(f"category ids ({ids}) are not carried over: the classes are numbered anew")
    return lost


def _lost_classes(datasets: Sequence[DetectionDataset]) -> list[str]:
    used: set[int] = set()
    for dataset in datasets:
        boxes = dataset.columns.boxes
        used.update(np.unique(boxes.labels[voc_holds(boxes.boxes)]).tolist())
    categories = next((dataset.categories for dataset in datasets if dataset.annotated), ())
    unused = [category.name for label, category in enumerate(categories) if label not in used]
    lost = []
    if unused:
        lost.append(f"classes without a box are lost, as VOC names classes in its boxes only: {', '.join(unused)}")
    names = [category.name for category in categories]
    if len(set(names)) < len(names):
        lost.append("classes of the same name have become one")
    elif names != sorted(names):
        lost.append("the order of the classes becomes alphabetical")
    return lost


def _unique_names(images: ImageRecords, by_stem: bool = False) -> list[str]:
    """A safe relative file name for each image: sub-folders kept, never outside the folder, no two alike."""
    taken: set[str] = set()
    names = []
    for own, told, path_text in zip(images.ids.tolist(), images.names(), images.paths.texts(), strict=True):
        name = _safe_name(told, path_text)
        key = str(PurePosixPath(name).with_suffix("")) if by_stem else name
        if _same_file_key(key) in taken:
            path = PurePosixPath(name)
            name = str(path.with_name(f"{path.stem}_{own}{path.suffix}"))
            key = str(PurePosixPath(name).with_suffix("")) if by_stem else name
            while _same_file_key(key) in taken:
                key, path = f"{key}_", PurePosixPath(name)
                name = str(path.with_name(f"{path.stem}_{path.suffix}"))
        taken.add(_same_file_key(key))
        names.append(name)
    return names


def _same_file_key(name: str) -> str:
    """Equal for names that some file system takes for one: in small and capital letters, composed and decomposed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _safe_name(told: str, file: str) -> str:
    """A name that stays inside its folder, for an image with this name and file."""
    name = PurePosixPath(told)
    if not name.parts:
        return PurePath(file).name
    if _leaves_its_folder(told):
        return name.name if name.name not in ("", "..") else PurePath(file).name
    return str(name)


def _leaves_its_folder(told: str) -> bool:
    name = PurePosixPath(told)
    return name.is_absolute() or ".." in name.parts or ":" in "".join(name.parts[:1])


def _flat_name(image: ImageRecord, split: str, taken: set[str]) -> str:
    """Name without suffix or folders, unique over all splits."""
    path = PurePosixPath(_safe_name(image.name, str(image.path)))
    stem = "_".join([*path.parts[:-1], path.stem])
    # A VOC list may tell a flag after a blank; xml holds no control characters.
    stem = "".join(letter if xml_can_hold(letter) else "_" for letter in stem)
    candidates = [stem, f"{split}_{stem}", f"{split}_{stem}_{image.id}"]
    name = next((candidate for candidate in candidates if _same_file_key(candidate) not in taken), candidates[-1])
    while _same_file_key(name) in taken:
        name += "_"
    taken.add(_same_file_key(name))
    return name
