"""Our TOOD R50 at 800x1344: network, post-processing, memory; and its training step, batch 2 of 320x320."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.timing import THREADS, emit, fastest, peak_memory
from tood.inference import postprocess
from tood.models import build_model, for_inference
from tood.models.measure import measure
from tood.ops.allocator import keep_freed_memory, return_freed_memory
from tood.structures import DensePredictions, Targets
from tood.zoo import named_model

if TYPE_CHECKING:
    from tood.training import RunConfig

MODEL = "tood_r50_fpn_1x"
HEIGHT, WIDTH = 800, 1344


def inference() -> None:
    """The network as `Detector` runs it, in fp32 without the one that it was made of."""
    config = named_model(MODEL).config()
    images = torch.randn(1, 3, HEIGHT, WIDTH)
    with torch.inference_mode():
        network = for_inference(build_model(config).eval(), torch.float32)
        return_freed_memory()
        seconds = fastest(lambda: network(images), 4)
        emit("network fp32", seconds * 1e3, "ms")
        emit("network memory", peak_memory(), "MiB")
        emit("network fp32 speed", 2 * measure(config).multiply_adds / seconds / 1e9, "GFLOP/s")
        found = network(images)
        half = for_inference(build_model(config).eval(), torch.bfloat16)
        emit("network bf16", fastest(lambda: half(images), 4) * 1e3, "ms")
        # The same uniform scores for us and for the peer: 0..0.3, of which 5/6 pass the threshold of 0.05.
        scores = torch.rand(found.scores.shape, generator=torch.Generator().manual_seed(0)) * 0.3
        dense = DensePredictions(scores, found.boxes, found.priors)
        emit("post-processing", fastest(lambda: postprocess(dense, None, config.postprocess), 7) * 1e3, "ms")


class TrainingStep:
    """Forward, assignment, losses, backward and the optimiser's step, as `tood train` has them.

    Args:
        run: whose model, criterion and optimiser; None takes the main model's.
        device: where it computes.
        memory_format: of the weights.
    """

    def __init__(
        self,
        run: RunConfig | None = None,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        from tood.training import run_config  # not in the memory of inference
        from tood.training.optim import build_optimizer

        keep_freed_memory()  # as training does
        run = run or run_config(MODEL)
        self.classes, self.device = run.model.classes, torch.device(device)
        self.model = build_model(run.model).train().to(device, memory_format=memory_format)
        self.criterion = run.criterion.build()
        self.optimizer = build_optimizer(run.optimizer, self.model, 1e-5)

    def __call__(self, images: Tensor, targets: Sequence[Targets], half: bool) -> None:
        """Normalised images [B, 3, H, W]; in bf16 with `half`."""
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            losses = self.criterion(self.model(images), targets)
        self.optimizer.zero_grad()
        losses.total.backward()
        self.optimizer.step()


def training() -> None:
    """A step of two images of 320 x 320 with ten objects each, and its assignment and losses alone."""
    step = TrainingStep()
    images = torch.randn(2, 3, 320, 320).contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    targets = []
    for _ in range(2):
        corner = torch.rand(10, 2, generator=generator) * 200
        side = 20 + torch.rand(10, 2, generator=generator) * 90
        labels = torch.randint(0, step.classes, (10,), generator=generator)
        targets.append(Targets(torch.cat([corner, corner + side], 1), labels, torch.zeros(10, dtype=torch.bool)))
    seconds = fastest(lambda: step(images, targets, False), 5)
    emit("step fp32", seconds * 1e3, "ms")
    with torch.no_grad():
        found = step.model(images)
    scores, boxes = found.scores.requires_grad_(), found.boxes.requires_grad_()
    dense = DensePredictions(scores, boxes, found.priors, found.logits)
    losses_alone = fastest(lambda: step.criterion(dense, targets).total.backward(), 7)
    emit("step losses share", 100 * losses_alone / seconds, "%")
    emit("step bf16", fastest(lambda: step(images, targets, True), 5) * 1e3, "ms")


def main() -> None:
    """Prints the figures of inference, or with "step" those of training, in a process without the other's memory."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if sys.argv[1:] == ["step"]:
        training()
    else:
        inference()


if __name__ == "__main__":
    main()
