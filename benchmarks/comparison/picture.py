"""AP of every model and seed in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.comparison.runs import Outcome
from benchmarks.comparison.variants import TOOD, VARIANTS

_OWN, _RIVAL, _PART = "#d1495b", "#30638e", "#7a8b99"


def draw(seen: Mapping[str, Mapping[str, Sequence[Outcome]]], path: Path) -> None:
    """One panel a dataset: a dot a seed, a line at each mean, TOOD's mean through all of them."""
    from matplotlib.figure import Figure

    keys = [key for key in VARIANTS if any(key in of for of in seen.values())]
    figure = Figure(figsize=(1.5 + 4.6 * len(seen), 1.2 + 0.34 * len(keys)), layout="constrained")
    panels = figure.subplots(1, max(len(seen), 1), sharey=True, squeeze=False)[0]
    places = {key: -number - (0.6 if VARIANTS[key].part else 0.0) for number, key in enumerate(keys)}
    for axes, (dataset, of) in zip(panels, seen.items(), strict=True):
        axes.set_title(f"{dataset}: AP (0.50:0.95) on the test images", loc="left", fontsize=10)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        if TOOD in of:
            axes.axvline(mean(one.ap for one in of[TOOD]), color=_OWN, linewidth=0.9, alpha=0.5)
        for key, outcomes in of.items():
            colour = _OWN if key == TOOD else _PART if VARIANTS[key].part else _RIVAL
            values, place = [one.ap for one in outcomes], places[key]
            axes.plot([min(values), max(values)], [place, place], color=colour, linewidth=1.5, alpha=0.6)
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4.5, alpha=0.8)
            axes.plot([mean(values)], [place], "|", color=colour, markersize=15, markeredgewidth=2)
        axes.set_yticks(list(places.values()), [_label(key) for key in places])
    figure.savefig(path, dpi=110)


def _label(key: str) -> str:
    return f"TOOD, {VARIANTS[key].title}" if VARIANTS[key].part else VARIANTS[key].title
