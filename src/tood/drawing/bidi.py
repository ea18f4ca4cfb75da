"""Text in the order in which it is seen: right-to-left scripts beside left-to-right ones, and Arabic's joined letters.

The part of Unicode's bidirectional algorithm (UAX 9) that names and captions need: no embeddings but isolates
(U+2068 ... U+2069), each laid out by itself and put from left to right.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

ISOLATE, END_ISOLATE = "\u2068", "\u2069"
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MIRRORED = {
    a: b for left, right in (*_CLOSING.items(), ("<", ">"), ("«", "»")) for a, b in ((left, right), (right, left))
}
_MARKS = ("Mn", "Me")


@dataclass(frozen=True)
class Run:
    """Letters of one direction, in the order in which they are read."""

    text: str
    right_to_left: bool = False


def isolated(text: str) -> str:
    """The text such that what stands beside it does not change its order."""
    return f"{ISOLATE}{text}{END_ISOLATE}"


def visual_runs(text: str) -> list[Run]:
    """The text's runs of one direction, from left to right as they are seen."""
    parts = [part for part in re.split(f"[{ISOLATE}{END_ISOLATE}]", text) if part]
    return [run for part in parts for run in _paragraph(part)]


def visual_text(text: str) -> str:
    """The text letter by letter from left to right as it is seen, for what draws letters one after another."""
    return "".join(reversed_letters(joined(run.text)) if run.right_to_left else run.text for run in visual_runs(text))


def _paragraph(text: str) -> list[Run]:
    kinds = _kinds(text)
    if not {"R", "A"} & set(kinds):
        return [Run(text)]
    base = 0 if next((kind for kind in kinds if kind in "LR"), "L") == "L" else 1
    _turn_brackets(text, kinds, base)
    levels = _levels(kinds, base)
    runs: list[tuple[int, Run]] = []
    position = 0
    for level, letters in groupby(levels):
        length = len(list(letters))
        runs.append((level, Run(text[position : position + length], level % 2 == 1)))
        position += length
    # L2: from the highest level down, what is at least on that level is turned around.
    for level in range(max(levels), 0, -1):
        runs = _turned(runs, level)
    return [run for _, run in runs]


def _turned(runs: list[tuple[int, Run]], least: int) -> list[tuple[int, Run]]:
    out: list[tuple[int, Run]] = []
    for inside, group in groupby(runs, lambda run: run[0] >= least):
        members = list(group)
        out += members[::-1] if inside else members
    return out


def _kinds(text: str) -> list[str]:
    """L or R for letters, E for digits, A for Arabic digits, N for what takes its direction from its neighbours."""
    found = [unicodedata.bidirectional(letter) for letter in text]
    kinds: list[str] = []
    arabic = False
    for kind in found:
        if kind == "NSM":
            kinds.append(kinds[-1] if kinds else "N")
            continue
        if kind in ("L", "R", "AL"):
            arabic = kind == "AL"
        short = {"L": "L", "R": "R", "AL": "R", "EN": "A" if arabic else "E", "AN": "A", "ET": "T", "ES": "S"}
        kinds.append("C" if kind == "CS" else short.get(kind, "N"))
    return _with_signs(kinds)


def _with_signs(kinds: list[str]) -> list[str]:
    """W4 to W6: a point between digits and a sign beside them belong to the number."""
    for i in range(1, len(kinds) - 1):
        around = {kinds[i - 1], kinds[i + 1]}
        if (kinds[i] in "SC" and around == {"E"}) or (kinds[i] == "C" and around == {"A"}):
            kinds[i] = kinds[i - 1]
    for order in (range(1, len(kinds)), range(len(kinds) - 2, -1, -1)):
        before = -1 if order.step == 1 else 1
        for i in order:
            if kinds[i] == "T" and kinds[i + before] == "E":
                kinds[i] = "E"
    return ["N" if kind in "SCT" else kind for kind in kinds]


def _turn_brackets(text: str, kinds: list[str], base: int) -> None:
    """N0: both brackets of a pair take one direction, the paragraph's if something inside has it."""
    own, other = ("R", "L") if base else ("L", "R")
    sides = ["R" if kind in "REA" else kind for kind in kinds]
    open_ones: list[int] = []
    pairs: list[tuple[int, int]] = []
    for i, letter in enumerate(text):
        if letter in _CLOSING and kinds[i] == "N":
            open_ones.append(i)
        elif letter in _CLOSING.values() and kinds[i] == "N":
            match = next((k for k in range(len(open_ones) - 1, -1, -1) if _CLOSING[text[open_ones[k]]] == letter), None)
            if match is not None:
                pairs.append((open_ones[match], i))
                del open_ones[match:]
    for start, end in sorted(pairs):
        inside = sides[start + 1 : end]
        if own in inside:
            side = own
        elif other in inside:
            side = next((kind for kind in reversed(sides[:start]) if kind != "N"), own)
        else:
            continue
        for i in (start, end):
            kinds[i] = sides[i] = side


def _levels(kinds: Sequence[str], base: int) -> list[int]:
    """Even for left to right, odd for right to left, higher for what stands within the other."""
    own = "R" if base else "L"
    resolved = list(kinds)
    # W7: digits after Latin letters are Latin.
    strong = own
    for i, kind in enumerate(resolved):
        if kind in "LR":
            strong = kind
        elif kind == "E" and strong == "L":
            resolved[i] = "L"
    # N1, N2: what stands between two of one direction takes it, else that of the paragraph; digits count as R.
    position = 0
    for kind, group in groupby(list(resolved)):
        length = len(list(group))
        if kind == "N":
            left = own if position == 0 else resolved[position - 1]
            right = own if position + length == len(resolved) else resolved[position + length]
            sides = {"L" if side == "L" else "R" for side in (left, right)}
            resolved[position : position + length] = (sides.pop() if len(sides) == 1 else own) * length
        position += length
    # I1, I2.
    heights = {"L": (0, 2), "R": (1, 1), "E": (2, 2), "A": (2, 2)}
    return [heights[kind][base] for kind in resolved]


def reversed_letters(text: str) -> str:
    """Letters from last to first, each with the marks upon it, brackets mirrored."""
    letters: list[str] = []
    for letter in text:
        if letters and unicodedata.category(letter) in _MARKS:
            letters[-1] += letter
        else:
            letters.append(_MIRRORED.get(letter, letter))
    return "".join(reversed(letters))


# --- Arabic ----------------------------------------------------------------------------------------------------------


def joined(text: str) -> str:
    """Arabic letters in the shapes that they have beside each other, for fonts' plain tables of letters."""
    shapes, pairs = _arabic_shapes()
    if not any(letter in shapes for letter in text):
        return text
    letters = [i for i, letter in enumerate(text) if unicodedata.category(letter) not in _MARKS]
    out = list(text)
    skip = -1
    for place, i in enumerate(letters):
        if i == skip:
            out[i] = ""
            continue
        letter = text[i]
        before = text[letters[place - 1]] if place else ""
        after = text[letters[place + 1]] if place + 1 < len(letters) else ""
        tied = "initial" in shapes.get(before, {}) and "final" in shapes.get(letter, {})
        pair = pairs.get(letter + after)
        if pair is not None:
            out[i] = pair.get("final" if tied else "isolated", letter)
            skip = letters[place + 1]
            continue
        ties = "initial" in shapes.get(letter, {}) and "final" in shapes.get(after, {})
        form = {(True, True): "medial", (True, False): "final", (False, True): "initial"}.get((tied, ties), "isolated")
        out[i] = shapes.get(letter, {}).get(form, letter)
    return "".join(out)


@lru_cache(maxsize=1)
def _arabic_shapes() -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Of Unicode's compatibility block: shapes of each letter by name, and those of lam with alef."""
    letters: dict[str, dict[str, str]] = {"\u0640": dict.fromkeys(("initial", "medial", "final"), "\u0640")}
    pairs: dict[str, dict[str, str]] = {}
    for code in (*range(0xFB50, 0xFBB2), *range(0xFBD3, 0xFC00), *range(0xFE80, 0xFEFD)):
        kind, *parts = unicodedata.decomposition(chr(code)).split() or [""]
        source = "".join(chr(int(part, 16)) for part in parts)
        if len(source) == 1:
            letters.setdefault(source, {})[kind.strip("<>")] = chr(code)
        elif len(source) == 2 and source[0] == "\u0644":
            pairs.setdefault(source, {})[kind.strip("<>")] = chr(code)
    return letters, pairs
