"""Our TOOD R50 at 800x1344: network, post-processing, memory; and its training step, batch 2 of 320x320."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from benchmarks.timing import THREADS, emit, fastest, peak_memory
from tood.alignment import build_criterion
from tood.allocator import keep_freed_memory, return_freed_memory
from tood.inference import postprocess
from tood.models import build_model, for_inference, named_model
from tood.models.measure import measure
from tood.structures import DensePredictions, Targets

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


def training() -> None:
    """Forward, assignment, losses, backward and the optimiser's step."""
    from tood.training import run_config  # not in the memory of inference
    from tood.training.optim import build_optimizer

    keep_freed_memory()  # as training does
    run = run_config(MODEL)
    model = build_model(run.model).train().to(memory_format=torch.channels_last)  # as `tood train` has it
    criterion = build_criterion(run.criterion)
    optimizer = build_optimizer(run.optimizer, model, 1e-5)
    images, generator = (
        torch.randn(2, 3, 320, 320).contiguous(memory_format=torch.channels_last),
        torch.Generator().manual_seed(0),
    )
    targets = []
    for _ in range(2):
        corner = torch.rand(10, 2, generator=generator) * 200
        side = 20 + torch.rand(10, 2, generator=generator) * 90
        labels = torch.randint(0, run.model.classes, (10,), generator=generator)
        targets.append(Targets(torch.cat([corner, corner + side], 1), labels, torch.zeros(10, dtype=torch.bool)))

    def step(half: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            losses = criterion(model(images), targets)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()

    seconds = fastest(lambda: step(False), 5)
    emit("step fp32", seconds * 1e3, "ms")
    with torch.no_grad():
        found = model(images)
    scores, boxes = found.scores.requires_grad_(), found.boxes.requires_grad_()
    dense = DensePredictions(scores, boxes, found.priors, found.logits)
    losses_alone = fastest(lambda: criterion(dense, targets).total.backward(), 7)
    emit("step losses share", 100 * losses_alone / seconds, "%")
    half_seconds = fastest(lambda: step(True), 5)
    emit("step bf16", half_seconds * 1e3, "ms")
    emit("step bf16 images", len(images) / half_seconds, "images/s")


def main() -> None:
    """Prints all figures."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    inference()
    training()


if __name__ == "__main__":
    main()
