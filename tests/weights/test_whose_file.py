"""Which family a file is of: what it says of itself, else what its tensors are called, and one family alone."""

from __future__ import annotations

import json
from dataclasses import make_dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from golden_values import NARROW, golden
from narrow_models import NARROW_ATSS
from tood.errors import ToodError
from tood.models import FAMILIES, build_model
from tood.models.atss import weights as atss_weights
from tood.models.atss.family import FAMILY as ATSS
from tood.models.tood.family import FAMILY as TOOD
from tood.training.start import initialise_model
from tood.weights import load_detector_file, read_weights_file, save_weights
from tood.weights.checkpoint import Checkpoint
from tood.weights.families import family_of
from weights.published_files import CONFIG, write_checkpoint

CLASSES = [f"class {i}" for i in range(7)]
# As a family would be whose head differs from ATSS's in nothing that a name shows.
TWIN = replace(
    ATSS,
    config=make_dataclass("TwinConfig", [("family", str, "twin")]),
    weights=SimpleNamespace(
        **{name: value for name, value in vars(atss_weights).items() if not name.startswith("__")}
        | {"FRAMEWORK_TYPES": ("TwinHead", "Twin")}
    ),
)


def atss_state() -> dict[str, torch.Tensor]:
    return atss_weights.to_published(build_model(NARROW_ATSS).state_dict())


def atss_file(path: Path, config: str) -> Path:
    return write_checkpoint(path, "mmdet2", atss_state(), CLASSES, config)


@pytest.mark.parametrize(
    "config",
    [
        "model = dict(type='ATSS', bbox_head=dict(type='ATSSHead'))",
        "model = dict(type='mmdet.ATSS', bbox_head=dict(type='mmdet.ATSSHead'))",
        "model = dict(type='SingleStageDetector', bbox_head=dict(type='ATSSHead'))",
        "model = dict(type='ATSS')",
        "model = dict(bbox_head=dict(num_classes=7))",
        "optimizer = dict(type='SGD')",
        "model = dict(",
        "",
    ],
)
def test_a_file_of_one_family(tmp_path: Path, config: str) -> None:
    assert family_of(read_weights_file(atss_file(tmp_path / "a.pth", config))) is ATSS


@pytest.mark.parametrize("kind", ["dict(type='Twin', bbox_head=dict(type='TwinHead'))", "dict(type='mmdet.Twin')"])
def test_a_head_of_another_family_is_not_taken_for_the_one_whose_names_it_has(tmp_path: Path, kind: str) -> None:
    path = atss_file(tmp_path / "twin.pth", f"model = {kind}")
    with pytest.raises(ToodError, match=r"twin\.pth is no detector of a known family: its configuration says Twin"):
        load_detector_file(path)
    assert "backbone from" in initialise_model(build_model(NARROW_ATSS), str(path))


def test_the_configuration_tells_families_of_the_same_names_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tood.weights.families.FAMILIES", (*FAMILIES, TWIN))
    for kind, family in (("Twin", TWIN), ("ATSS", ATSS)):
        text = f"model = dict(type='{kind}', bbox_head=dict(type='{kind}Head'))"
        assert family_of(read_weights_file(atss_file(tmp_path / "a.pth", text))) is family
    plain = write_checkpoint(tmp_path / "plain.pth", "plain", atss_state(), CLASSES)
    for use in (load_detector_file, lambda path: initialise_model(build_model(NARROW_ATSS), str(path))):
        with pytest.raises(ToodError, match=r"plain\.pth could be of the families atss and twin .* configuration"):
            use(plain)


def test_tensors_of_two_families_are_nobody_s(tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    save_file({**atss_state(), **golden("anchor_free")["state_dict"]}, path)
    with pytest.raises(ToodError, match=r"both\.safetensors could be of the families tood and atss"):
        load_detector_file(path)


def test_our_own_metadata_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, build_model(NARROW), CLASSES)
    checkpoint = read_weights_file(path)
    framework = {"framework_config": "model = dict(bbox_head=dict(type='TwinHead'))"}
    assert family_of(replace(checkpoint, metadata={**checkpoint.metadata, **framework})) is TOOD
    # Though two families have such names.
    twin = make_dataclass("TwinConfig", [("family", str, "twin")])
    monkeypatch.setattr("tood.weights.families.FAMILIES", (replace(TOOD, config=twin), *FAMILIES))
    assert family_of(checkpoint) is TOOD


def test_a_family_of_a_later_version_is_named(tmp_path: Path) -> None:
    metadata = {"format": "tood", "config": json.dumps({"family": "twin"})}
    with pytest.raises(ToodError, match=r"a\.safetensors is of a family that this version .*'twin'.*tood, atss"):
        family_of(Checkpoint(atss_state(), None, metadata, tmp_path / "a.safetensors"))


@pytest.mark.parametrize("config", ["{", "[]", '{"family": 3}', "null"])
def test_broken_metadata_leaves_it_to_the_names(config: str) -> None:
    assert family_of(Checkpoint(atss_state(), None, {"format": "tood", "config": config})) is ATSS


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_says_what_frameworks_call_it_and_no_two_the_same(family: object) -> None:
    others = {kind for other in FAMILIES if other is not family for kind in other.weights.FRAMEWORK_TYPES}
    assert family.weights.FRAMEWORK_TYPES  # type: ignore[attr-defined]
    assert others.isdisjoint(family.weights.FRAMEWORK_TYPES)  # type: ignore[attr-defined]


def test_the_published_configuration_is_tood_s(tmp_path: Path) -> None:
    state = golden("anchor_free")["state_dict"]
    text = CONFIG.format(anchor="anchor_free", groups=8)
    assert family_of(read_weights_file(write_checkpoint(tmp_path / "a.pth", "mmdet3", state, CLASSES, text))) is TOOD
