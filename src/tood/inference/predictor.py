"""From images that lie ready for a network to detections in the images' own pixels, whatever runs the network."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from tood.engines import Engine
from tood.inference.postprocess import Found, postprocess
from tood.input import Geometry, InputConfig, normalise
from tood.models import AnyPostprocessConfig
from tood.structures import DensePredictions

Network: TypeAlias = Callable[[Tensor], DensePredictions]
"""[B, 3, H, W] normalised images, H and W multiples of the input's divisor -> predictions in their pixels."""

T = TypeVar("T")
R = TypeVar("R")

# Seconds that a picture which is being decoded gets to end, where nobody wants the others any more.
_GRACE = 1.0


@dataclass(frozen=True)
class Predictor:
    """Runs a network over batches of images.

    Attributes:
        network: a function, or an exported model in its engine, which runs on the CPU's memory.
        input: what the network expects.
        postprocess: how its predictions become detections.
        device: that it takes its images on.
    """

    network: Network | Engine
    input: InputConfig
    postprocess: AnyPostprocessConfig
    device: torch.device

    def __call__(self, images: Tensor, geometries: Sequence[Geometry]) -> list[Found]:
        """What is on each image.

        Args:
            images: [B, 3, H, W] uint8 RGB, each laid out as its geometry says, anything right of it and below.
            geometries: of the B images.

        Returns:
            Boxes in pixels of the images as they were; tensors on the device, made in inference mode.
        """
        whole = isinstance(self.network, Engine) and self.network.description.raw
        if whole and len({geometry.image for geometry in geometries}) > 1:
            # What takes whole pictures takes several only where they are of one size: beside them there is no padding.
            return [self(image[None], [geometry])[0] for image, geometry in zip(images, geometries, strict=True)]
        canvases = torch.tensor([geometry.canvas for geometry in geometries]).to(self.device)
        scaled = torch.tensor([geometry.scaled for geometry in geometries])
        scales = torch.tensor([geometry.scale for geometry in geometries])
        offsets = torch.tensor([geometry.offset[::-1] for geometry in geometries])
        with torch.inference_mode():
            images = images.to(self.device, non_blocking=True)
            predictions = self._predictions(images, canvases, scaled, offsets)
            return postprocess(predictions, scales, self.postprocess, scaled, offsets if offsets.any() else None)

    def _predictions(self, images: Tensor, canvases: Tensor, scaled: Tensor, offsets: Tensor) -> DensePredictions:
        """Of images [B, 3, H, W] uint8, of whose canvas and picture [B, 2] are the height and width."""
        engine = self.network
        if not isinstance(engine, Engine):
            return engine(normalise(images, canvases, self.input))
        windows = torch.cat([offsets, offsets + scaled.flip(1)], dim=1).float()  # [B, 4] x1 y1 x2 y2
        if not engine.description.raw:
            return engine.predictions(normalise(images, canvases, self.input), windows)
        height, width = scaled[0].tolist()
        return engine.predictions(images[:, :, :height, :width].permute(0, 2, 3, 1), windows)


def read_ahead(items: Iterable[T], read: Callable[[T], R], ahead: int) -> Generator[Callable[[], R], None, None]:
    """`read` of each item in a thread of its own, a few items ahead of whoever takes them, in order.

    Args:
        items: taken one by one, in the thread that iterates; an error of theirs is raised when what came before it is
            taken.
        read: what it raises is raised where its result is taken.
        ahead: items read and not taken yet, at most.

    Returns:
        For each item a function that waits for its result and gives it, to be called once.
    """
    jobs: SimpleQueue[tuple[T, Future[R]] | None] = SimpleQueue()
    waiting: deque[Future[R]] = deque()
    failure: Exception | None = None
    remaining = iter(items)
    # A daemon: a download that nobody waits for any more holds up neither Ctrl-C nor the end of the program, as the
    # threads of an executor would.
    thread = threading.Thread(target=_work, args=(jobs, read), name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = next(remaining)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            waiting.append(Future())
            jobs.put((item, waiting[-1]))
            del item
            if len(waiting) > ahead:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
    finally:
        for future in waiting:
            future.cancel()
        jobs.put(None)
        thread.join(_GRACE)
    if failure is not None:
        raise failure


def _work(jobs: SimpleQueue[tuple[T, Future[R]] | None], read: Callable[[T], R]) -> None:
    """Does one job after the other, until there is none."""
    while (job := jobs.get()) is not None:
        item, future = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(read(item))
            except BaseException as error:
                future.set_exception(error)
        del job, item, future  # whoever takes the result is to be the only one that holds it
