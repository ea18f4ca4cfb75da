"""What is found in pictures is told once, in training and evaluation, by one of the processes."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tood.data import DataConfig, load_dataset
from tood.data.transforms import AugmentConfig, FlipStep
from tood.evaluation import detect
from tood.models import build_model
from tood.processes import join_processes
from tood.training import RunConfig, train
from training.fakes import tiny_model, tiny_run
from training.launched import on_processes

CUT = "2 pictures, such as "
IMAGES = 4


def pictures(root: Path) -> Path:
    """Of each split the first two of four JPEGs lack their last bytes; half of them have an EXIF orientation."""
    (root / "annotations").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    for split in ("train", "val"):
        (root / split).mkdir()
        records, annotations = [], []
        for number in range(1, IMAGES + 1):
            pixels = np.random.default_rng(number).integers(0, 255, (200, 200, 3), np.uint8)
            out = BytesIO()
            Image.fromarray(pixels).save(out, "JPEG", exif=exif if number % 2 else b"")
            (root / split / f"{number}.jpg").write_bytes(out.getvalue()[: -40 if number < 3 else None])
            records.append({"id": number, "file_name": f"{number}.jpg", "width": 200, "height": 200})
            where = {"bbox": [20, 20, 90, 90], "area": 8100, "iscrowd": 0}
            annotations.append({"id": number, "image_id": number, "category_id": 1, **where})
        content = {"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def run_of(data: Path, out: Path, workers: int) -> RunConfig:
    return replace(
        tiny_run(out),
        model=tiny_model(1),
        data=DataConfig(path=str(data), workers=workers, cache=False),
        augment=AugmentConfig((FlipStep(),)),
        batch_size=2,
        epochs=2,
    )


def sentences(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.name.startswith("tood.data")]


@pytest.mark.parametrize("workers", [0, 1])
def test_training_tells_of_cut_pictures_once(tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    train(run_of(pictures(tmp_path / "data"), tmp_path / "run", workers))
    told = [sentence for sentence in sentences(caplog.records) if "the end of the file is missing" in sentence]
    assert len(told) == 2, "of the training and of the validation images"
    for sentence, split in zip(told, ("train", "val"), strict=True):
        assert sentence.startswith(CUT)
        assert f"/{split}/" in sentence


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_tells_of_cut_pictures_once(tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    dataset = load_dataset(pictures(tmp_path), "val", exif="stored")
    model = build_model(tiny_model(1))
    for _ in range(2):
        detect(model, dataset, batch_size=2, workers=workers)
    (sentence,) = sentences(caplog.records)
    assert sentence.startswith(CUT)


class Heard(logging.Handler):
    """Keeps what is logged in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def train_and_hear(config: RunConfig) -> list[str]:
    heard = Heard()
    logging.getLogger("tood").addHandler(heard)
    train(config)
    return sentences(heard.records)


@pytest.mark.parametrize("cache", [False, True])
def test_of_two_processes_one_tells_what_both_have_found(tmp_path: Path, cache: bool) -> None:
    config = run_of(pictures(tmp_path / "data"), tmp_path / "run", 0)
    config = replace(config, data=replace(config.data, cache=cache), batch_size=1)
    first, second = on_processes(2, train_and_hear, config)
    assert second == []
    assert len([sentence for sentence in first if sentence.startswith(CUT)]) == 2
    assert len([sentence for sentence in first if "EXIF orientation" in sentence]) == 2
    assert len(first) == 4


def detect_and_hear(data: Path) -> list[str]:
    heard = Heard()
    logging.getLogger("tood").addHandler(heard)
    torch.manual_seed(0)
    processes, _ = join_processes(torch.device("cpu"))
    detect(build_model(tiny_model(1)), load_dataset(data, "val"), batch_size=1, workers=0, processes=processes)
    return sentences(heard.records)


def test_an_evaluation_by_two_speaks_with_one_voice(tmp_path: Path) -> None:
    first, second = on_processes(2, detect_and_hear, pictures(tmp_path))
    assert second == []
    assert sorted(sentence.startswith(CUT) for sentence in first) == [False, True]
