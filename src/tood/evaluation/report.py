"""A `CocoResult` for people (a table) and for programs (json)."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tood.evaluation.coco import CocoResult
from tood.whole_file import whole_file

# What each figure measures: metric, IoU, size of the objects, detections an image.
_ROWS = {
    "ap": ("AP", "0.50:0.95", "all", 100),
    "ap50": ("AP50", "0.50", "all", 100),
    "ap75": ("AP75", "0.75", "all", 100),
    "ap_small": ("AP small", "0.50:0.95", "up to 32² px", 100),
    "ap_medium": ("AP medium", "0.50:0.95", "32² to 96² px", 100),
    "ap_large": ("AP large", "0.50:0.95", "above 96² px", 100),
    "ar1": ("AR 1", "0.50:0.95", "all", 1),
    "ar10": ("AR 10", "0.50:0.95", "all", 10),
    "ar100": ("AR 100", "0.50:0.95", "all", 100),
    "ar_small": ("AR small", "0.50:0.95", "up to 32² px", 100),
    "ar_medium": ("AR medium", "0.50:0.95", "32² to 96² px", 100),
    "ar_large": ("AR large", "0.50:0.95", "above 96² px", 100),
}


def result_table(result: CocoResult) -> Group:
    """Two tables for `rich`: the twelve figures, and the classes; a dash where there was nothing to measure."""
    figures = Table(title="COCO figures", title_justify="left")
    for heading in ("", "IoU", "objects", "at most"):
        figures.add_column(heading, justify="right" if heading == "at most" else "left")
    figures.add_column("value", justify="right", style="bold")
    for name, value in result.figures.items():
        metric, overlap, size, limit = _ROWS[name]
        figures.add_row(
            metric, overlap, size, str(limit), _number(value), end_section=name in ("ap75", "ap_large", "ar100")
        )
    classes = Table(title="Classes", title_justify="left")
    classes.add_column("")
    for heading in ("objects", "AP", "AP50"):
        classes.add_column(heading, justify="right")
    for name, ap in result.per_class.items():
        # Names come from files: they are text, not markup.
        objects, ap50 = result.per_class_objects[name], result.per_class_ap50[name]
        classes.add_row(Text(name), f"{objects:,}", _number(ap), _number(ap50))
    return Group(figures, classes)


def save_result(result: CocoResult, path: Path | str) -> None:
    """Writes everything in the result as json; the file appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(result.as_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float) -> str:
    return "-" if value < 0 else f"{value:.4f}"
