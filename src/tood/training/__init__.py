"""Training: configuration of a run, recipes, the loop."""

from tood.training.config import DataConfig, RunConfig
from tood.training.ema import EMA, EMAConfig
from tood.training.input_size import BoxReport, box_report
from tood.training.optim import AdamWConfig, SGDConfig
from tood.training.recipes import RECIPES, run_config
from tood.training.run import CONFIG, Datasets, Resume, latest_run_folder, next_run_folder, open_datasets, train
from tood.training.schedule import CosineScheduleConfig, StepScheduleConfig, rate_factor
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
    "Resume",
    "RunConfig",
    "SGDConfig",
    "StepScheduleConfig",
    "TrainResult",
    "box_report",
    "latest_run_folder",
    "next_run_folder",
    "open_datasets",
    "rate_factor",
    "run_config",
    "train",
]
