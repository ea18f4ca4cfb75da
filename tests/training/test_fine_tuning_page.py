"""The commands of docs/fine-tuning.md, in small: a published detector's classes go to a dataset's by name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tood.cli import app
from tood.models import build_model
from tood.weights import save_weights
from tood.weights.published import COCO_CLASSES
from tood.zoo import named_model
from training.pictures import coco_folder

PAGE = Path(__file__).parents[2] / "docs" / "fine-tuning.md"
COMMANDS = [shlex.split(line) for line in PAGE.read_text().splitlines() if line.startswith("tood ")]
NARROW = (
    *("model.backbone.width=8", "model.backbone.stem_width=8", "model.neck.width=8"),
    *("model.head.width=8", "model.head.norm_groups=2", "model.head.interactive_layers=2"),
)
OPTIONS = ["--model", "tood_r18_fpn", "--workers", "0", "--batch-size", "2", "--device", "cpu"]
OPTIONS += [f"--set={setting}" for setting in (*NARROW, "accumulation=1", "trackers=[]")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that knows COCO's classes, and pictures of a cat and a dog."""
    folder = tmp_path_factory.mktemp("page")
    config = named_model("tood_r18_fpn").config()
    head = replace(config.head, width=8, norm_groups=2, interactive_layers=2)
    backbone = replace(config.backbone, width=8, stem_width=8)
    model = build_model(replace(config, backbone=backbone, neck=replace(config.neck, width=8), head=head))
    save_weights(folder / "coco.safetensors", model, COCO_CLASSES)
    coco_folder(folder / "my_pictures")
    return folder


def in_small(command: Sequence[str], files: Path, out: Path) -> list[str]:
    known = {
        "runs/tood_r50_fpn_1x-1": str(out),
        "runs/tood_r50_fpn_1x-1/best.safetensors": str(out / "best.safetensors"),
        "my_pictures": str(files / "my_pictures"),
        "my_pictures/val2017": str(files / "my_pictures/val2017"),
        "coco.safetensors": str(files / "coco.safetensors"),
        "128": "32",
    }
    return [known.get(word, word) for word in command[1:]]


def test_the_page_s_commands_run(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for number, command in enumerate(COMMANDS):
        words = in_small(command, files, out)
        if command[1] == "train" and "--resume" not in command:
            out = tmp_path / f"run{number}"
            words += [*OPTIONS, "--out", str(out)]
        elif command[1] == "predict":
            words += ["--out", str(tmp_path / "drawn")]
        result = CliRunner().invoke(app, in_small(["tood", *words], files, out))
        assert result.exit_code == 0, f"{command}: {result.output}"
        if "--from" in command:
            assert "classes by name: all 2 kept" in " ".join(result.output.split())
    assert len(COMMANDS) == 6
