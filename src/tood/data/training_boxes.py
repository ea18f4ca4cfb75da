"""Which of a split's objects reach a training: what its limits and transforms leave out, counted without a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import DetectionDataset
from tood.data.samples import usual_ratio
from tood.data.transforms.augment import AugmentConfig
from tood.data.transforms.pipeline import canvas_shape
from tood.data.transforms.steps import FitStep, StretchStep
from tood.input import Fit, InputConfig

# A box smaller than a pixel of the input shows nothing to learn.
_PIXEL = 1.0
# Objects at once: of all of 25 million each array of numbers would take 400 MB.
_BLOCK = 1 << 20
_LARGEST_SIDE = np.iinfo(np.int32).max


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


def smallest_box(augment: AugmentConfig) -> float:
    """Pixels of the input that both sides of a box must have to be learned."""
    return _PIXEL if augment.canvas is None else max(augment.canvas.min_side, _PIXEL)


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
        images = dataset.columns
        boxes, crowd, at = images.boxes.boxes, images.boxes.crowd, images.image_at
        trained = images.sizes.min(axis=1, initial=_LARGEST_SIDE) >= smallest_side
        shown = trained[at] & ~crowd
        return ObjectSizes(
            sizes=images.sizes[trained].astype(np.float64),
            at=(np.cumsum(trained) - 1)[at[shown]],
            sides=(boxes[:, 2:] - boxes[:, :2])[shown].astype(np.float64),
            ratio=usual_ratio(images.sizes[trained]) if trained.any() else 1.0,
            crowds=int(crowd.sum()),
            left_out=int((~trained[at] & ~crowd).sum()),
        )

    def in_training(self, augment: AugmentConfig, input: InputConfig) -> TrainingBoxes:
        """What becomes of them.

        Args:
            augment: how pictures are resized.
            input: of the model.
        """
        shares = self.too_small(augment, input)
        return TrainingBoxes(
            objects=len(self.at) + self.left_out,
            crowds=self.crowds,
            left_out=self.left_out,
            always_small=int((shares >= 1).sum()),
            mean_small=float(shares.sum()),
            limit=smallest_box(augment),
        )

    def only(self, chosen: NDArray[np.bool_]) -> ObjectSizes:
        """These sizes for some of the objects alone; `chosen` is [G], which of them."""
        return replace(self, at=self.at[chosen], sides=self.sides[chosen])

    def too_small(self, augment: AugmentConfig, input: InputConfig) -> NDArray[np.float64]:
        """[G] in what share of the draws each object is too small: 1 at every scale; arguments as for `in_training`."""
        limit, in_logarithms = smallest_box(augment), augment.canvas is not None
        found = np.zeros(len(self.at))
        ranges = list(self._scales(augment, input))
        for smallest, largest in ranges:
            smallest_whole, largest_whole = self._to_whole_pixels(smallest), self._to_whole_pixels(largest)
            for start in range(0, len(self.at), _BLOCK):
                block = slice(start, start + _BLOCK)
                at, sides = self.at[block], self.sides[block]
                wanted, low, high = limit / sides, smallest[at], largest[at]
                if in_logarithms:  # scales are drawn evenly in them
                    wanted, low, high = np.log(wanted), np.log(low), np.log(high)
                # One draw scales both axes: an object is too small as long as one of them is.
                share = np.clip((wanted - low) / np.maximum(high - low, 1e-12), 0, 1).max(axis=1)
                share[~(sides * smallest_whole[at] < limit).any(axis=1)] = 0
                share[(sides * largest_whole[at] < limit).any(axis=1)] = 1
                found[block] += share
        found /= len(ranges)
        return found

    def _scales(
        self, augment: AugmentConfig, input: InputConfig
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """[I, 2] twice: the smallest and the largest factors that a picture's width and height are scaled by, for each
        canvas that may be drawn.
        """
        canvas, stretch = augment.canvas, augment.find(StretchStep)
        if stretch is not None:  # whatever is cut out or expanded before
            for side in stretch.sides or (stretch.side,):
                yield side / self.sizes, side / self.sizes
            return
        if canvas is None:
            fit = augment.find(FitStep) or FitStep()
            short, long = fit.size or (input.short, input.long)
            yield self._fitted(fit.shortest or short, long, input.fit), self._fitted(short, long, input.fit)
            return
        for side in canvas.sides or (canvas.side,):
            height, width = canvas_shape(side, self.ratio, input.divisor)
            fitting = _alike((np.array([width, height]) / self.sizes).min(axis=1, initial=np.inf))
            yield fitting * canvas.scale[0], fitting * canvas.scale[1]

    def _fitted(self, short: int, long: int, fit: Fit) -> NDArray[np.float64]:
        """[I, 2] factors that bring the pictures into these limits."""
        if fit == "stretch":
            lying = self.sizes[:, :1] >= self.sizes[:, 1:]
            return np.asarray(np.where(lying, [long, short], [short, long]) / self.sizes)
        limits = long / self.sizes.max(axis=1, initial=1)
        return _alike(np.minimum(limits, short / self.sizes.min(axis=1, initial=np.inf)))

    def _to_whole_pixels(self, scales: NDArray[np.float64]) -> NDArray[np.float64]:
        """[I, 2] the factors of pictures that are scaled by such factors, but to whole pixels."""
        return np.asarray(np.maximum(np.floor(self.sizes * scales + 0.5), 1) / self.sizes)


def _alike(scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """[I, 2] the same factor for both axes, from [I]."""
    return np.repeat(scales[:, None], 2, axis=1)
