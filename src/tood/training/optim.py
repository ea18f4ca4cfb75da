"""Optimisers: which parameters move, by what rule and at what rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tood.errors import SettingError
from tood.models import DenseDetector


@dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent; the defaults are the published recipe's.

    Attributes:
        lr: peak rate.
        lr_batch: images a step that the recipe is meant for: as many batches make a step as come nearest to it, and
            `lr` is multiplied by the run's own number over this one. Null: neither; `lr` holds whatever the batch, and
            a batch is a step unless `accumulation` says otherwise.
        scale_lr: whether `lr` is multiplied so; false takes it as it is, in steps of as many batches.
        momentum, nesterov: as in PyTorch.
        weight_decay: on everything that learns, or not on norms and biases.
        decay_norm_and_bias: whether norms' weights and all biases decay too, as published.
        decay_norm: whether norms' weights and biases are among them, or only other biases (PP-YOLOE).
        layer_decay: factor of the rate from each stage to the one before it: the head learns at the full rate, the
            neck at `layer_decay` times it, the backbone's last stage at its square, and so on down to the stem.
    """

    kind: Literal["sgd"] = "sgd"
    lr: float = 0.01
    lr_batch: int | None = 16
    scale_lr: bool = True
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True
    layer_decay: float = 1.0
    decay_norm: bool = True

    def __post_init__(self) -> None:
        _check(self)
        if not 0 <= self.momentum < 1:
            raise SettingError("optimizer.momentum", f"is {self.momentum}: expected a number from 0 up to, but not, 1")


@dataclass(frozen=True)
class AdamWConfig:
    """Adam with decoupled weight decay.

    Attributes:
        lr, lr_batch, scale_lr, weight_decay, decay_norm_and_bias, layer_decay, decay_norm: as in `SGDConfig`.
        betas: decay of the first and second moment.
    """

    kind: Literal["adamw"] = "adamw"
    lr: float = 1e-3
    lr_batch: int | None = None
    scale_lr: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    decay_norm_and_bias: bool = False
    layer_decay: float = 1.0
    decay_norm: bool = True

    def __post_init__(self) -> None:
        _check(self)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise SettingError("optimizer.betas", f"is {self.betas}: expected two numbers from 0 up to, but not, 1")


def _check(config: SGDConfig | AdamWConfig) -> None:
    if not 0 < config.lr < float("inf"):
        raise SettingError("optimizer.lr", f"is {config.lr}: expected a number above 0")
    if config.lr_batch is not None and config.lr_batch < 1:
        raise SettingError("optimizer.lr_batch", f"is {config.lr_batch}: expected 1 or more images, or null")
    if config.weight_decay < 0:
        raise SettingError("optimizer.weight_decay", f"is {config.weight_decay}: expected 0 or more")
    if not 0 < config.layer_decay <= 1:
        raise SettingError("optimizer.layer_decay", f"is {config.layer_decay}: expected a number above 0, at most 1")


def scaled_rate(config: SGDConfig | AdamWConfig, images_per_step: int) -> float:
    """The peak rate for so many images a step (linear scaling, Goyal et al. 2017)."""
    if config.lr_batch is None or not config.scale_lr:
        return config.lr
    return config.lr * images_per_step / config.lr_batch


def build_optimizer(config: SGDConfig | AdamWConfig, model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """The optimiser over the parameters that learn, at the peak rate."""
    groups = parameter_groups(
        model, config.weight_decay, config.decay_norm_and_bias, config.layer_decay, config.decay_norm
    )
    # One pass over weights, gradients and momenta instead of one for each operation; and a device leaves it out by
    # itself where `found_inf` says so.
    fused = not any(parameter.is_meta for group in groups for parameter in group["params"])
    if isinstance(config, SGDConfig):
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            groups, lr=rate, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=config.betas, fused=fused)
    set_rate(optimizer, rate)
    return optimizer


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Takes up a saved optimiser's state, laid out in memory as the weights are now: fused steps count on it.

    Raises:
        RuntimeError, ValueError, KeyError: if it is of other parameters.
    """
    fused = [group.get("fused") for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, was in zip(optimizer.param_groups, fused, strict=True):
        group["fused"] = was
        for parameter in group["params"]:
            own = optimizer.state[parameter]
            for name, value in own.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    own[name] = torch.empty_like(parameter).copy_(value)
                elif isinstance(value, Tensor) and was:
                    own[name] = value.to(parameter.device)  # steps that another device's optimiser has counted


def inner_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's own optimiser, without what Accelerate wraps around it."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def start_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Momenta of zero where SGD has none yet: a first step that is left out would leave them whatever memory held."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the head; stages before it get their share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_share"]


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    decay_norm_and_bias: bool,
    layer_decay: float = 1.0,
    decay_norm: bool = True,
) -> list[dict[str, Any]]:
    """Parameters that learn, in groups of one weight decay and one `rate_share` each.

    Vectors and scalars (norms' weights, biases, box scales) are what `decay_norm_and_bias` speaks of; those of
    BatchNorms and GroupNorms what `decay_norm` takes away.
    """
    norms = (module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm))
    spared = set() if decay_norm else {parameter for norm in norms for parameter in norm.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    steps = {} if layer_decay == 1 else _steps_from_head(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            decays = (decay_norm_and_bias or parameter.ndim > 1) and parameter not in spared
            share = 1.0 if layer_decay == 1 else layer_decay ** steps[parameter]
            groups.setdefault((weight_decay if decays else 0.0, share), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_share": share}
        for (decay, share), parameters in groups.items()
    ]


def _steps_from_head(model: nn.Module) -> dict[nn.Parameter, int]:
    """0 of the head's parameters, 1 of the neck's, 2 of those in the backbone's last stage, and so on to its stem."""
    assert isinstance(model, DenseDetector)
    stages = reversed(model.stages())
    return {p: step for step, stage in enumerate(stages) for module in stage for p in module.parameters()}
