"""Settings that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("tood", deadline=None)
settings.load_profile("tood")
# Several test processes share few cores.
torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real photographs, where the environment names one."""
    folder = os.environ.get("TOOD_TEST_DATA")
    if not folder:
        pytest.skip("TOOD_TEST_DATA names no folder of real data")
    return Path(folder)
