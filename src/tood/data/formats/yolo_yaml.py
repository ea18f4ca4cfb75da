"""The yaml of a YOLO dataset: classes, splits and keypoints. Names and paths are text as they are written."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tood.choices import Exif
from tood.data.dataset import Category, Problem
from tood.data.exif import label_exif
from tood.data.files import subfolders
from tood.data.formats.folder import canonical
from tood.data.formats.text import other_encoding, read_text
from tood.data.formats.yolo_labels import Keypoints
from tood.data.formats.yolo_paths import PathFinder, holds_images, plain_path
from tood.errors import ToodError, one_line
from tood.yaml_text import is_bad_escape, repeated_key

SPLITS = ("train", "val", "trainval", "test")
# Of two that mean one split, the first counts.
SPLIT_KEYS = ("train", "val", "valid", "validation", "trainval", "test")
_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
# What YAML takes for nothing; as the name of a class it is text like any other.
_NOTHING = ("", "~", "null", "Null", "NULL")
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class YoloLayout:
    """What a yaml (or what stands in for it) says.

    Attributes:
        source: the file that names the classes.
        categories: the classes.
        places: the folders and lists of each split.
        missing: a sentence for each split that is named, but has no picture.
        keypoints: of a dataset of poses.
        polygons_only: whether it says that there is no pose, as an empty `kpt_shape` does.
        problems: what is wrong with the names.
        notes: what is to be told about how it was read.
        exif: what it says that labels of pictures with an EXIF orientation were made on.
    """

    source: Path
    categories: tuple[Category, ...]
    places: Mapping[str, tuple[Path, ...]]
    missing: Mapping[str, str]
    keypoints: Keypoints | None = None
    polygons_only: bool = False
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    exif: Exif = "auto"


class _TextLoader(yaml.BaseLoader):
    """Every scalar as the text it is, lists and dicts; a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if (key := repeated_key(node)) is not None:
            told = f"key {key.value!r} is there twice"
            raise yaml.constructor.ConstructorError(None, None, told, node.start_mark)
        return super().construct_mapping(node, deep)


def find_yaml(root: Path) -> Path | None:
    """The yaml of a dataset: what `root` is, or what lies in it.

    Raises:
        ToodError: if there are several and none has a usual name.
    """
    if root.is_file():
        return root if root.suffix.lower() in (".yaml", ".yml") else None
    usual = [root / name for name in _YAML_NAMES if (root / name).is_file()]
    return usual[0] if usual else _only(root, [path for path in _yamls_in(root) if _looks_like_dataset(path)])


def find_inner_yaml(root: Path) -> Path | None:
    """The yaml of the only dataset in the sub-folders of `root`, or in theirs; ToodError if there are several."""
    folders = [root]
    for _ in range(2):
        folders = [inner for folder in folders for inner in subfolders(folder)]
        found = [path for folder in folders for path in _yamls_in(folder) if _looks_like_dataset(path)]
        if found:
            return _only(root, found)
    return None


def read_layout(source: Path) -> YoloLayout:
    """What a yaml says, and where that is on this machine.

    Raises:
        ToodError: if it is broken, or names nothing usable.
    """
    raw = _read_yaml(source)
    categories, problems = _categories(raw, source)
    named = {key: _entries(raw, key, source) for key in _split_keys(raw) if not _is_nothing(raw[key])}
    if not named:
        raise ToodError(
            f"{source}: names no split: give it 'train' and 'val', each a folder of images or a txt list of them"
        )
    bases, notes = _bases(raw, source)
    places, missing, moved = find_places(named, bases, source, inside_first="roboflow" in raw)
    return YoloLayout(
        source,
        categories,
        places,
        missing,
        _keypoints(raw, source),
        "kpt_shape" in raw and _is_nothing(raw["kpt_shape"]),
        tuple(problems),
        (*notes, *moved),
        label_exif(raw.get("exif"), source),
    )


def find_places(
    named: Mapping[str, Sequence[str]], bases: Sequence[Path], source: Path, inside_first: bool = False
) -> tuple[dict[str, tuple[Path, ...]], dict[str, str], list[str]]:
    """The places of each split, the splits that have none, and what was found elsewhere than written.

    Args:
        named: the paths of each split as written, by the key they are under.
        bases: folders that they may count from.
        source: the file that they are in.
        inside_first: `../train/images` is rather meant as the one beside `source`, as Roboflow writes.

    Raises:
        ToodError: if no split has a picture.
    """
    finder = PathFinder(bases)
    places: dict[str, tuple[Path, ...]] = {}
    missing: dict[str, str] = {}
    moved: list[str] = []
    for key, entries in named.items():
        split = canonical(key)
        if split in places:
            continue
        found: list[Path] = []
        for entry in entries:
            place, by_end = _place(entry, finder, source, inside_first)
            # Two paths with one end are two places, and this is not both.
            if place is None or (by_end and any(place in others for others in places.values())):
                missing[split] = f"{source}: {key!r} names {entry!r}, but there is no {bases[0] / plain_path(entry)}"
                break
            if not holds_images(place):
                missing[split] = f"{source}: {key!r} names {entry!r}, but {place} holds no picture"
                break
            if by_end:
                moved.append(f"{key!r} names {entry!r}, which is not there: taken is {place}")
            found.append(place)
        else:
            places[split] = tuple(found)
            missing.pop(split, None)
    if not places:
        raise ToodError(next(iter(missing.values())))
    return places, missing, moved


def categories_of(names: Sequence[str], source: Path) -> tuple[tuple[Category, ...], list[Problem]]:
    """The classes of these names, and a warning for each name that is there twice."""
    problems = [
        Problem("duplicate_category_name", str(source), f"class name {name!r} is there twice", severity="warning")
        for name, count in Counter(names).items()
        if count > 1
    ]
    return tuple(Category(number, name) for number, name in enumerate(names)), problems


def names_in(path: Path) -> list[str]:
    """The names of the classes in a text file, one a line.

    Raises:
        ToodError: if it cannot be read, is empty, or has an empty line amidst.
    """
    try:
        names = [line.strip() for line in read_text(path).strip().splitlines()]
    except UnicodeDecodeError:
        raise ToodError(f"{path}: {other_encoding(path)}") from None
    except (OSError, ValueError) as error:
        raise ToodError(f"{path}: cannot be read as the names of the classes ({error})") from None
    if not names:
        raise ToodError(f"{path}: is empty: give the names of the classes, one a line")
    if "" in names:
        raise ToodError(f"{path}: line {names.index('') + 1} is empty, but stands for class {names.index('')}")
    return names


def _only(root: Path, found: Sequence[Path]) -> Path | None:
    if len(found) > 1:
        told = ", ".join(str(path.relative_to(root)) for path in found)
        raise ToodError(f"{root}: holds several YOLO datasets ({told}): name one of them")
    return found[0] if found else None


def _yamls_in(folder: Path) -> list[Path]:
    """The yaml files of a folder, some other tool's settings among them."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  (names alone are wanted)
    except OSError:
        return []
    names = [name for name in names if name.lower().endswith((".yaml", ".yml")) and not name.startswith(".")]
    return [folder / name for name in names if (folder / name).is_file()]


def _looks_like_dataset(path: Path) -> bool:
    """Whether a yaml names classes and a split, which another tool's settings do not."""
    try:
        raw = _read_yaml(path)
    except ToodError:
        return False
    return "names" in raw and bool(_split_keys(raw))


def _split_keys(raw: Mapping[Any, Any]) -> list[str]:
    """The keys that name splits, in the order of `SPLIT_KEYS`; CVAT writes `Train` and `Validation`.

    A split of any other name is one as `tood data convert` writes it, `all: images/all`.
    """
    keys = [key for key in raw if isinstance(key, str)]
    found = [key for key in keys if canonical(key) in SPLITS or raw[key] == f"images/{key}"]
    rank = {key: number for number, key in enumerate(SPLIT_KEYS)}
    order = {split: number for number, split in enumerate(SPLITS)}
    return sorted(found, key=lambda key: (order.get(canonical(key), len(order)), rank.get(key, len(rank))))


def _read_yaml(source: Path) -> dict[Any, Any]:
    """The yaml with every scalar as the text it is: to YAML, `no` is False, 012 ten and 1:30 ninety."""
    text = ""
    try:
        text = read_text(source)
        raw = yaml.load(text, Loader=_TextLoader)
    except yaml.YAMLError as error:
        raise ToodError(f"{source}: broken yaml: {_yaml_told(error, text)}") from None
    except UnicodeDecodeError:
        raise ToodError(f"{source}: {other_encoding(source)}") from None
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise ToodError(f"{source}: cannot be read as yaml ({one_line(error)})") from None
    if not isinstance(raw, dict):
        raise ToodError(f"{source}: is yaml, but no YOLO dataset: keys 'train', 'val' and 'names' are expected")
    return raw


def _categories(raw: Mapping[Any, Any], source: Path) -> tuple[tuple[Category, ...], list[Problem]]:
    names, told_count = raw.get("names"), raw.get("nc")
    count = None if _is_nothing(told_count) else _whole_number(told_count)
    if _is_nothing(names) and count is not None and 0 < count <= _MOST_CLASSES:
        names = [str(number) for number in range(count)]
    if isinstance(names, str) and not _is_nothing(names):
        names_file = PathFinder((source.parent,)).find(names)
        if names_file is not None and names_file.is_file():
            names = names_in(names_file)
    if isinstance(names, dict):
        numbers = {_whole_number(key): name for key, name in names.items()}
        if set(numbers) == set(range(1, len(names) + 1)):
            own = [numbers[number] for number in range(1, len(names) + 1)]
            raise ToodError(
                f"{source}: the keys of 'names' start at 1, but the first class of YOLO is 0: write "
                f"`{_names_line(own)}`, or, if the label files count from 1, `{_names_line(['unused', *own])}`"
            )
        if len(numbers) < len(names) or set(numbers) != set(range(len(names))):
            raise ToodError(
                f"{source}: the keys of 'names' are to be the numbers 0 to {len(names) - 1}, one for each class"
            )
        names = [numbers[number] for number in range(len(names))]
    if isinstance(names, str) and not _is_nothing(names) and not names.isdigit() and not set("./") & set(names):
        told = [name for part in names.split(",") if (name := part.strip())]
        raise ToodError(
            f"{source}: 'names' is one text, not the list of the classes' names: write `{_names_line(told)}`"
        )
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ToodError(f"{source}: 'names' is to be the list of the classes' names")
    if not _is_nothing(told_count) and count != len(names):
        raise ToodError(
            f"{source}: 'nc' is {reprlib.repr(told_count).strip(chr(39))}, but 'names' has {len(names)} classes"
        )
    return categories_of(names, source)


def _names_line(names: Sequence[Any]) -> str:
    """The line of a yaml with these names."""
    numbered = {number: str(name) for number, name in enumerate(names)}
    text: str = yaml.safe_dump({"names": numbered}, default_flow_style=None, allow_unicode=True, width=1 << 20)
    return " ".join(text.split())


def _yaml_told(error: yaml.YAMLError, text: str) -> str:
    """What is wrong with a yaml in one sentence, with what mends it where that is known."""
    told = " ".join(str(error).split())
    if is_bad_escape(error):
        return f"{told}: between double quotes write / for \\"
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()
    if mark is None or mark.line >= len(lines):
        return told
    line = lines[mark.line].rstrip()
    if "\t" in line:
        plain = line.replace("\t", " ")
        return f"line {mark.line + 1} has a tab, which yaml takes for no blank: write `{plain}`"
    if "expected a single document" in told:
        return f"line {mark.line + 1} starts a second document: remove it ({line!r}) and what follows"
    return told


def _keypoints(raw: Mapping[Any, Any], source: Path) -> Keypoints | None:
    shape = raw.get("kpt_shape")
    if _is_nothing(shape):
        return None
    numbers = [_whole_number(number) for number in shape] if isinstance(shape, list) else []
    if len(numbers) == 2 and numbers[0] is not None and 0 < numbers[0] <= _MOST_CLASSES and numbers[1] in (2, 3):
        return Keypoints(numbers[0], numbers[1])
    raise ToodError(
        f"{source}: 'kpt_shape' is {reprlib.repr(shape)}, not how many keypoints an object has and how many "
        "numbers each of them, 2 or 3"
    )


def _bases(raw: Mapping[Any, Any], source: Path) -> tuple[list[Path], list[str]]:
    """The folders that the splits may start from: `path` as it is or from the yaml, and the yaml's own.

    Also what is to be told where `path` leads nowhere.
    """
    path = raw.get("path")
    if _is_nothing(path) or path == ".":
        return [source.parent], []
    # An absent folder may have moved, but a number was hardly meant as one.
    if not isinstance(path, str) or "\0" in path or (path.isdigit() and not (source.parent / path).is_dir()):
        told = path if isinstance(path, str) else reprlib.repr(path)
        raise ToodError(f"{source}: 'path' is {told}, not the name of a folder")
    plain = plain_path(path)
    for candidate in (source.parent / plain, Path(plain)):
        if candidate.is_dir():
            return [candidate, source.parent], []
    moved = PathFinder((source.parent,)).by_end(path)
    bases = [source.parent] if moved is None or not moved.is_dir() else [moved, source.parent]
    return bases, [f"'path' is {path!r}, which is not there: {bases[0]} is taken for it"]


def _entries(raw: Mapping[Any, Any], key: str, source: Path) -> list[str]:
    value = raw[key]
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry and "\0" not in entry for entry in entries):
        raise ToodError(f"{source}: {key!r} is {reprlib.repr(value)}, not a folder, a txt list or a list of them")
    return entries


def _place(entry: str, finder: PathFinder, source: Path, inside_first: bool) -> tuple[Path | None, bool]:
    """The folder or list that an entry names, and whether it was found by the end of its path alone."""
    # Roboflow writes ../train/images for a train/images beside the yaml.
    stripped = plain_path(entry)
    while stripped.startswith("../"):
        stripped = stripped[3:]
    inside = PathFinder((source.parent,)).as_written(stripped) if stripped != plain_path(entry) else None
    written = finder.as_written(entry)
    place = (inside or written) if inside_first else (written or inside)
    return (place, False) if place is not None else (finder.by_end(entry), True)


def _is_nothing(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and value in _NOTHING)


def _whole_number(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else None
