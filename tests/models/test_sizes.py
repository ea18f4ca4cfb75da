"""Sizes of backbones, necks and heads that cannot be are told in one sentence before anything is built of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tood.configuration import apply_overrides
from tood.errors import ToodError
from tood.models import FAMILIES, AnyModelConfig, build_model
from tood.models.backbones import AnyBackboneConfig, ResNetConfig
from tood.models.common.sizes import MOST_CHANNELS
from tood.models.necks import CSPPAFPNConfig, CSPPANConfig
from tood.models.tood import TOODConfig
from tood.training import RunConfig, run_config, train


def networks() -> Iterator[AnyModelConfig]:
    """Between them with every kind of backbone, neck and head."""
    yield from (replace(TOODConfig(), backbone=kind()) for kind in get_args(AnyBackboneConfig))
    yield from (replace(TOODConfig(), neck=neck) for neck in (CSPPANConfig((64,) * 3), CSPPAFPNConfig(width=64)))
    for family in FAMILIES:
        yield from family.examples().values()


def nonsense(value: Any) -> tuple[Any, ...]:
    """What a number, or a list of some, may not be anywhere (0 is a number of some layers)."""
    if isinstance(value, bool):
        return ()
    if isinstance(value, int):
        return (-2, 10**9)
    if isinstance(value, float):
        return (-1.0, 0.0, 1e9, math.inf, math.nan)
    if isinstance(value, tuple) and value and all(isinstance(item, int) for item in value):
        return ((-2, *value[1:]), (*value[:-1], 10**9), value * 30)
    return ()


@pytest.mark.parametrize("config", list(networks()), ids=lambda config: f"{config.family}-{config.backbone.kind}")
def test_a_nonsense_size_is_told_by_its_key(config: AnyModelConfig) -> None:
    for part in ("backbone", "neck", "head"):
        for field in fields(getattr(config, part)):
            for value in nonsense(getattr(getattr(config, part), field.name)):
                with pytest.raises(ToodError, match=rf"model\.{part}\.") as told, torch.device("meta"):
                    build_model(replace(config, **{part: replace(getattr(config, part), **{field.name: value})}))
                assert len(str(told.value)) < 400


@pytest.mark.parametrize("config", list(networks()), ids=lambda config: f"{config.family}-{config.backbone.kind}")
def test_a_size_of_nothing_is_told_or_built(config: AnyModelConfig) -> None:
    """Some layers may be none, such as YOLOX's trunk; all else is told, and nothing breaks."""
    for part in ("backbone", "neck", "head"):
        for field in fields(getattr(config, part)):
            value = getattr(getattr(config, part), field.name)
            if isinstance(value, int) and not isinstance(value, bool):
                told = _built(config, part, field.name, 0)
                assert told is None or f"model.{part}.{field.name}" in told


def _built(config: AnyModelConfig, part: str, name: str, value: int) -> str | None:
    """What is said of a setting, None where a network of it sees a picture."""
    try:
        changed = replace(config, **{part: replace(getattr(config, part), **{name: value})})
        with torch.device("meta"):
            build_model(changed).train()(torch.empty(1, 3, 64, 64))
    except ToodError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "setting",
    [
        *("model.backbone.width=0", "model.backbone.width=-1", "model.backbone.width=1e9", "model.backbone.width=.nan"),
        *("model.backbone.depth=0", "model.backbone.depth=-1", "model.backbone.depth=1e6"),
        *("model.backbone.outputs=[]", "model.backbone.outputs=[7]", "model.backbone.outputs=[4,2]"),
        *("model.neck.width=0", "model.neck.levels=-1", "model.head.width=-8", "model.head.interactive_layers=0"),
        *("model.head.norm_groups=0", "thaw_from=-3"),
    ],
)
def test_settings_of_the_default_model_are_told_before_a_dataset_is_looked_at(setting: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(ToodError, match=rf"^--set: {key} is .*: (this|expected) .*$"):
        apply_overrides(run_config("tood_lite0"), [setting])


def test_what_does_not_fit_together_is_told_before_a_dataset_is_looked_at(tmp_path: Path) -> None:
    settings = [f"data.path={tmp_path / 'none'}", f"out={tmp_path / 'run'}", "model.neck.levels=2"]
    with pytest.raises(ToodError, match=r"^model\.neck\.levels is 2, fewer than the 3 maps"):
        train(apply_overrides(run_config("tood_lite0"), settings))
    assert not list(tmp_path.iterdir())


def test_the_largest_published_sizes_are_far_from_the_bounds() -> None:
    config = ResNetConfig(blocks=(3, 8, 36, 3))  # ResNet-152
    assert max(config.channels) * 2 <= MOST_CHANNELS
    assert apply_overrides(RunConfig(), ["model.backbone.blocks=[3, 8, 36, 3]"]).model.backbone == config


def test_what_grows_too_wide_stage_by_stage_is_told() -> None:
    config = replace(TOODConfig(), backbone=ResNetConfig(width=MOST_CHANNELS))
    with pytest.raises(ToodError, match=r"model\.backbone, a resnet, gives maps of .* channels: make it narrower"):
        build_model(config)
