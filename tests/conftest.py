"""Settings that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# On a server the same examples each time: a change is judged by itself. New ones are looked for everywhere else.
settings.register_profile("tood", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tood")
# Several test processes share few cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def accelerate_forgets() -> Iterator[None]:
    """Accelerate remembers the precision of a process's first trainer, and refuses the next test another one."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def real_data() -> Path:
    """The folder of real photographs, where the environment names one."""
    folder = os.environ.get("TOOD_TEST_DATA")
    if not folder:
        pytest.skip("TOOD_TEST_DATA names no folder of real data")
    return Path(folder)
