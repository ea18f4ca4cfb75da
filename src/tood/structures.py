"""The data classes that cross a room's door: `Targets`, `Priors` with `DensePredictions`, `Detections`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Targets:
    """Ground truth of one image.

    Attributes:
        boxes: [G, 4] float32, x1 y1 x2 y2 in pixels of the network's input image.
        labels: [G] int64, class index in 0..C-1.
        crowd: [G] bool, True where the box stands for a group (never a positive in training).
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    @staticmethod
    def empty() -> Targets:
        """An image without any object."""
        return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))

    def to(self, device: torch.device | str) -> Targets:
        """The same ground truth on another device."""
        return Targets(
            self.boxes.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.crowd.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Targets:
        """In page-locked memory, which `to` copies from without waiting for the device."""
        return Targets(self.boxes.pin_memory(), self.labels.pin_memory(), self.crowd.pin_memory())


@dataclass(frozen=True)
class Priors:
    """The places a dense head predicts from, all levels one after the other.

    Attributes:
        centres: [N, 2] x, y in input pixels.
        sizes: [N] side of the square anchor on each place, in input pixels.
        strides: [N] stride of the place's level.
        shapes: (height, width) of every level's map, in level order; their areas add up to N.
    """

    centres: Tensor
    sizes: Tensor
    strides: Tensor
    shapes: tuple[tuple[int, int], ...]

    @property
    def boxes(self) -> Tensor:
        """[N, 4] the square anchors, x1 y1 x2 y2 in input pixels."""
        half = self.sizes[:, None] / 2
        return torch.cat([self.centres - half, self.centres + half], dim=1)

    @property
    def level_sizes(self) -> list[int]:
        """Number of places on each level."""
        return [height * width for height, width in self.shapes]


@dataclass(frozen=True)
class DensePredictions:
    """What every head gives, before any decision is taken.

    Attributes:
        scores: [B, N, C] one score for each place and class: probabilities, or logits where `logits` says so.
        boxes: [B, N, 4] float32, x1 y1 x2 y2 in input pixels.
        priors: the N places.
        logits: whether `scores` still lack their sigmoid.
        quality: [B, N] logits of how good each box is (centerness, IoU), from heads that judge that apart from the
            class; detections are selected by `scores` and then ranked by `scores` times this. None elsewhere.
        distributions: [B, N, 4, R] logits of the bins whose mean is each side's distance in strides, left, top, right,
            bottom, from heads that predict boxes as distributions (distribution focal loss). None elsewhere.
        one_to_one: predictions of a second head on the same priors, which gives each object once and needs no NMS.
            None elsewhere.
    """

    scores: Tensor
    boxes: Tensor
    priors: Priors
    logits: bool = False
    quality: Tensor | None = None
    distributions: Tensor | None = None
    one_to_one: DensePredictions | None = None

    def probabilities(self) -> Tensor:
        """[B, N, C] the scores as probabilities."""
        return self.scores.sigmoid() if self.logits else self.scores


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first.

    Attributes:
        boxes: [K, 4] float32, x1 y1 x2 y2 in pixels of the original image.
        scores: [K] probabilities.
        labels: [K] int64 class index.
        class_names: name of every class the model knows, indexed by label.
        path: where the image came from, if from a file or URL.
        image: [H, W, 3] uint8 RGB, the original image, if kept for plotting.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_names: Sequence[str] = ()
    path: str | None = None
    image: NDArray[np.uint8] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def names(self) -> list[str]:
        """Class name of every detection."""
        return [self.class_names[i] if i < len(self.class_names) else str(i) for i in self.labels.tolist()]

    def above(self, threshold: float) -> Detections:
        """Only the detections whose score is at least `threshold`."""
        return self.chosen(self.scores >= threshold)

    def chosen(self, which: Tensor) -> Detections:
        """Only those of a mask [K], or of places in an order of their own."""
        return replace(self, boxes=self.boxes[which], scores=self.scores[which], labels=self.labels[which])

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict a detection: box (x1 y1 x2 y2, original pixels), score, label, name."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        return [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]

    def plot(self, threshold: float = 0.3) -> NDArray[np.uint8]:
        """The image with the detections of at least `threshold` drawn on it: [H, W, 3] uint8 RGB.

        Raises:
            ValueError: if the detections do not carry their image.
        """
        from tood.drawing import draw_named_boxes  # Pillow and fonts, which only pictures need

        if self.image is None:
            raise ValueError("these detections do not carry their image: pass keep_image=True when predicting")
        shown = self.above(threshold)
        return draw_named_boxes(
            self.image, shown.boxes.cpu().numpy(), shown.scores.tolist(), shown.labels.tolist(), self.class_names
        )


# Compilers and exporters look into them: an exported network returns the same classes.
torch.export.register_dataclass(Priors, serialized_type_name="tood.Priors")
torch.export.register_dataclass(DensePredictions, serialized_type_name="tood.DensePredictions")
