"""The one way in which pictures get their text: letters of any script, or a substitute that is told."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tood.drawing.bidi import Run, joined, reversed_letters, visual_runs, visual_text
from tood.drawing.fonts import ADVICE, Typeface, own_typeface, shapes_letters, typeface_of

_log = logging.getLogger(__name__)

Colour = tuple[int, int, int]
# So many substitutes are told by name.
_NAMES_TOLD = 5
# Joiners, variation selectors and marks of direction: they change their neighbours and have no picture of their own.
_UNSEEN = frozenset("\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff\u061c\u00ad")


@lru_cache(maxsize=64)
def names_to_draw(names: tuple[str, ...], coloured: bool = True) -> tuple[str, ...]:
    """The classes' names; for those with a letter that no font here has, their number, which is told once.

    Args:
        names: of all classes.
        coloured: whether letters that are pictures in colours can be drawn; matplotlib cannot.
    """
    missing = [undrawable(name, coloured) for name in names]
    shown = tuple(
        f"class {i}" if lacks or not name.strip() else name
        for i, (name, lacks) in enumerate(zip(names, missing, strict=True))
    )
    replaced = [f"{new} for {old}" for new, old, lacks in zip(shown, names, missing, strict=True) if lacks]
    if replaced:
        more = f" and {len(replaced) - _NAMES_TOLD} more" if len(replaced) > _NAMES_TOLD else ""
        _log.warning(
            "pictures show numbers instead of names that no font here has letters for (%s%s): %s",
            ", ".join(replaced[:_NAMES_TOLD]),
            more,
            ADVICE,
        )
    return shown


def drawable(text: str) -> str:
    """The text on one line, with U+... for each letter that no font has, which is told once."""
    text = _one_line(text)
    return _with_numbers(text, undrawable(text))


def undrawable(text: str, coloured: bool = True) -> set[str]:
    """Letters of a text that no font here has, or none without colours."""
    return {letter for letter in _one_line(text) if letter not in _UNSEEN and not _can_draw(letter, coloured)}


def _can_draw(letter: str, coloured: bool) -> bool:
    typeface = typeface_of(letter)
    return typeface is not None and (coloured or not typeface.coloured)


def text_width(text: str, size: int) -> float:
    """Pixels from the first letter's left to the last one's right."""
    return sum(piece.width for piece in _pieces(drawable(text), size))


def draw_text(picture: Image.Image, place: tuple[float, float], text: str, colour: Colour, size: int) -> None:
    """Writes one line of text.

    Args:
        picture: RGB, drawn upon.
        place: (x, y) of the line's left end, at the middle of its height.
        text: of any script.
        colour: of the letters; emoji keep their own.
        size: of the letters in pixels.
    """
    x, y = place
    ascent, descent = own_typeface().at(size).getmetrics()
    # Every typeface stands on the own one's line, in the middle of its height.
    baseline = y + (ascent - descent) / 2
    draw = ImageDraw.Draw(picture)
    for piece in _pieces(drawable(text), size):
        if piece.typeface.coloured:
            _paste_coloured(picture, (x, baseline), piece)
        else:
            draw.text((x, baseline), piece.text, colour, piece.font, "ls", **piece.layout)
        x += piece.width


def figure_text(text: str) -> str:
    """The text as matplotlib is to get it: no formula, no letter without a font, each where it is seen."""
    import matplotlib

    text = _one_line(text)
    text = _with_numbers(text, undrawable(text, coloured=False))
    text = "".join(letter for letter in text if letter not in _UNSEEN)
    shapes_itself = tuple(int(part) for part in matplotlib.__version__.split(".")[:2]) >= (3, 11)
    return (text if shapes_itself else visual_text(text)).replace("$", r"\$")


@contextmanager
def figure_letters(texts: Iterable[str]) -> Iterator[None]:
    """While this lasts, matplotlib takes each letter from the first of several typefaces that has it: its own, and
    those of the system that these texts need."""
    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties, fontManager

    families = ["DejaVu Sans"]
    for letter in sorted({letter for text in texts for letter in text}):
        typeface = typeface_of(letter)
        if typeface is None or typeface == own_typeface() or typeface.coloured:
            continue
        family = FontProperties(fname=str(typeface.path)).get_name()
        if family not in families:
            fontManager.addfont(str(typeface.path))
            families.append(family)
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # a family without bold letters is no news
    try:
        with rc_context({"font.family": families}):
            yield
    finally:
        log.setLevel(level)


@dataclass(frozen=True)
class _Piece:
    """Letters of one direction and one typeface; the width in pixels."""

    text: str
    typeface: Typeface
    size: int
    right_to_left: bool

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        return self.typeface.at(self.size)

    @property
    def layout(self) -> dict[str, Any]:
        return {"direction": "rtl" if self.right_to_left else "ltr"} if shapes_letters() else {}

    @property
    def width(self) -> float:
        length = self.font.getlength(self.text, **self.layout)
        return length * self.size / self.font.size if self.typeface.coloured else length


def _pieces(text: str, size: int) -> list[_Piece]:
    """From left to right as they are seen."""
    pieces: list[_Piece] = []
    for run in visual_runs(text):
        own = [
            _Piece(
                letters if shapes_letters() else _laid_out(letters, run, typeface), typeface, size, run.right_to_left
            )
            for letters, typeface in _by_typeface(run.text)
        ]
        pieces += own[::-1] if run.right_to_left else own
    return pieces


def _by_typeface(text: str) -> list[tuple[str, Typeface]]:
    """Letters in groups that one typeface draws; what is unseen and marks stay with the letter before them."""
    chosen: list[tuple[str, Typeface]] = []
    for letter in text:
        before = chosen[-1][1] if chosen else own_typeface()
        follows = letter in _UNSEEN or (unicodedata.combining(letter) and before.covers(letter))
        chosen.append((letter, before if follows else typeface_of(letter) or own_typeface()))
    groups = [("".join(letter for letter, _ in group), face) for face, group in groupby(chosen, lambda one: one[1])]
    if shapes_letters():
        return groups
    return [("".join(letter for letter in letters if letter not in _UNSEEN), face) for letters, face in groups]


def _laid_out(letters: str, run: Run, typeface: Typeface) -> str:
    """As Pillow is to get them: where it cannot shape them, in their shapes and from left to right."""
    if shapes_letters() or not run.right_to_left:
        return letters
    shaped = joined(letters)
    return reversed_letters(shaped if all(map(typeface.covers, shaped)) else letters)


def _paste_coloured(picture: Image.Image, place: tuple[float, float], piece: _Piece) -> None:
    """Letters that are pictures, brought to the size of the text."""
    font = piece.font
    left, top, right, bottom = font.getbbox(piece.text, anchor="ls", **piece.layout)
    if right <= left or bottom <= top:
        return
    drawn = Image.new("RGBA", (round(right - left), round(bottom - top)))
    ImageDraw.Draw(drawn).text((-left, -top), piece.text, font=font, anchor="ls", embedded_color=True, **piece.layout)
    scale = piece.size / font.size
    small = drawn.resize(
        (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))), Image.Resampling.LANCZOS
    )
    x, y = place
    picture.paste(small, (round(x + left * scale), round(y + top * scale)), small)


def _one_line(text: str) -> str:
    return "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)


def _with_numbers(text: str, missing: set[str]) -> str:
    if not missing:
        return text
    _tell_of_numbers()
    words = [f" U+{ord(letter):04X} " if letter in missing else letter for letter in text]
    return " ".join("".join(words).split())


@lru_cache(maxsize=1)
def _tell_of_numbers() -> None:
    _log.warning("pictures show U+... for letters that no font here has: %s", ADVICE)
