"""Loaders by the few numbers that a test cares about."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import DataLoader

from tood import data
from tood.data import (
    AugmentConfig,
    Batch,
    BatchPlan,
    CanvasStep,
    DataConfig,
    DetectionDataset,
    FlipStep,
    PhotometricStep,
)
from tood.data.reading import Unreadable
from tood.input import InputConfig
from tood.processes import Processes


def train_loader(
    dataset: DetectionDataset,
    augment: AugmentConfig,
    batch_size: int,
    workers: int | None = None,
    seed: int = 0,
    *,
    size: tuple[int, int] = (64, 96),
    keep_empty: bool = True,
    smallest_side: int = 1,
    cache: bool | Path | None = False,
    cache_limit_gb: float | None = None,
    scaled_jpeg: bool = False,
    unreadable: Unreadable = "stop",
    accumulation: int = 1,
    processes: int = 1,
    process: int = 0,
    on_gpu: bool | None = None,
) -> DataLoader[Batch]:
    config = DataConfig(
        workers=workers,
        cache=cache,
        cache_gb=cache_limit_gb,
        scaled_jpeg=scaled_jpeg,
        unreadable=unreadable,
        keep_empty=keep_empty,
        smallest_side=smallest_side,
    )
    plan = BatchPlan(batch_size, accumulation, seed)
    share = Processes(processes, process)
    return data.train_loader(dataset, config, augment, InputConfig(*size), plan, share, on_gpu=on_gpu)


def eval_loader(
    dataset: DetectionDataset,
    size: tuple[int, int],
    batch_size: int = 1,
    workers: int | None = None,
    *,
    processes: int = 1,
    process: int = 0,
    on_gpu: bool | None = None,
) -> DataLoader[Batch]:
    share = Processes(processes, process)
    return data.eval_loader(dataset, InputConfig(*size), batch_size, workers, share, on_gpu=on_gpu)


def small_model(side: int, flip: float = 0.5) -> AugmentConfig:
    """What the small recipe does to images, on a canvas of so many pixels."""
    return AugmentConfig((CanvasStep(side, scale=(0.7, 1.5)), FlipStep(flip), PhotometricStep(0.5)))
