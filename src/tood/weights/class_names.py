"""Which of a file's classes are the classes of a dataset: by name, in whatever order."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# So many names stand in a sentence.
_SHOWN = 5


@dataclass(frozen=True)
class ClassMatch:
    """Wanted classes and where they stand in a file.

    Attributes:
        wanted: names of the wanted classes, by label.
        known: names of the file's, by row of its classifier.
        rows: for each wanted class its row in the file, None where the file lacks it or it could be several.
        ambiguous: the wanted classes that could be several, or of which there are several.
    """

    wanted: tuple[str, ...]
    known: tuple[str, ...]
    rows: tuple[int | None, ...]
    ambiguous: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every class keeps its row."""
        return self.rows == tuple(range(len(self.known)))

    @property
    def unchanged(self) -> bool:
        """Whether the file has the wanted classes, spelled as they are."""
        return self.wanted == self.known

    def __str__(self) -> str:
        """What is kept, what starts anew and what is dropped, in one sentence."""
        kept = [name for name, row in zip(self.wanted, self.rows, strict=True) if row is not None]
        anew = [name for name, row in zip(self.wanted, self.rows, strict=True) if row is None]
        if not kept:
            told = (
                f"none of the {len(anew)} ({listed(anew)}) is among the file's ({listed(self.known)}), so the "
                "classifier starts anew"
            )
        elif anew:
            starts = "starts" if len(anew) == 1 else "start"
            told = (
                f"{len(kept)} of {len(self.wanted)} kept ({listed(kept)}), {len(anew)} {starts} anew ({listed(anew)})"
            )
        else:
            told = f"all {len(kept)} kept{'' if self.same else ' in the order of the dataset'}"
        dropped = len(self.known) - len(kept)
        if kept and dropped:
            told += f", {dropped} of the file's {'is' if dropped == 1 else 'are'} dropped"
        renamed = [
            _respelled(self.known[row], name)
            for name, row in zip(self.wanted, self.rows, strict=True)
            if row is not None and self.known[row] != name
        ]
        if renamed:
            told += f"; {listed(renamed)}"
        if self.ambiguous:
            told += f"; which row is meant cannot be told for {listed(self.ambiguous)}"
        return f"classes by name: {told}"


def match_classes(wanted: Sequence[str], known: Sequence[str]) -> ClassMatch:
    """Finds each wanted class among the known ones.

    Equal names belong together; then, of those that are left, names that differ in nothing but capitals, blanks, `_`
    and `-`. A name that stands for several classes is nobody's, unless both lists are equal.
    """
    wanted, known = tuple(wanted), tuple(known)
    if wanted == known:
        return ClassMatch(wanted, known, tuple(range(len(known))), ())
    rows: list[int | None] = [None] * len(wanted)
    free = set(range(len(known)))
    ambiguous: list[str] = []
    for spelled in (str, _plain):
        ours, theirs = [spelled(name) for name in wanted], [spelled(name) for name in known]
        wanted_times = Counter(name for label, name in enumerate(ours) if rows[label] is None)
        known_rows: dict[str, list[int]] = {}
        for row in sorted(free):
            known_rows.setdefault(theirs[row], []).append(row)
        for label, name in enumerate(ours):
            found = known_rows.get(name, [])
            if rows[label] is not None or not found:
                continue
            if len(found) == wanted_times[name] == 1:
                rows[label] = found[0]
                free.remove(found[0])
            else:
                ambiguous.append(wanted[label])
    unsettled = {name for name, row in zip(wanted, rows, strict=True) if row is None}
    return ClassMatch(wanted, known, tuple(rows), tuple(dict.fromkeys(n for n in ambiguous if n in unsettled)))


def _respelled(known: str, wanted: str) -> str:
    """What is told of two spellings; of letters that look alike their codes."""
    alike = unicodedata.normalize("NFKC", known) == unicodedata.normalize("NFKC", wanted)
    return f"{known!a} as {wanted!a}" if alike else f"{known!r} as {wanted!r}"


def _plain(name: str) -> str:
    """The name without what people write differently: "Traffic_Light" and "traffic light" are one."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(folded.replace("_", " ").replace("-", " ").split())


def listed(names: Sequence[str]) -> str:
    """The first few names and the number of the others."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
