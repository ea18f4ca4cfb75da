"""Images kept on disk, JPEGs scaled while they are decoded, files that cannot be read."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.loaders import train_loader
from data.test_loading import KEEP_RATIO, SQUARE, make_dataset, same
from tood.data import read_image
from tood.data.dataset import DetectionDataset
from tood.data.disk_cache import DiskCache
from tood.data.loading import Batch
from tood.data.reading import ImageReader, UnreadableImageError
from tood.data.transforms import AugmentConfig, FitStep
from tood.errors import ToodError


def epochs(dataset: DetectionDataset, *numbers: int, **options: object) -> list[Batch]:
    loader = train_loader(dataset, SQUARE, 2, seed=5, **{"workers": 0, **options})  # type: ignore[arg-type]
    batches = []
    for epoch in numbers:
        loader.batch_sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def kept(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def unlimited(height: int, width: int) -> float:
    return 1.0


# --- on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_on_disk_changes_nothing_and_is_used_again(
    dataset: DetectionDataset, tmp_path: Path, workers: int
) -> None:
    expected, folder = epochs(dataset, 0, 1), tmp_path / "cache"
    cached = epochs(dataset, 0, 1, workers=workers, cache=folder)
    assert all(same(a, b) for a, b in zip(expected, cached, strict=True))
    before = kept(folder)
    assert len(before) == 7
    again = epochs(dataset, 0, 1, cache=folder)
    assert all(same(a, b) for a, b in zip(expected, again, strict=True))
    assert kept(folder) == before


def test_a_cached_file_that_was_cut_is_written_anew(dataset: DetectionDataset, tmp_path: Path) -> None:
    expected, folder = epochs(dataset, 0), tmp_path / "cache"
    epochs(dataset, 0, cache=folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.write_bytes(path.read_bytes()[: 100 * number])
    assert all(same(a, b) for a, b in zip(expected, epochs(dataset, 0, cache=folder), strict=True))
    assert all(path.stat().st_size > 1000 for path in folder.iterdir())


def test_a_changed_picture_is_decoded_anew(dataset: DetectionDataset, tmp_path: Path) -> None:
    first = DiskCache(tmp_path / "cache", dataset.images, unlimited, 10**9)
    assert first[0].max() > 0
    black = dataset.images[0]
    cv2.imwrite(str(black.path), np.zeros((black.height, black.width, 3), np.uint8))
    assert DiskCache(tmp_path / "cache", dataset.images, unlimited, 10**9)[0].max() == 0
    assert first[0].max() == 0, "also one that is open already"


def test_the_cache_on_disk_stays_within_its_limit(
    dataset: DetectionDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, limit = tmp_path / "cache", 40_000

    def fill(images: DetectionDataset) -> int:
        cache = DiskCache(folder, images.images, unlimited, limit)
        for index, image in enumerate(images.images):
            np.testing.assert_array_equal(cache[index], read_image(image.path))
        return sum(path.stat().st_size for path in folder.iterdir())

    with caplog.at_level(logging.WARNING):
        assert 20_000 < fill(dataset) <= limit
    assert "the others are decoded each time" in caplog.text
    (tmp_path / "others").mkdir()
    others = make_dataset(tmp_path / "others", [(50, 50)] * 4)
    before = set(kept(folder))
    assert 30_000 < fill(others) <= limit
    assert set(kept(folder)) != before
    assert len(set(kept(folder)) - before) == 4, "another dataset's oldest files make room"


def test_too_large_images_are_kept_shrunk(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [(400, 600)] * 3)
    cache = DiskCache(tmp_path / "cache", dataset.images, lambda height, width: 0.25, 200_000)
    assert [cache[index].shape for index in range(3)] == [(100, 150, 3)] * 3
    assert len(kept(tmp_path / "cache")) == 3


def test_a_disk_that_takes_no_more_is_told_once(
    dataset: DetectionDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = DiskCache(tmp_path / "cache", dataset.images, unlimited, 10**9)
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("")  # a file where the folder was: nothing can be written below it
    with caplog.at_level(logging.WARNING):
        for index, image in enumerate(dataset.images):
            np.testing.assert_array_equal(cache[index], read_image(image.path))
    assert caplog.text.count("images are decoded each time from now on") == 1
    with pytest.raises(ToodError, match=r"data\.cache: .* cannot hold decoded images"):
        DiskCache(tmp_path / "cache", dataset.images, unlimited, 10**9)


# --- scaled in decoding ----------------------------------------------------------------------------------------------


def smooth(path: Path, height: int, width: int) -> Path:
    """A photograph's likes: no detail near a pixel's size."""
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


@pytest.mark.parametrize(("reduction", "shape"), [(1, (301, 403)), (2, (151, 202)), (4, (76, 101)), (8, (38, 51))])
def test_a_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path, reduction: int, shape: tuple[int, int]) -> None:
    path = smooth(tmp_path / "a.jpg", 301, 403)
    pixels = read_image(path, expected_size=(403, 301), reduction=reduction)
    assert pixels.shape[:2] == shape
    # A pixel stands for a square of the file's, at the right and lower border partly beyond it.
    over = (shape[0] * reduction - 301, shape[1] * reduction - 403)
    whole = np.pad(read_image(path), ((0, over[0]), (0, over[1]), (0, 0)), mode="edge")
    squares = whole.reshape(shape[0], reduction, shape[1], reduction, 3).mean(axis=(1, 3))
    assert np.abs(pixels - squares).mean() < 1
    assert read_image(smooth(tmp_path / "a.png", 301, 403), reduction=reduction).shape[:2] == (301, 403)
    with pytest.raises(ToodError, match="403x301"):
        read_image(path, expected_size=shape[::-1] if reduction > 1 else (1, 1), reduction=reduction)


def test_there_are_no_other_reductions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reduction is 3"):
        read_image(tmp_path / "a.jpg", reduction=3)


def test_a_jpeg_is_never_decoded_smaller_than_training_wants_it(tmp_path: Path) -> None:
    record = make_dataset(tmp_path, [(400, 600)]).images[0]
    for scale, reduction in ((1.0, 1), (0.51, 1), (0.5, 2), (0.3, 2), (0.25, 4), (0.13, 4), (0.125, 8), (0.01, 8)):
        assert ImageReader(lambda height, width, s=scale: s).reduction(record) == reduction  # type: ignore[misc]


@pytest.mark.parametrize("cache", [False, True])
def test_scaled_decoding_keeps_boxes_on_their_pixels(tmp_path: Path, cache: bool) -> None:
    dataset = make_dataset(tmp_path, [(401, 603)] * 3)
    images = tuple(replace(image, path=smooth(image.path.with_suffix(".jpg"), 401, 603)) for image in dataset.images)
    dataset, augment = replace(dataset, images=images), AugmentConfig((FitStep((100, 150)),))
    plain = next(iter(train_loader(dataset, augment, 3, 0, cache=cache)))
    scaled = next(iter(train_loader(dataset, augment, 3, 0, cache=cache, scaled_jpeg=True)))
    assert not torch.equal(plain.images, scaled.images)
    for first, second in zip(plain.targets, scaled.targets, strict=True):
        torch.testing.assert_close(first.boxes, second.boxes, atol=0.7, rtol=0)
    assert (plain.images.float() - scaled.images.float()).abs().mean() < 3


# --- unreadable files ------------------------------------------------------------------------------------------------


def test_an_image_that_breaks_in_epoch_3_is_replaced_and_told_once(
    dataset: DetectionDataset, caplog: pytest.LogCaptureFixture
) -> None:
    loader = train_loader(dataset, SQUARE, 2, 0, seed=5, unreadable="skip")
    whole = epochs(dataset, 0, 1, 2, 3)
    batches: list[Batch] = []
    with caplog.at_level(logging.WARNING):
        for epoch in range(6):
            if epoch == 3:
                dataset.images[2].path.write_bytes(b"")
            loader.batch_sampler.set_epoch(epoch)
            batches += list(loader)
    assert all(same(a, b) for a, b in zip(whole[:12], batches, strict=False))
    seen = [[info.path for batch in batches[i : i + 4] for info in batch.infos] for i in range(0, 24, 4)]
    broken = str(dataset.images[2].path)
    assert [broken in paths for paths in seen] == [True] * 3 + [False] * 3
    assert [len(paths) for paths in seen] == [7] * 6, "another image takes its place"
    assert caplog.text.count(broken) == 1
    assert loader.dataset.skipped.paths == (broken,)  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{"workers": 2}, {"cache": True}, {"workers": 1, "cache": True}])
def test_what_is_skipped_does_not_depend_on_workers_or_cache(
    dataset: DetectionDataset, options: dict[str, object]
) -> None:
    for index in (1, 4):
        dataset.images[index].path.write_bytes(b"no image")
    expected = epochs(dataset, 0, 1, unreadable="skip")
    assert all(same(a, b) for a, b in zip(expected, epochs(dataset, 0, 1, unreadable="skip", **options), strict=True))


def test_skipped_images_of_workers_are_counted_here(dataset: DetectionDataset) -> None:
    dataset.images[1].path.unlink()
    loader = train_loader(dataset, KEEP_RATIO, 2, 2, unreadable="skip")
    assert sum(len(batch) for batch in loader) == 7
    assert loader.dataset.skipped.paths == (str(dataset.images[1].path),)  # type: ignore[attr-defined]


def test_a_whole_folder_that_vanished_is_an_error_all_the_same(dataset: DetectionDataset) -> None:
    for image in dataset.images:
        image.path.unlink()
    with pytest.raises(UnreadableImageError, match="19 others drawn in its place: is the disk there"):
        epochs(dataset, 0, unreadable="skip")


# --- annotations ----------------------------------------------------------------------------------------------------


def test_annotations_that_change_during_training_change_nothing(tmp_path: Path) -> None:
    from dataset_files import usual_coco, write_coco_folder
    from tood.data import load_dataset

    annotations = write_coco_folder(tmp_path, usual_coco())
    loader = train_loader(load_dataset(tmp_path, "train"), SQUARE, 2, 1, seed=5)
    expected = list(loader)
    annotations.write_text("{ torn")
    assert all(same(a, b) for a, b in zip(expected, loader, strict=True))
    with pytest.raises(ToodError, match="broken json"):
        load_dataset(tmp_path, "train")
