"""Optimisers: which parameters move, by what rule and at what rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tood.errors import ToodError


@dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent; the defaults are the published recipe's.

    Attributes:
        lr: peak rate.
        lr_batch: images a step that `lr` is meant for: it is multiplied by the run's own number over this one.
            Null: `lr` holds whatever the batch.
        momentum, nesterov: as in PyTorch.
        weight_decay: on everything that learns, or not on norms and biases.
        decay_norm_and_bias: whether norms' weights and all biases decay too, as published.
    """

    kind: Literal["sgd"] = "sgd"
    lr: float = 0.01
    lr_batch: int | None = 16
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True

    def __post_init__(self) -> None:
        _check(self)
        if not 0 <= self.momentum < 1:
            raise ToodError(f"optimizer.momentum is {self.momentum}: expected a number from 0 up to, but not, 1")


@dataclass(frozen=True)
class AdamWConfig:
    """Adam with decoupled weight decay.

    Attributes:
        lr, lr_batch, weight_decay, decay_norm_and_bias: as in `SGDConfig`.
        betas: decay of the first and second moment.
    """

    kind: Literal["adamw"] = "adamw"
    lr: float = 1e-3
    lr_batch: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    decay_norm_and_bias: bool = False

    def __post_init__(self) -> None:
        _check(self)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ToodError(f"optimizer.betas is {self.betas}: expected two numbers from 0 up to, but not, 1")


def _check(config: SGDConfig | AdamWConfig) -> None:
    if not 0 < config.lr < float("inf"):
        raise ToodError(f"optimizer.lr is {config.lr}: expected a number above 0")
    if config.lr_batch is not None and config.lr_batch < 1:
        raise ToodError(f"optimizer.lr_batch is {config.lr_batch}: expected 1 or more images, or null")
    if config.weight_decay < 0:
        raise ToodError(f"optimizer.weight_decay is {config.weight_decay}: expected 0 or more")


def scaled_rate(config: SGDConfig | AdamWConfig, images_per_step: int) -> float:
    """The peak rate for so many images a step (linear scaling, Goyal et al. 2017)."""
    return config.lr if config.lr_batch is None else config.lr * images_per_step / config.lr_batch


def build_optimizer(config: SGDConfig | AdamWConfig, model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """The optimiser over the parameters that learn, at the peak rate."""
    groups = parameter_groups(model, config.weight_decay, config.decay_norm_and_bias)
    if isinstance(config, SGDConfig):
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.nesterov)
    return torch.optim.AdamW(groups, lr=rate, betas=config.betas)


def parameter_groups(model: nn.Module, weight_decay: float, decay_norm_and_bias: bool) -> list[dict[str, Any]]:
    """Parameters that learn, in groups of one weight decay each.

    Vectors and scalars (norms' weights, biases, box scales) are what `decay_norm_and_bias` speaks of.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_norm_and_bias:
        return [{"params": learning, "weight_decay": weight_decay}]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
