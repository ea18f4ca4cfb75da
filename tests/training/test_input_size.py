"""What a training leaves out is counted as it happens, told with the size that keeps it, and refused where all goes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dataset_files import box_row, coco, image_row, write_coco_folder
from tood.cli.data import app
from tood.data import AugmentConfig, Category, DetectionDataset, ImageRecord, load_dataset, training_boxes
from tood.data.training_boxes import ObjectSizes
from tood.data.transforms import CanvasStep, Circumstances, FitStep, FlipStep, Sample, build_transforms, canvas_shape
from tood.errors import ToodError
from tood.input import InputConfig
from tood.training import DataConfig, RunConfig, box_report, run_config, train


def dataset_of(sizes: list[tuple[int, int]], boxes: list[list[tuple[float, float, float, float]]]) -> DetectionDataset:
    """Pictures that need not exist, with boxes x y width height."""
    records = []
    for number, ((width, height), own) in enumerate(zip(sizes, boxes, strict=True), 1):
        corners = np.array(own, np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        some = len(own)
        zeros = np.zeros(some, np.int64)
        records.append(
            ImageRecord(
                number, Path(f"{number}.png"), width, height, corners, zeros, zeros > 0, np.ones(some), zeros + number
            )
        )
    return DetectionDataset(Path("made-up"), "train", "yolo", (Category(0, "a"),), tuple(records))


def drawn(dataset: DetectionDataset, augment: AugmentConfig, input: InputConfig, epochs: int) -> np.ndarray:
    """[epochs] boxes that the transforms themselves leave, nothing cropped (each box is in the middle)."""
    ratio = ObjectSizes.of(dataset).ratio
    canvas = augment.canvas
    shape = None if canvas is None else canvas_shape(canvas.side, ratio, input.divisor)
    transforms = build_transforms(augment, Circumstances(input, shape))
    counts = np.zeros(epochs, np.int64)
    for epoch in range(epochs):
        for image in dataset.images:
            pixels = np.zeros((image.height, image.width, 3), np.uint8)
            sample = Sample(pixels, image.boxes, image.labels, image.crowd)
            counts[epoch] += len(transforms(sample, np.random.default_rng((epoch, image.id))))
    return counts


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(20, 900),
    height=st.integers(3, 300),
    share=st.tuples(st.floats(0.01, 0.4), st.floats(0.01, 0.4)),
    scale=st.tuples(st.floats(0.3, 1.0), st.floats(1.0, 1.2)),
)
def test_the_count_is_what_the_transforms_leave(
    width: int, height: int, share: tuple[float, float], scale: tuple[float, float]
) -> None:
    side = (share[0] * width, share[1] * height)
    box = ((width - side[0]) / 2, (height - side[1]) / 2, *side)
    dataset = dataset_of([(width, height)], [[box]])
    augment = AugmentConfig((CanvasStep(96, scale=scale, min_visible=0.0),))
    found = ObjectSizes.of(dataset).in_training(augment, InputConfig())
    left = drawn(dataset, augment, InputConfig(), 30)
    if found.always_small:
        assert left.sum() == 0
    elif min(height * 96 / width, width * 96 / height) > 20:  # else whole pixels make steps
        assert abs(left.mean() - (1 - found.mean_small)) < 0.45
    # A side that is scaled to whole pixels loses less than half a one.
    elif found.mean_small == 0 and min(side) > 2.5 / scale[0] * max(width / 32, height / 32):
        assert left.all()


@pytest.mark.parametrize("step", [CanvasStep(96, (64, 96, 128), scale=(0.3, 1.5)), FitStep(shortest=24)])
def test_objects_are_judged_the_same_in_blocks_of_any_size(
    step: CanvasStep | FitStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    boxes = [[(0.0, 0.0, *rng.uniform(0.5, 12, 2)) for _ in range(number)] for number in (5, 0, 9, 3)]
    objects = ObjectSizes.of(dataset_of([(100, 50), (64, 64), (60, 90), (300, 20)], boxes))
    at_once = objects.too_small(AugmentConfig((step,)), InputConfig())
    assert 0 < at_once.sum() < 17
    monkeypatch.setattr(training_boxes, "_BLOCK", 4)
    assert np.array_equal(objects.too_small(AugmentConfig((step,)), InputConfig()), at_once)


def test_the_mean_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    sizes = [(400, 300)] * 60
    boxes = [[(190.0, 140.0, *rng.uniform(3, 14, 2))] for _ in sizes]
    dataset = dataset_of(sizes, boxes)
    canvas = CanvasStep(96, scale=(0.7, 1.5), min_visible=0.0)
    augment = AugmentConfig((canvas, FlipStep()))
    found = ObjectSizes.of(dataset).in_training(augment, InputConfig())
    left = drawn(dataset, augment, InputConfig(), 60).mean()
    assert 15 < left < 45
    assert left == pytest.approx(60 - found.mean_small, abs=1.5)

    def mean_small(step: CanvasStep) -> float:
        return ObjectSizes.of(dataset).in_training(augment.with_step(step), InputConfig()).mean_small

    both = (found.mean_small + mean_small(replace(canvas, side=192))) / 2
    assert mean_small(replace(canvas, sides=(96, 192))) == pytest.approx(both)


def test_published_recipes_draw_the_short_side() -> None:
    dataset = dataset_of([(400, 300)] * 2, [[(100, 100, 3.3, 9)], [(100, 100, 50, 50)]])
    augment = AugmentConfig((FitStep((150, 300), shortest=50),))
    # 3.3 pixels are one from a short side of 91 on.
    found = ObjectSizes.of(dataset).in_training(augment, InputConfig())
    assert (found.always_small, found.limit) == (0, 1.0)
    assert found.mean_small == pytest.approx((91 - 50) / 100, abs=0.02)


def test_stretched_pictures_have_a_scale_for_each_axis() -> None:
    """400 x 100 becomes 100 x 50: half as wide as it is tall, against a quarter of both."""
    boxes = [[(100, 50, 9, 2.5)], [(100, 50, 3, 9)], [(100, 50, 9, 1.5)]]
    dataset = dataset_of([(400, 100)] * 3, boxes)  # type: ignore[arg-type]
    augment, limits = AugmentConfig((FitStep((50, 100)),)), InputConfig(50, 100)
    kept = ObjectSizes.of(dataset).too_small(augment, limits)
    assert kept.tolist() == [1, 1, 1]
    stretched = replace(limits, fit="stretch")
    assert ObjectSizes.of(dataset).too_small(augment, stretched).tolist() == [0, 1, 1]
    drawn_side = AugmentConfig((FitStep((50, 100), shortest=25),))
    assert ObjectSizes.of(dataset).too_small(drawn_side, stretched).tolist() == [pytest.approx(0.6), 1, 1]
    standing = dataset_of([(100, 400)], [[(50, 100, 2.5, 9)]])
    assert ObjectSizes.of(standing).too_small(augment, stretched).tolist() == [0]


def small_objects(root: Path, width: int, height: int, side: float, count: int = 4, **more: Any) -> Path:
    """Pictures of this size with ten square objects each, none near the border, in train and val."""
    images, rows = [], []
    for number in range(1, count + 1):
        images.append(image_row(number, "", width, height))
        for k in range(10):
            x = width * (0.3 + 0.04 * k)
            rows.append(box_row(len(rows) + 1, number, (x, (height - side) / 2, side, side), **more))
    for split in ("train", "val"):
        write_coco_folder(root, coco(images, rows, {3: "cat"}), split)
    return root


def run_of(data: Path, out: Path, size: int | None = None) -> RunConfig:
    run = run_config("tood_tiny", size)
    return replace(run, data=DataConfig(path=str(data), workers=0), out=out, device="cpu", precision="fp32", epochs=1)


@pytest.mark.parametrize(
    ("width", "height", "side"), [(3000, 24, 20.0), (1000, 750, 3.0), (1000, 750, 8.0)], ids=["strip", "never", "some"]
)
def test_the_size_that_is_named_keeps_them(tmp_path: Path, width: int, height: int, side: float) -> None:
    data = small_objects(tmp_path / "data", width, height, side, count=1)
    dataset = load_dataset(data, "train")
    run = run_of(data, tmp_path / "run", 224)
    report = box_report(dataset, run)
    assert report.found.kept < 0.9
    size = int(re.search(r"--size (\d+) keeps 99 %", report.told)[1])  # type: ignore[index]
    larger = run_of(data, tmp_path / "run", size)
    assert box_report(dataset, larger).told == ""
    # By the transforms themselves; without crops, which come and go with the draw.
    canvas = larger.augment.canvas
    assert canvas is not None
    uncropped = larger.augment.with_step(replace(canvas, scale=(canvas.scale[0], 1.0), min_visible=0.0))
    assert drawn(dataset, uncropped, larger.model.input, 6).tolist() == [10] * 6
    smaller = run_of(data, tmp_path / "run", size - 32)
    assert box_report(dataset, smaller).found.kept < 0.99
    if report.found.reachable:
        return
    with pytest.raises(ToodError, match=rf"nothing to learn: each of the 10 boxes is under 2 pixels .* --size {size} "):
        train(run)
    assert not (tmp_path / "run").exists()


def test_no_size_is_named_where_none_would_do() -> None:
    dataset = dataset_of([(20_000, 15_000)], [[(9000.0, 9000.0, 6.0, 6.0)]])
    report = box_report(dataset, run_config("tood_tiny"))
    assert "no input of up to 4096 pixels keeps 99 % of them: cut the pictures into tiles" in report.told


def test_settings_of_one_s_own_are_named() -> None:
    dataset = dataset_of([(1000, 750)] * 2, [[(500.0, 400.0, 3.0, 3.0)]] * 2)
    run = run_config("tood_tiny")
    canvas = replace(run, augment=AugmentConfig((CanvasStep(320, scale=(0.7, 1.5)),)))
    side = int(re.search(r"--set augment\.canvas=(\d+) keeps", box_report(dataset, canvas).told)[1])  # type: ignore[index]
    larger = AugmentConfig((CanvasStep(side, scale=(0.7, 1.5)),))
    assert box_report(dataset, replace(run, augment=larger)).told == ""
    plain = replace(run, augment=AugmentConfig((FitStep((100, 200)),)))
    found = re.search(r"--set augment\.size=\[(\d+),(\d+)\] keeps", box_report(dataset, plain).told)
    assert found is not None
    sized = AugmentConfig((FitStep((int(found[1]), int(found[2]))),))
    assert box_report(dataset, replace(run, augment=sized)).told == ""


def test_crowds_and_pictures_left_out_are_counted(tmp_path: Path) -> None:
    images = [image_row(1, "", 200, 150), image_row(2, "", 200, 20)]
    rows = [
        box_row(1, 1, (20, 20, 60, 60)),
        box_row(2, 1, (60, 60, 60, 60), iscrowd=1),
        box_row(3, 2, (20, 2, 15, 15)),
    ]
    write_coco_folder(tmp_path, coco(images, rows, {3: "cat"}))
    run = replace(run_config("tood_r50_fpn_1x"), data=DataConfig(smallest_side=32))
    told = box_report(load_dataset(tmp_path, "train"), run).told
    assert told == "of 3 boxes: 1 crowds (not learned), 1 in pictures with a side under 32 pixels (left out)"
    write_coco_folder(tmp_path, coco(images, rows[2:], {3: "cat"}))
    with pytest.raises(ToodError, match=r"all 1 boxes lie in pictures with a side under 32 pixels"):
        box_report(load_dataset(tmp_path, "train"), run).require_any()


def test_check_and_stats_tell_it_too(tmp_path: Path) -> None:
    data = small_objects(tmp_path / "data", 1000, 750, 8.0, count=1)
    for command in ("check", "stats"):
        result = CliRunner().invoke(app, [command, str(data), "--split", "train", "--size", "224"])
        assert result.exit_code == 0, result.output
        said = " ".join(result.output.split())
        size = int(re.search(r"input 224 x 224: of 10 boxes: .* --size (\d+) keeps 99 %", said)[1])  # type: ignore[index]
        result = CliRunner().invoke(app, [command, str(data), "--split", "train", "--size", str(size)])
        assert "all boxes are large enough" in " ".join(result.output.split())
