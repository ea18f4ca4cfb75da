"""Training: configuration of a run, recipes, the loop."""

from tood.data import DataConfig
from tood.training.choice import RunChoice, begun_run, choose_run, with_settings
from tood.training.config import RunConfig
from tood.training.datasets import Datasets, open_datasets
from tood.training.default_model import ModelChoice, chosen_run, default_model, missing_weights
from tood.training.ema import EMA, EMAConfig
from tood.training.folder import (
    CONFIG,
    Resume,
    RunFolder,
    claimed_folder,
    latest_run_folder,
    next_run_folder,
    run_folders,
)
from tood.training.input_size import BoxReport, box_report
from tood.training.optim import AdamWConfig, SGDConfig
from tood.training.recipes import RECIPES, run_config
from tood.training.run import train
from tood.training.schedule import CosineScheduleConfig, StepScheduleConfig, StretchedCosineScheduleConfig, rate_factor
from tood.training.state import TrainResult

__all__ = [
    "CONFIG",
    "EMA",
    "RECIPES",
    "AdamWConfig",
    "BoxReport",
    "CosineScheduleConfig",
    "DataConfig",
    "Datasets",
    "EMAConfig",
    "ModelChoice",
    "Resume",
    "RunChoice",
    "RunConfig",
    "RunFolder",
    "SGDConfig",
    "StepScheduleConfig",
    "StretchedCosineScheduleConfig",
    "TrainResult",
    "begun_run",
    "box_report",
    "choose_run",
    "chosen_run",
    "claimed_folder",
    "default_model",
    "latest_run_folder",
    "missing_weights",
    "next_run_folder",
    "open_datasets",
    "rate_factor",
    "run_config",
    "run_folders",
    "train",
    "with_settings",
]
