"""The built-in dataset: tight boxes, disjoint writers, the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tood.data.digits import DigitsConfig, Scene, SceneConfig, load_scans, render_scene, write_digits
from tood.data.digits.scans import SPLITS
from tood.errors import ToodError

SMALL = DigitsConfig(train=3, val=1, test=2, seed=4)


def scene_of(seed: int, config: SceneConfig | None = None) -> Scene:
    return render_scene(load_scans("train"), np.random.default_rng(seed), config)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_scans_are_the_published_ones_divided_without_overlap() -> None:
    scans = [load_scans(split) for split in SPLITS]
    assert sum(len(part) for part in scans) == 1797
    for part in scans:
        assert part.pixels.shape == (len(part), 8, 8)
        assert part.pixels.max() == 16
        assert set(part.labels.tolist()) == set(range(10))
    drawings = [{pixels.tobytes() for pixels in part.pixels} for part in scans]
    assert not drawings[0] & drawings[2]
    assert not drawings[0] & drawings[1]
    # Each form starts with the same sequence of digits: the splits cut between forms.
    assert all(part.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1] for part in scans)


def test_scans_equal_scikit_learns() -> None:
    datasets = pytest.importorskip(
        "sklearn.datasets", reason="scikit-learn, where the scans come from, is not installed"
    )
    original = datasets.load_digits()
    np.testing.assert_array_equal(np.concatenate([load_scans(split).pixels for split in SPLITS]), original.images)
    np.testing.assert_array_equal(np.concatenate([load_scans(split).labels for split in SPLITS]), original.target)


@given(seed=st.integers(0, 100_000))
@settings(max_examples=25)
def test_scenes_keep_their_promises(seed: int) -> None:
    scene, config = scene_of(seed), SceneConfig()
    assert scene.image.shape == (256, 256, 3)
    assert scene.image.dtype == np.uint8
    assert len(scene.boxes) == len(scene.labels) <= config.most
    sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
    assert (sides > 0).all()
    assert (scene.boxes >= 0).all()
    assert (scene.boxes <= 256).all()
    assert (sides.min(axis=1) >= config.smallest).all()
    assert (sides.max(axis=1) <= config.largest).all()
    low = np.maximum(scene.boxes[:, None, :2], scene.boxes[None, :, :2])
    high = np.minimum(scene.boxes[:, None, 2:], scene.boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = sides.prod(axis=1)
    np.fill_diagonal(shared, 0)
    assert (shared <= config.max_overlap * np.minimum(areas[:, None], areas[None])).all()


def test_scenes_are_crowded_at_several_scales() -> None:
    scenes = [scene_of(seed) for seed in range(40)]
    assert np.mean([len(scene.labels) for scene in scenes]) >= 10
    assert min(len(scene.labels) for scene in scenes) >= 8
    sides = np.concatenate([scene.boxes[:, 2:] - scene.boxes[:, :2] for scene in scenes])
    assert np.quantile(sides.min(axis=1), 0.1) < 25
    assert np.quantile(sides.max(axis=1), 0.9) > 80
    labels = np.concatenate([scene.labels for scene in scenes])
    assert np.bincount(labels, minlength=10).min() > 0.04 * len(labels)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_are_tight_around_the_ink(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # On flat white paper and without grain, what differs from white is ink: it fills the box and leaves none outside.
    def blank(rng: np.random.Generator, side: int) -> np.ndarray:
        return np.full((side, side, 3), 255, np.uint8)

    monkeypatch.setattr("tood.data.digits.scenes.background", blank)
    monkeypatch.setattr("cv2.GaussianBlur", lambda image, *rest: image)
    scene = scene_of(seed, SceneConfig(fewest=1, most=1, noise=0.0, min_contrast=200.0))
    ink = (255 - scene.image.astype(float)).max(axis=2)
    solid = ink > 0.5 * ink.max()
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(found - scene.boxes[0]).max() <= 1


def test_a_scene_depends_on_its_seed_alone() -> None:
    first, again, other = scene_of(1), scene_of(1), scene_of(2)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


def test_impossible_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="fewest"):
        SceneConfig(fewest=5, most=4)
    with pytest.raises(ValueError, match="smallest"):
        SceneConfig(largest=300)
    # So many that there is no room: it ends, with fewer.
    crowded = scene_of(0, SceneConfig(side=64, fewest=60, most=60, smallest=20, largest=40))
    assert 1 <= len(crowded.labels) < 60


def test_folder_is_coco_and_the_same_bytes_again(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = write_digits(tmp_path / "a", SMALL, progress=lambda done, total: calls.append((done, total)))
    second = write_digits(tmp_path / "b", SMALL, processes=2)
    assert calls == [(done, 6) for done in range(1, 7)]
    assert contents(first) == contents(second)
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        content = json.loads((first / "annotations" / f"instances_{split}.json").read_text())
        assert len(content["images"]) == count
        assert [category["name"] for category in content["categories"]] == list("0123456789")
        assert len({annotation["id"] for annotation in content["annotations"]}) == len(content["annotations"])
        assert "CC BY 4.0" in content["info"]["contributor"]
        for picture in content["images"]:
            pixels = cv2.imread(str(first / split / picture["file_name"]))
            assert pixels.shape == (picture["height"], picture["width"], 3)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_seed_gives_other_pictures(tmp_path: Path) -> None:
    one = DigitsConfig(train=1, val=0, test=0, seed=0)
    first, second = write_digits(tmp_path / "a", one), write_digits(tmp_path / "b", DigitsConfig(1, 0, 0, seed=1))
    name = "train/000001.jpg"
    assert (first / name).read_bytes() != (second / name).read_bytes()
    assert not (first / "test").exists()


def test_same_folder_is_reused_and_others_are_left_alone(tmp_path: Path) -> None:
    config = DigitsConfig(train=1, val=0, test=1)
    out = tmp_path / "digits"
    out.mkdir()  # empty: may be used
    write_digits(out, config)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    write_digits(out, config)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(ToodError, match="digits made otherwise"):
        write_digits(out, DigitsConfig(train=2, val=0, test=1))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    with pytest.raises(ToodError, match="something else"):
        write_digits(foreign, config)
    (tmp_path / "file").write_text("")
    with pytest.raises(ToodError, match="already holds"):
        write_digits(tmp_path / "file", config)


def test_a_stop_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "digits", SMALL, progress=stop)
    assert not list(tmp_path.iterdir())


def test_unusable_place_and_numbers_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToodError, match="cannot be written"):
        write_digits(tmp_path / "file" / "digits", SMALL)
    with pytest.raises(ToodError, match="negative"):
        DigitsConfig(train=-1)
    with pytest.raises(ToodError, match="0 pictures"):
        DigitsConfig(0, 0, 0)
