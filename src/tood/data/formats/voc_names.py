"""Which picture belongs to which VOC annotation, and which of both a list means."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from tood.data.files import IMAGE_SUFFIXES, find_images
from tood.data.formats.text import other_encoding, read_text
from tood.errors import ToodError

_FLAGS = ("1", "-1", "0")
# A flag, a running number (ImageNet), or several numbers of some meaning (the Oxford pets).
_NUMBERED = re.compile(r"(?P<image>.*?\S)\s+(?P<numbers>-?\d+(?:\s+-?\d+)*)")
_PAIR = re.compile(r"(?P<image>.*\S)\s+(?P<xml>\S.*\.xml)", re.IGNORECASE)


@dataclass(frozen=True)
class FoundPicture:
    """The picture of a name; `path` is None where there is none, `doubt` a sentence on what is odd about either."""

    path: Path | None
    file_name: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Pictures:
    """The pictures below some folders; `places` are the folders, each with what stands before its names."""

    places: tuple[tuple[str, Path], ...]

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders in which the pictures lie, without what stands before their names."""
        return tuple(folder for _, folder in self.places)

    @cached_property
    def by_name(self) -> dict[str, list[tuple[str, int]]]:
        """For each name (no suffix, composed letters) its pictures, by their names in a folder and that in `places`.

        There are several where only their suffixes differ.
        """
        found: dict[str, list[tuple[str, int]]] = {}
        for place, (prefix, folder) in enumerate(self.places):
            here: dict[str, list[tuple[str, int]]] = {}
            for path in find_images(folder).images:
                inside = path.relative_to(folder).as_posix()
                here.setdefault(spelled(prefix + without_suffix(inside)), []).append((inside, place))
            for name, pictures in here.items():
                found.setdefault(name, pictures)
        return found

    def pictures(self, name: str) -> list[tuple[str, Path]]:
        """The pictures of a name of `by_name`: names inside their folders, and files."""
        return [(inside, self.places[place][1] / inside) for inside, place in self.by_name[name]]

    def paths(self) -> Iterator[Path]:
        """The files of all pictures."""
        return (path for name in self.by_name for _, path in self.pictures(name))

    @cached_property
    def _by_base(self) -> dict[tuple[str, str], list[str]]:
        """The names by what stands before them and by their last part, whatever its case."""
        found: dict[tuple[str, str], list[str]] = {}
        for name in self.by_name:
            found.setdefault(self._base(name), []).append(name)
        return found

    def _base(self, name: str) -> tuple[str, str]:
        prefix = next((prefix for prefix, _ in self.places if prefix and name.startswith(spelled(prefix))), "")
        return prefix, name.rpartition("/")[2].casefold()

    def find(self, name: str, told: str, annotated: Collection[str]) -> FoundPicture:
        """The picture of an annotation.

        It is the one of the annotation's name and, of several that differ by their suffix, the one that the annotation
        tells. Where none is called so, it is the only one of that name in another folder, or the one of the told name.

        Args:
            name: of the annotation.
            told: the file name that the annotation gives, with `/` between folders; may be empty.
            annotated: all names, composed: no picture that is called as one of them belongs to another.
        """
        own = spelled(name)
        told = spelled(told)
        if own in self.by_name:
            return self._chosen(own, told, annotated)
        if without_suffix(own) in self.by_name:  # a.jpg.xml is of a.jpg
            return self._chosen(without_suffix(own), own, annotated)
        prefix, base = self._base(own)
        for wanted in (base, without_suffix(told.rpartition("/")[2]).casefold()):
            names = self._by_base.get((prefix, wanted), []) if wanted else []
            free = [found for found in names if found not in annotated]
            if len(free) == 1:
                return self._chosen(free[0], told, annotated)
            if len(free) > 1:
                files = ", ".join(str(self.pictures(found)[0][1]) for found in free[:3])
                return FoundPicture(None, doubt=f"several pictures may be its own ({files}): none is taken")
        return FoundPicture(None)

    def _chosen(self, name: str, told: str, annotated: Collection[str]) -> FoundPicture:
        """Of the pictures of a name the one that the annotation tells."""
        pictures = self.pictures(name)
        wanted = told.rpartition("/")[2]
        exact = [found for found in pictures if spelled(found[1].name) == wanted]
        alike = exact or [found for found in pictures if spelled(found[1].name).casefold() == wanted.casefold()]
        if len(pictures) == 1:
            inside, path = pictures[0]
            suffix = PurePosixPath(wanted).suffix.lower()
            doubt = ""
            if suffix in IMAGE_SUFFIXES and not alike and without_suffix(wanted) == without_suffix(spelled(path.name)):
                doubt = f"names {wanted}, which is not there: {path.name} is taken"
            return FoundPicture(path, inside, doubt)
        files = " and ".join(path.name for _, path in pictures)
        if len(alike) != 1:
            said = f"names {wanted}" if wanted else "names none of them"
            return FoundPicture(None, doubt=f"has the pictures {files} and {said}: take away those that it is not of")
        inside, path = alike[0]
        bare = [str(other) for spare, other in pictures if other != path and spelled(spare) not in annotated]
        doubt = f"names {path.name}: taken, and not {', '.join(bare)}, which has no annotation then" if bare else ""
        return FoundPicture(path, inside, doubt)


class KnownNames:
    """The names of a dataset, found by what a list may call them."""

    def __init__(self, xml_files: Mapping[str, str], pictures: Pictures) -> None:
        self._annotated, self._pictures = _Index(xml_files), pictures

    @cached_property
    def _pictured(self) -> _Index:
        return _Index(self._pictures.by_name)

    def find(self, text: str) -> str | None:
        """The name that is meant: as it is, with a suffix, or as a path; first among annotations, then among pictures.

        Of a path as many folders as possible must agree; a name without any may lie in some folder, if only one does.
        """
        told = spelled(text.replace("\\", "/"))
        for candidate in _tails(told):
            if (found := self._annotated.whole(candidate)) is not None:
                return found
            if (found := self._pictured.whole(candidate)) is not None:
                # The annotations may lie one folder deeper than the pictures.
                deeper = None if "/" in candidate else self._annotated.based(candidate)
                return found if deeper is None or self._pictured.whole(spelled(deeper)) is not None else deeper
        if "/" in told:
            return self._annotated.ending(told) or self._annotated.ending(without_suffix(told))
        return self._annotated.based(without_suffix(told)) or self._pictured.based(without_suffix(told))

    def has(self, name: str) -> bool:
        """Whether a name is that of an annotation or a picture."""
        return self._annotated.whole(spelled(name)) is not None or self._pictured.whole(spelled(name)) is not None


class _Index:
    """Names by their spellings."""

    def __init__(self, names: Iterable[str]) -> None:
        self._whole = {spelled(name): name for name in names}

    @cached_property
    def _base(self) -> dict[str, list[str]]:
        """The names by their last parts."""
        found: dict[str, list[str]] = {}
        for whole, name in self._whole.items():
            found.setdefault(whole.rpartition("/")[2], []).append(name)
        return found

    def whole(self, text: str) -> str | None:
        return self._whole.get(text)

    def ending(self, text: str) -> str | None:
        """The only name that ends in these folders and this last part."""
        base = self._base.get(text.rpartition("/")[2], ())
        found = [name for name in base if spelled(name).endswith(f"/{text}")]
        return found[0] if len(found) == 1 else None

    def based(self, text: str) -> str | None:
        """The only name of this last part."""
        found = self._base.get(text, ())
        return found[0] if len(found) == 1 else None


def _tails(text: str) -> Iterator[str]:
    """A path, then without its first folder, its first two, ...; each with its suffix and without."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        yield tail
        yield without_suffix(tail)


def list_names(path: Path, known: KnownNames) -> tuple[str, ...]:
    """The images that a list names, one a line.

    A line is a name, perhaps with blanks in it or in quotes; a name and a flag (`a  -1`); a path; or the paths of an
    image and of its xml. What no image or annotation is called stands as it is.

    Raises:
        ToodError: if the list cannot be read.
    """
    try:
        lines = read_text(path).splitlines()
    except UnicodeDecodeError:
        raise ToodError(f"{path}: {other_encoding(path)}") from None
    except (OSError, ValueError) as error:
        raise ToodError(f"{path}: cannot be read as a list of image names ({error})") from None
    lines = [line.strip() for line in lines if line.strip()]
    whole = [known.find(_unquoted(line)) for line in lines]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if len({found["numbers"].count(" ") for found in numbered if found}) == 1 and all(numbered):
        # `a 1` may be the image `a 1` or the image `a` with a flag: as most lines make sense.
        bare = [known.find(_unquoted(found["image"])) for found in numbered if found]
        if sum(name is not None for name in bare) > sum(name is not None for name in whole):
            whole = bare
    return tuple(name or _name_of(line, known) for line, name in zip(lines, whole, strict=True))


def _name_of(line: str, known: KnownNames) -> str:
    """The name in a line that as a whole is none."""
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and words[1] in _FLAGS:
        text = _unquoted(words[0])
        return known.find(text) or text
    pair = _PAIR.fullmatch(line)
    if pair is not None:
        found = known.find(pair["xml"]) or known.find(pair["image"])
        return found or without_suffix(pair["xml"])
    return _unquoted(line)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text


def spelled(name: str) -> str:
    """A name with composed letters: macOS takes them apart, and to a person both are one."""
    return normalize("NFC", name)


def without_suffix(name: str) -> str:
    """A name without the suffix of a picture or of an xml; another dot is part of the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and f".{suffix.lower()}" in IMAGE_SUFFIXES | {".xml"} else name
