"""What happens to runs in days: killed processes, full disks, files that change; and nothing of it loses the run."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.interruptions import NARROW_SETTINGS
from rich.console import Console
from typer.testing import CliRunner

import tood
from tood.cli import app
from tood.data import BatchPlan, SkippedImages, TrainBatchSampler, load_dataset
from tood.data.transforms import AugmentConfig, CanvasStep, FlipStep
from tood.errors import ToodError
from tood.evaluation import detect
from tood.models import build_model
from tood.training import CONFIG, AdamWConfig, RunConfig, train
from tood.training.checkpoint import (
    CHECKPOINT,
    DAMAGED,
    newest_checkpoint,
    parse_checkpoint,
    put_damaged_aside,
    read_checkpoint,
    write_checkpoint,
)
from tood.training.guard import NotFiniteError
from tood.training.loop import Trainer
from tood.training.resuming import TrainingImages, batch_to_go_on_with, changed_settings
from tood.weights import recorded_figures
from training.fakes import FakeScores, plain, squares_loader, tiny_model, tiny_run, tiny_trainer
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
    resumed = second.learner.state_dict()["model"]
    for name, value in whole.learner.state_dict()["model"].items():
        assert torch.equal(value, resumed[name]), name


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
    small = AugmentConfig((CanvasStep(32), FlipStep()))
    return replace(run, data=replace(run.data, path=str(data), workers=0), augment=small, epochs=1)


def tell(config: RunConfig) -> str:
    said = io.StringIO()
    train(config, resume=True, console=Console(file=said, width=400))
    return said.getvalue()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    config = one_epoch(data, tmp_path / "run")
    train(config)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"run/.tood-{dead.pid}-0123456789ab.tmp.pt"
    left.write_bytes(b"half of it")
    theirs = tmp_path / "run/.checkpoint.4711.tmp.pt"
    theirs.write_bytes(b"of another program")
    train(replace(config, epochs=2), resume=True)
    assert not left.exists()
    assert theirs.exists()


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
    command = [sys.executable, "-m", "tood", "train", "--data", str(data), "--out", str(out)]
    command += ["--model", "tood_tiny", "--size", "64", "--workers", "1"]
    command += ["--batch-size", "2", "--epochs", "100000", "--device", "cpu"]
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
    _, errors = run.communicate(timeout=600)
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


# --- checkpoints and best weights ----------------------------------------------------------------------------------


def test_a_damaged_checkpoint_does_not_push_the_whole_ones_out(tmp_path: Path) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    config = replace(one_epoch(data, out), keep=3, checkpoint_minutes=0, epochs=2)
    train(config)
    damage(out / CHECKPOINT)
    said = tell(replace(config, epochs=2, checkpoint_minutes=60))
    assert f"{out / CHECKPOINT} is damaged: going on from {out / 'checkpoint-'}" in said
    assert f"is now {out / DAMAGED}" in said
    whole = sorted(path.name for path in out.glob("checkpoint*.pt"))
    assert len(whole) == 3, "as many as are to be kept, or two and the new one"
    for name in whole:
        parse_checkpoint((out / name).read_bytes(), out / name)
    assert (out / DAMAGED).is_file()
    assert "is damaged" not in tell(replace(config, epochs=3)), "said once"


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # its links stay
    path.write_bytes(content)


def test_of_several_damaged_checkpoints_none_counts(tmp_path: Path) -> None:
    for step in range(5):
        write_checkpoint(tmp_path, {"step": step}, keep=4)
    damage(tmp_path / CHECKPOINT)
    damage(tmp_path / "checkpoint-000004.pt")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert put_damaged_aside(tmp_path, found[1]) == tmp_path / DAMAGED
    for step in (10, 11):
        write_checkpoint(tmp_path, {"step": step}, keep=4)
    kept = sorted(tmp_path.glob("checkpoint*.pt"))
    assert [parse_checkpoint(path.read_bytes(), path)["step"] for path in kept] == [1, 2, 10, 11]


def test_a_stranger_s_file_of_a_like_name_is_no_checkpoint_to_clean_up(tmp_path: Path) -> None:
    strangers = [tmp_path / name for name in ("checkpoint-best.pt", "checkpoint-7.pt")]
    for path in strangers:
        path.write_text("theirs")
    for step in range(4):
        write_checkpoint(tmp_path, {"step": step}, keep=2)
    assert [path.read_text() for path in strangers] == ["theirs", "theirs"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(("again", "best"), [(0.3, 0.5), (0.5, 0.5), (0.7, 0.7)])
def test_a_kill_after_an_evaluation_does_not_cost_the_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: float, best: float
) -> None:
    """The checkpoint is of before the evaluation, which the run that goes on makes anew, with another outcome."""
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    config = replace(one_epoch(data, out), epochs=3, checkpoint_minutes=0)
    scores = iter([0.2, 0.5])
    monkeypatch.setattr("tood.evaluation.evaluate_detections", lambda *_: FakeScores(next(scores)))
    normal = Trainer._tell

    def killed(self: Trainer, found: FakeScores, better: bool) -> None:
        if found.ap == 0.5 and self.position.epoch == 2:
            raise KeyboardInterrupt
        normal(self, found, better)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_tell", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert read_checkpoint(out)["position"]["best_ap"] == 0.2
    kept = (out / "best.safetensors").read_bytes()
    assert recorded_figures(out / "best.safetensors") == {"AP": 0.5, "step": 6}

    scores = iter([again, 0.25])
    result = train(config, resume=True)
    assert result.best_ap == best
    assert recorded_figures(out / "best.safetensors")["AP"] == best
    if again < 0.5:
        assert (out / "best.safetensors").read_bytes() == kept
    assert read_checkpoint(out)["position"]["highest_ap"] == again, "patience counts what this run has seen"


# --- rows, modes, seeds, pictures ----------------------------------------------------------------------------------


def loss_rows(out: Path) -> dict[int, float]:
    with (out / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["loss"]}


@pytest.mark.parametrize("log_every", [2, 4, 100])
@pytest.mark.parametrize("end", ["none", "stop", "kill"])
def test_every_step_s_losses_are_in_one_row(tmp_path: Path, log_every: int, end: str) -> None:
    whole = replace(tiny_run(tmp_path / "whole"), epochs=3)
    tiny_trainer(whole, lambda model: FakeScores(0.5)).run()
    steps = loss_rows(tmp_path / "whole")
    assert sorted(steps) == list(range(1, 10))

    config = replace(whole, out=tmp_path / "run", log_every=log_every, checkpoint_minutes=0)
    first = tiny_trainer(config, lambda model: FakeScores(0.5))
    if end != "none":
        normal = first._step

        def ended(group: list, progress: float) -> None:  # type: ignore[type-arg]
            if first.position.step == 4 and end == "kill":
                raise KeyboardInterrupt
            if first.position.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            normal(group, progress)

        first._step = ended  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            first.run()
        first = tiny_trainer(config, lambda model: FakeScores(0.5))
        first.load_state_dict(read_checkpoint(tmp_path / "run"))
    first.run()
    rows, before = loss_rows(tmp_path / "run"), 0
    assert max(rows) == 9
    for step, loss in rows.items():
        own = [steps[number] for number in range(before + 1, step + 1)]
        assert loss == pytest.approx(sum(own) / len(own), rel=1e-4), f"steps {before + 1} to {step}"
        before = step


def test_a_step_skipped_while_sums_are_gathered_leaves_the_network_learning(tmp_path: Path) -> None:
    config = replace(plain(tiny_run(tmp_path)), not_finite="skip", accumulation=2, epochs=1)
    trainer = tiny_trainer(config)
    normal, modes = trainer.learner.losses, []

    def losses(batch: object, number: int, *rest: object) -> object:
        modes.append((number, trainer.learner.model.training))
        if number == 1:
            raise NotFiniteError("no number")
        return normal(batch, number, *rest)  # type: ignore[arg-type]

    trainer.learner.losses = losses  # type: ignore[method-assign, assignment]
    trainer.run()
    assert modes == [(1, False), (2, True)], "step 2 is of one batch, whose pass learns"


def test_another_seed_is_refused_within_an_epoch_and_taken_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = coco_folder(tmp_path / "data"), tmp_path / "run"
    config = replace(one_epoch(data, out), epochs=2)
    normal = Trainer._step

    def stopped(self: Trainer, group: list, progress: float) -> None:  # type: ignore[type-arg]
        if self.position.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        normal(self, group, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopped)
        assert train(config).steps == 4
    before = read_checkpoint(out)
    with pytest.raises(ToodError, match=r"leave --seed out, or give 0"):
        train(replace(config, seed=5), resume=True)
    assert read_checkpoint(out)["position"] == before["position"]
    assert train(config, resume=True).steps == 6
    assert train(replace(config, epochs=3, seed=5), resume=True).steps == 9


def test_an_epoch_of_which_other_images_are_left_out_begins_anew() -> None:
    state = {
        "position": {"batch": 4},
        "accumulation": 2,
        "images_per_step": 4,
        "images": "a",
        "seed": 0,
        "order": "one",
    }
    images = TrainingImages(squares_loader(), ("a",), "a", "one")
    go_on = lambda images, seed=0: batch_to_go_on_with(state, images, seed, 4, 1, Path("run"))  # noqa: E731
    assert go_on(images) == (2, [])
    assert go_on(replace(images, digest="b"))[0] == 0
    batch, remarks = go_on(replace(images, order="two"))
    assert batch == 0
    assert "seen again" in remarks[0]
    orders = {
        TrainBatchSampler(count, BatchPlan(2), landscape).digest
        for count, landscape in [(4, None), (5, None), (4, np.array([True] * 4)), (4, np.array([True, False] * 2))]
    }
    assert len(orders) == 4
    assert (
        TrainBatchSampler(4, BatchPlan(2)).digest == TrainBatchSampler(4, BatchPlan(1, accumulation=2, seed=7)).digest
    )


def test_validation_pictures_that_cannot_be_read_are_left_out_on_request_and_told_once(tmp_path: Path) -> None:
    data, without = coco_folder(tmp_path / "data"), coco_folder(tmp_path / "without")
    (data / "val2017/003.png").write_bytes(b"no picture")
    path = without / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    for part, key in (("images", "id"), ("annotations", "image_id")):
        content[part] = [entry for entry in content[part] if entry[key] != 3]
    path.write_text(json.dumps(content))

    with pytest.raises(ToodError, match=r"003\.png"):
        train(one_epoch(data, tmp_path / "stops"))
    texts, rows = [], []
    for root, out in ((data, tmp_path / "skips"), (without, tmp_path / "lacks")):
        config = replace(one_epoch(root, out), epochs=4, optimizer=AdamWConfig(lr=0.01))
        model = replace(config.model, postprocess=replace(config.model.postprocess, score_threshold=0.0))
        config = replace(config, model=model, data=replace(config.data, unreadable="skip"))
        said = io.StringIO()
        assert train(config, console=Console(file=said, width=400)).steps == 12
        texts.append(said.getvalue())
        with (out / "metrics.csv").open() as file:
            rows.append([(row["AP"], row["AP50"]) for row in csv.DictReader(file) if row["AP"]])
    assert texts[0].count("1 of 6 images cannot be read; AP is measured over the others") == 1
    assert "cannot be read" not in texts[1]
    assert rows[0] == rows[1]
    assert any(float(ap50) > 0 for _, ap50 in rows[0])


def test_what_once_could_not_be_read_stays_left_out_and_nothing_readable_is_an_error(tmp_path: Path) -> None:
    data = load_dataset(coco_folder(tmp_path / "data"), "val2017")
    skipped = SkippedImages(data.images, "left out")
    model = build_model(tiny_model())
    picture = data.images[2].path
    content = picture.read_bytes()
    picture.write_bytes(b"no picture")
    for _ in range(2):
        found = detect(model, data, batch_size=2, workers=1, skipped=skipped)
        assert data.images[2].id not in found.image_ids
        assert (skipped.count, len(skipped.readable_ids)) == (1, 5)
        picture.write_bytes(content)
    shutil.rmtree(tmp_path / "data/val2017")
    with pytest.raises(ToodError, match="no image can be read"):
        detect(model, data, batch_size=2, workers=0, skipped=skipped)


def test_what_a_resumed_run_does_otherwise_is_told_and_another_network_refused(tmp_path: Path) -> None:
    before = replace(tiny_run(tmp_path), epochs=1)
    assert changed_settings(before, before) == ""
    faster = replace(before, epochs=3, optimizer=AdamWConfig(lr=0.5))
    told = changed_settings(before, faster)
    assert told.startswith("changed since the run began: optimizer.lr was 0.001, is 0.5; ")
    assert "epochs was 1, is 3" in told
    assert changed_settings(before, replace(before, out=tmp_path / "moved")) == ""
    wider = replace(before, model=replace(before.model, neck=replace(before.model.neck, width=32)))
    with pytest.raises(
        ToodError, match=r"another network than is asked for \(model\.neck\.width was 8, is 32\): leave"
    ):
        changed_settings(before, wider)
