"""Lines of a box with keypoints are told from polygons, also where no `kpt_shape` says which they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_files import write_yolo_folder
from tood.data import load_dataset
from tood.data.formats.yolo_labels import Keypoints
from tood.data.formats.yolo_poses import find_poses
from tood.errors import ToodError

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def poses(rng: np.random.Generator, lines: int, points: int) -> list[list[float]]:
    """Boxes all over a picture with keypoints in them, some unseen."""
    sizes = rng.uniform(0.05, 0.6, (lines, 2))
    centres = rng.uniform(sizes / 2, 1 - sizes / 2)
    inside = centres[:, None] + sizes[:, None] * rng.uniform(-0.5, 0.5, (lines, points, 2))
    inside[rng.random((lines, points)) < 0.1] = 0
    table = np.concatenate([np.zeros((lines, 1)), centres, sizes, inside.reshape(lines, -1)], axis=1)
    return table.tolist()  # type: ignore[no-any-return]


def polygons(rng: np.random.Generator, lines: int, points: int, spread: float = 1.0) -> list[list[float]]:
    """Outlines of `points` points each all over a picture, or near its middle; they begin anywhere."""
    radii = rng.uniform(0.03, 0.3, (lines, 1, 2))
    low, high = radii[:, 0], 1 - radii[:, 0]
    centres = 0.5 + (rng.uniform(low, high) - 0.5) * spread
    angles = np.sort(rng.uniform(0, 2 * np.pi, (lines, points)), axis=1)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=2) * rng.uniform(0.7, 1, (lines, points, 1))
    table = (centres[:, None] + radii * circle).reshape(lines, -1)
    return np.concatenate([np.zeros((lines, 1)), table], axis=1).tolist()  # type: ignore[no-any-return]


def text(lines: list[list[float]]) -> str:
    return "".join(" ".join(["0", *(f"{value:.6f}" for value in line[1:])]) + "\n" for line in lines)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lines=st.integers(20, 200), points=st.integers(4, 24))
def test_poses_all_over_pictures_are_poses(seed: int, lines: int, points: int) -> None:
    found = find_poses(poses(np.random.default_rng(seed), lines, points))
    assert found is not None
    assert (found.keypoints, found.clear) == (Keypoints(points, 2), True)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lines=st.integers(20, 200), points=st.integers(5, 24), spread=st.floats(0, 1))
def test_polygons_are_never_clearly_poses(seed: int, lines: int, points: int, spread: float) -> None:
    found = find_poses(polygons(np.random.default_rng(seed), lines, points, spread))
    assert found is None or not found.clear
    if spread > 0.8:
        assert found is None


def test_polygons_of_several_lengths_are_polygons() -> None:
    rng = np.random.default_rng(0)
    assert find_poses([*polygons(rng, 3, 7, 0.0), *polygons(rng, 3, 8, 0.0)]) is None
    assert find_poses([]) is None


def test_visibilities_betray_poses_of_an_odd_length() -> None:
    line = [0.0, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 2, 0.6, 0.6, 1, 0.5, 0.5, 2, 0, 0, 0]
    found = find_poses([line])
    assert found is not None
    assert (found.keypoints, found.clear) == (Keypoints(4, 3), True)


def test_poses_without_a_kpt_shape_give_their_boxes_and_are_told(tmp_path: Path) -> None:
    lines = poses(np.random.default_rng(3), 30, 17)
    write_yolo_folder(tmp_path, {"train/a": text(lines), "train/b": "1 0.5 0.5 0.25 0.5\n", "val/c": ""}, YAML)
    dataset = load_dataset(tmp_path, "train")
    found, plain = dataset.images
    table = np.array(lines)[:, 1:5]
    corners = np.concatenate([table[:, :2] - table[:, 2:] / 2, table[:, :2] + table[:, 2:] / 2], axis=1)
    np.testing.assert_allclose(found.boxes, corners * [64, 48, 64, 48], atol=1e-3)
    assert plain.boxes.tolist() == [[24, 12, 40, 36]]
    assert dataset.notes == (
        "30 lines of labels have 39 numbers, a box with 17 keypoints: the box is taken; `kpt_shape: [17, 2]` in the "
        "yaml says so, `kpt_shape: []` that they are polygons",
    )
    (tmp_path / "data.yaml").write_text(f"{YAML}kpt_shape: [17, 2]\n")
    said = load_dataset(tmp_path, "train")
    assert said.notes == ()
    assert said.images[0].boxes.tolist() == found.boxes.tolist()
    (tmp_path / "data.yaml").write_text(f"{YAML}kpt_shape: []\n")
    outlined = load_dataset(tmp_path, "train")
    assert outlined.notes == ()
    assert outlined.images[0].boxes.tolist() != found.boxes.tolist()


def test_a_split_that_does_not_tell_is_read_as_the_others_are(tmp_path: Path) -> None:
    """One line may be either: box and points, or points alone."""
    either = [0, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.7, 0.3, 0.5, 0.3, 0.5, 0.45]
    lines = poses(np.random.default_rng(3), 30, 4)
    write_yolo_folder(tmp_path, {"train/a": text(lines), "val/b": text([either])}, YAML)
    assert load_dataset(tmp_path, "val").images[0].boxes.tolist() == [[16, 12, 48, 36]]
    write_yolo_folder(tmp_path / "alone", {"train/a": "", "val/b": text([either])}, YAML)
    alone = load_dataset(tmp_path / "alone", "val")
    np.testing.assert_allclose(alone.images[0].boxes, [[0.3 * 64, 0.3 * 48, 0.7 * 64, 24]], atol=1e-3)
    (note,) = alone.notes
    assert note.endswith("taken for polygons; if they are boxes with keypoints, add `kpt_shape: [4, 2]` to the yaml")


def test_polygons_stay_polygons(tmp_path: Path) -> None:
    lines = polygons(np.random.default_rng(5), 40, 8)
    write_yolo_folder(tmp_path, {"train/a": text(lines), "val/b": ""}, YAML)
    dataset = load_dataset(tmp_path, "train")
    points = np.array(lines)[:, 1:].reshape(40, 8, 2)
    corners = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1) * [64, 48, 64, 48]
    np.testing.assert_allclose(dataset.images[0].boxes, corners, atol=1e-3)
    assert dataset.notes == ()


@pytest.mark.parametrize("points", [1, 3, 17])
def test_poses_with_visibilities_are_told_which_line_to_add(tmp_path: Path, points: int) -> None:
    line = "0 0.5 0.5 0.25 0.5" + " 0.5 0.5 2" * points + "\n"
    write_yolo_folder(tmp_path, {"train/a": line, "val/b": ""}, YAML)
    with pytest.raises(ToodError) as caught:
        load_dataset(tmp_path, "train")
    added = str(caught.value).split("`")[-2]
    assert added == f"kpt_shape: [{points}, 3]"
    (tmp_path / "data.yaml").write_text(f"{YAML}{added}\n")
    assert load_dataset(tmp_path, "train").images[0].boxes.tolist() == [[24, 12, 40, 36]]


def test_one_point_many_times_is_no_polygon() -> None:
    found = find_poses([[0, 0.5, 0.5, 0.2, 0.2, *[0.1, 0.2] * 17], [1, 0.4, 0.3, 0.2, 0.2, *[0.1, 0.2] * 17]])
    assert found is not None
    assert (found.keypoints, found.clear) == (Keypoints(17, 2), True)
