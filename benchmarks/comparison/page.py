"""The page and the picture of the results: nothing stands there that is not computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal, TypeAlias

from benchmarks.comparison.picture import draw
from benchmarks.comparison.runs import DATASETS, Budget, Outcome
from benchmarks.comparison.variants import OF_THE_PAPER, TOOD, VARIANTS
from tood.whole_file import whole_file

PAGE, PICTURE = "comparison.md", "pictures/comparison.png"
FIGURES: tuple[Literal["ap", "ap50", "ap75"], ...] = ("ap", "ap50", "ap75")
# AP on COCO test-dev in the paper's abstract.
_PUBLISHED = {TOOD: 51.1, "atss": 47.7, "gfl": 48.2, "paa": 49.0}

Seen: TypeAlias = Mapping[str, Mapping[str, Sequence[Outcome]]]
"""Results by dataset and variant, one a seed."""


@dataclass(frozen=True)
class Figure:
    """A figure over the seeds.

    Attributes:
        mean: of the seeds.
        spread: from the smallest to the largest; None of a single seed, which shows none.
    """

    mean: float
    spread: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Figure:
        """Of one value a seed."""
        return Figure(mean(values), max(values) - min(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.spread is None else f" ± {self.spread / 2:.3f}")

    def above(self, other: Figure) -> float | None:
        """By how much it is above another one; 0 where that is no more than the larger of both spreads.

        None where a spread is not known: then nothing can be said.
        """
        if self.spread is None or other.spread is None:
            return None
        difference = self.mean - other.mean
        return difference if abs(difference) > max(self.spread, other.spread) else 0.0


def write_page(outcomes: Sequence[Outcome], speed: Mapping[str, Any] | None, budget: Budget, docs: Path) -> Path:
    """Writes the page and its picture; returns the page's path."""
    seen = by_dataset(outcomes)
    with whole_file(docs / PICTURE) as path:
        draw(seen, path)
    with whole_file(docs / PAGE) as path:
        path.write_text(page(seen, speed, budget), encoding="utf-8")
    return docs / PAGE


def by_dataset(outcomes: Sequence[Outcome]) -> Seen:
    """In the order in which they are shown."""
    found: dict[str, dict[str, list[Outcome]]] = {}
    for dataset in DATASETS:
        for variant in VARIANTS:
            same = [one for one in outcomes if (one.dataset, one.variant) == (dataset, variant)]
            if same:
                found.setdefault(dataset, {})[variant] = same
    return found


def page(seen: Seen, speed: Mapping[str, Any] | None, budget: Budget) -> str:
    """The page's text."""
    parts = [_head(seen, budget)]
    parts += [_table(dataset, seen[dataset], speed) for dataset in seen]
    parts.append(_cost(seen, speed))
    parts += ["## What it says about the paper's claim", _claim(seen)]
    parts += ["## What each part is worth here", _parts(seen)]
    parts.append(_limits(budget))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(seen: Seen, budget: Budget) -> str:
    seeds = max((len(outcomes) for of in seen.values() for outcomes in of.values()), default=0)
    whole = len(budget.seeds) * len(VARIANTS) * len(DATASETS)
    there = sum(len(outcomes) for of in seen.values() for outcomes in of.values())
    lines = [
        "# TOOD's claim on small data",
        "",
        "`make comparison` makes this page of its own results files, and what of these is missing first: hours on two "
        "cores, stopped and gone on with at any time. `make comparison QUICK=1` tries all of it in minutes.",
        "",
        "The paper says that on COCO's test-dev its best model has 51.1 AP, beside 47.7 of ATSS, 48.2 of GFL and 49.0 "
        "of PAA. Here small models of one budget learn from scratch, from the same images in the same number "
        f"({budget.images * budget.epochs:,} seen, {budget.batch} a step, canvases of {budget.canvas} pixels, tested "
        f"at {budget.side}), by the same recipe (`small`): their own heads, assignments and losses are all that "
        f"differs. `digits` are the built-in scenes of handwriting ({budget.images} to learn from, {budget.tested} by "
        "other writers to be tested on), `cells` the blood cells of BCCD (trainval and test).",
        "",
        f"Figures are means over {seeds} seed{'s' if seeds != 1 else ''} ± half of the spread from the lowest to the "
        "highest. Two models differ where their means lie farther apart than the larger of their spreads; a smaller "
        "difference is called none.",
    ]
    if there < whole:
        lines += ["", f"**Unfinished: {there} of {whole} runs are in.**"]
    return "\n".join(lines)


def _table(dataset: str, of: Mapping[str, Sequence[Outcome]], speed: Mapping[str, Any] | None) -> str:
    lines = [
        f"## {dataset}",
        "",
        "| model | seeds | AP | AP50 | AP75 | AP beside TOOD |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for key, outcomes in of.items():
        figures = [str(figure(outcomes, name)) for name in FIGURES]
        title = VARIANTS[key].title
        shown = f"TOOD, {title}" if VARIANTS[key].part else title
        beside = "" if key == TOOD else _beside(of, key)
        lines.append(f"| {shown} | {len(outcomes)} | {' | '.join(figures)} | {beside} |")
    return "\n".join(lines)


def _beside(of: Mapping[str, Sequence[Outcome]], key: str) -> str:
    if TOOD not in of:
        return ""
    difference = figure(of[key]).above(figure(of[TOOD]))
    if difference is None:
        return f"({figure(of[key]).mean - figure(of[TOOD]).mean:+.3f}, one seed)"
    return f"{difference:+.3f}" if difference else "none"


def _cost(seen: Seen, speed: Mapping[str, Any] | None) -> str:
    some = next(iter(seen.values()), {})
    note = "Images a second are not measured yet."
    if speed is not None:
        note = (
            f"Images a second on {speed['threads']} thread{'s' if speed['threads'] != 1 else ''}, the best of rounds "
            f"in turns, measured apart from the runs: steps of 4 images of {speed['canvas']} pixels with losses and "
            f"optimiser, and the network that predicts on single images of {speed['side']} pixels."
        )
    lines = [
        "## Cost",
        "",
        f"{note} Parameters and multiply-adds are of an image of the input's size on {next(iter(seen), '')}.",
        "",
        "| model | parameters | multiply-adds | trained images/s | predicted images/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for key, outcomes in some.items():
        measured = {} if speed is None else speed["variants"].get(key, {})
        rates = [f"{measured[name]:.0f}" if name in measured else "" for name in ("training", "prediction")]
        shown = f"TOOD, {VARIANTS[key].title}" if VARIANTS[key].part else VARIANTS[key].title
        parameters, adds = outcomes[0].parameters / 1e6, outcomes[0].multiply_adds / 1e9
        lines.append(f"| {shown} | {parameters:.2f} M | {adds:.2f} G | {' | '.join(rates)} |")
    return "\n".join(lines)


def _claim(seen: Seen) -> str:
    sentences = []
    verdicts: list[float | None] = []
    for dataset, of in seen.items():
        if TOOD not in of:
            continue
        ahead, behind, level, unknown = _sorted(of, [key for key in of if not VARIANTS[key].part and key != TOOD])
        verdicts += [figure(of[TOOD]).above(figure(of[key])) for key in OF_THE_PAPER if key in of]
        said = []
        if ahead:
            said.append(f"TOOD is ahead of {_list(ahead)}")
        if behind:
            said.append(f"{'it' if said else 'TOOD'} is behind {_list(behind)}")
        if level:
            said.append(
                f"between it and {_list(level)} there is no difference"
                if said
                else f"between TOOD and {_list(level)} there is no difference"
            )
        if unknown:
            said.append(f"of {_list(unknown)} one seed says nothing yet")
        if said:
            sentences.append(f"On {dataset}: {'; '.join(said)}.")
    published = ", ".join(f"{VARIANTS[key].title} by {_PUBLISHED[TOOD] - _PUBLISHED[key]:.1f}" for key in OF_THE_PAPER)
    if not verdicts or None in verdicts:
        sentences.append("Whether the paper's claim shows on these data cannot be said before all seeds are in.")
        return " ".join(sentences)
    known = [verdict for verdict in verdicts if verdict is not None]
    won, lost = sum(verdict > 0 for verdict in known), sum(verdict < 0 for verdict in known)
    sentences.append(
        f"The paper's claim (TOOD above {published}) is {len(known)} comparisons here: {won} as the paper has them, "
        f"{lost} the other way round, {len(known) - won - lost} without a difference."
    )
    if won == len(known):
        sentences.append("On these data it holds.")
    elif won and not lost:
        sentences.append("On these data it holds in part.")
    elif lost and not won:
        sentences.append("On these data it does not hold.")
    elif won and lost:
        sentences.append("These data say both.")
    else:
        sentences.append("These data show nothing of it.")
    return " ".join(sentences)


def _parts(seen: Seen) -> str:
    lines = ["| taken away or replaced | " + " | ".join(seen) + " |", "|---|" + "---|" * len(seen)]
    for key, variant in VARIANTS.items():
        if variant.part and any(key in of for of in seen.values()):
            cells = [_beside(of, key) if key in of else "" for of in seen.values()]
            lines.append(f"| {variant.title} | {' | '.join(cells)} |")
    sentences = []
    for dataset, of in seen.items():
        if TOOD in of:
            worth, harmful, level, unknown = _sorted(of, [key for key in of if VARIANTS[key].part])
            said = [
                f"{how} with {_list(names)}"
                for how, names in (("worse", worth), ("better", harmful), ("no different", level))
                if names
            ]
            said[:1] = [f"it is {first}" for first in said[:1]]
            if unknown:
                said.append(f"one seed says nothing yet of {_list(unknown)}")
            if said:
                sentences.append(f"On {dataset} {'; '.join(said)}.")
    explained = (
        "What AP gains or loses when one part of TOOD goes. The parallel head is ATSS's without centerness, on "
        "anchors; without layer attention all layers of the trunk count alike; without an alignment scores or boxes "
        "are those of the place itself. ATSS's positives keep TAL's soft targets, and TAL's positives with the focal "
        "loss have hard ones and boxes weighed by centerness, as in the warm-up."
    )
    return "\n\n".join([explained, "\n".join(lines), " ".join(sentences)])


def _sorted(
    of: Mapping[str, Sequence[Outcome]], keys: Sequence[str]
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Titles of those that TOOD is ahead of, behind, level with, and that nothing can be said of."""
    found: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
    for key in keys:
        ahead = figure(of[TOOD]).above(figure(of[key]))
        title = VARIANTS[key].title
        place = 3 if ahead is None else 0 if ahead > 0 else 1 if ahead < 0 else 2
        found[place].append(f"{title} ({abs(ahead):.3f})" if ahead else title)
    return found


def _limits(budget: Budget) -> str:
    return (
        "## What it does not say\n\n"
        f"Networks of a million parameters that have seen {budget.images * budget.epochs:,} small images are no "
        "ResNeXt-101 after 24 epochs of COCO. The recipe's rate was found on TOOD's small model; the others might "
        "learn faster at one of their own. Three seeds show a spread, not its tails.\n\n"
        f"![AP of every model and seed]({PICTURE})"
    )


def figure(outcomes: Sequence[Outcome], name: Literal["ap", "ap50", "ap75"] = "ap") -> Figure:
    """A figure of the runs of a variant."""
    return Figure.of([getattr(outcome, name) for outcome in outcomes])


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
