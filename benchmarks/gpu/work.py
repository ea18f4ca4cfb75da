"""What is measured: runs, batches and steps of any size on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from tood.alignment import Progress
from tood.data import Batch, ImageInfo
from tood.input import InputConfig
from tood.models import FAMILIES, AnyCriterionConfig, AnyModelConfig, build_model
from tood.models.measure import measure
from tood.structures import Targets
from tood.training import EMAConfig, RunConfig, SGDConfig, run_config
from tood.training.accelerator import accelerated, deterministic
from tood.training.learner import LaunchedStep, Learner

MAIN = "tood_r50_fpn_1x"
SMALL = ("tood_tiny", "tood_lite0", "tood_lite0_320", "ppyoloe_s", "yolox_s")
# A small step, so that random weights stay numbers; and the phase in which a task-aligned criterion aligns.
RATE, ALIGNED, WARM_UP = 1e-5, Progress(epoch=9, share=0.9), Progress()


def sized(config: AnyModelConfig, size: tuple[int, int] | None) -> AnyModelConfig:
    """The configuration for an input of another short and long side; None leaves its own."""
    return config if size is None else replace(config, input=replace(config.input, short=size[0], long=size[1]))


def named_run(name: str, device: torch.device, size: tuple[int, int] | None = None) -> RunConfig:
    """The run that a named model is meant for, in bf16, each batch a step."""
    run = run_config(name)
    return replace(run, model=sized(run.model, size), device=device.type, precision="bf16", accumulation=1)


def example_runs(device: torch.device, most: int | None = None) -> dict[str, RunConfig]:
    """Runs in fp32 of every family's first so many examples, under each of its criteria; None for all."""
    return {
        f"{family.name}-{name} by {criterion().kind}": _example_run(model, criterion(), device)
        for family in FAMILIES
        for name, model in islice(family.examples().items(), most)
        for criterion in family.criteria
    }


def _example_run(model: AnyModelConfig, criterion: AnyCriterionConfig, device: torch.device) -> RunConfig:
    return RunConfig(
        name="example",
        model=model,
        criterion=criterion,
        optimizer=SGDConfig(lr=0.01, lr_batch=None),
        ema=EMAConfig(enabled=False),
        precision="fp32",
        device=device.type,
    )


@contextmanager
def learning(run: RunConfig) -> Iterator[Learner]:
    """What trains, as `tood train` sets it up, its weights drawn from the run's seed."""
    with accelerated(run) as (accelerator, _), deterministic(run.deterministic):
        torch.manual_seed(run.seed)
        learner = Learner(run, build_model(run.model), accelerator)
        learner.train_mode()
        yield learner


def batch_of(
    input: InputConfig, counts: Sequence[int], classes: int, device: torch.device, crowds: int = 0, seed: int = 0
) -> Batch:
    """Lying images of the input's full size, of noise, with so many objects each, the first ones crowds."""
    generator = torch.Generator().manual_seed(seed)
    short, long = input.short, input.long
    height, width = input.padded(short, long)
    images = torch.randint(0, 256, (len(counts), height, width, 3), dtype=torch.uint8, generator=generator)
    targets = []
    for count in counts:
        sides = 0.05 + 0.3 * torch.rand(count, 2, generator=generator)
        corners = torch.rand(count, 2, generator=generator) * (1 - sides)
        scale = torch.tensor([long, short]).repeat(2)
        boxes = torch.cat([corners, corners + sides], 1) * scale
        labels = torch.randint(0, classes, (count,), generator=generator)
        targets.append(Targets(boxes, labels, torch.arange(count) < crowds))
    sizes = torch.tensor([[short, long]] * len(counts))
    infos = tuple(ImageInfo(i, f"{i}.jpg", input.geometry(short, long)) for i in range(len(counts)))
    return Batch(images.permute(0, 3, 1, 2), sizes, tuple(targets), infos).to(device)


class Pipelined:
    """Steps as the training loop gives them to a device: the losses of one are read when the next is under way."""

    def __init__(self, learner: Learner, batch: Batch, progress: Progress = ALIGNED) -> None:
        self.learner, self.batch, self.progress = learner, batch, progress
        self.number = 0
        self.before: LaunchedStep | None = None

    def __call__(self) -> None:
        """Launches a step, and reads the one before it."""
        launched = self.launch()
        if self.before is not None:
            self.before.losses()
        self.before = launched

    def launch(self) -> LaunchedStep:
        """Launches a step, and reads nothing."""
        self.number += 1
        return self.learner.launch([self.batch], self.number, RATE, self.progress)


def _gradient_flops(
    gradient: Sequence[int], inputs: Sequence[int], weights: Sequence[int], *others: Any, out_shape: object = None
) -> int:
    """Of a convolution's gradients, as many for each as of the way forward.

    PyTorch counts those of depthwise convolutions as if each channel met all.
    """
    *_, transposed, _output_padding, _groups, wanted = others
    return sum(wanted[:2]) * conv_flop_count(list(inputs), list(weights), list(gradient), transposed)


@cache
def training_flops(config: AnyModelConfig) -> int:
    """Operations, two for each multiply-add, of an image's way forward and of the gradients back.

    Counted as `tood.models.measure` does, on the device `meta`; parts that are frozen have no gradient.
    """
    height, width = measure(config).size
    with torch.device("meta"):
        model, images = build_model(config).train(), torch.empty(1, 3, height, width)
    counts = {torch.ops.aten.convolution_backward: _gradient_flops}
    with FlopCounterMode(display=False, custom_mapping=counts) as counter:
        found = model(images)
        (found.scores.sum() + found.boxes.sum()).backward()
    return counter.get_total_flops()


def captured(step: Callable[[], object]) -> Callable[[], None]:
    """A step as a CUDA graph: all that it gives the device, given at once. What it reads must stay where it is."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether products and convolutions of fp32 numbers may leave out 13 of their 23 digits."""
    # The older of PyTorch's two ways to say so: it is in all versions, and the two must not be mixed.
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
