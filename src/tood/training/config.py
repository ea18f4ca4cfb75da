"""Everything that decides a training run: one tree of frozen dataclasses, saved with the run as `config.yaml`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from tood.alignment import TaskAlignedCriterionConfig
from tood.choices import TrainingPrecision
from tood.data import DataConfig
from tood.data.transforms import AugmentConfig
from tood.errors import SettingError
from tood.models import AnyCriterionConfig, AnyModelConfig
from tood.models.families import family_of
from tood.models.tood import TOODConfig
from tood.training.ema import EMAConfig
from tood.training.guard import NotFinite
from tood.training.optim import AdamWConfig, SGDConfig
from tood.training.schedule import AnyScheduleConfig, StepScheduleConfig
from tood.training.trackers import Tracker

# Images a step of the published recipes.
PUBLISHED_BATCH = 16


@dataclass(frozen=True)
class RunConfig:
    """A training run.

    Attributes:
        name: what the model is called in messages.
        recipe: what the recipe was called, for messages alone; its parts are the fields below.
        model: architecture, input size and post-processing; the dataset decides its number of classes.
        start_from: the weights that training starts from: "imagenet" (the backbone's published ones), "scratch", or a
            detector's to fine-tune: a file, a model's name or hf://OWNER/NAME. null takes ImageNet's where they
            are published for the backbone, else starts from scratch.
        criterion: assigners and losses.
        data, augment: where the pictures are, and how they are varied.
        optimizer, schedule, ema: how the weights move.
        epochs: length of the run in passes over the training images. null, where `minutes` is null too, goes on until
            a plateau: until AP on the validation images no longer rises (`training.length`).
        minutes: length of the run in minutes instead, `epochs` then count for nothing; evaluations during the run
            among them, the one at its end not.
        batch_size: images in a batch of one process; null shares the recipe's (`optimizer.lr_batch`) out among the
            processes.
        accumulation: batches whose gradients add up to one step; null takes so many that the images of a step come as
            near to the recipe's as whole numbers allow.
        exact_accumulation: give such a step the loss of one large batch, whose averages span all its images; they must
            be known first, which costs one more forward pass. Otherwise each batch has averages of its own.
        clip_gradient: largest norm of the gradient, null for no limit.
        not_finite: what to do with a step whose loss or gradient is no number: "stop", or "skip" it and go on.
        freeze: names of the network's parts that do not learn, such as backbone or backbone.layer1.
        thaw_from: objects to learn from, from which on the backbone's frozen stages learn all the same, but for its
            stem; null leaves them frozen however many there are. A run settles it: its own configuration has null here,
            and the frozen stages that were decided.
        thaw_scratch: whether a backbone that starts from scratch learns all over, whatever its frozen stages and its
            BatchNorms are set to. Such a run settles it: its own configuration has false here, and them as decided.
        evaluate_every: epochs between evaluations, in a run without a length at least; the run's end is always
            evaluated.
        evaluation_share: a run limited by `minutes` skips evaluations that would take more than this share of its time.
        patience: evaluations without a higher AP after which the run ends early, null for never.
        cool_down: what is left of the schedule is then gone through in this share of the run so far, so that the rate
            falls to its end all the same; 0 ends the run at once. null is 0, or a quarter in a run without a length.
        precision: of the network's arithmetic; losses and box decoding always are fp32. "auto" is bf16 where the GPU
            or the CPU has instructions for it, else fp32.
        channels_last: memory layout of weights and images; faster on most CPUs and GPUs.
        device: "auto" takes a GPU where there is one.
        seed: of everything random; on a CPU the same seed on the same machine gives the same run, while a GPU's sums
            differ in the last digits from run to run.
        deterministic: use only algorithms that give the same numbers every time on a GPU too, and refuse others;
            slower. On a CPU all are.
        sync_batch_norm: BatchNorms that learn their statistics take them over the images of all processes.
        checkpoint_minutes: time between checkpoints; one more is written at the end and when the run is stopped.
        keep: number of checkpoints kept, the newest ones.
        log_every: steps between two rows of `metrics.csv`.
        trackers: where figures go besides that file: tensorboard, wandb (Weights & Biases), mlflow.
        out: folder that the run is written to; null takes `runs/<name>-1`, or the next free number.
    """

    # Keys from before criteria owned their phases: their types, and what a value of theirs means.
    OLDER: ClassVar[Mapping[str, tuple[Any, Callable[[RunConfig, Any], RunConfig]]]]

    name: str = "tood"
    recipe: str = "1x"
    model: AnyModelConfig = field(default_factory=TOODConfig)
    start_from: str | None = None
    criterion: AnyCriterionConfig = field(default_factory=TaskAlignedCriterionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: SGDConfig | AdamWConfig = field(default_factory=SGDConfig)
    schedule: AnyScheduleConfig = field(default_factory=StepScheduleConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    epochs: int | None = 12
    minutes: float | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    exact_accumulation: bool = True
    clip_gradient: float | None = None
    not_finite: NotFinite = "stop"
    freeze: tuple[str, ...] = ()
    thaw_from: int | None = None
    thaw_scratch: bool = True
    evaluate_every: int = 1
    evaluation_share: float = 0.05
    patience: int | None = None
    cool_down: float | None = None
    precision: TrainingPrecision = "auto"
    channels_last: bool = True
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 0
    deterministic: bool = False
    sync_batch_norm: bool = True
    checkpoint_minutes: float = 5.0
    keep: int = 1
    log_every: int = 10
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    out: Path | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation", "evaluate_every", "patience", "keep", "log_every"):
            value = getattr(self, name)
            _at_least(name, 1 if value is None else value, 1)
        _at_least("data.workers", self.data.workers or 0, 0)
        _at_least("data.smallest_side", self.data.smallest_side, 1)
        _at_least("seed", self.seed, 0)
        _at_least("thaw_from", self.thaw_from or 0, 0)
        _at_least("checkpoint_minutes", self.checkpoint_minutes, 0)
        positive = {
            "minutes": self.minutes,
            "clip_gradient": self.clip_gradient,
            "data.cache_gb": self.data.cache_gb,
        }
        for name, value in positive.items():
            if value is not None and not 0 < value < math.inf:
                raise SettingError(name, f"is {value}: expected a number above 0")
        for name, share in (("evaluation_share", self.evaluation_share), ("cool_down", self.cool_down or 0.0)):
            if not 0 <= share <= 1:
                raise SettingError(name, f"is {share}: expected a number from 0 to 1")

    def from_scratch(self) -> RunConfig:
        """The same with all of the network learning, as one that nothing was learnt before wants it."""
        backbone = self.model.backbone.from_scratch()
        return replace(self, model=replace(self.model, backbone=backbone), thaw_scratch=False)

    def batches(self, processes: int = 1) -> tuple[int, int]:
        """Images in a batch of one process, and batches of it in a step.

        Args:
            processes: how many processes train together.
        """
        wanted = self.optimizer.lr_batch
        size = self.batch_size or max(round((wanted or PUBLISHED_BATCH) / processes), 1)
        if self.accumulation is not None or wanted is None:
            return size, self.accumulation or 1
        return size, max(int(wanted / (size * processes) + 0.5), 1)

    def require_all_trained(self) -> None:
        """Refuses a model with a branch that the criterion would leave as it was initialised.

        Raises:
            ToodError: if the head judges its boxes apart from their class and the criterion trains no such judgement.
        """
        if self.model.predicts_quality and not self.criterion.trains_quality:
            branch = _quality_setting(self.model)
            leave_out = "" if branch is None else f"set model.head.{branch}=false, or "
            usual = family_of(self.model).criteria[0]().kind
            raise SettingError(
                "criterion.kind",
                f"is '{self.criterion.kind}', which would leave untrained what judges the boxes in the head: "
                f"{leave_out}criterion.kind={usual}",
            )

    @property
    def length(self) -> str:
        """How long the run is, in words."""
        if self.minutes is not None:
            return f"{self.minutes:g} minute{'s' if self.minutes != 1 else ''}"
        if self.epochs is None:
            return "until a plateau"
        return f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"


def _quality_setting(model: AnyModelConfig) -> str | None:
    """The switch of the head without which it does not judge its boxes, None if there is none."""
    for switch in fields(model.head):
        if getattr(model.head, switch.name) is True:
            without = replace(model, head=replace(model.head, **{switch.name: False}))
            if not without.predicts_quality:
                return switch.name
    return None


def _warm_up(name: str) -> Callable[[RunConfig, Any], RunConfig]:
    """What sets a field of TAL's warm-up; no other criterion has one."""

    def change(config: RunConfig, value: Any) -> RunConfig:
        if not isinstance(config.criterion, TaskAlignedCriterionConfig):
            return config
        return replace(config, criterion=replace(config.criterion, **{name: value}))

    return change


RunConfig.OLDER = MappingProxyType(
    {
        "assigner_warm_up_epochs": (int | None, _warm_up("warm_up_epochs")),
        "assigner_warm_up_share": (float, _warm_up("warm_up_share")),
    }
)


def _at_least(name: str, value: Any, smallest: int) -> None:
    if value < smallest:
        raise SettingError(name, f"is {value}: expected {smallest} or more")
