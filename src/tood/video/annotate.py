"""Detections, lines and zones drawn on a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.drawing import PALETTE, class_colour, draw_boxes, draw_paths, drawn_names
from tood.video.counting import Counters
from tood.video.tracking import Seen


def annotated(
    pixels: NDArray[np.uint8],
    seen: Seen,
    class_names: Sequence[str],
    counters: Counters | None = None,
    counts: Mapping[str, Any] = {},
) -> NDArray[np.uint8]:
    """The frame [H, W, 3] with boxes in the colours of their objects, or of their classes where none is followed.

    Args:
        pixels: of the frame; they stay as they are.
        seen: what is drawn.
        class_names: of all classes.
        counters: lines and zones.
        counts: of this frame, as `Counters.update` gives them.
    """
    drawn = drawn_names(class_names)
    captions, colours = [], []
    for score, label, track in zip(seen.scores.tolist(), seen.labels.tolist(), seen.tracks.tolist(), strict=True):
        name = drawn[label] if label < len(drawn) else str(label)
        captions.append(f"#{track} {name} {100 * score:.0f}%" if track >= 0 else f"{name} {100 * score:.0f}%")
        colours.append(PALETTE[track % len(PALETTE)] if track >= 0 else class_colour(label))
    if counters is not None and (counters.lines or counters.zones):
        paths: list[tuple[Sequence[tuple[float, float]], bool]] = []
        paths += [((line.start, line.end), False) for line in counters.lines]
        paths += [(zone.corners, True) for zone in counters.zones]
        names = [line.name for line in counters.lines] + [zone.name for zone in counters.zones]
        told = [
            f"{name}: " + ", ".join(f"{value} {word}" for word, value in counts.get(name, {}).items()) for name in names
        ]
        pixels = draw_paths(pixels, paths, told)
    return draw_boxes(pixels, seen.boxes, colours, captions)
