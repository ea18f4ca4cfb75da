"""The commands of docs/fine-tuning.md, in small: a published detector's classes go to a dataset's by name."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tood import configuration
from tood.cli import app
from tood.models import build_model
from tood.training import RunConfig
from tood.weights import save_weights
from tood.weights.published import COCO_CLASSES
from tood.zoo import named_model
from training.pictures import coco_folder

PAGE = Path(__file__).parents[2] / "docs" / "fine-tuning.md"
COMMANDS = [shlex.split(line) for line in PAGE.read_text().splitlines() if line.startswith("tood ")]
# Nothing but what makes a run small.
OPTIONS = ["--workers", "0", "--batch-size", "2", "--device", "cpu", "--set=accumulation=1", "--set=trackers=[]"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a detector that knows COCO's classes, and pictures of a cat and a dog."""
    monkeypatch.chdir(tmp_path)
    save_weights(Path("coco.safetensors"), build_model(named_model("tood_r18_fpn").config()), COCO_CLASSES)
    coco_folder(Path("my_pictures"))
    return tmp_path


def in_small(word: str) -> str:
    return "64" if word == "640" else word.replace("tood_r50_fpn_1x", "tood_r18_fpn")


@pytest.mark.usefixtures("desk")
def test_the_page_s_commands_run() -> None:
    runs: list[RunConfig] = []
    for command in COMMANDS:
        begins = "--from" in command
        words = [in_small(word) for word in command[1:]]
        result = CliRunner().invoke(app, [*words, *(OPTIONS if begins else ())])
        told = " ".join(result.output.split())
        assert result.exit_code == 0, f"{command}: {told}"
        if begins:
            assert "model: tood_r18_fpn was chosen, as coco.safetensors is of it" in told
            assert "classes by name: all 2 kept" in told
            runs.append(configuration.load(f"runs/tood_r18_fpn-{len(runs) + 1}/config.yaml", RunConfig))
            assert ("6 training pictures are few (fewer than 5,000)" in told) == ("--recipe" not in command)
    assert len(COMMANDS) == 6
    assert [(run.recipe, run.optimizer.lr) for run in runs] == [("transfer", 2e-4), ("transfer", 2e-4), ("1x", 0.001)]
    assert [run.freeze for run in runs] == [(), ("backbone", "neck"), ()]
