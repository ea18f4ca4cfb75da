"""The command line as a person meets it: help, exit codes, one sentence an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import tood
import tood.data
from signals_at import signal_at
from tood.cli import app
from tood.errors import ToodError
from tood.models import build_model
from tood.plots import write_image
from tood.weights import save_weights
from tood.zoo import named_model, named_models

COMMANDS = ("train", "eval", "predict", "data", "models", "demo")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def subprocess_run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    source = str(Path(tood.__file__).parents[1])
    command = ["-c", code] if code else ["-m", "tood", *arguments]
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "COLUMNS": "100"},
        check=False,
    )


def children_seconds() -> float:
    """Of processors, that processes which have ended took: what others do on this machine does not count."""
    took = os.times()
    return took.children_user + took.children_system


def test_help_names_every_command_and_answers_at_once() -> None:
    before = children_seconds()
    subprocess_run(code="import typer.rich_utils")
    least = children_seconds() - before
    done = subprocess_run("--help")
    assert children_seconds() - before - least < 4 * least + 0.1, "PyTorch alone takes ten times as long as Typer"
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


def imported_by(code: str, *packages: str) -> list[str]:
    """Which of the packages a new process has imported after this code."""
    done = subprocess_run(code=f"{code}\nimport sys\nprint([m for m in {packages} if m in sys.modules])")
    return json.loads(done.stdout.splitlines()[-1].replace("'", '"'))


SLOW = ("torch", "cv2", "numpy", "matplotlib", "accelerate", "tensorboard", "sklearn", "hotcoco", "PIL")


@pytest.mark.parametrize(
    "code",
    [
        "import tood",
        "import tood.cli",
        "import tood; tood.__version__; dir(tood)",
        *(
            f"from tood.cli import app; app({arguments}, standalone_mode=False)"
            for arguments in (["--help"], ["--version"], ["train", "--help"], ["predict", "--help"], ["eval", "--help"])
        ),
    ],
)
def test_importing_and_help_do_not_import_what_is_slow(code: str) -> None:
    assert imported_by(code, *SLOW) == []


def test_a_detection_imports_nothing_that_only_training_or_evaluation_needs(tmp_path: Path) -> None:
    model = build_model(named_model("tood_tiny").config())
    save_weights(tmp_path / "tiny.safetensors", model, [f"class {i}" for i in range(model.config.classes)])
    write_image(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    arguments = ["predict", str(tmp_path / "grey.png"), "--model", str(tmp_path / "tiny.safetensors")]
    arguments += ["--threshold", "0", "--out", str(tmp_path / "out")]
    code = f"from tood.cli import app; app({arguments}, standalone_mode=False)"
    unwanted = ("matplotlib", "accelerate", "tensorboard", "sklearn", "scipy", "hotcoco", "huggingface_hub")
    ours = ("tood.data.loading", "tood.data.formats", "tood.data.check", "tood.training", "tood.evaluation")
    ours = (*ours, "tood.clusters")  # a cluster's
    assert imported_by(code, "torch", *unwanted, *ours, "torch._dynamo", "sympy") == ["torch"]
    assert (tmp_path / "out" / "grey.png").exists()


@pytest.mark.parametrize("door", [tood, tood.data])
def test_the_package_offers_what_it_names(door: ModuleType) -> None:
    assert sorted(door.__all__) == dir(door)
    for name in door.__all__:
        assert getattr(door, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'detector'"):
        _ = door.detector


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"tood {tood.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout) > 200


def test_predict_tells_what_becomes_of_bad_pictures_in_either_engine() -> None:
    told = " ".join(run("predict", "--help").stdout.split())
    assert "with exit code 2. With --engine ray it is a row" in told  # as tests/clusters/test_ray.py sees it


def test_models_are_listed() -> None:
    result = run("models")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines() if line]
    rows = {line[0]: line[1:] for line in lines if line[0] in named_models()}
    assert rows["tood_r50_fpn_1x"][:3] == ["32,200,494", "32,200,494", "210.4"]
    assert rows["tood_r50_fpn_1x"][-5:] == ["1x", "42.5", "42.7", "Apache-2.0", "download.openmmlab.com"]
    assert rows["tood_x101_dcnv2_fpn_2x"][-5:] == ["2x", "50.5", "51.1", "Apache-2.0", "drive.google.com"]
    # As published: once its blocks are merged.
    assert rows["ppyoloe_s"][:2] == ["8,084,605", "7,926,277"]
    assert rows["ppyoloe_s"][-1] == "paddledet.bj.bcebos.com"
    assert rows["atss_r101_dcnv2_fpn_2x"][-2:] == ["46.1*", "46.3*"]
    assert rows["paa_r50_fpn_2x"][-3] == "41.6***"
    assert "*** trained at one scale" in result.stdout
    assert len(rows) == len(named_models())
    assert "multiply-adds" in result.stdout


def test_models_give_exact_figures_for_programs() -> None:
    listed = json.loads(run("models", "--json").stdout)
    assert [row["name"] for row in listed] == list(named_models())
    one = json.loads(run("models", "tood_r50_fpn_1x", "--json").stdout)
    assert one in listed
    assert one["operations"] == 2 * one["multiply_adds"]
    assert one["weights"].endswith("-20e20746.pth")
    text = run("models", "tood_r50_fpn_1x").stdout
    assert f"{one['multiply_adds']:,}" in text
    assert one["weights"] in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "--data", "nowhere"], "nowhere"),
        (["train"], "none in data/coco: name yours with --data"),
        (["train", "--data", ".", "--model", "tood_tyni"], "did you mean 'tood_tiny'"),
        (["models", "tood_tyni"], "did you mean 'tood_tiny'"),
        (["train", "--data", ".", "--set", "optimiser.lr=1"], "did you mean 'optimizer'"),
        (["train", "--data", ".", "--set", "epochs"], "expected key=value"),
        (["train", "--data", ".", "--lr", "-1"], "optimizer.lr is -1.0"),
        (["train", "--data", ".", "--minutes", "0"], "minutes is 0.0"),
        (["train", "--data", ".", "--precision", "fp8"], "expected auto, fp32, bf16 or fp16"),
        (["train", "--data", ".", "--recipe", "4x"], "no recipe '4x'"),
        (["train", "--resume"], "no run to resume"),
        (["train", "--resume", "--out", "empty"], "config.yaml"),
        (["train", "--config", "none.yaml"], "none.yaml"),
        (["train", "--config", "run.yaml", "--model", "tood_tiny"], "--model cannot be given with --config"),
        (["train", "--resume", "--out", "there", "--size", "64"], "--size cannot be given with --resume"),
        (["train", "--epochs", "x"], ""),
        (["train", "--no-such-option"], ""),
        (["trian"], ""),
        (["demo", "--out", "there"], "which a run would replace"),
    ],
)
def test_what_the_person_can_mend_is_one_sentence_and_exit_code_2(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "there"):
        (tmp_path / folder).mkdir()
    (tmp_path / "there/config.yaml").touch()
    (tmp_path / "run.yaml").touch()
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert part in result.stderr
    assert "Traceback" not in result.output
    if part:
        assert result.stderr.startswith("tood: ")
        assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ToodError("the picture is missing"), 2, "tood: the picture is missing\n"),
        (KeyboardInterrupt(), 130, "tood: interrupted\n"),
        (OSError(28, "No space left on device", "x.pt"), 2, "tood: No space left on device: x.pt\n"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tood.models

    def fail() -> None:
        raise error

    monkeypatch.setattr(tood.zoo, "named_models", fail)
    result = run("models")
    assert (result.exit_code, result.stderr) == (code, text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_any_command_with_its_own_exit_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with signal_at(tood.zoo, "named_models", number):
        result = run("models")
    assert (result.exit_code, result.stdout) == (128 + number, "")
    assert result.stderr == "tood: stopped; what was not finished is removed\n"
    assert signal.getsignal(number) == before


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import tood.models

    def fail() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(tood.zoo, "named_models", fail)
    assert isinstance(run("models").exception, ValueError)


def test_of_processes_that_meet_a_mistake_one_says_it_and_the_others_leave_it_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    for rank, said in (("0", True), ("1", False)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        result = CliRunner().invoke(app, ["data", "stats", str(tmp_path / "nowhere")])
        assert result.exit_code == 2
        assert ("nowhere" in result.output) == said
        assert len(waits) == (not said)
