"""ATSS, GFL and PAA as named models: their sizes, the names of their published tensors, whose files are whose."""

from __future__ import annotations

import gzip
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from golden_values import FOLDER
from tood.models import FAMILIES, build_model
from tood.models.common.published import Hints
from tood.models.measure import measure
from tood.training import run_config
from tood.zoo import named_model

# Card, list of names, parameters, those that learn, 10^9 multiply-adds at 800 x 1280 (as MMDetection counts them).
TABLE = {
    "atss_r50_fpn_1x": ("atss_r50", 32_295_322, 32_069_978, 204.487),
    "atss_r101_fpn_1x": ("atss_r101", 51_287_450, 51_062_106, 280.246),
    "atss_r101_fpn_2x": ("atss_r101", 51_287_450, 51_062_106, 280.246),
    "atss_r101_dcnv2_fpn_2x": ("atss_r101_dcn_c3-c5", 53_216_708, 52_991_364, 288.333),
    "atss_x101_fpn_2x": ("atss_x101_64x4d", 90_193_562, 89_790_810, 436.55),
    "atss_x101_dcnv2_fpn_2x": ("atss_x101_64x4d_dcn_c3-c5", 97_908_164, 97_505_412, 468.898),
    "gfl_r50_fpn_1x": ("gfl_r50", 32_440_537, 32_215_193, 207.583),
    "gfl_r50_fpn_2x": ("gfl_r50", 32_440_537, 32_215_193, 207.583),
    "gfl_r101_fpn_2x": ("gfl_r101", 51_432_665, 51_207_321, 283.342),
    "gfl_r101_dcnv2_fpn_2x": ("gfl_r101_dcn_c3-c5", 53_361_923, 53_136_579, 291.429),
    "gfl_x101_fpn_2x": ("gfl_x101_32x4d", 51_061_209, 50_845_849, 286.783),
    "gfl_x101_dcnv2_fpn_2x": ("gfl_x101_32x4d_dcn_c4-c5", 54_669_975, 54_454_615, 298.976),
    "paa_r50_fpn_1x": ("paa_r50", 32_295_322, 32_069_978, 204.487),
    "paa_r50_fpn_1.5x": ("paa_r50", 32_295_322, 32_069_978, 204.487),
    "paa_r50_fpn_2x": ("paa_r50", 32_295_322, 32_069_978, 204.487),
    "paa_r50_fpn_3x": ("paa_r50", 32_295_322, 32_069_978, 204.487),
    "paa_r101_fpn_1x": ("paa_r101", 51_287_450, 51_062_106, 280.246),
    "paa_r101_fpn_2x": ("paa_r101", 51_287_450, 51_062_106, 280.246),
    "paa_r101_fpn_3x": ("paa_r101", 51_287_450, 51_062_106, 280.246),
    "paa_r101_dcnv2_fpn_2x": ("paa_r101_dcn_c3-c5", 53_216_708, 52_991_364, 288.333),
    "paa_x101_fpn_2x": ("paa_x101_64x4d", 90_193_562, 89_790_810, 436.55),
    "paa_x101_dcnv2_fpn_2x": ("paa_x101_64x4d_dcn_c3-c5", 97_908_164, 97_505_412, 468.898),
}
NETWORKS = {listed: name for name, (listed, *_) in TABLE.items()}
RECORDS = {family.name: family for family in FAMILIES}


def weights_of(name: str) -> Any:
    return RECORDS[name.partition("_")[0]].weights


@pytest.mark.parametrize("name", NETWORKS.values())
def test_sizes_are_the_published_ones(name: str) -> None:
    _, parameters, trainable, multiply_adds = TABLE[name]
    cost = measure(named_model(name).config())
    assert (cost.parameters, cost.trainable) == (parameters, trainable)
    height, width = cost.size
    assert cost.multiply_adds * 800 * 1280 / (height * width) / 1e9 == pytest.approx(multiply_adds, rel=2e-2)


@pytest.mark.parametrize("listed", NETWORKS)
def test_every_published_tensor_has_its_place_and_none_is_left_over(listed: str) -> None:
    name = NETWORKS[listed]
    weights, config = weights_of(name), named_model(name).config()
    with torch.device("meta"):
        model = build_model(config)
    state = model.state_dict()
    published = weights.to_published(state)
    text = gzip.decompress((FOLDER / f"state_dict_names/baselines/{listed}.tsv.gz").read_bytes()).decode()
    rows = [line.split("\t") for line in text.splitlines()]
    shapes = {row[0]: tuple(int(side) for side in re.findall(r"\d+", row[1])) for row in rows}
    # What counts the batches that a BatchNorm saw is in every state dict, and no network depends on it.
    found = {key: tuple(tensor.shape) for key, tensor in published.items()}
    assert found == {key: found[key] if key.endswith("num_batches_tracked") else shapes[key] for key in shapes}
    again = weights.from_published(published)
    assert again.keys() == state.keys()
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(weights.from_published({row[0]: published[row[0]] for row in rows if row[2] == "1"})) == learning
    inferred = weights.infer_config(again, Hints())
    assert inferred == replace(config, input=inferred.input)


def test_cards_are_of_one_network_where_they_have_one_list_of_names() -> None:
    configs = {name: named_model(name).config() for name in TABLE}
    for one, other in itertools.combinations(TABLE, 2):
        assert (configs[one] == configs[other]) == (TABLE[one][0] == TABLE[other][0]), (one, other)


@pytest.mark.parametrize("name", TABLE)
def test_cards_say_how_they_were_trained(name: str) -> None:
    card, run = named_model(name), run_config(name)
    assert name.endswith(f"_{card.recipe}")
    assert run.epochs == {"1x": 12, "1.5x": 18, "2x": 24, "3x": 36}[card.recipe]
    assert type(run.criterion) is RECORDS[run.model.family].criteria[0]
    assert card.published_ap is not None
    assert card.weights is None or card.weights.licence == "Apache-2.0"


@pytest.mark.parametrize("family", ["atss", "gfl", "paa"])
def test_tiny_models_have_tood_s_budget(family: str) -> None:
    tiny, ours = (measure(named_model(f"{name}_tiny").config()) for name in (family, "tood"))
    assert tiny.size == ours.size
    assert tiny.multiply_adds == pytest.approx(ours.multiply_adds, rel=0.1)
    assert tiny.parameters == pytest.approx(ours.parameters, rel=0.1)


def test_every_card_that_has_a_file_has_one_of_its_own_in_its_family_s_folder() -> None:
    hosted = {name for name in TABLE if named_model(name).weights is not None}
    assert len({named_model(name).weights.hosted.url for name in hosted}) == len(hosted) == 15  # type: ignore[union-attr]
    assert {Path(named_model(name).weights.hosted.url).parts[-3] for name in hosted} == {"atss", "gfl", "paa"}  # type: ignore[union-attr]
