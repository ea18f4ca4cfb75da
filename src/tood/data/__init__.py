"""Dataset formats, safe decoding, checking, converting; transforms and loading; the built-in dataset `digits`."""

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
from tood.data.splits import PickedSplits, available_splits, load_dataset, pick_splits
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
    "split_dataset",
    "train_loader",
    "write_coco",
    "write_digits",
]
