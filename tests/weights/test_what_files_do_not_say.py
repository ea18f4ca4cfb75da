"""What files of weights neither say nor show: kept by our exports, else told at import; whom a layout is for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from golden_values import FOLDER
from narrow_models import EXAMPLES, NARROW_ATSS, NARROW_PAA, lively
from tood.cli import app
from tood.input import InputConfig
from tood.models import AnyModelConfig, build_model
from tood.models.atss.weights import to_published
from tood.models.necks import CSPPANConfig
from tood.models.ppyoloe import PPYOLOEConfig
from tood.weights import load_detector_file, load_weights, read_weights_file, save_weights
from tood.weights.model_file import initialise

CLASSES = tuple("abcdefg")


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["weights", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def saved(config: AnyModelConfig, path: Path) -> Path:
    save_weights(path, lively(build_model(config)), CLASSES)
    return path


def test_a_pdparams_of_ours_comes_back_as_the_network_that_it_was(tmp_path: Path) -> None:
    """Its blocks weigh their branches, which PP-YOLOE+ does on another input."""
    config = replace(EXAMPLES["ppyoloe-plain"], input=InputConfig(short=64, long=96))
    ours = saved(config, tmp_path / "ours.safetensors")
    command("export", ours, tmp_path / "x.pdparams")
    told = command("import", tmp_path / "x.pdparams", tmp_path / "again.safetensors")
    assert "input is assumed" not in told
    model, names = load_weights(tmp_path / "again.safetensors")
    assert (model.config, names) == (config, CLASSES)
    wanted = load_weights(ours)[0].state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_an_input_that_is_assumed_is_told(tmp_path: Path) -> None:
    file, out = FOLDER / "ppyoloe_plus.pdparams", tmp_path / "x.safetensors"
    told = command("import", file, out)
    assert "its input is assumed, as no tensor shows it: 640 x 640 pixels (stretch, cubic), rgb, mean 0 0 0" in told
    assert "input is assumed" not in command("import", file, out, "--force", "--set", "input.fit=letterbox")
    assert load_weights(out)[0].config.input.fit == "letterbox"


@pytest.mark.parametrize("name", ["yolox-pai", "yolox-depthwise"])
def test_parts_of_yolox_pai_are_written_as_the_code_that_has_them_reads_them(name: str, tmp_path: Path) -> None:
    ours, out = saved(EXAMPLES[name], tmp_path / "ours.safetensors"), tmp_path / "x.pth"
    assert "in the layout 'easycv'" in command("export", ours, out)
    written = read_weights_file(out).tensors
    assert "head.cls_preds.0.weight" in written
    assert not any(key.startswith(("neck.", "head.interactive", "backbone.stem.")) for key in written)
    refused = CliRunner().invoke(app, ["weights", "export", str(ours), str(tmp_path / "y.pth"), "--layout", "mmdet"])
    assert refused.exit_code == 2
    assert "choose easycv" in refused.output
    assert not (tmp_path / "y.pth").exists()


def test_a_file_s_name_tells_a_paa_whose_tensors_are_called_as_an_atss_s(tmp_path: Path) -> None:
    state = to_published(lively(build_model(NARROW_ATSS)).state_dict())
    for name in ("paa_r50_fpn_1x_coco_20200821.pth", "weights.pth", "atss_or_paa.pth", "gfl_r50.pth"):
        torch.save({"state_dict": state}, tmp_path / name)
    paa = load_detector_file(tmp_path / "paa_r50_fpn_1x_coco_20200821.pth")[0].config
    assert (paa.family, paa.postprocess) == ("paa", NARROW_PAA.postprocess)
    for name in ("weights.pth", "atss_or_paa.pth", "gfl_r50.pth"):
        assert load_detector_file(tmp_path / name)[0].config.family == "atss"
    told = command("import", tmp_path / "weights.pth", tmp_path / "a.safetensors")
    assert told.startswith("wrote")
    assert "an atss with ResNet" in told
    assert "its tensors do not tell an atss from a paa" in told
    told = command("import", tmp_path / "paa_r50_fpn_1x_coco_20200821.pth", tmp_path / "b.safetensors")
    assert "do not tell" not in told


def test_a_classifier_on_four_levels_starts_by_class_names(tmp_path: Path) -> None:
    plain = EXAMPLES["ppyoloe-plain"]
    assert isinstance(plain, PPYOLOEConfig)
    config = replace(
        plain,
        backbone=replace(plain.backbone, widths=(8, 8, 12, 16, 20), blocks=(1, 1, 1, 1), outputs=(0, 1, 2, 3)),
        neck=CSPPANConfig(widths=(8, 8, 12, 16), blocks=1),
    )
    path = saved(config, tmp_path / "four.safetensors")
    known = load_weights(path)[0].state_dict()
    model = build_model(replace(config, classes=3))
    told = initialise(model, read_weights_file(path), ("b", "new", "g"))
    assert "2 of 3 kept (b, g)" in told
    for level in range(4):
        name = f"head.classifiers.{level}.weight"
        assert torch.equal(model.state_dict()[name][[0, 2]], known[name][[1, 6]])


def test_bins_that_are_none_of_ours_are_refused(tmp_path: Path) -> None:
    ours = saved(EXAMPLES["ppyoloe-plain"], tmp_path / "ours.safetensors")
    command("export", ours, tmp_path / "x.pth")
    written = torch.load(tmp_path / "x.pth", weights_only=True)
    name = "yolo_head.proj_conv.weight"
    assert written["state_dict"][name].flatten().tolist() == [0, 1, 2, 3, 4]
    for change, exit_code in ((1.0, 2), (1e-5, 0)):  # the latter as an average of weights is rounded
        torch.save(
            {"state_dict": written["state_dict"] | {name: written["state_dict"][name] + change}}, tmp_path / "y.pth"
        )
        result = CliRunner().invoke(
            app, ["weights", "import", str(tmp_path / "y.pth"), str(tmp_path / "z.safetensors")]
        )
        assert result.exit_code == exit_code, result.output
        assert exit_code == 0 or ("y.pth" in result.output and "other places" in " ".join(result.output.split()))
