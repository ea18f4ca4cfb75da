"""Whole training steps on the device `meta`, which has no values: what reads one, or leaves a tensor behind, is seen.

An accelerator makes the host wait where a value is read and where memory that is not page-locked is copied to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from narrow_models import BASED, DEFORMABLE, EXAMPLES, FREE, NARROW_ATSS, NARROW_GFL, NARROW_PAA, RESNEXT_DEFORMABLE
from tood.alignment import (
    AnchorScoringAssigner,
    ATSSCriterionConfig,
    MixtureFit,
    Progress,
    SimOTACriterionConfig,
    TaskAlignedCriterionConfig,
    VarifocalCriterionConfig,
)
from tood.data import Batch, ImageInfo
from tood.input import InputConfig, normalise
from tood.models import AnyModelConfig, build_model
from tood.models.gfl import GFLCriterionConfig
from tood.models.paa import PAACriterionConfig
from tood.ops.arithmetic import constants
from tood.structures import Targets
from tood.training import EMAConfig, RunConfig, SGDConfig
from tood.training.learner import Learner
from training.fakes import tiny_run

# The time goes into PyTorch's dispatching in Python; what is called of ours is measured where it has values.
pytestmark = pytest.mark.no_cover
META = torch.device("meta")
SIDE = 128


def short(config: Any) -> Any:
    """With one level beyond the backbone's and two layers of a kind in the head: more of them do the same again."""
    most = {"interactive_layers": 2, "tower_layers": 2, "deformable_layers": 1}
    layers = {
        name: min(getattr(config.head, name), limit) for name, limit in most.items() if hasattr(config.head, name)
    }
    return replace(config, neck=replace(config.neck, levels=4), head=replace(config.head, **layers))


PLAIN = short(FREE)
MODELS: dict[str, AnyModelConfig] = {
    "tood": PLAIN,
    "tood, anchor-based": short(BASED),
    "tood, deformable": short(DEFORMABLE),
    "tood, deformable groups": short(RESNEXT_DEFORMABLE),
    "tood, BatchNorms learn": replace(
        PLAIN, backbone=replace(PLAIN.backbone, norm_eval=False, frozen_stages=-1, block="basic")
    ),
    "tood, coloured padding": replace(PLAIN, input=replace(PLAIN.input, pad=(114, 114, 114))),
    "atss": short(NARROW_ATSS),
    "ppyoloe": EXAMPLES["ppyoloe-plain"],
    "atss without centerness": short(replace(NARROW_ATSS, head=replace(NARROW_ATSS.head, centerness=False))),
    "gfl": short(NARROW_GFL),
    "paa": short(NARROW_PAA),
    "yolox": EXAMPLES["yolox-plain"],
    "yolox-pai": EXAMPLES["yolox-pai"],
}
CRITERIA = {
    "task_aligned": TaskAlignedCriterionConfig(),
    "atss": ATSSCriterionConfig(),
    "gfl": GFLCriterionConfig(),
    # A step of the mixture's fit is as any other; elsewhere than on a CPU all of them are made.
    "paa": PAACriterionConfig(assigner=AnchorScoringAssigner(mixture=MixtureFit(max_iterations=2))),
    "varifocal": VarifocalCriterionConfig(),
    "simota": SimOTACriterionConfig(),
}
TRAINED = [
    pytest.param(model, criterion, id=f"{name} by {by}")
    for (name, model), (by, criterion) in itertools.product(MODELS.items(), CRITERIA.items())
    # The first two criteria on every network, the others on their own and on TOOD's.
    if (by in ("task_aligned", "atss") or name in ("tood", by))
    and (criterion.trains_quality or not model.predicts_quality)
]
PHASES = {"warm-up": Progress(epoch=0), "after": Progress(epoch=9, share=0.9)}


class WaitsError(AssertionError):
    """The host would wait for the device."""


class NoValues(TorchDispatchMode):
    """No operation takes or gives a tensor that is not on `meta`, or needs to know a value."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices):
            raise WaitsError(f"{func} with a mask looks for its places")
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, Tensor) and tensor.device != META:
                raise WaitsError(f"{func} has a tensor {list(tensor.shape)} on {tensor.device}")
        return out


class NoCopies(TorchFunctionMode):
    """No tensor is made of Python's numbers or of NumPy's: they would be copied to the device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor):
            raise WaitsError(f"{func.__name__}{args} copies from the host")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    with NoCopies(), NoValues():
        yield


class MetaAccelerator(Accelerator):
    """The device `meta`, which Accelerate does not know."""

    @property
    def device(self) -> torch.device:
        return META


@pytest.fixture
def fused_sgd() -> Iterator[None]:
    """PyTorch's fused step has no shape to work out: on `meta` it does nothing."""
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_fused_sgd_", lambda *args, **kwargs: None)
    yield
    library._destroy()


def meta_learner(config: RunConfig) -> Learner:
    learner = Learner(config, build_model(config.model), MetaAccelerator(cpu=True, device_placement=False))
    assert learner.guard.deferred, "as on every accelerator"
    optimizer = learner.optimizer.optimizer
    optimizer._need_device_dtype_check_for_fused = False
    for group in optimizer.param_groups:
        group["fused"] = True
    learner.train_mode()
    return learner


def step_config(out: Path, model: AnyModelConfig, criterion: Any) -> RunConfig:
    optimizer = SGDConfig(lr=0.01, lr_batch=None)
    return replace(tiny_run(out), model=model, criterion=criterion, optimizer=optimizer, clip_gradient=10.0)


def batch_of(counts: Sequence[int], crowds: int = 0, padded: bool = False) -> Batch:
    """Images with so many single objects each, and so many crowds."""
    targets = []
    for count in counts:
        corners = torch.rand(count + crowds, 2) * 60
        boxes = torch.cat([corners, corners + 10 + torch.rand(count + crowds, 2) * 50], dim=1)
        crowd = torch.arange(count + crowds) < crowds
        targets.append(Targets(boxes, torch.zeros(count + crowds, dtype=torch.long), crowd))
    sizes = torch.tensor([[SIDE, SIDE - 40 * (padded and i > 0)] for i in range(len(counts))])
    images = torch.zeros(len(counts), 3, SIDE, SIDE, dtype=torch.uint8)
    geometry = InputConfig(SIDE, SIDE).geometry(SIDE, SIDE)
    infos = tuple(ImageInfo(i, f"{i}.png", geometry) for i in range(len(counts)))
    return Batch(images, sizes, tuple(targets), infos)


BATCHES = {
    "objects": [batch_of([3, 1])],
    "no object": [batch_of([0, 0])],
    "crowds": [batch_of([2, 0], crowds=2)],
    "crowds alone": [batch_of([0, 0], crowds=1)],
    "padded": [batch_of([1, 4], crowds=1, padded=True)],
    "many objects": [batch_of([70, 2], crowds=3, padded=True)],
    "two batches": [batch_of([1, 2]), batch_of([0, 5], crowds=1, padded=True)],
}


def step_without_waiting(learner: Learner, batches: Sequence[Batch], progress: Progress) -> None:
    there = [batch.to(META) for batch in batches]
    with no_waiting():
        launched = learner.launch(there, 1, 0.01, progress)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        launched.losses()  # the figures themselves are on the device


@pytest.mark.usefixtures("fused_sgd")
@pytest.mark.parametrize("progress", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize(("model", "criterion"), TRAINED)
def test_a_step_reads_no_value_and_leaves_nothing_on_the_host(
    tmp_path: Path, model: AnyModelConfig, criterion: Any, progress: Progress
) -> None:
    step_without_waiting(meta_learner(step_config(tmp_path, model, criterion)), BATCHES["padded"], progress)


@pytest.mark.usefixtures("fused_sgd")
@pytest.mark.parametrize("progress", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    ("family", "criterion"), [("tood", "task_aligned"), ("atss", "atss"), ("gfl", "gfl"), ("paa", "paa")]
)
def test_no_ground_truth_makes_a_step_wait(
    tmp_path: Path, family: str, criterion: str, batches: Sequence[Batch], progress: Progress
) -> None:
    learner = meta_learner(step_config(tmp_path, MODELS[family], CRITERIA[criterion]))
    step_without_waiting(learner, batches, progress)


@pytest.mark.usefixtures("fused_sgd")
@pytest.mark.parametrize(
    "change", [{"clip_gradient": None}, {"ema": EMAConfig()}, {"exact_accumulation": False}], ids=str
)
def test_no_setting_of_a_step_makes_it_wait(tmp_path: Path, change: dict[str, Any]) -> None:
    config = step_config(tmp_path, MODELS["tood, BatchNorms learn"], CRITERIA["task_aligned"])
    learner = meta_learner(replace(config, not_finite="skip", **change))
    there = [batch.to(META) for batch in BATCHES["two batches"]]
    for number in (1, 2):
        with no_waiting():
            learner.launch(there, number, 0.01, PHASES["after"])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_network_itself_predicts_without_a_value(model: AnyModelConfig) -> None:
    network = build_model(model).eval().to(META)
    batch = BATCHES["padded"][0].to(META)
    with no_waiting(), torch.inference_mode():
        found = network(normalise(batch.images, batch.sizes, model.input))
    assert found.boxes.shape[0] == 2


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: float(x[0]),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), x[0]),
        lambda x: x.nonzero(),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.masked_select(x > 0),
        lambda x: x + torch.ones(3),
        lambda x: torch.arange(3),
        lambda x: x.cpu(),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.repeat_interleave(x.long()),
    ],
)
def test_what_waits_is_noticed(wait: Any) -> None:
    x = torch.ones(3, device=META)
    with pytest.raises((WaitsError, RuntimeError, NotImplementedError)), no_waiting():
        wait(x)


def test_constants_are_the_numbers_given() -> None:
    on_host = constants((0.1, 2.0), torch.zeros(1, dtype=torch.float64))
    assert on_host.tolist() == [0.1, 2.0]
    elsewhere = constants((0.1, 2.0), torch.zeros(1, device=META))
    assert (elsewhere.device, elsewhere.shape, elsewhere.dtype) == (META, (2,), torch.float32)


def test_a_batch_goes_to_the_device_from_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(id(tensor))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    batch = batch_of([1, 2], crowds=1).pin_memory()
    tensors = [batch.images, batch.sizes]
    tensors += [value for targets in batch.targets for value in (targets.boxes, targets.labels, targets.crowd)]
    assert {id(tensor) for tensor in tensors} == set(pinned)
