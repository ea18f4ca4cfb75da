"""`train`: from a folder of pictures to a run's folder, through the real loader and evaluation."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tood import configuration
from tood.data.transforms import AugmentConfig, CanvasStep, FlipStep, MosaicStep, PhotometricStep
from tood.errors import ToodError
from tood.precision import choose_precision
from tood.training import DataConfig, RunConfig, TrainResult, latest_run_folder, next_run_folder, train
from tood.training.accelerator import run_device
from tood.weights import load_weights
from training.fakes import tiny_run
from training.pictures import coco_folder


def run_on(data: Path, out: Path) -> RunConfig:
    return replace(
        tiny_run(out),
        model=replace(tiny_run(out).model, classes=80),
        augment=AugmentConfig((CanvasStep(32), FlipStep())),
        data=DataConfig(path=str(data), workers=0),
        epochs=2,
    )


def said(config: RunConfig, resume: bool = False) -> tuple[TrainResult, str]:
    output = io.StringIO()
    result = train(config, resume, Console(file=output, width=300))
    return result, output.getvalue()


def test_a_run_from_a_folder_of_pictures(tmp_path: Path) -> None:
    result, text = said(run_on(coco_folder(tmp_path / "data"), tmp_path / "run"))
    assert (result.epochs, result.steps) == (2, 6)
    assert result.ap is not None
    assert 0 <= result.ap <= 1
    for part in (
        "train2017: 6 images, 6 boxes, 2 classes (coco",
        "val2017: 6 images",
        "parameters",
        "recipe: small, 2 epochs, adamw, cosine schedule, batch 2, peak rate 0.001",
        "device: cpu, precision fp32 (as configured)",
        "AP50",
    ):
        assert part in text or part.replace("2017", "") in text, part
    assert "configuration said" not in text, "80 classes are COCO's, and nobody's choice"
    model, names = load_weights(tmp_path / "run/best.safetensors")
    assert names == ("cat", "dog")
    assert model.config.classes == 2


def test_one_of_a_thing_is_told_as_one_and_a_number_of_classes_that_was_set(tmp_path: Path) -> None:
    source = coco_folder(tmp_path / "data", ("train",), images=1) / "annotations/instances_train.json"
    content = json.loads(source.read_text())
    source.write_text(json.dumps({**content, "categories": content["categories"][1:]}))
    config = run_on(tmp_path / "data", tmp_path / "run")
    _, text = said(
        replace(config, model=replace(config.model, classes=5), augment=AugmentConfig((CanvasStep(128),)), epochs=1)
    )
    assert ": 1 image, 1 box, 1 class (coco" in text
    assert "classes: 1 as in the dataset (the model's configuration said 5)" in text


def test_the_saved_configuration_starts_the_same_run_again(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    said(run_on(data, tmp_path / "one"))
    again = replace(configuration.load(tmp_path / "one/config.yaml", RunConfig), out=tmp_path / "two")
    said(again)
    one = load_weights(tmp_path / "one/last.safetensors")[0].state_dict()
    two = load_weights(tmp_path / "two/last.safetensors")[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    config = run_on(coco_folder(tmp_path / "data"), tmp_path / "run")
    said(config)
    before = (tmp_path / "run/metrics.csv").read_bytes()
    with pytest.raises(ToodError, match="already holds a run: add --resume"):
        said(config)
    with pytest.raises(ToodError, match="is complete"):
        said(config, resume=True)
    assert (tmp_path / "run/metrics.csv").read_bytes() == before


def test_a_finished_run_goes_on_with_more_epochs(tmp_path: Path) -> None:
    config = run_on(coco_folder(tmp_path / "data"), tmp_path / "run")
    said(config)
    result, text = said(replace(config, epochs=3), resume=True)
    assert (result.epochs, result.steps) == (3, 9)
    assert "resuming at epoch 3, step 6" in text


def test_resuming_a_run_that_never_reached_a_checkpoint_starts_it(tmp_path: Path) -> None:
    config = run_on(coco_folder(tmp_path / "data"), tmp_path / "run")
    said(config)
    (tmp_path / "run/checkpoint.pt").unlink()
    result, text = said(config, resume=True)
    assert result.steps == 6
    assert "it starts anew" in text


def test_without_a_validation_split_there_is_no_ap(tmp_path: Path) -> None:
    result, text = said(run_on(coco_folder(tmp_path / "data", ("train",)), tmp_path / "run"))
    assert result.ap is None
    assert result.best is not None
    assert "there will be no AP" in text


def test_the_test_split_is_only_looked_at(tmp_path: Path) -> None:
    result, text = said(run_on(coco_folder(tmp_path / "data", ("train", "test")), tmp_path / "run"))
    assert result.ap == result.best_ap
    assert "does not choose the weights" in text


def test_boxes_that_were_mended_are_counted(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    path = data / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [40, 30, 30, 30]
    content["annotations"][1]["bbox"] = [5, 5, 0, 4]
    path.write_text(json.dumps(content))
    _, text = said(run_on(data, tmp_path / "run"))
    assert "box clipped (1)" in text
    assert "box dropped (1)" in text


@pytest.mark.parametrize("problem", ["no boxes", "missing", "broken picture", "device"])
def test_what_cannot_be_trained_is_one_sentence_and_leaves_nothing(tmp_path: Path, problem: str) -> None:
    data = coco_folder(tmp_path / "data")
    config = run_on(data, tmp_path / "run")
    if problem == "no boxes":
        path = data / "annotations/instances_train2017.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    elif problem == "missing":
        config = replace(config, data=replace(config.data, path=str(tmp_path / "nowhere")))
    elif problem == "broken picture":
        (data / "train2017/003.png").write_bytes(b"no picture")
    else:
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        config = replace(config, device="cuda")
    with pytest.raises(ToodError) as caught:
        said(config)
    assert "\n" not in str(caught.value)
    if problem == "broken picture":
        assert "003.png" in str(caught.value)
        assert not (tmp_path / "run/best.safetensors").exists()
    else:
        assert not (tmp_path / "run").exists()


def test_runs_are_numbered_and_the_latest_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToodError, match="no run to resume"):
        latest_run_folder()
    config = replace(run_on(coco_folder(tmp_path / "data"), tmp_path), out=None, epochs=1)
    assert said(config)[0].out == Path("runs/tiny-1")
    assert said(config)[0].out == Path("runs/tiny-2")
    assert next_run_folder("tiny") == Path("runs/tiny-3")
    assert latest_run_folder() == Path("runs/tiny-2")


def test_reduced_precision_trains_and_resumes_and_the_run_says_why(tmp_path: Path) -> None:
    config = replace(run_on(coco_folder(tmp_path / "data"), tmp_path / "run"), precision="bf16", epochs=1)
    result, text = said(config)
    assert result.steps == 3
    assert "precision bf16 (as configured)" in text
    assert said(replace(config, epochs=2), resume=True)[0].steps == 6
    exact = train(replace(config, precision="fp32", out=tmp_path / "exact"))
    lower, full = (load_weights(folder / "last.safetensors")[0].state_dict() for folder in (config.out, exact.out))
    assert any(not torch.equal(lower[name], full[name]) for name in full), "bf16 is computed in, not only said"


def test_fp16_without_a_gpu_is_refused(tmp_path: Path) -> None:
    config = replace(run_on(coco_folder(tmp_path / "data"), tmp_path / "run"), precision="fp16")
    with pytest.raises(ToodError, match="which only a GPU computes in"):
        train(config)


@pytest.mark.parametrize(
    ("device", "cuda", "cuda_bf16", "mps", "flags", "expected"),
    [
        ("auto", True, True, False, "", ("bf16", "the GPU has it")),
        ("cuda", True, True, False, "", ("bf16", "the GPU has it")),
        ("auto", True, False, False, "avx512_bf16", ("fp32", "the GPU has no bf16")),
        ("cpu", True, True, False, "", ("fp32", "no hardware for less")),
        ("auto", False, False, False, "fma avx512_bf16", ("bf16", "this CPU has instructions for it")),
        ("cpu", True, False, False, "fma amx_bf16", ("bf16", "this CPU has instructions for it")),
        ("auto", False, False, False, "fma avx512f", ("fp32", "no hardware for less")),
        ("auto", False, False, True, "avx512_bf16", ("fp32", "no hardware for less")),
        ("cpu", False, False, False, None, ("fp32", "no hardware for less")),
    ],
)
def test_the_precision_chosen_follows_the_hardware_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    cuda: bool,
    cuda_bf16: bool,
    mps: bool,
    flags: str | None,
    expected: tuple[str, str],
) -> None:
    def read_text(path: Path, **_: object) -> str:
        assert path == Path("/proc/cpuinfo")
        if flags is None:
            raise FileNotFoundError(path)
        return f"flags\t\t: {flags}\n"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: cuda_bf16 or including_emulation)
    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: cuda or mps)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda" if cuda else "mps"))
    chosen = run_device(replace(RunConfig(), device=device))
    assert choose_precision("auto", chosen, training=True) == expected
    assert choose_precision("fp16", chosen, training=True) == ("fp16", "as configured")


def test_workers_and_no_workers_give_the_same_run(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "data")
    states = []
    for workers in (0, 1):
        config = run_on(data, tmp_path / f"run{workers}")
        said(replace(config, epochs=1, data=replace(config.data, workers=workers)))
        states.append(load_weights(tmp_path / f"run{workers}/last.safetensors")[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_two_runs_of_200_steps_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    # Few long epochs, as each starts two workers anew.
    data = coco_folder(tmp_path / "data", images=40)
    for name in ("one", "two"):
        config = run_on(data, tmp_path / name)
        config = replace(config, epochs=10, evaluate_every=10, data=replace(config.data, workers=2))
        config = replace(
            config,
            augment=AugmentConfig(
                (MosaicStep(0.2), CanvasStep(32, scale=(0.7, 1.5)), FlipStep(), PhotometricStep(0.5))
            ),
        )
        assert said(config)[0].steps == 200
    losses = []
    for name in ("one", "two"):
        with (tmp_path / name / "metrics.csv").open() as file:
            losses.append([row["loss"] for row in csv.DictReader(file) if row["loss"]])
    assert len(losses[0]) == 200
    assert len(set(losses[0])) > 150
    assert losses[0] == losses[1]
    one, two = (load_weights(tmp_path / name / "last.safetensors")[0].state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
