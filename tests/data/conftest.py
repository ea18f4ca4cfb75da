"""What several tests of data share."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.test_loading import make_dataset
from tood.data.dataset import DetectionDataset


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    (tmp_path / "pictures").mkdir()
    return make_dataset(tmp_path / "pictures", [(60, 80), (80, 60), (48, 90), (50, 70), (90, 45), (64, 64), (33, 77)])
