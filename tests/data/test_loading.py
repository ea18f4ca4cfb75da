"""Batches: the same for any number of workers, padded, and honest about broken files."""

from __future__ import annotations

import gc
import logging
import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given
from hypothesis import strategies as st

from data.loaders import eval_loader, small_model, train_loader
from effort import effort
from tood.data.config import BatchPlan
from tood.data.dataset import Category, DetectionDataset, ImageRecord
from tood.data.image_cache import build_cache
from tood.data.loading import Batch, default_workers
from tood.data.reading import UnreadableImageError
from tood.data.sampler import BLANK, EvalBatchSampler, SampleKey, TrainBatchSampler
from tood.data.transforms import AugmentConfig, CanvasStep, FitStep, FlipStep, MosaicStep
from tood.errors import ToodError

KEEP_RATIO = AugmentConfig((FitStep((64, 96)), FlipStep(0.5)))
EVERY_BOX = small_model(320).with_step(CanvasStep(320, scale=(0.7, 1.5), min_visible=0.0, min_side=0.0))
SQUARE = small_model(64).with_step(MosaicStep(0.3))


def make_dataset(folder: Path, shapes: Iterable[tuple[int, int]], boxes_each: int = 3) -> DetectionDataset:
    rng, records = np.random.default_rng(0), []
    for index, (height, width) in enumerate(shapes):
        path = folder / f"{index}.png"
        small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (width, height)))
        corners = rng.uniform(0, [width / 2, height / 2], (boxes_each, 2))
        boxes = np.concatenate([corners, corners + np.array([width, height]) / 3], axis=1).astype(np.float32)
        labels = rng.integers(0, 5, boxes_each)
        crowd = np.arange(boxes_each) == 1
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64)
        numbers = np.arange(boxes_each) + 100 * index
        records.append(ImageRecord(7 * index + 3, path, width, height, boxes, labels, crowd, areas, numbers))
    categories = tuple(Category(id=i, name=str(i)) for i in range(5))
    return DetectionDataset(folder, "train", "coco", categories, tuple(records))


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    return make_dataset(tmp_path, [(60, 80), (80, 60), (48, 90), (50, 70), (90, 45), (64, 64), (33, 77)])


def same(first: Batch, second: Batch) -> bool:
    return (
        torch.equal(first.images, second.images)
        and torch.equal(first.sizes, second.sizes)
        and first.infos == second.infos
        and all(
            torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels) and torch.equal(a.crowd, b.crowd)
            for a, b in zip(first.targets, second.targets, strict=True)
        )
    )


@pytest.mark.parametrize("augment", [KEEP_RATIO, SQUARE], ids=["keep ratio", "square"])
def test_workers_and_cache_change_nothing(dataset: DetectionDataset, augment: AugmentConfig) -> None:
    def epochs(workers: int, cache: bool) -> list[Batch]:
        loader = train_loader(dataset, augment, 2, workers, seed=5, cache=cache)
        batches = []
        for epoch in (0, 1):
            loader.batch_sampler.set_epoch(epoch)
            batches += list(loader)
        return batches

    expected = epochs(0, False)
    assert len(expected) == 8
    for workers, cache in ((0, True), (1, True), (2, False)):
        assert all(same(a, b) for a, b in zip(expected, epochs(workers, cache), strict=True))


def test_each_epoch_and_seed_differs(dataset: DetectionDataset) -> None:
    def pixels(seed: int, epoch: int) -> dict[int, torch.Tensor]:
        loader = train_loader(dataset, SQUARE, 2, 0, seed=seed)
        loader.batch_sampler.set_epoch(epoch)
        return {info.id: image for batch in loader for info, image in zip(batch.infos, batch.images, strict=True)}

    first = pixels(0, 0)
    assert set(first) == {image.id for image in dataset.images}
    for other in (pixels(0, 1), pixels(1, 0)):
        assert sum(torch.equal(first[number], other[number]) for number in first) <= 1


def test_augmentation_does_not_depend_on_the_batch(dataset: DetectionDataset) -> None:
    by_size = []
    for size in (1, 3):
        loader = train_loader(dataset, SQUARE, size, 0, seed=2)
        by_size.append(
            {info.id: image for batch in loader for info, image in zip(batch.infos, batch.images, strict=True)}
        )
    assert all(torch.equal(by_size[0][number], by_size[1][number]) for number in by_size[0])


def test_batches_are_padded_with_zeros_to_the_divisor(dataset: DetectionDataset) -> None:
    for batch in train_loader(dataset, KEEP_RATIO, 3, 0):
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.sizes.dtype == torch.int64
        height, width = batch.images.shape[2:]
        assert height % 32 == width % 32 == 0
        assert height - batch.sizes[:, 0].max() < 32
        assert width - batch.sizes[:, 1].max() < 32
        for image, (h, w), target in zip(batch.images, batch.sizes.tolist(), batch.targets, strict=True):
            assert image[:, h:].sum() == image[:, :, w:].sum() == 0
            assert image[:, h - 1].sum() > 0
            assert target.boxes.dtype == torch.float32
            assert (target.boxes[:, 2:] <= torch.tensor([w, h])).all()


def test_channels_are_rgb(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [(40, 40)])
    red = np.zeros((40, 40, 3), np.uint8)
    red[:, :, 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(dataset.images[0].path), red)
    batch = next(iter(eval_loader(dataset, (32, 32), 1, 0)))
    assert batch.images[0, :, 10, 10].tolist() == [255, 0, 0]


def test_crowds_stay_flagged(dataset: DetectionDataset) -> None:
    batch = next(iter(train_loader(dataset, KEEP_RATIO, 7, 0)))
    assert [target.crowd.tolist() for target in batch.targets] == [[False, True, False]] * 7


def test_evaluation_sees_every_image_once_and_can_scale_back(dataset: DetectionDataset) -> None:
    batches = list(eval_loader(dataset, (64, 96), 3, 1))
    infos = [info for batch in batches for info in batch.infos]
    assert sorted(info.id for info in infos) == sorted(image.id for image in dataset.images)
    originals = {image.id: image for image in dataset.images}
    for batch in batches:
        for info, target, (height, width) in zip(batch.infos, batch.targets, batch.sizes.tolist(), strict=True):
            original = originals[info.id]
            assert (info.geometry.image, info.path) == ((original.height, original.width), str(original.path))
            assert info.geometry.canvas == info.geometry.scaled == (height, width)
            np.testing.assert_allclose(info.geometry.to_image(target.boxes.numpy()), original.boxes, atol=1e-3)


@given(
    wide=st.lists(st.booleans(), min_size=1, max_size=60),
    size=st.integers(1, 8),
    drop=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_sampler_groups_by_aspect_and_loses_nothing(wide: list[bool], size: int, drop: bool, epoch: int) -> None:
    landscape = np.array(wide)
    sampler = TrainBatchSampler(len(wide), BatchPlan(size, drop_last=drop), landscape)
    sampler.set_epoch(epoch)
    batches = [[key.image for key in batch] for batch in sampler]
    seen = [index for batch in batches for index in batch]
    assert len(batches) == len(sampler) >= 1
    assert len(set(seen)) == len(seen)
    if not drop or len(wide) < size:
        assert sorted(seen) == list(range(len(wide)))
    else:
        assert len(seen) == len(wide) // size * size
    assert all(len(batch) == size for batch in batches[:-1])
    # Only what is left over of either kind may be mixed.
    mixed = [batch for batch in batches if len({bool(landscape[index]) for index in batch}) == 2]
    assert len(mixed) <= 2
    assert all(batch in batches[-2:] for batch in mixed)


def test_batch_canvases_are_drawn_by_batch_and_reproducible(dataset: DetectionDataset) -> None:
    augment = SQUARE.with_step(CanvasStep(64, (32, 64, 96), (0.7, 1.5)))

    def canvases(epoch: int) -> list[int]:
        loader = train_loader(dataset, augment, 1, 0, seed=1)
        loader.batch_sampler.set_epoch(epoch)
        return [batch.images.shape[2] for batch in loader]

    drawn = [canvases(epoch) for epoch in range(5)]
    assert drawn == [canvases(epoch) for epoch in range(5)]
    assert {side for epoch in drawn for side in epoch} == {32, 64, 96}


@given(
    wide=st.lists(st.booleans(), min_size=1, max_size=60),
    size=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    processes=st.integers(1, 4),
    drop=st.booleans(),
)
def test_batches_and_processes_share_the_steps_of_one_large_batch(
    wide: list[bool], size: int, accumulation: int, processes: int, drop: bool
) -> None:
    landscape, canvases = np.array(wide), (32, 64, 96)

    def batches(size: int, accumulation: int = 1, processes: int = 1, process: int = 0) -> list[list[SampleKey]]:
        plan = BatchPlan(size, accumulation, 7, drop)
        sampler = TrainBatchSampler(len(wide), plan, landscape, canvases, processes, process)
        sampler.set_epoch(3)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    shares = [batches(size, accumulation, processes, process) for process in range(processes)]
    assert len({len(share) for share in shares}) == 1, "no process waits for another"
    assert all(1 <= len(batch) <= size for share in shares for batch in share)
    steps = batches(size * accumulation * processes)
    for number, step in enumerate(steps):
        dealt = [
            key
            for share in shares
            for batch in share[number * accumulation : (number + 1) * accumulation]
            for key in batch
            if key.image != BLANK
        ]
        assert sorted(dealt) == sorted(step)


def test_a_process_without_an_image_gets_a_blank_that_weighs_nothing(dataset: DetectionDataset) -> None:
    loaders = [train_loader(dataset, KEEP_RATIO, 2, 0, processes=2, process=process) for process in (0, 1)]
    first, second = (list(loader)[-1] for loader in loaders)  # 7 images: 4, then 3
    assert (len(first), len(second)) == (2, 1)
    loaders = [train_loader(dataset, KEEP_RATIO, 3, 0, processes=2, process=process) for process in (0, 1)]
    first, second = (list(loader)[-1] for loader in loaders)  # 6, then 1
    assert (len(first), len(second)) == (1, 1)
    assert first.sizes.min() > 0
    assert second.sizes.tolist() == [[0, 0]]
    assert len(second.targets[0]) == 0
    padded = second.padded_to(*first.images.shape[2:])
    assert padded.images.shape == first.images.shape
    assert padded.images.sum() == 0
    assert same(first, first.padded_to(*first.images.shape[2:]))


def test_accelerate_counts_the_epochs_of_a_single_process(dataset: DetectionDataset) -> None:
    plain = train_loader(dataset, SQUARE, 3, 0, seed=3)
    plain.batch_sampler.set_epoch(1)
    expected = list(plain)
    prepared = prepare_data_loader(train_loader(dataset, SQUARE, 3, 0, seed=3), num_processes=1, put_on_device=False)
    list(prepared)
    assert all(same(a, b) for a, b in zip(expected, prepared, strict=True))


def test_a_batch_travels_between_processes_unchanged(dataset: DetectionDataset) -> None:
    batch = next(iter(train_loader(dataset, SQUARE, 7, 0)))
    assert same(batch, pickle.loads(pickle.dumps(batch)))
    assert same(batch, batch.to("cpu"))
    assert len(batch) == 7


# Once with a worker is enough: PyTorch takes five seconds to end a worker that has met an error.
@pytest.mark.parametrize(("training", "workers"), [(True, 0), (False, 0), (True, 1)])
def test_unreadable_image_is_named_in_one_sentence(dataset: DetectionDataset, training: bool, workers: int) -> None:
    broken = dataset.images[2].path
    broken.write_bytes(broken.read_bytes()[:60])
    loader = train_loader(dataset, KEEP_RATIO, 2, workers) if training else eval_loader(dataset, (64, 96), 2, workers)
    with pytest.raises(UnreadableImageError) as raised:
        list(loader)
    message = str(raised.value)
    assert str(broken) in message
    assert "Traceback" not in message
    assert "\n" not in message
    # A worker of a later test must not inherit this stopped iteration: it would wait for it.
    del loader, raised
    gc.collect()


def test_filling_the_cache_names_an_unreadable_image(dataset: DetectionDataset) -> None:
    broken = dataset.images[2].path
    broken.write_bytes(b"")
    with pytest.raises(ToodError, match=broken.name):
        train_loader(dataset, KEEP_RATIO, 2, 0, cache=True)


def test_image_of_another_size_than_annotated_is_refused(dataset: DetectionDataset) -> None:
    cv2.imwrite(str(dataset.images[0].path), np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ToodError, match="10x10"):
        list(train_loader(dataset, KEEP_RATIO, 2, 0))


def test_nothing_to_load_is_said(dataset: DetectionDataset) -> None:
    empty = replace(dataset, images=())
    with pytest.raises(ToodError, match="no image to train on"):
        train_loader(empty, KEEP_RATIO, 2, 0)
    with pytest.raises(ToodError, match="no image to evaluate on"):
        eval_loader(empty, (64, 96), 2, 0)
    for make in (lambda: train_loader(dataset, KEEP_RATIO, 0, 0), lambda: EvalBatchSampler(np.ones((3, 2), int), 0)):
        with pytest.raises(ToodError, match="batch size is 0"):
            make()


def test_images_without_annotations_are_kept_or_not(dataset: DetectionDataset) -> None:
    first, second, *others = dataset.images
    bare = first.select(np.zeros(3, bool))
    only_crowd = second.select(second.crowd)
    mixed = replace(dataset, images=(bare, only_crowd, *others))
    kept = [info.id for batch in train_loader(mixed, KEEP_RATIO, 2, 0) for info in batch.infos]
    assert len(kept) == 7
    left = [info.id for batch in train_loader(mixed, KEEP_RATIO, 2, 0, keep_empty=False) for info in batch.infos]
    # A crowd is an annotation, as MMDetection sees it.
    assert sorted(left) == sorted(image.id for image in (second, *others))
    with pytest.raises(ToodError, match="no image to train on with an annotation"):
        train_loader(replace(dataset, images=(bare,)), KEEP_RATIO, 2, 0, keep_empty=False)


def test_small_images_are_left_out_where_wanted(dataset: DetectionDataset) -> None:
    loader = train_loader(dataset, KEEP_RATIO, 2, 0, smallest_side=46)
    sides = [info.geometry.image for batch in loader for info in batch.infos]
    assert sorted(sides) == [(48, 90), (50, 70), (60, 80), (64, 64), (80, 60)]
    with pytest.raises(ToodError, match="no image to train on with sides of 91 pixels or more"):
        train_loader(dataset, KEEP_RATIO, 2, 0, smallest_side=91)


def test_evaluation_pads_an_image_as_it_would_be_alone(dataset: DetectionDataset) -> None:
    alone = {info.id: batch for batch in eval_loader(dataset, (64, 96), 1, 0) for info in batch.infos}
    for processes in (1, 2, 9):
        seen = []
        for process in range(processes):
            for batch in eval_loader(dataset, (64, 96), 4, 0, processes=processes, process=process):
                for number, info in enumerate(batch.infos):
                    assert torch.equal(batch.images[number], alone[info.id].images[0])
                    seen.append(info.id)
        assert sorted(seen) == sorted(alone), "each image once"


def test_cache_shrinks_then_gives_up(dataset: DetectionDataset, caplog: pytest.LogCaptureFixture) -> None:
    whole = build_cache(dataset.images, lambda height, width: 0.5, 10**9)
    assert whole is not None
    assert [whole[index].shape[:2] for index in range(2)] == [(60, 80), (80, 60)]
    shrunk = build_cache(dataset.images, lambda height, width: 0.5, 60_000)
    assert shrunk is not None
    assert shrunk[0].shape == (30, 40, 3)
    with caplog.at_level(logging.WARNING):
        assert build_cache(dataset.images, lambda height, width: 0.5, 10_000) is None
    assert "read from disk" in caplog.text


def test_shrunk_cache_keeps_boxes_in_place(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [(400, 600)] * 3)
    augment = AugmentConfig((FitStep((100, 150)),))
    plain = next(iter(train_loader(dataset, augment, 3, 0)))
    cached = next(iter(train_loader(dataset, augment, 3, 0, cache=True, cache_limit_gb=0.0002)))
    assert torch.equal(plain.sizes, cached.sizes)
    assert plain.infos == cached.infos
    for first, second in zip(plain.targets, cached.targets, strict=True):
        torch.testing.assert_close(first.boxes, second.boxes, atol=1e-3, rtol=1e-5)
    assert (plain.images.float() - cached.images.float()).abs().mean() < 2


def test_ten_thousand_objects_in_a_picture(tmp_path: Path) -> None:
    few, many = (make_dataset(tmp_path, [(300, 400)] * 2, boxes_each=count) for count in (100, 10_000))
    of_few, of_many = (
        effort(lambda dataset=dataset: next(iter(train_loader(dataset, EVERY_BOX, 2, 0)))) for dataset in (few, many)
    )
    assert of_many.calls < of_few.calls + 100, "nothing is done box by box"
    assert of_many.memory < of_few.memory + 2 * 10_000 * 500, "nor each box with each other one"
    batch = next(iter(train_loader(many, EVERY_BOX, 2, 0)))
    assert all(len(target) > 1000 for target in batch.targets)


def test_default_workers_leave_the_cores_to_training() -> None:
    assert 1 <= default_workers(on_gpu=False) <= default_workers(on_gpu=True) <= 16


@pytest.mark.parametrize("on_gpu", [False, True])
def test_images_are_loaded_as_suits_the_device_of_the_run(tmp_path: Path, on_gpu: bool) -> None:
    """A run on the CPU of a machine with a GPU needs the cores, and no page-locked memory."""
    dataset = make_dataset(tmp_path, [(60, 80)])
    for loader in (train_loader(dataset, SQUARE, 1, on_gpu=on_gpu), eval_loader(dataset, (64, 64), on_gpu=on_gpu)):
        assert (loader.num_workers, loader.pin_memory) == (default_workers(on_gpu), on_gpu)


def test_the_canvas_has_the_ratio_that_nearly_all_images_share(tmp_path: Path) -> None:
    alike = make_dataset(tmp_path, [(60, 80)] * 9 + [(80, 60)])
    assert next(iter(train_loader(alike, small_model(128), 2, 0))).images.shape[2:] == (96, 128)
    mixed = replace(alike, images=alike.images[-4:])
    assert next(iter(train_loader(mixed, small_model(128), 2, 0))).images.shape[2:] == (128, 128)
