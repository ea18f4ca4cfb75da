"""A dataset in one picture: how its images and boxes are made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tood.counted import counted
from tood.data import DatasetStats
from tood.data.stats import LARGE, SMALL
from tood.drawing import PALETTE, figure_letters, figure_text, names_to_draw
from tood.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 25
_BLUE, _ORANGE, _GREEN = (tuple(part / 255 for part in PALETTE[i]) for i in (4, 5, 2))


def dataset_picture(stats: DatasetStats, out_png: Path | str) -> None:
    """Draws sizes of images, classes, boxes an image, sizes, shapes and places of boxes into a PNG.

    Args:
        stats: of one split.
        out_png: picture to write.

    Raises:
        ToodError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    headline = (
        f"{stats.root}: {stats.split} ({counted(stats.images, 'image')}, {counted(stats.boxes, 'box', 'boxes')}, "
        f"{counted(len(stats.classes), 'class', 'classes')})"
    )
    with figure_letters([headline, *(one.name for one in stats.classes)]):
        figure = Figure(figsize=(15, 8.5), layout="constrained")
        sizes, classes, counts, areas, shapes, places = figure.subplots(2, 3).ravel()
        _image_sizes(sizes, stats)
        _classes(classes, stats)
        _counts(counts, stats)
        _areas(areas, stats)
        _shapes(shapes, stats)
        _places(places, stats)
        figure.suptitle(figure_text(headline), x=0.01, ha="left", fontweight="bold")
        with whole_file(out_png) as temporary:
            figure.savefig(temporary, dpi=110, format="png")


def _image_sizes(axes: Axes, stats: DatasetStats) -> None:
    _dress(axes, "Sizes of the images", "width, pixels", "height, pixels")
    if not stats.images:
        _nothing(axes)
        return
    pairs, numbers = np.unique(np.stack([stats.widths, stats.heights], axis=1), axis=0, return_counts=True)
    # Area of a dot by how many images have this size, never too small to be seen.
    dots = 12 + 400 * numbers / numbers.sum()
    axes.scatter(pairs[:, 0], pairs[:, 1], s=dots, color=_BLUE, alpha=0.55, linewidth=0)
    # Equal steps on both axes: a square picture lies on the diagonal.
    axes.axline((0, 0), slope=1, color="0.75", linewidth=1, linestyle=":")
    axes.set_xlim(0, 1.08 * float(stats.widths.max()))
    axes.set_ylim(0, 1.08 * float(stats.heights.max()))


def _classes(axes: Axes, stats: DatasetStats) -> None:
    drawn = names_to_draw(tuple(one.name for one in stats.classes), coloured=False)
    used = [(one.boxes, name) for one, name in zip(stats.classes, drawn, strict=True) if one.boxes]
    used.sort(key=lambda one: -one[0])
    shown = used[:MOST_CLASSES]
    title = "Boxes by class" if len(used) <= MOST_CLASSES else f"Boxes by class, the {MOST_CLASSES} of most"
    _dress(axes, title, "boxes", "", grid="x")
    if not shown:
        _nothing(axes)
        return
    rows = np.arange(len(shown))
    axes.barh(rows, [boxes for boxes, _ in shown], color=_BLUE, height=0.75)
    names = [figure_text(name if len(name) <= 22 else f"{name[:21]}…") for _, name in shown]
    axes.set_yticks(rows, names, fontsize=9 if len(shown) <= 15 else 7)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    _whole_numbers(axes.xaxis, 6)


def _counts(axes: Axes, stats: DatasetStats) -> None:
    _dress(axes, "Boxes an image", "boxes", "images")
    if not stats.images:
        _nothing(axes)
        return
    most = int(stats.boxes_an_image.max())
    width = max(1, -(-(most + 1) // 40))
    edges = np.arange(0, most + width + 1, width) - 0.5
    axes.hist(stats.boxes_an_image, bins=edges.tolist(), color=_BLUE, rwidth=0.9)
    _median(axes, float(np.median(stats.boxes_an_image)))
    _whole_numbers(axes.xaxis)
    _whole_numbers(axes.yaxis)


def _areas(axes: Axes, stats: DatasetStats) -> None:
    _dress(axes, "Sizes of the boxes", "side of a square of the same area, pixels", "boxes")
    sides = np.sqrt(stats.areas[stats.areas > 0])
    if not len(sides):
        _nothing(axes)
        return
    low, high = np.log2(min(float(sides.min()), 16)), np.log2(max(float(sides.max()), 128))
    axes.hist(sides, bins=np.logspace(low, high, 41, base=2).tolist(), color=_BLUE, rwidth=0.9)
    _log_axis(axes)
    top = axes.get_ylim()[1] * 1.12
    axes.set_ylim(0, top)
    for side in (SMALL**0.5, LARGE**0.5):
        axes.axvline(side, color=_ORANGE, linewidth=1.2)
    middles = (2**low, SMALL**0.5, LARGE**0.5, 2**high)
    for (name, number), left, right in zip(stats.by_size.items(), middles[:-1], middles[1:], strict=True):
        share = f"{name}\n{100 * number / stats.boxes:.0f} %"
        axes.text((left * right) ** 0.5, top * 0.985, share, ha="center", va="top", fontsize=9, color="0.25")


def _shapes(axes: Axes, stats: DatasetStats) -> None:
    _dress(axes, "Shapes of the boxes", "width / height", "boxes")
    ratios = stats.box_widths / stats.box_heights
    if not len(ratios):
        _nothing(axes)
        return
    # The same way to both sides: 1/4 is as far from a square as 4.
    reach = float(np.clip(np.abs(np.log2(ratios)).max(), 2, 6))
    edges = np.logspace(-reach, reach, 41, base=2).tolist()
    axes.hist(ratios.clip(edges[0], edges[-1]), bins=edges, color=_BLUE, rwidth=0.9)
    _log_axis(axes)
    axes.axvline(1, color="0.6", linewidth=1, linestyle=":")
    _median(axes, float(np.median(ratios)))


def _places(axes: Axes, stats: DatasetStats) -> None:
    _dress(axes, "Middles of the boxes", "left to right of the image", "top to bottom", grid=None)
    if not stats.boxes:
        _nothing(axes)
        return
    cells: NDArray[Any] = np.histogram2d(stats.centres[:, 1], stats.centres[:, 0], bins=24, range=[[0, 1], [0, 1]])[0]
    drawn = axes.imshow(cells, extent=(0, 1, 1, 0), cmap="Blues", aspect="auto", vmin=0)
    bar = axes.figure.colorbar(drawn, ax=axes, label="boxes")
    _whole_numbers(bar.ax.yaxis)


def _dress(axes: Axes, title: str, across: str, up: str, grid: Literal["x", "y"] | None = "y") -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(axis=grid, alpha=0.25)
        axes.set_axisbelow(True)


def _median(axes: Axes, value: float) -> None:
    axes.axvline(value, color=_GREEN, linewidth=1.6, label=f"median {value:.3g}")
    axes.legend(frameon=False)


def _whole_numbers(axis: Any, steps: int | Literal["auto"] = "auto") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(steps, integer=True))


def _log_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing annotated", ha="center", va="center", transform=axes.transAxes, color="0.5")
    axes.set_yticks([])
    axes.set_xticks([])
