"""Files of ATSS, GFL and PAA as MMDetection writes them: by path, by name, damaged, hostile, of another family."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from bright_square import picture, save_picture
from narrow_models import NARROW_ATSS, NARROW_GFL, NARROW_PAA, lively
from tood.cli import app
from tood.errors import ToodError
from tood.inference import Detector
from tood.models import FAMILIES, AnyModelConfig, build_model
from tood.models.common.published import PublishedFile
from tood.weights import import_weights, load_detector_file, load_weights
from tood.zoo import ModelCard, PublishedWeights, named_models
from weights.file_server import FileServer, Served
from weights.published_files import write_checkpoint

CLASSES = list("abcdefg")
NARROW: dict[str, AnyModelConfig] = {"atss": NARROW_ATSS, "gfl": NARROW_GFL, "paa": NARROW_PAA}
CONFIG = """
model = dict(
    type='{name}',
    backbone=dict(type='ResNet', depth=50, style='pytorch'),
    neck=dict(type='FPN', add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(
        type='{name}Head',
        norm_cfg=dict(type='GN', num_groups=16, requires_grad=True),
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=6)))
"""


def published(family: str) -> dict[str, Tensor]:
    record = next(record for record in FAMILIES if record.name == family)
    return record.weights.to_published(lively(build_model(NARROW[family])).state_dict(), "mmdet")


@pytest.mark.parametrize("layout", ["mmdet2", "mmdet3"])
@pytest.mark.parametrize("family", NARROW)
def test_a_file_of_mmdetection_is_the_network_that_it_says(tmp_path: Path, family: str, layout: str) -> None:
    state = published(family)
    path = write_checkpoint(tmp_path / "a.pth", layout, state, CLASSES, CONFIG.format(name=family.upper()))
    model, names = load_detector_file(path)
    assert (model.config.family, list(names)) == (family, CLASSES)
    assert (model.config.head.norm_groups, model.config.head.anchor_scale) == (16, 6.0)
    assert model.config.postprocess == NARROW[family].postprocess
    wanted = lively(build_model(NARROW[family])).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    import_weights(path, tmp_path / "ours.safetensors")
    assert load_weights(tmp_path / "ours.safetensors")[0].config == model.config


@pytest.mark.parametrize("layout", ["mmdet2", "plain"])
@pytest.mark.parametrize("family", NARROW)
def test_a_name_is_its_file(
    tmp_path: Path, server: FileServer, family: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a PAA's that says nothing of itself, though its tensors are called as an ATSS's."""
    text = CONFIG.format(name=family.upper())
    path = write_checkpoint(tmp_path / "a.pth", layout, published(family), CLASSES, text)
    name = f"{family}_r50_fpn_1x"
    served = Served(path.read_bytes())
    where = named_models()[name].weights
    assert where is not None
    assert where.hosted is not None
    weights = PublishedWeights(PublishedFile(where.hosted.url, served.sha256[:8]))
    card = ModelCard(name, lambda: NARROW[family], "1x", weights=weights)
    monkeypatch.setattr("tood.weights.locate.named_models", lambda: {**named_models(), name: card})
    monkeypatch.setenv("TOOD_WEIGHTS_MIRROR", server.address)
    server.serve(where.hosted.url.removeprefix("https://download.openmmlab.com"), served)
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    found = Detector(name, "cpu")(image)
    class_names = CLASSES if layout == "mmdet2" else [f"class {i}" for i in range(7)]
    wanted = Detector.from_model(lively(build_model(NARROW[family])), class_names, "cpu")(image)
    assert torch.equal(found.boxes, wanted.boxes)
    assert found.names == wanted.names


@pytest.mark.parametrize(
    ("family", "change", "sentence"),
    [
        ("gfl", {"bbox_head.integral.project": torch.arange(1.0, 18.0)}, "distributions are over other places"),
        ("gfl", {"bbox_head.gfl_reg.weight": torch.ones(66, 32, 3, 3)}, "does not fit a gfl"),
        ("gfl", {"bbox_head.gfl_reg.weight": torch.ones(4)}, r"head\.distribution\.weight has the shape \[4\]"),
        ("gfl", {"bbox_head.gfl_reg.weight": torch.ones(4, 32, 3, 3)}, "model.head.bins is 1"),
        ("gfl", {"bbox_head.gfl_cls.weight": torch.ones(9, 32, 3, 3)}, "names 7 classes, but its classifier knows 9"),
        ("gfl", {"bbox_head.cls_convs.0.conv.weight": None}, r"head\.classification_tower\.0\.conv\.weight is missing"),
        ("gfl", {"bbox_head.atss_centerness.weight": torch.ones(1, 32, 3, 3)}, "does not fit a gfl"),
        ("paa", {"bbox_head.atss_reg.weight": torch.ones(68, 32, 3, 3)}, "does not fit a paa"),
        ("paa", {"head.iou.weight": torch.ones(1, 32, 3, 3)}, "layouts cannot be mixed"),
        ("paa", {"neck.lateral_convs.0.conv.weight": None}, "is missing"),
    ],
)
def test_a_wrong_file_is_one_sentence(
    tmp_path: Path, family: str, change: dict[str, Tensor | None], sentence: str
) -> None:
    kept: dict[str, Any] = {name: tensor for name, tensor in (published(family) | change).items() if tensor is not None}
    path = write_checkpoint(tmp_path / "a.pth", "mmdet2", kept, CLASSES, CONFIG.format(name=family.upper()))
    with pytest.raises(ToodError, match=rf"a\.pth .*{sentence}"):
        load_detector_file(path)


class Hostile:
    """A file that would run a command if it were read as its format intends."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def test_what_is_damaged_hostile_or_of_another_family_ends_a_command_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = write_checkpoint(tmp_path / "a.pth", "mmdet2", published("gfl"), CLASSES, CONFIG.format(name="GFL"))
    content = whole.read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / f"cut{share}.pth").write_bytes(content[: int(share * len(content))])
    torch.save({"state_dict": {**published("paa"), "more": Hostile()}}, tmp_path / "hostile.pth")
    # As a head would be that nobody knows here.
    write_checkpoint(tmp_path / "other.pth", "mmdet2", published("paa"), CLASSES, CONFIG.format(name="VFNet"))
    photo = save_picture(tmp_path / "photo.jpg", picture(60, 80))
    sentences = {
        "cut0.1": "complete",
        "cut0.5": "complete",
        "cut0.99": "complete",
        "hostile": "system",
        "other": "VFNet",
    }
    for name, sentence in sentences.items():
        result = CliRunner().invoke(app, ["predict", str(photo), "--model", f"{name}.pth", "--device", "cpu"])
        assert result.exit_code == 2, result.output
        assert result.stderr.count("\n") == 1
        assert f"{name}.pth" in result.stderr
        assert sentence in result.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "runs").exists()
