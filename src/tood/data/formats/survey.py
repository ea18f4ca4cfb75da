"""What lies in a folder that is no dataset, hidden things aside."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tood.data.files import IMAGE_SUFFIXES, is_hidden
from tood.data.formats.yolo_yaml import subfolders

_MOST_FILES = 50_000
_SHOWN_FOLDERS = 6


@dataclass(frozen=True)
class Survey:
    """The files in a folder and its sub-folders, by their paths: pictures, and others."""

    root: Path
    pictures: tuple[Path, ...]
    others: tuple[Path, ...]

    def of(self, *suffixes: str) -> list[Path]:
        """The other files with one of these suffixes."""
        return [path for path in self.others if path.suffix.lower() in suffixes]

    def told(self) -> str:
        """The files by kinds with their numbers, and the folders."""
        counts = Counter(path.suffix.lower() or "nameless" for path in self.others)
        parts = [f"{len(self.pictures)} picture{'' if len(self.pictures) == 1 else 's'}"] if self.pictures else []
        parts += [f"{count} {suffix} file{'' if count == 1 else 's'}" for suffix, count in counts.most_common(4)]
        folders = [f"{path.name}/" for path in subfolders(self.root)]
        more = f" and {len(folders) - _SHOWN_FOLDERS} more" if len(folders) > _SHOWN_FOLDERS else ""
        where = f" (folders: {', '.join(folders[:_SHOWN_FOLDERS])}{more})" if folders else ""
        return (", ".join(parts) or "no file at all") + where


def survey(root: Path, most: int | None = _MOST_FILES) -> Survey:
    """Look through a folder, up to about `most` files."""
    pictures: list[Path] = []
    others: list[Path] = []
    for parent, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            if not is_hidden(name):
                path = Path(parent, name)
                (pictures if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
        if most is not None and len(pictures) + len(others) > most:
            break
    return Survey(root, tuple(pictures), tuple(others))
