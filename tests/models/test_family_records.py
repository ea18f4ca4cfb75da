"""The records of the families, and what their parts answer for themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import nn

from tood.configuration import apply_overrides, from_dict, to_dict
from tood.errors import ToodError
from tood.models import FAMILIES, AnyModelConfig, Family, build_model, for_inference
from tood.models.backbones import ResNet, ResNetConfig
from tood.models.common.published import named
from tood.ops import CannotFuse
from tood.training import RunConfig
from tood.training.optim import parameter_groups
from tood.weights import imagenet_weights
from tood.zoo import named_models


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_record_is_all_that_is_known_of_a_family(family: Family[Any]) -> None:
    config = family.config()
    with torch.device("meta"):
        model = build_model(config)
    assert model.config == config
    assert from_dict(AnyModelConfig, to_dict(config)) == config
    assert family.weights.matches(set(model.state_dict()))
    assert all(named(model.state_dict(), [pattern]) for pattern in family.weights.CLASSIFIER)
    others = [other for other in FAMILIES if other is not family]
    assert not any(other.weights.matches(set(model.state_dict())) for other in others)


def test_configurations_follow_from_the_records() -> None:
    assert set(get_args(AnyModelConfig)) == {family.config for family in FAMILIES}
    assert {type(card.config()) for card in named_models().values()} <= set(get_args(AnyModelConfig))
    with pytest.raises(ToodError, match="family"):
        from_dict(AnyModelConfig, {"family": "none"})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_stages_are_the_whole_network_from_the_image_on(family: Family[Any]) -> None:
    with torch.device("meta"):
        model = build_model(next(iter(family.examples().values())))
    stages = model.stages()
    parameters = [p for stage in stages for module in stage for p in module.parameters()]
    assert set(parameters) == set(model.parameters())
    assert len(parameters) == len(set(parameters))
    # The head at the full rate, the neck at half of it, then stage by stage down to the stem.
    groups = parameter_groups(model, 0.0, True, 0.5)
    shares = {p: group["rate_share"] for group in groups for p in group["params"]}
    for step, stage in enumerate(reversed(stages)):
        assert {shares[p] for module in stage for p in module.parameters() if p.requires_grad} == {0.5**step}
    assert len(stages) > 3
    assert shares[next(model.backbone.parameters())] == 0.5 ** (len(stages) - 1)


@pytest.mark.parametrize("frozen", [-1, 0, 1, 2])
def test_what_is_frozen_are_the_first_stages(frozen: int) -> None:
    backbone = ResNet(ResNetConfig(blocks=(1, 1), width=8, stem_width=8, outputs=(0, 1), frozen_stages=frozen))
    learning = [any(p.requires_grad for m in stage for p in m.parameters()) for stage in backbone.stages()]
    assert learning == [i > frozen for i in range(3)]


@pytest.mark.parametrize(("model", "stages"), [("tood_lite0", 7), ("tood_r18_fpn", 4)])
@pytest.mark.parametrize("too", ["few", "many"])
def test_stages_that_there_are_not_cannot_be_frozen(model: str, stages: int, too: str) -> None:
    config, frozen = named_models()[model].config(), -2 if too == "few" else stages + 1
    key = "model.backbone.frozen_stages"
    with pytest.raises(ToodError, match=f"--set: {key} is {frozen}: expected -1 .* up to {stages}, all of its stages"):
        apply_overrides(RunConfig(model=config), [f"{key}={frozen}"])
    apply_overrides(RunConfig(model=config), [f"{key}={stages}"])


def test_a_backbone_says_how_it_starts() -> None:
    config = ResNetConfig()
    assert config.from_scratch() == replace(config, frozen_stages=-1, norm_eval=False)
    assert (config.description, ResNetConfig(deformable_stages=(2,)).description) == (
        "ResNet-50",
        "ResNet-50 and DCNv2",
    )
    assert imagenet_weights(config) is not None
    assert imagenet_weights(replace(config, width=32)) is None


def test_a_family_s_own_copy_for_inference_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(replace(FAMILIES[0].config(), backbone=ResNetConfig(width=8, stem_width=8)))
    asked = []

    def own(network: nn.Module, dtype: torch.dtype) -> nn.Module:
        asked.append(dtype)
        raise CannotFuse

    family = replace(FAMILIES[0], copy_for_inference=own)
    monkeypatch.setattr("tood.models.families.FAMILIES", (family, *FAMILIES[1:]))
    assert for_inference(model, torch.bfloat16) is model
    assert asked == [torch.bfloat16]
