"""What well-known tools write in their YOLO formats is recognised as it is, with the right boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data.tools_yolo import CLASSES, TOOLS, TRAIN, VAL, Found, labelimg_into_split_folders
from tood.cli.data import app
from tood.data import available_splits, convert_dataset, load_dataset
from tood.errors import ToodError

runner = CliRunner()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_folders_of_tools_are_recognised_with_the_right_boxes(tool: Callable[[Path], Found], tmp_path: Path) -> None:
    found = tool(tmp_path)
    result = runner.invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "passed over" not in result.output
    assert list(available_splits(tmp_path)) == list(found)
    for split, scenes in found.items():
        dataset = load_dataset(tmp_path, split)
        assert dataset.class_names == CLASSES
        assert dataset.annotated
        assert dataset.problems == ()
        by_name = {image.path.stem: image for image in dataset.images}
        assert by_name.keys() == {scene.name for scene in scenes}
        for scene in scenes:
            image = by_name[scene.name]
            assert (image.width, image.height) == scene.size
            assert image.labels.tolist() == [label for label, _ in scene.objects]
            boxes = np.array([box for _, box in scene.objects], np.float64).reshape(-1, 4)
            np.testing.assert_allclose(image.boxes, boxes, atol=1e-3)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_a_zip_unpacked_into_a_folder_of_its_own_is_found(tool: Callable[[Path], Found], tmp_path: Path) -> None:
    found = tool(tmp_path / "export")
    assert list(available_splits(tmp_path)) == list(found)
    split = next(iter(found))
    assert load_dataset(tmp_path, split).digest() == load_dataset(tmp_path / "export", split).digest()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_what_is_written_from_them_is_the_same_dataset(tool: Callable[[Path], Found], tmp_path: Path) -> None:
    found = tool(tmp_path / "export")
    convert_dataset(tmp_path / "export", tmp_path / "yolo", "yolo")
    for split in found:
        first, second = load_dataset(tmp_path / "export", split), load_dataset(tmp_path / "yolo", split)
        assert second.class_names == first.class_names
        assert second.notes == ()
        assert [image.name for image in second.images] == [image.name for image in first.images]
        for before, after in zip(first.images, second.images, strict=True):
            np.testing.assert_allclose(after.boxes, before.boxes, atol=1e-3)


def test_names_beside_the_labels_of_a_split_are_those_of_all(tmp_path: Path) -> None:
    found = labelimg_into_split_folders(tmp_path)
    assert found == {"train": TRAIN, "val": VAL}
    (tmp_path / "labels" / "val" / "classes.txt").write_text("person\nno\n")
    with pytest.raises(ToodError, match="name other classes: remove the one that is not meant"):
        available_splits(tmp_path)
