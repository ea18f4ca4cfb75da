"""What happens to runs in days: killed processes, full disks, files that change; and nothing of it loses the run."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.interruptions import NARROW_SETTINGS
from rich.console import Console
from typer.testing import CliRunner

import tood
from tood.cli import app
from tood.data.transforms import AugmentConfig
from tood.errors import ToodError
from tood.training import CONFIG, RunConfig, train
from tood.training.checkpoint import CHECKPOINT, newest_checkpoint, read_checkpoint, write_checkpoint
from tood.training.loop import Trainer
from training.fakes import FakeScores, plain, squares_loader, tiny_run, tiny_trainer
from training.pictures import coco_folder

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence_and_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    sets = " ".join(f"--set {setting}" for setting in (*NARROW_SETTINGS, "trackers=[]", "checkpoint_minutes=0"))
    options = f"--model tood_tiny --data '{data}' --size 32 --workers 0 --batch-size 2 --device cpu --epochs 3 {sets}"
    # The first checkpoint takes 1.1 MB, the second one no longer fits beside it.
    script = (
        f"mount -t tmpfs -o size=1900k tmpfs '{disk}' || exit 77;"
        f" {sys.executable} -m tood train {options} --out '{disk}/run' > '{tmp_path}/said' 2>&1;"
        f" code=$?; cp -r '{disk}/run' '{kept}'; exit $code"
    )
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run([*namespace, "sh", "-c", script], env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode in (1, 77) and not kept.exists():
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    said = (tmp_path / "said").read_text()
    assert done.returncode == 2, said
    assert "No space left on device" in said.splitlines()[-1], said
    assert "Traceback" not in said
    assert read_checkpoint(kept)["position"]["step"] >= 1
    assert not list(kept.glob(".*")), "nothing half-written is left"


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    for step in range(3):
        write_checkpoint(tmp_path, {"step": step}, keep=3)
    path = tmp_path / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    path.write_bytes(content)
    assert read_checkpoint(tmp_path)["step"] == 1
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1].name == "checkpoint-000002.pt"


@pytest.mark.parametrize("where", ["loader", "evaluation", "numbers"])
def test_an_error_leaves_a_checkpoint_of_the_last_good_state(tmp_path: Path, where: str) -> None:
    config = replace(tiny_run(tmp_path / "run"), epochs=2)
    fails = [True]

    def evaluate(model: object) -> FakeScores:
        if where == "evaluation" and fails[0]:
            raise ToodError("picture9.png cannot be read")
        return FakeScores(0.5)

    whole = tiny_trainer(replace(config, out=tmp_path / "whole"), lambda model: FakeScores(0.5))
    whole.run()
    first = tiny_trainer(config, evaluate)
    if where == "loader":
        break_at(first, "_loaded", 4)
    if where == "numbers":
        poison(first, {4})
    with pytest.raises(ToodError):
        first.run()
    assert read_checkpoint(tmp_path / "run")["position"]["step"] == 3
    fails[0] = False
    second = tiny_trainer(config, evaluate)
    second.load_state_dict(read_checkpoint(tmp_path / "run"))
    result = second.run()
    assert result.steps == 6
    assert result.best_ap == 0.5
    assert second.position.evaluations == whole.position.evaluations
    for name, value in whole.learner.state_dict()["model"].items():
        assert torch.equal(value, second.learner.state_dict()["model"][name]), name


def break_at(trainer: Trainer, method: str, count: int) -> None:
    """The loader gives an error instead of the batch of this number."""
    normal, seen = getattr(trainer, method), []

    def broken(batches: object) -> object:
        for batch in normal(batches):
            seen.append(batch)
            if len(seen) == count:
                raise ToodError("picture9.png cannot be read")
            yield batch

    setattr(trainer, method, broken)


def poison(trainer: Trainer, steps: set[int]) -> None:
    """The gradients of these steps are no numbers."""
    normal: Callable[..., None] = trainer.learner._limit_gradient

    def poisoned(batches: object, number: int) -> None:
        if number in steps:
            next(p for p in trainer.learner.model.parameters() if p.grad is not None).grad.fill_(float("inf"))
        normal(batches, number)

    trainer.learner._limit_gradient = poisoned  # type: ignore[method-assign]


@pytest.mark.parametrize("clip", [None, 10.0])
def test_a_gradient_that_is_no_number_is_skipped_on_request(tmp_path: Path, clip: float | None) -> None:
    config = replace(plain(tiny_run(tmp_path)), not_finite="skip", clip_gradient=clip)
    trainer = tiny_trainer(config)
    before = {name: value.clone() for name, value in trainer.learner.state_dict()["model"].items()}
    said: list[str] = []
    trainer.display.say = said.append  # type: ignore[method-assign]
    poison(trainer, set(range(1, 10)) - {5})
    result = trainer.run()
    assert result.steps == 9, "a skipped step counts, so that the schedule ends where it should"
    skipped = [text for text in said if "skipped" in text]
    assert len(skipped) == 8
    assert "step 1 is skipped: the gradient (inf) is not finite at step 1, on the images picture" in skipped[0]
    weights = trainer.learner.state_dict()["model"]
    assert all(value.isfinite().all() for value in weights.values())
    assert any(not torch.equal(value, before[name]) for name, value in weights.items()), "step 5 moved them"


def test_weights_that_have_gone_are_not_skipped_for_ever(tmp_path: Path) -> None:
    trainer = tiny_trainer(replace(plain(tiny_run(tmp_path)), not_finite="skip", epochs=20))
    poison(trainer, set(range(5, 100)))
    with pytest.raises(ToodError, match=r"the gradient .* is not finite at step 15"):
        trainer.run()


def test_the_same_command_begins_goes_on_and_is_done(tmp_path: Path) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    command = ["train", "--model", "tood_tiny", "--data", str(data), "--size", "32", "--workers", "0"]
    command += ["--batch-size", "2", "--device", "cpu", "--precision", "fp32", "--epochs", "2"]
    command += [f"--set={setting}" for setting in NARROW_SETTINGS]
    unnamed = CliRunner().invoke(app, [*command, "--resume", "auto"])
    assert unnamed.exit_code == 2
    assert "give --out FOLDER" in unnamed.output
    command += ["--out", str(out)]
    run = lambda *more: CliRunner().invoke(app, [*command, *more])  # noqa: E731
    first = run("--resume", "auto")
    assert first.exit_code == 0, first.output
    assert "resuming" not in first.output
    again = run("--resume", "auto")
    assert again.exit_code == 0, again.output
    assert "resuming at epoch 3, step 6" in again.output
    longer = run("--resume", "auto", "--epochs", "3")
    assert longer.exit_code == 0, longer.output
    assert read_checkpoint(out)["position"]["step"] == 9
    bare = CliRunner().invoke(app, ["train", "--out", str(out), "--resume"])
    assert bare.exit_code == 2
    assert "is complete" in bare.output


def test_annotations_that_change_are_noticed_when_the_run_goes_on(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    config = one_epoch(data, tmp_path / "run")
    train(config)
    annotations = data / "annotations/instances_train2017.json"
    annotations.write_text(annotations.read_text().replace('"category_id": 3', '"category_id": 7', 1))
    said = tell(replace(config, epochs=2))
    assert "the training images or their boxes are not those that the run began with" in said
    assert "not those that the run began with" not in tell(replace(config, epochs=3)), "they are now"


def one_epoch(data: Path, out: Path) -> RunConfig:
    run = tiny_run(out)
    small = AugmentConfig(size=(32, 32), canvas=32)
    return replace(run, data=replace(run.data, path=str(data), workers=0), augment=small, epochs=1)


def tell(config: RunConfig) -> str:
    said = io.StringIO()
    train(config, resume=True, console=Console(file=said, width=400))
    return said.getvalue()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    config = one_epoch(data, tmp_path / "run")
    train(config)
    left = tmp_path / "run/.checkpoint.4711.tmp.pt"
    left.write_bytes(b"half of it")
    train(replace(config, epochs=2), resume=True)
    assert not left.exists()


def test_a_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    config = one_epoch(data, tmp_path / "run")
    train(config)
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    (tmp_path / "run" / CHECKPOINT).unlink()
    assert (tmp_path / "run" / CONFIG).exists()
    assert train(config, resume="auto").steps == 3


def test_a_run_ends_early_when_its_ap_no_longer_rises(tmp_path: Path) -> None:
    scores = iter([0.3, 0.4, 0.4, 0.35, 0.9])
    config = replace(tiny_run(tmp_path), epochs=5, patience=2)
    trainer = tiny_trainer(config, lambda model: FakeScores(next(scores)), squares_loader(batch_size=2))
    result = trainer.run()
    assert (result.epochs, result.best_ap, result.ap) == (4, 0.4, 0.35)
    again = tiny_trainer(config, lambda model: FakeScores(0.9))
    again.load_state_dict(read_checkpoint(tmp_path))
    assert again.finished


def test_a_loader_that_dies_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    command = [sys.executable, "-m", "tood", "train", "--data", str(data), "--out", str(out), "--size", "64"]
    command += ["--workers", "1", "--batch-size", "2", "--epochs", "100000", "--device", "cpu"]
    command += [
        f"--set={setting}" for setting in [*NARROW_SETTINGS, "trackers=[]", "log_every=1", "checkpoint_minutes=60"]
    ]
    run = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "metrics.csv").is_file() or (out / "metrics.csv").read_text().count("\n") < 20:
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    assert newest_checkpoint(out) is None
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    worker = next(int(child) for child in children if b"tood" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(worker, signal.SIGKILL)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 2, errors
    assert "Traceback" not in errors
    assert "data.workers" in errors.splitlines()[-1]
    assert read_checkpoint(out)["position"]["step"] >= 1


def test_a_batch_of_one_small_picture_is_refused_in_a_sentence(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    config = replace(one_epoch(data, tmp_path / "run"), batch_size=1)
    with pytest.raises(ToodError, match="a larger --size or --batch-size"):
        train(config)


def test_a_picture_that_breaks_in_epoch_3_is_skipped_on_request_or_ends_the_run(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    picture = next((data / "train2017").iterdir())
    config = one_epoch(data, tmp_path / "run")
    config = replace(config, data=replace(config.data, cache=False), epochs=2)
    train(config)
    picture.write_bytes(picture.read_bytes()[:100])
    longer = replace(config, epochs=3)
    with pytest.raises(ToodError, match=picture.name):
        train(longer, resume=True)
    assert read_checkpoint(tmp_path / "run")["position"]["step"] >= 6
    skipping = replace(longer, data=replace(longer.data, unreadable="skip"))
    assert train(skipping, resume=True).steps == 9
