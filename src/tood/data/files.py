"""Which files of a folder are its pictures, and why the others are passed over."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tood.data.columns import PathColumn
from tood.file_identity import FileIdentity, file_identity

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm"}
    | {".jp2", ".j2k", ".tga", ".ico", ".psd"}
    | ({".avif"} if find_spec("PIL._avif") is not None else set())  # it came with Pillow 11.3
)
"""By these a folder's pictures are told from its other files; a file that is named itself may be called anything."""

# Pictures, for a person, that no decoder here reads.
_UNREAD_SUFFIXES = (
    {".heic", ".heif", ".hif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"}
    | {".xcf", ".svg", ".exr", ".hdr", ".dcm"}
) - IMAGE_SUFFIXES

# Folders that a system or a program keeps for itself, with previews or leftovers of pictures in them.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "appledouble", "network trash folder", "temporary items", "ipod photo cache"}  # macOS
    | {"$recycle.bin", "recycler", "recycled", "system volume information", "found.000"}  # Windows
    | {"@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@sharesnap"}  # Synology
    | {"@recycle", "@recently-snapshot", "@__thumb", "@upload_cache", "_thumb", "_thumbs"}  # QNAP and web galleries
    | {"lost+found", "~snapshot", "thumbnails", "_thumbnails", "_vti_cnf", "zbthumbnails"}
)
# Folders of previews only where they repeat the pictures above them: such words may as well name a class.
_PREVIEW_FOLDERS = frozenset({"thumbs", "thumb", "previews"})

ORPHAN_LABELS = "label files without a picture"
SECOND_LABELS = "second label files of a picture"
UNNAMED_PICTURES = "pictures that no annotation names"
_UNREAD = "of kinds that are not read: save them as JPEG or PNG"
_SYSTEM = "in hidden or system folders"
_HIDDEN = "hidden"
_BROKEN_LINK = "links to nothing"
_CLOSED = "in a folder that cannot be read"
# What a person can mend comes first.
_REASONS = (ORPHAN_LABELS, SECOND_LABELS, UNNAMED_PICTURES, _UNREAD, _CLOSED, _BROKEN_LINK, _SYSTEM, _HIDDEN)
_LONGEST_LINE, _LONGEST_EXAMPLE = 300, 48


@dataclass(frozen=True)
class FolderImages:
    """What a walk through a folder and its sub-folders found.

    Attributes:
        images: the picture files, in the order of their paths.
        passed_over: the other files that a person may take for pictures of the folder, by the reason in a few words.
    """

    images: PathColumn
    passed_over: Mapping[str, tuple[Path, ...]]


def find_images(folder: Path) -> FolderImages:
    """The pictures of a folder and its sub-folders, told by their suffix; linked folders are entered, each once.

    Hidden files and folders, and those that a system keeps for itself (`@eaDir`, `__MACOSX`), are passed over. A
    folder that is there and linked to goes by its own name, not by the link's.
    """
    images: list[str] = []
    passed_over: dict[str, list[Path]] = {}
    for path, reason in _walk(folder):
        if reason is None:
            images.append(path)
        else:
            passed_over.setdefault(reason, []).append(Path(path))
    images.sort(key=path_order)
    return FolderImages(PathColumn.of(images), {reason: tuple(sorted(paths)) for reason, paths in passed_over.items()})


def path_order(path: str) -> str:
    """A path as paths are sorted: part by part."""
    return os.path.normcase(path).replace(os.sep, "\0")


def any_images(folder: Path) -> Iterator[Path]:
    """The pictures of `find_images` one by one, in no order: for who needs but the first few."""
    return (Path(path) for path, reason in _walk(folder) if reason is None)


def passed_over_line(passed_over: Mapping[str, Sequence[Path]]) -> str | None:
    """One line that says how many files were passed over and why, what can be mended first; None if there are none.

    Every reason has an example as long as the line stays short.
    """
    if not passed_over:
        return None
    rank = {reason: number for number, reason in enumerate(_REASONS)}
    reasons = sorted(passed_over, key=lambda reason: rank.get(reason, len(rank)))
    total = sum(map(len, passed_over.values()))
    line = f"{total} file{'' if total == 1 else 's'} passed over: "
    for examples in range(len(reasons), -1, -1):
        told = [
            f"{len(passed_over[reason])} {reason}" + (f" (such as {_example(passed_over[reason][0])})" if shown else "")
            for reason, shown in zip(reasons, [True] * examples + [False] * len(reasons), strict=False)
        ]
        if len(line) + len("; ".join(told)) <= _LONGEST_LINE:
            break
    return line + "; ".join(told)


def _example(path: Path) -> str:
    """The end of a path, as far as a line has room for it."""
    told = "/".join(path.parts[-2:])
    return told if len(told) <= _LONGEST_EXAMPLE else f"...{told[-_LONGEST_EXAMPLE:]}"


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is one that a system or program keeps for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def find_files(folder: Path, suffix: str, depth: int | None = None) -> Iterator[Path]:
    """The files of a suffix (`.xml`) in a folder and its sub-folders, but hidden ones, in the order of `any_images`.

    Args:
        folder: where to look.
        suffix: in small letters; the files' own may be in any.
        depth: how many levels of sub-folders are entered; None for all.
    """
    for inside, entries in _folders(folder, depth):
        if entries is not None and not inside.hidden:
            for entry in entries:
                if entry.name.lower().endswith(suffix) and not is_hidden(entry.name) and _kind(entry) != "folder":
                    yield inside.path / entry.name


def subfolders(folder: Path) -> list[Path]:
    """The sub-folders of a folder, linked ones too, that no system or program keeps for itself, by their names."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if _kind(entry) == "folder" and not is_hidden(entry.name))
    except OSError:
        return []
    return [folder / name for name in names]


Kind = Literal["folder", "file", "nothing", "loop"]


def _kind(entry: os.DirEntry[str]) -> Kind:
    """What an entry is, or a link leads to: `nothing` is there, or the link leads to itself, in a `loop`."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "nothing"
    except OSError:  # a link through itself, or through a folder that may not be entered
        return "loop"


@dataclass(frozen=True)
class _Folder:
    """A folder that a walk enters.

    Attributes:
        path: as it is reached.
        level: how deep it lies, from 0.
        hidden: whether a system or a program keeps it for itself, or it repeats the pictures above as previews.
    """

    path: Path
    level: int = 0
    hidden: bool = False


def _folders(top: Path, depth: int | None = None) -> Iterator[tuple[_Folder, list[os.DirEntry[str]] | None]]:
    """A folder and those below it, each once, with what is in them by name; None where it cannot be read.

    Those in a hidden one are left out. Links come last: what is linked to goes by its own name. None leads to a folder
    that the first one lies in: what is beside it was not meant.
    """
    entered = {file_identity(above) for above in Path(os.path.realpath(top)).parents}
    waiting = deque([_Folder(top)])
    while waiting:
        folder = waiting.popleft()
        identity = file_identity(folder.path)
        if identity in entered:  # a link to a folder above, or a second one to this
            continue
        entered.add(identity)
        try:
            with os.scandir(folder.path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            yield folder, None
            continue
        yield folder, entries
        if folder.hidden or folder.level == depth:
            continue
        for entry in entries:
            if _kind(entry) == "folder":
                path = folder.path / entry.name
                inner = _Folder(path, folder.level + 1, is_hidden(entry.name) or _is_previews(path, entries))
                (waiting.append if entry.is_symlink() else waiting.appendleft)(inner)


def may_hold(place: Path, identities: Set[FileIdentity]) -> bool:
    """Whether a folder may lead to one of these files, told by a listing alone: for sure where this says no.

    Where there are links it may, and so may what is no folder.
    """
    numbers = {identity[1] for identity in identities if isinstance(identity, tuple)}
    if any(isinstance(identity, str) for identity in identities):
        return True
    waiting = [str(place)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink() or entry.inode() in numbers:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            return True
    return False


def _walk(top: Path) -> Iterator[tuple[str, str | None]]:
    """Each picture file's path as text, with the reason if it is passed over."""
    for folder, entries in _folders(top):
        if entries is None:
            yield str(folder.path), _CLOSED
            continue
        front = str(folder.path / "x")[:-1]
        hidden = folder.hidden
        for entry in entries:
            kind = _kind(entry)
            path = front + entry.name
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  (quick for 118k of them)
            # A link without a suffix was meant for a folder, as pictures on a disk that is not there.
            broken = kind == "loop" or (kind == "nothing" and not suffix and entry.is_symlink())
            if kind == "folder":
                continue
            if suffix in IMAGE_SUFFIXES and hidden:
                yield path, _SYSTEM
            elif suffix in _UNREAD_SUFFIXES and not hidden:
                yield path, _UNREAD
            elif suffix in IMAGE_SUFFIXES and is_hidden(entry.name):
                yield path, _HIDDEN
            elif suffix in IMAGE_SUFFIXES:
                yield path, None if kind == "file" else _BROKEN_LINK
            elif broken and not hidden and not is_hidden(entry.name):
                yield path, _BROKEN_LINK


def _is_previews(folder: Path, above: Sequence[os.DirEntry[str]]) -> bool:
    """Whether a folder, by its name one of previews, repeats pictures that lie above it."""
    if folder.name.lower() not in _PREVIEW_FOLDERS:
        return False
    stems = {os.path.splitext(entry.name)[0] for entry in above}  # noqa: PTH122  (names alone)
    inside = _pictures_in(folder)
    return bool(inside) and all(Path(name).stem in stems for name in inside)


def _pictures_in(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208  (names alone are wanted)
    except OSError:
        return []
    return [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
