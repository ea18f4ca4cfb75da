"""A network of a few thousand weights, and batches of coloured squares, for runs of a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset, Sampler

from tood.data import Batch, ImageInfo
from tood.input import InputConfig
from tood.models import AnyDetector, build_model
from tood.models.backbones import ResNetConfig
from tood.models.necks import FPNConfig
from tood.models.tood import THeadConfig, TOODConfig
from tood.structures import Targets
from tood.training import AdamWConfig, CosineScheduleConfig, EMAConfig, RunConfig
from tood.training.loop import Trainer, TrainingImages
from tood.training.progress import TrainingDisplay
from tood.training.validation import Validation

SIDE = 32


def tiny_model(classes: int = 2) -> TOODConfig:
    return TOODConfig(
        classes=classes,
        backbone=ResNetConfig(
            block="basic", blocks=(1, 1, 1, 1), width=8, stem_width=8, frozen_stages=-1, norm_eval=False
        ),
        neck=FPNConfig(width=8, levels=3),
        head=THeadConfig(width=8, interactive_layers=2, norm_groups=2, attention_reduction=4, alignment_reduction=4),
        input=InputConfig(short=SIDE, long=SIDE),
    )


def tiny_run(out: Path) -> RunConfig:
    return RunConfig(
        name="tiny",
        recipe="small",
        model=tiny_model(),
        optimizer=AdamWConfig(lr=1e-3),
        schedule=CosineScheduleConfig(warm_up_steps=3),
        ema=EMAConfig(enabled=True, decay=0.9, ramp=5),
        epochs=3,
        batch_size=2,
        evaluate_every=1,
        log_every=1,
        precision="fp32",
        device="cpu",
        out=out,
    )


class Squares(Dataset[Batch]):
    """Image i of epoch e: one bright square whose place depends on both."""

    def __getitem__(self, keys: tuple[int, ...]) -> Batch:
        epoch, *indices = keys
        images = torch.zeros(len(indices), 3, SIDE, SIDE, dtype=torch.uint8)
        targets = []
        for image, index in zip(images, indices, strict=True):
            place = (index + epoch) % 3 * 4
            image[:, place : place + 16, place : place + 16] = 200
            box = torch.tensor([[place, place, place + 16.0, place + 16.0]])
            targets.append(Targets(box, torch.tensor([index % 2]), torch.tensor([False])))
        infos = tuple(ImageInfo(i, f"picture{i}.png", InputConfig(SIDE, SIDE).geometry(SIDE, SIDE)) for i in indices)
        return Batch(images, torch.full((len(indices), 2), SIDE), tuple(targets), infos)


class Order(Sampler[list[tuple[int, ...]]]):
    """Batches whose order depends on the epoch alone."""

    drop_last = False

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size, self.epoch = count, batch_size, 0

    @property
    def sampler(self) -> Order:
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self):  # type: ignore[no-untyped-def]
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        for start in range(0, self.count, self.batch_size):
            yield [(self.epoch, *order[start : start + self.batch_size])]


def squares_loader(count: int = 6, batch_size: int = 2) -> DataLoader[Batch]:
    return DataLoader(Squares(), batch_sampler=Order(count, batch_size), collate_fn=lambda items: items[0])


@dataclass(frozen=True)
class FakeScores:
    ap: float
    ap50: float = 0.9
    ap75: float = 0.6


def tiny_trainer(
    config: RunConfig,
    evaluate: Callable[[AnyDetector], FakeScores] | None = None,
    loader: DataLoader[Batch] | None = None,
    selects: bool = True,
) -> Trainer:
    torch.manual_seed(config.seed)
    assert config.out is not None
    config.out.mkdir(parents=True, exist_ok=True)
    model = build_model(config.model)
    loader = loader or squares_loader(batch_size=config.batch_size)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    validation = None if evaluate is None else Validation(evaluate, 6, selects)
    return Trainer(config, model, TrainingImages(loader, ("a", "b")), validation, accelerator, TrainingDisplay(None))


def plain(config: RunConfig) -> RunConfig:
    """The run without averaging."""
    return replace(config, ema=EMAConfig(enabled=False))
