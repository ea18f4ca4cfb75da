"""Annotated pictures in a folder, none in the place of a file that is not an earlier one of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tood.file_identity import file_identity
from tood.inference import is_url
from tood.manifest import Manifest
from tood.plots import encode_image
from tood.whole_file import new_temporary

# A JPEG cannot be longer.
_JPEG_SIDE = 65500
# Bytes. File systems take 255; a number and a suffix follow.
_LONGEST_STEM = 200


class PictureFiles:
    """Writes pictures under the names of their sources, numbered where a name is taken.

    Whether a name is taken is for the file system to say, which may hold `A.jpg` and `a.jpg` for one, or two ways to
    write an accent.

    Args:
        folder: to write to.
        sources: paths (and addresses) of the images of the run: never replaced.
        earlier: files in the folder that may be replaced.
        adopted: of so many pictures the first may be there already, the same to the last bit: a run that was killed had
            written them, but not yet listed.
    """

    def __init__(self, folder: Path, sources: Iterable[str], earlier: Manifest, adopted: int = 0) -> None:
        self.folder, self.earlier, self._adopted = folder, earlier, adopted
        self._protected = {file_identity(Path(source)) for source in sources}
        self._next: dict[str, int] = {}

    def write(self, source: str, picture: NDArray[np.uint8]) -> str:
        """Write a picture [H, W, 3] uint8 RGB; gives its file name.

        Raises:
            OSError: if it cannot be written; nothing is left of it.
        """
        stem, suffix = _stem(source), _suffix(source, picture)
        temporary = new_temporary(self.folder / stem)
        try:
            temporary.write_bytes(encode_image(picture, suffix))
            number = self._next.get(stem + suffix, 1)
            while not self._place(temporary, name := _numbered(stem, number, suffix)):
                number += 1
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._next[stem + suffix] = number + 1
        self._adopted -= 1
        self._protected.add(file_identity(self.folder / name))
        return name

    def keep(self, source: str, name: str) -> None:
        """Count a picture that is there already as one of this run."""
        self._protected.add(file_identity(self.folder / name))
        stem, suffix = _stem(source), Path(name).suffix
        digits = name.removeprefix(stem).removesuffix(suffix).removeprefix("_")
        taken = int(digits) if digits.isdecimal() else 1
        self._next[stem + suffix] = max(self._next.get(stem + suffix, 1), taken + 1)

    def _place(self, temporary: Path, name: str) -> bool:
        """Move a finished file to a name, unless that is taken."""
        path = self.folder / name
        try:
            _create(temporary, path)
        except FileExistsError:
            if file_identity(path, follow=False) in self._protected:
                return False
            if not self.earlier.holds(self.folder, name):
                return self._adopted > 0 and not path.is_symlink() and _same(path, temporary)
            temporary.replace(path)
        return True


def _same(one: Path, two: Path) -> bool:
    """Whether two files hold the same bytes."""
    return one.is_file() and one.stat().st_size == two.stat().st_size and one.read_bytes() == two.read_bytes()


def _create(temporary: Path, path: Path) -> None:
    """Give a file a new name; FileExistsError if there is anything of that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        path.open("xb").close()
        temporary.replace(path)


def _stem(source: str) -> str:
    if is_url(source):
        # Of an address any character may come.
        source = "".join(letter if letter >= " " and letter not in '<>:"|?*\\' else "_" for letter in _address(source))
    stem = Path(source).stem or "picture"
    while len(os.fsencode(stem)) > _LONGEST_STEM:
        stem = stem[:-1]
    return stem


def _address(source: str) -> str:
    return unquote(urlsplit(source).path)


def _suffix(source: str, picture: NDArray[np.uint8]) -> str:
    name = Path(_address(source) if is_url(source) else source)
    jpeg = name.suffix.lower() in (".jpg", ".jpeg", ".jpe") and max(picture.shape) <= _JPEG_SIDE
    return ".jpg" if jpeg else ".png"


def _numbered(stem: str, number: int, suffix: str) -> str:
    return f"{stem}{suffix}" if number == 1 else f"{stem}_{number}{suffix}"
