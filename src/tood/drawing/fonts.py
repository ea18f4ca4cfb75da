"""Typefaces: the one that matplotlib brings along, and, for letters that it lacks, those of the system."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont, features

_log = logging.getLogger(__name__)

# Files or folders of fonts to look in first, separated as in PATH.
VARIABLE = "TOOD_FONTS"
# Up to here DejaVu Sans has every letter: Latin as all of Europe writes it.
_SURELY_THERE = 0x250
# Where Linux and its like keep the fonts of all users.
SHARED = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# Pixels of the pictures that a font of coloured pictures (Noto Color Emoji) consists of.
_PICTURE_SIZES = (109, 128, 136, 160)
ADVICE = (
    "install a font that has them (Debian and Ubuntu: apt install fonts-noto-cjk fonts-noto-core "
    f"fonts-noto-color-emoji; Fedora: google-noto-*-fonts), or name a font file in {VARIABLE}"
)


@dataclass(frozen=True)
class Typeface:
    """A font in a file; collections hold several, by index."""

    path: Path
    index: int = 0

    def covers(self, letter: str) -> bool:
        """Whether it has a picture of the letter."""
        if self == own_typeface() and ord(letter) < _SURELY_THERE:
            return True
        ranges = _listed_by_fontconfig().get(self)
        if ranges is None:
            return ord(letter) in _letters(self)
        i = bisect_right(ranges, (ord(letter), sys.maxunicode + 1)) - 1
        return i >= 0 and ord(letter) <= ranges[i][1]

    @property
    def coloured(self) -> bool:
        """Whether its letters are pictures in colours, of one size."""
        return isinstance(_open(self, 16), int)

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """The font with letters of so many pixels, or of the only size that its pictures have."""
        opened = _open(self, size)
        return _truetype(self, opened) if isinstance(opened, int) else opened


@lru_cache(maxsize=1)
def own_typeface() -> Typeface:
    """DejaVu Sans, which matplotlib brings along on every system: Latin, Greek, Cyrillic and more."""
    # Found, not imported: half a second of a short command.
    package = find_spec("matplotlib")
    assert package is not None
    assert package.origin is not None
    return Typeface(Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


def typeface_of(letter: str) -> Typeface | None:
    """The typeface to draw a letter with: the own one, else one of the system's; None if none has it."""
    own = own_typeface()
    return own if own.covers(letter) else _found(letter, os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=4096)
def _found(letter: str, named: str) -> Typeface | None:
    for typeface in (*_named(named), *_of_system()):
        if typeface.covers(letter) and _opens(typeface):
            return typeface
    return None


@lru_cache(maxsize=8)
def _named(named: str) -> Sequence[Typeface]:
    """The fonts that the environment names."""
    found = []
    for place in (Path(part).expanduser() for part in named.split(os.pathsep) if part):
        typefaces = [Typeface(path) for path in ([place] if place.is_file() else _font_files(place))]
        found += [typeface for typeface in typefaces if _opens(typeface)]
        if not typefaces:
            _log.warning("%s names %s, where there is no font", VARIABLE, place)
    return found


@lru_cache(maxsize=1)
def _of_system() -> Sequence[Typeface]:
    """Fonts of the system, those of plain shape first: a word's letters then are of one of them."""
    return sorted(_listed_by_fontconfig() or map(Typeface, _system_fonts()), key=_rank)


@lru_cache(maxsize=1)
def _listed_by_fontconfig() -> dict[Typeface, list[tuple[int, int]]]:
    """What fontconfig, if there is one, knows: fonts, and the first and last of each range of their letters."""
    program = shutil.which("fc-list")
    if program is None:
        return {}
    try:
        command = [program, "--format=%{file}\\t%{index}\\t%{charset}\\n"]
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for line in os.fsdecode(done.stdout).splitlines():
        path, index, ranges = (*line.split("\t"), "", "")[:3]
        # In its upper half an index numbers the named styles of a variable font.
        if path.lower().endswith(_SUFFIXES) and index.isdigit() and int(index) < 0x10000:
            ends = [part.partition("-") for part in ranges.split()]
            found[Typeface(Path(path), int(index))] = [(int(a, 16), int(b or a, 16)) for a, _, b in ends]
    return found


@lru_cache(maxsize=1)
def _system_fonts() -> Sequence[Path]:
    """Font files in the folders where systems keep them."""
    home = Path.home()
    if sys.platform == "darwin":
        folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    elif sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
        folders = [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", local / "Microsoft/Windows/Fonts"]
    else:
        data = Path(os.environ.get("XDG_DATA_HOME", home / ".local/share"))
        folders = [*SHARED, data / "fonts", home / ".fonts"]
    return [path for folder in folders for path in _font_files(folder)]


def _font_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []


def _rank(typeface: Typeface) -> tuple[bool, bool, bool, bool, str, int]:
    """Upright fonts of usual weight without serifs before all others."""
    name = typeface.path.stem.lower()
    odd = any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "medium"))
    emoji = "emoji" in name and "color" not in name
    return emoji, odd, "serif" in name or "mono" in name, "sans" not in name, str(typeface.path), typeface.index


@lru_cache(maxsize=512)
def _letters(typeface: Typeface) -> frozenset[int]:
    """Code points that a font has, none if the file cannot be read."""
    from fontTools.ttLib import TTFont, TTLibError  # comes with matplotlib

    logging.getLogger("fontTools").setLevel(logging.ERROR)  # strangers' files
    try:
        with TTFont(typeface.path, fontNumber=typeface.index, lazy=True) as file:
            return frozenset(file.getBestCmap() or ())
    except (OSError, TTLibError, ValueError, KeyError, IndexError, AssertionError, EOFError):
        return frozenset()
    except Exception as error:  # fontTools meets damaged tables with errors of many kinds
        _log.debug("%s is no font: %s", typeface.path, error)
        return frozenset()


def _opens(typeface: Typeface) -> bool:
    try:
        _open(typeface, 16)
    except OSError:
        return False
    return True


@lru_cache(maxsize=256)
def _open(typeface: Typeface, size: int) -> ImageFont.FreeTypeFont | int:
    """The font, or the only size that it has."""
    try:
        return _truetype(typeface, size)
    except OSError:
        for only in _PICTURE_SIZES:
            try:
                _truetype(typeface, only)
            except OSError:
                continue
            return only
        raise


@lru_cache(maxsize=256)
def _truetype(typeface: Typeface, size: int) -> ImageFont.FreeTypeFont:
    layout = ImageFont.Layout.RAQM if shapes_letters() else ImageFont.Layout.BASIC
    return ImageFont.truetype(str(typeface.path), size, index=typeface.index, layout_engine=layout)


@lru_cache(maxsize=1)
def shapes_letters() -> bool:
    """Whether Pillow can shape scripts whose letters join (Raqm, which needs FriBidi on the system)."""
    return bool(features.check("raqm") and features.check("fribidi"))
