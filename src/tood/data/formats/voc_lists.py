"""Which lists of a Pascal VOC folder say what is in which split: the usual ones, and those that some datasets have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tood.data.files import is_hidden, subfolders
from tood.data.formats.folder import canonical
from tood.data.formats.voc_names import KnownNames, list_names
from tood.errors import ToodError

USUAL = ("train", "val", "trainval", "test")
# A list that names so many of its lines' pictures is one.
_SHARE_KNOWN = 0.5
_MOST_LISTS = 200


def list_files(home: Path) -> list[Path]:
    """The lists that say which images a split has; not those that say which images show a class."""
    for sets in named_like(home, ("imagesets",)):
        for folder in (*named_like(sets, ("main",)), sets):
            lists = sorted(path for path in folder.glob("*.txt") if path.is_file() and not is_hidden(path.name))
            stems = {path.stem for path in lists}
            # VOC keeps one list a class, too: aeroplane_train.txt.
            lists = [path for path in lists if path.stem in USUAL or not _of_class(path, stems)]
            if lists:
                return lists
    return [
        path
        for path in sorted(home.glob("*.txt"))
        if path.is_file() and canonical(path.stem.removesuffix("_list")) in USUAL
    ]


def _of_class(path: Path, stems: set[str]) -> bool:
    if any(path.stem.endswith(f"_{split}") for split in USUAL):
        return True
    if not any(path.stem.endswith(f"_{other}") for other in stems - {path.stem}):
        return False
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError):
        return False
    return all(line.split()[-1] in ("1", "-1", "0") for line in lines if line.strip())


def less_usual_splits(
    home: Path, annotations: Path, xml_files: Mapping[str, str], known: KnownNames
) -> tuple[dict[str, tuple[str, ...]], dict[str, Path], list[str]]:
    """Splits by lists that lie elsewhere or are of single classes, with their lists and what is to be told.

    - `ImageSets/DET/train.txt`, in the only sub-folder of the lists, as ImageNet has them;
    - `annotations/trainval.txt` among the annotations, as the Oxford pets have them;
    - `ImageSets/Main/cat_train.txt`, one for each class and split, as VoTT writes them: together they are the split.

    Names without an annotation are left out of them, and told.
    """
    sets = [inner for folder in named_like(home, ("imagesets",)) for inner in subfolders(folder)]
    places = [*([sets[0]] if len(sets) == 1 and sets[0].name.lower() != "main" else []), annotations]
    for place in places:
        lists = [path for path in _texts(place) if canonical(path.stem.removesuffix("_list")) in USUAL]
        found = {canonical(path.stem.removesuffix("_list")): list_names(path, known) for path in lists}
        if found and any(name in xml_files for names in found.values() for name in names):
            sources = {canonical(path.stem.removesuffix("_list")): path for path in lists}
            kept, notes = _annotated_alone(found, xml_files, place)
            return kept, sources, notes
    return _of_all_classes(home, xml_files, known)


def unused_lists(home: Path, annotations: Path, known: KnownNames) -> list[Path]:
    """The lists that name pictures of the folder, whatever they are for."""
    sets = [inner for folder in named_like(home, ("imagesets",)) for inner in (folder, *subfolders(folder))]
    texts = [path for place in (*sets, home, annotations) for path in _texts(place)]
    return [path for path in texts[:_MOST_LISTS] if _names_pictures(path, known)]


def _of_all_classes(
    home: Path, xml_files: Mapping[str, str], known: KnownNames
) -> tuple[dict[str, tuple[str, ...]], dict[str, Path], list[str]]:
    """The splits that the lists of single classes make together, unless two of them share a picture."""
    texts = [
        path
        for sets in named_like(home, ("imagesets",))
        for folder in (*named_like(sets, ("main",)), sets)
        for path in _texts(folder)
    ]
    found: dict[str, dict[str, None]] = {}
    sources: dict[str, Path] = {}
    for path in texts:
        split = canonical(path.stem.rpartition("_")[2])
        if split in ("train", "val", "test"):
            found.setdefault(split, {}).update(dict.fromkeys(list_names(path, known)))
            sources.setdefault(split, path)
    names = [name for split in found.values() for name in split]
    if not found or len(set(names)) < len(names) or not all(name in xml_files for name in names):
        return {}, {}, []
    first = next(iter(sources.values()))
    note = f"there are lists of single classes alone ({first.name} and so on): together they are taken for the splits"
    return {split: tuple(sorted(names)) for split, names in found.items()}, sources, [note]


def _annotated_alone(
    found: Mapping[str, Sequence[str]], xml_files: Mapping[str, str], place: Path
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The names that have an annotation, of each split of which any has."""
    kept = {split: tuple(name for name in names if name in xml_files) for split, names in found.items()}
    left = sum(len(found[split]) - len(names) for split, names in kept.items() if names)
    notes = [f"{left} names in the lists of {place} have no annotation and are left out"] if left else []
    return {split: names or tuple(found[split]) for split, names in kept.items()}, notes


def _names_pictures(path: Path, known: KnownNames) -> bool:
    try:
        names = list_names(path, known)
    except ToodError:
        return False
    return bool(names) and sum(map(known.has, names)) >= _SHARE_KNOWN * len(names)


def _texts(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.txt") if path.is_file() and not is_hidden(path.name))


def named_like(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Sub-folders by these lower-case names, whatever the case of their own; in the order of the names."""
    found = [child for child in subfolders(folder) if child.name.lower() in names]
    return tuple(sorted(found, key=lambda child: (names.index(child.name.lower()), child.name)))
