"""Dataset formats, safe decoding, checking, converting; transforms and loading; the built-in dataset `digits`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tood.choices import ImageTransfer
    from tood.data.bench import LoadingBench, bench_loading
    from tood.data.check import CheckReport, check_dataset
    from tood.data.config import BatchPlan, DataConfig
    from tood.data.convert import ConversionReport, convert_dataset
    from tood.data.dataset import Category, DetectionDataset, ImageRecord, Problem, require_same_categories
    from tood.data.digits import DigitsConfig, SceneConfig, write_digits
    from tood.data.formats import SplitInfo, write_coco
    from tood.data.images import image_size, read_image
    from tood.data.loading import Batch, Collate, eval_loader, train_loader
    from tood.data.reading import SkippedImages, UnreadableImageError
    from tood.data.sampler import TrainBatchSampler
    from tood.data.samples import ImageInfo
    from tood.data.split import SplitReport, split_dataset
    from tood.data.splits import PickedSplits, available_splits, load_dataset, pick_splits, shared_images
    from tood.data.stats import DatasetStats, dataset_stats
    from tood.data.transforms import (
        AugmentConfig,
        CanvasStep,
        FitStep,
        FlipStep,
        MixUpStep,
        MosaicStep,
        PhotometricStep,
        Sample,
    )
    from tood.data.worker_deaths import WorkerDeaths, WorkerDiedError

__all__ = [
    "AugmentConfig",
    "Batch",
    "BatchPlan",
    "CanvasStep",
    "Category",
    "CheckReport",
    "Collate",
    "ConversionReport",
    "DataConfig",
    "DatasetStats",
    "DetectionDataset",
    "DigitsConfig",
    "FitStep",
    "FlipStep",
    "ImageInfo",
    "ImageRecord",
    "ImageTransfer",
    "LoadingBench",
    "MixUpStep",
    "MosaicStep",
    "PhotometricStep",
    "PickedSplits",
    "Problem",
    "Sample",
    "SceneConfig",
    "SkippedImages",
    "SplitInfo",
    "SplitReport",
    "TrainBatchSampler",
    "UnreadableImageError",
    "WorkerDeaths",
    "WorkerDiedError",
    "available_splits",
    "bench_loading",
    "check_dataset",
    "convert_dataset",
    "dataset_stats",
    "eval_loader",
    "image_size",
    "load_dataset",
    "pick_splits",
    "read_image",
    "require_same_categories",
    "shared_images",
    "split_dataset",
    "train_loader",
    "write_coco",
    "write_digits",
]

# A detection needs pictures alone: what datasets need is imported when it is first asked for.
_ROOMS = {
    "AugmentConfig": "tood.data.transforms",
    "Batch": "tood.data.loading",
    "BatchPlan": "tood.data.config",
    "CanvasStep": "tood.data.transforms",
    "Category": "tood.data.dataset",
    "CheckReport": "tood.data.check",
    "Collate": "tood.data.loading",
    "ConversionReport": "tood.data.convert",
    "DataConfig": "tood.data.config",
    "DatasetStats": "tood.data.stats",
    "DetectionDataset": "tood.data.dataset",
    "DigitsConfig": "tood.data.digits",
    "FitStep": "tood.data.transforms",
    "FlipStep": "tood.data.transforms",
    "ImageInfo": "tood.data.samples",
    "ImageRecord": "tood.data.dataset",
    "ImageTransfer": "tood.choices",
    "LoadingBench": "tood.data.bench",
    "MixUpStep": "tood.data.transforms",
    "MosaicStep": "tood.data.transforms",
    "PhotometricStep": "tood.data.transforms",
    "PickedSplits": "tood.data.splits",
    "Problem": "tood.data.dataset",
    "Sample": "tood.data.transforms",
    "SceneConfig": "tood.data.digits",
    "SkippedImages": "tood.data.reading",
    "SplitInfo": "tood.data.formats",
    "SplitReport": "tood.data.split",
    "TrainBatchSampler": "tood.data.sampler",
    "UnreadableImageError": "tood.data.reading",
    "WorkerDeaths": "tood.data.worker_deaths",
    "WorkerDiedError": "tood.data.worker_deaths",
    "available_splits": "tood.data.splits",
    "bench_loading": "tood.data.bench",
    "check_dataset": "tood.data.check",
    "convert_dataset": "tood.data.convert",
    "dataset_stats": "tood.data.stats",
    "eval_loader": "tood.data.loading",
    "image_size": "tood.data.images",
    "load_dataset": "tood.data.splits",
    "pick_splits": "tood.data.splits",
    "read_image": "tood.data.images",
    "require_same_categories": "tood.data.dataset",
    "shared_images": "tood.data.splits",
    "split_dataset": "tood.data.split",
    "train_loader": "tood.data.loading",
    "write_coco": "tood.data.formats",
    "write_digits": "tood.data.digits",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'tood.data' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
