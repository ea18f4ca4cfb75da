"""Several processes train as one does: the same losses and figures, one writer, one sentence when it goes wrong."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from tood.alignment import ATSSCriterionConfig, Losses, Progress
from tood.data import Batch, SkippedImages, load_dataset
from tood.data.transforms import AugmentConfig, CanvasStep, FitStep, FlipStep, PhotometricStep
from tood.errors import SharedError, ToodError
from tood.evaluation import detect, evaluate
from tood.models import AnyDetector, build_model
from tood.models.atss import ATSSConfig, ATSSHeadConfig
from tood.processes import join_processes
from tood.training import DataConfig, EMAConfig, RunConfig, SGDConfig, StepScheduleConfig, train
from tood.training.learner import Learner
from tood.weights import load_weights
from training.fakes import tiny_model, tiny_run
from training.launched import on_processes


def shapes_folder(root: Path, images: int = 26) -> Path:
    """Pictures of many shapes, lying and standing, with one to three bright boxes each; the last has none."""
    (root / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir()
        records, annotations = [], []
        for number in range(1, images + 1):
            height, width = (int(side) for side in rng.integers(40, 90, 2))
            pixels = rng.integers(60, 100, (height, width, 3), np.uint8)
            for _ in range(0 if number == images else int(rng.integers(1, 4))):
                w, h = (int(side) for side in rng.integers(12, 30, 2))
                x, y, kind = int(rng.integers(width - w)), int(rng.integers(height - h)), int(rng.integers(2))
                pixels[y : y + h, x : x + w] = (255, 255, 255) if kind else (0, 0, 255)
                where = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": kind + 1, **where})
            cv2.imwrite(str(root / split / f"{number}.png"), pixels)
            records.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        content = {
            "images": records,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "white"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes_folder(tmp_path_factory.mktemp("shapes") / "data")


def published(data: Path, out: Path) -> RunConfig:
    """The 2x recipe's kind of run, 8 images a step: 25 images with boxes make 3 steps and one of a single image."""
    model = tiny_model()
    return replace(
        tiny_run(out),
        model=replace(
            model,
            backbone=replace(model.backbone, frozen_stages=1, norm_eval=True),
            input=replace(model.input, short=64, long=96),
            postprocess=replace(model.postprocess, score_threshold=0.0),
        ),
        data=DataConfig(path=str(data), workers=0, keep_empty=False),
        augment=AugmentConfig((FitStep((64, 96), shortest=48), FlipStep())),
        # As in the published recipe's first steps: at higher rates rounding alone parts two runs of one process whose
        # batches hold the same images in another order.
        optimizer=SGDConfig(lr=0.0003, lr_batch=8),
        schedule=StepScheduleConfig(warm_up_steps=10),
        ema=EMAConfig(enabled=False),
        thaw_scratch=False,  # as with the published weights
        batch_size=None,
        epochs=13,
        evaluate_every=13,
    )


def small(data: Path, out: Path, batch_size: int) -> RunConfig:
    """The small recipe's kind of run, whose BatchNorms learn their statistics."""
    return replace(
        published(data, out),
        model=replace(published(data, out).model, backbone=tiny_model().backbone),
        augment=AugmentConfig((CanvasStep(64, scale=(0.8, 1.25)), FlipStep(), PhotometricStep(0.5))),
        optimizer=SGDConfig(lr=0.0003, lr_batch=None),
        ema=EMAConfig(enabled=True),
        batch_size=batch_size,
        epochs=4,
        evaluate_every=1,
    )


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def losses(out: Path) -> list[list[float]]:
    return [[float(row[name]) for name in ("loss_cls", "loss_box")] for row in rows(out) if row["loss"]]


def figures(out: Path) -> list[list[str]]:
    return [[row[name] for name in ("AP", "AP50", "AP75")] for row in rows(out) if row["AP"]]


def test_two_processes_give_the_losses_and_figures_of_one(data: Path, tmp_path: Path) -> None:
    train(published(data, tmp_path / "one"))
    results = on_processes(2, train, published(data, tmp_path / "two"))
    assert [result.steps for result in results] == [52, 52]
    assert results[0].ap == results[1].ap
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 52
    assert np.ptp([sum(loss) for loss in one]) > 0.1, "it learned something"
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4)
    assert figures(tmp_path / "one") == figures(tmp_path / "two")
    assert float(figures(tmp_path / "one")[0][1]) > 0
    weights = [load_weights(tmp_path / name / "last.safetensors")[0].state_dict() for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_give_the_losses_of_one_under_atss(data: Path, tmp_path: Path) -> None:
    """The last step of an epoch has one image: the second process has none, which must not count as a positive."""
    run = published(data, tmp_path / "one")
    model = ATSSConfig(
        classes=2,
        backbone=run.model.backbone,
        neck=run.model.neck,
        head=ATSSHeadConfig(width=8, tower_layers=1, norm_groups=2, anchor_scale=4.0),
        input=run.model.input,
    )
    run = replace(run, model=model, criterion=ATSSCriterionConfig(), epochs=2, evaluate_every=2)
    train(run)
    on_processes(2, train, replace(run, out=tmp_path / "two"))
    one, two = (
        [
            [float(row[f"loss_{name}"]) for name in ("cls", "box", "centerness")]
            for row in rows(tmp_path / name)
            if row["loss"]
        ]
        for name in ("one", "two")
    )
    assert len(one) == 8
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4)


def test_two_processes_share_the_statistics_of_batch_norm(data: Path, tmp_path: Path) -> None:
    train(small(data, tmp_path / "one", 8))
    on_processes(2, train, small(data, tmp_path / "two", 4))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 16
    np.testing.assert_allclose(two[:3], one[:3], rtol=1e-5)
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4)
    assert len(figures(tmp_path / "two")) == 4


def test_accumulated_batches_see_the_images_of_one_large_batch(data: Path, tmp_path: Path) -> None:
    config = replace(published(data, tmp_path / "run"), batch_size=2, epochs=1)
    output = io.StringIO()
    result = train(config, console=Console(file=output, width=300))
    assert (result.steps, config.batches(), config.batches(2)) == (4, (2, 4), (2, 2))
    assert "batch 2 x 4 accumulated = 8 images a step, peak rate 0.0003\n" in output.getvalue()


def train_and_tell(config: RunConfig, resume: bool = False) -> tuple[str, object]:
    output = io.StringIO()
    try:
        result: object = train(config, resume, Console(file=output, width=300))
    except ToodError as error:
        result = error
    return output.getvalue(), result


def test_one_process_speaks_and_writes_and_says_what_it_shares(data: Path, tmp_path: Path) -> None:
    (main, result), (other, _) = on_processes(2, train_and_tell, replace(published(data, tmp_path / "run"), epochs=1))
    assert not isinstance(result, ToodError), result
    assert other == ""
    assert "left out of training: 1 image without any annotation, as MMDetection does" in main
    assert "batch 4 x 2 processes = 8 images a step, peak rate 0.0003\n" in main
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        "best.safetensors",
        "checkpoint.pt",
        "config.yaml",
        "last.safetensors",
        "metrics.csv",
        "tensorboard",
    }
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1
    assert [int(row["step"]) for row in rows(tmp_path / "run")] == [1, 2, 3, 4, 4]


def test_an_image_that_one_process_cannot_read_ends_all_with_one_sentence(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    (broken / "train/3.png").write_bytes(b"no picture")
    results = on_processes(2, train_and_tell, published(broken, tmp_path / "run"))
    sentences = [str(error) for _, error in results]
    assert all(isinstance(error, SharedError) for _, error in results)
    assert sentences[0] == sentences[1]
    assert "3.png" in sentences[0]
    assert "\n" not in sentences[0]


def test_a_disk_that_only_the_main_process_finds_full_ends_all(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in the folder's place")
    results = on_processes(2, train_and_tell, published(data, tmp_path / "run"))
    assert all(isinstance(error, SharedError) and "written: File exists" in str(error) for _, error in results), results


def train_poisoned(config: RunConfig) -> object:
    """The second process alone meets a number that is none."""
    finite = Learner.losses

    def losses(self: Learner, batch: Batch, number: int, progress: Progress, *sums: Mapping[str, Tensor]) -> Losses:
        found = finite(self, batch, number, progress, *sums)
        if self.processes.rank == 1 and number == 3:
            return replace(found, per_prior={**found.per_prior, "box": found.per_prior["box"] * float("nan")})
        return found

    Learner.losses = losses  # type: ignore[method-assign]
    return train_and_tell(config)[1]


def test_a_loss_that_is_not_finite_in_one_process_ends_all(data: Path, tmp_path: Path) -> None:
    errors = on_processes(2, train_poisoned, published(data, tmp_path / "run"))
    for error in errors:
        assert isinstance(error, SharedError)
        assert "is not finite at step 3, on the images " in str(error)
    assert str(errors[0]) == str(errors[1])


def test_a_run_goes_on_with_another_number_of_processes(data: Path, tmp_path: Path) -> None:
    config = replace(published(data, tmp_path / "run"), epochs=2)
    train(config)
    (two, _), _ = on_processes(2, train_and_tell, replace(config, epochs=3), True)
    assert "resuming at epoch 3, step 8" in two
    with pytest.raises(ToodError, match="takes 8 images a step, this would be 4"):
        train(replace(config, epochs=4, batch_size=4, accumulation=1), resume=True)
    result = train(replace(config, epochs=4, batch_size=4), resume=True)
    assert (result.steps, result.epochs) == (16, 4)


def test_the_figures_of_a_run_are_those_of_its_saved_weights(data: Path, tmp_path: Path) -> None:
    """Whatever the precision of the training: `tood eval` computes in fp32."""
    config = replace(published(data, tmp_path / "run"), precision="bf16", channels_last=False, epochs=10)
    result = train(config)
    model, names = load_weights(result.last)
    expected = evaluate(model, load_dataset(data, "val"), names, batch_size=8, workers=0)
    assert expected.ap50 > 0
    assert (result.ap, result.ap50, result.ap75) == (expected.ap, expected.ap50, expected.ap75)
    assert figures(tmp_path / "run")[-1] == [f"{value:.6g}" for value in (expected.ap, expected.ap50, expected.ap75)]


def detect_in_shares(model: AnyDetector, data: Path, images: int, broken: bool) -> object:
    processes, _ = join_processes(torch.device("cpu"))
    dataset = load_dataset(data, "val")
    dataset = replace(dataset, images=dataset.images[:images])
    if broken:
        missing = replace(dataset.images[0], path=data / "missing.png")
        dataset = replace(dataset, images=(missing, *dataset.images[1:]))
    seen: list[int] = []
    result = evaluate(
        model, dataset, batch_size=2, workers=0, processes=processes, progress=lambda done, total: seen.append(done)
    )
    table = detect(model, dataset, batch_size=2, workers=0, processes=processes)
    return result, table, len(seen)


@pytest.mark.parametrize("images", [2, 25])
def test_evaluation_in_shares_is_that_of_one_process(data: Path, images: int) -> None:
    torch.manual_seed(0)
    model = build_model(published(data, data).model).eval()
    dataset = load_dataset(data, "val")
    dataset = replace(dataset, images=dataset.images[:images])
    expected = evaluate(model, dataset, batch_size=2, workers=0)
    table = detect(model, dataset, batch_size=2, workers=0)
    assert len(table) > images
    shares = on_processes(3, detect_in_shares, model, data, images, False)
    batches = []
    for result, found, own in shares:
        assert result == expected
        for field in ("image_ids", "category_ids", "boxes", "scores"):
            np.testing.assert_array_equal(getattr(found, field), getattr(table, field))
        batches.append(own)
    assert max(batches) - min(batches) <= 1


def test_an_image_that_one_process_cannot_evaluate_ends_all(data: Path) -> None:
    model = build_model(published(data, data).model)
    for error in on_processes(2, detect_in_shares, model, data, 5, True):
        assert isinstance(error, SharedError)
        assert "missing.png" in str(error)


def detect_and_skip(model: AnyDetector, data: Path) -> object:
    processes, _ = join_processes(torch.device("cpu"))
    dataset = load_dataset(data, "val")
    broken = [
        replace(image, path=data / "missing.png") if i in (1, 4) else image for i, image in enumerate(dataset.images)
    ]
    skipped = SkippedImages(broken)
    found = detect(
        model, replace(dataset, images=tuple(broken)), batch_size=2, workers=0, processes=processes, skipped=skipped
    )
    return set(found.image_ids.tolist()), skipped.readable_ids.tolist()


def test_all_processes_know_which_images_could_not_be_evaluated(data: Path) -> None:
    torch.manual_seed(0)
    model = build_model(published(data, data).model).eval()
    readable = [image.id for i, image in enumerate(load_dataset(data, "val").images) if i not in (1, 4)]
    for found, told in on_processes(2, detect_and_skip, model, data):
        assert told == readable
        assert found == set(readable)
