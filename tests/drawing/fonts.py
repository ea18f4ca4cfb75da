"""Fonts made for a test: each letter that they have is a filled block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from tood.drawing import fonts, text

EM = 1000


def write_font(path: Path, letters: str, width: int = EM, name: str = "Blocks") -> Path:
    """A font with a block of `width` thousandths of the size for each letter, standing on the line."""
    builder = FontBuilder(EM, isTTF=True)
    glyphs = {".notdef": 0, **{f"u{ord(letter):x}": ord(letter) for letter in letters}}
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({code: name for name, code in glyphs.items() if code})
    pen = TTGlyphPen(None)
    for i, corner in enumerate([(0, 0), (0, 700), (width, 700), (width, 0)]):
        (pen.lineTo if i else pen.moveTo)(corner)
    pen.closePath()
    block = pen.glyph()
    builder.setupGlyf({glyph: block if code else TTGlyphPen(None).glyph() for glyph, code in glyphs.items()})
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (width, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(str(path))
    return path


@contextmanager
def only_fonts(monkeypatch: pytest.MonkeyPatch, folder: Path, listing: Path | None = None) -> Iterator[None]:
    """A system whose fonts are those below `folder`; with fontconfig if its listing program is given."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    monkeypatch.setenv("PATH", str(listing.parent) if listing is not None else str(folder / "none"))
    monkeypatch.delenv(fonts.VARIABLE, raising=False)
    monkeypatch.setattr(fonts, "SHARED", ())
    forget()
    yield
    monkeypatch.undo()
    forget()


@contextmanager
def layout(monkeypatch: pytest.MonkeyPatch, shaping: bool) -> Iterator[None]:
    """A Pillow that shapes letters, if it can here, or one that cannot."""
    if shaping and not fonts.shapes_letters():
        pytest.skip("Pillow has no Raqm here")
    with monkeypatch.context() as patch:
        if not shaping:
            patch.setattr(fonts.features, "check", lambda _: False)
        forget()
        yield
    forget()


def forget() -> None:
    """What was found and told before."""
    for cached in (
        fonts._found,
        fonts._of_system,
        fonts._listed_by_fontconfig,
        fonts._system_fonts,
        fonts._named,
        fonts._letters,
        fonts._open,
        fonts._truetype,
        fonts.shapes_letters,
        text.names_to_draw,
        text._tell_of_numbers,
    ):
        cached.cache_clear()
