"""Which of a split's objects reach a training: what its limits and transforms leave out, counted without a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import DetectionDataset
from tood.data.samples import usual_ratio
from tood.data.transforms.pipeline import AugmentConfig, canvas_shape

# A box smaller than a pixel of the input shows nothing to learn.
_PIXEL = 1.0


@dataclass(frozen=True)
class TrainingBoxes:
    """What becomes of a split's objects in a training, crops aside: those cut off at random come in other epochs.

    Attributes:
        objects: their number, crowds aside.
        crowds: boxes that stand for groups, which are never learned.
        left_out: objects in pictures that are left out for a short side.
        always_small: objects in the others that are too small at every scale that may be drawn.
        mean_small: how many are too small in an epoch, on average over what is drawn.
        limit: a side shorter than this, in pixels of the input, is too small.
    """

    objects: int
    crowds: int
    left_out: int
    always_small: int
    mean_small: float
    limit: float

    @property
    def reachable(self) -> int:
        """Objects that reach the training in some epoch."""
        return self.objects - self.left_out - self.always_small

    @property
    def kept(self) -> float:
        """Share of the objects in the pictures trained on that is large enough, on average."""
        shown = self.objects - self.left_out
        return 1 - self.mean_small / shown if shown else 0.0


@dataclass(frozen=True, eq=False)
class ObjectSizes:
    """Sizes of a split's pictures and objects.

    Attributes:
        sizes: [I, 2] float64 width, height in pixels of each picture that is trained on.
        at: [G] index into them of each object, crowds aside.
        sides: [G, 2] float64 width, height of each object, in pixels of its picture.
        ratio: width / height that nearly all pictures have, else 1.
        crowds, left_out: as in `TrainingBoxes`.
    """

    sizes: NDArray[np.float64]
    at: NDArray[np.int64]
    sides: NDArray[np.float64]
    ratio: float
    crowds: int
    left_out: int

    @staticmethod
    def of(dataset: DetectionDataset, smallest_side: int = 1) -> ObjectSizes:
        """Those of a dataset of which pictures with a shorter side, in pixels, are left out."""
        images = [image for image in dataset.images if min(image.width, image.height) >= smallest_side]
        boxes = np.concatenate([np.zeros((0, 4), np.float32), *(image.boxes[~image.crowd] for image in images)])
        counts = [int((~image.crowd).sum()) for image in images]
        return ObjectSizes(
            sizes=np.array([(image.width, image.height) for image in images], np.float64).reshape(-1, 2),
            at=np.repeat(np.arange(len(images)), counts),
            sides=(boxes[:, 2:] - boxes[:, :2]).astype(np.float64),
            ratio=usual_ratio(images) if images else 1.0,
            crowds=dataset.box_count - dataset.object_count,
            left_out=dataset.object_count - sum(counts),
        )

    def in_training(self, augment: AugmentConfig, divisor: int) -> TrainingBoxes:
        """What becomes of them.

        Args:
            augment: how pictures are resized.
            divisor: a canvas's shorter side is a multiple of it.
        """
        limit = _PIXEL if augment.canvas is None else max(augment.min_side, _PIXEL)
        always, mean = np.ones(len(self.at), np.bool_), np.zeros(len(self.at))
        ranges = list(self._scales(augment, divisor))
        needed = limit / self.sides.min(axis=1, initial=np.inf)
        for smallest, largest in ranges:
            small_at_most = self._small(largest, limit)
            low, high = smallest[self.at], largest[self.at]
            if augment.canvas is not None:  # drawn evenly in logarithms
                wanted, low, high = np.log(needed), np.log(low), np.log(high)
            else:
                wanted = needed
            share = np.clip((wanted - low) / np.maximum(high - low, 1e-12), 0, 1)
            share = np.where(small_at_most, 1.0, np.where(self._small(smallest, limit), share, 0.0))
            always &= small_at_most
            mean += share / len(ranges)
        return TrainingBoxes(
            objects=len(self.at) + self.left_out,
            crowds=self.crowds,
            left_out=self.left_out,
            always_small=int(always.sum()),
            mean_small=float(mean.sum()),
            limit=limit,
        )

    def _scales(
        self, augment: AugmentConfig, divisor: int
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """[I], [I] smallest and largest factor that a picture is scaled by, for each canvas that may be drawn."""
        if augment.canvas is None:
            short, long = augment.size
            limits = long / self.sizes.max(axis=1, initial=1)
            sides = self.sizes.min(axis=1, initial=np.inf)
            yield np.minimum(limits, (augment.shortest or short) / sides), np.minimum(limits, short / sides)
            return
        for side in augment.canvases or (augment.canvas,):
            height, width = canvas_shape(side, self.ratio, divisor)
            fit = (np.array([width, height]) / self.sizes).min(axis=1, initial=np.inf)
            yield fit * augment.scale[0], fit * augment.scale[1]

    def _small(self, scales: NDArray[np.float64], limit: float) -> NDArray[np.bool_]:
        """[G] which objects have a side under the limit in pictures scaled by these factors, to whole pixels."""
        scaled = np.maximum(np.floor(self.sizes * scales[:, None] + 0.5), 1)
        sides = self.sides * (scaled / self.sizes)[self.at]
        return np.asarray((sides < limit).any(axis=1))
