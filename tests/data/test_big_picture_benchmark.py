"""What the benchmark of large pictures measures and counts."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from benchmarks.big_picture import found_twice, measured


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of memory")
def test_memory_is_that_of_one_run_alone() -> None:
    large = measured([sys.executable, "-S", "-c", "print(len(bytes(1) * (200 << 20)))"])
    small = measured([sys.executable, "-S", "-c", "pass"])
    assert small.resident < 60 << 20 < 200 << 20 < large.resident < 300 << 20


def test_objects_with_several_boxes_are_counted() -> None:
    truth = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [90, 90, 99, 99]], np.float32)
    found = np.array([[0, 0, 10, 10], [0, 0, 5, 10], [50, 50, 60, 60], [70, 70, 80, 80]], np.float32)
    assert found_twice(found, truth) == pytest.approx(1 / 3)
    assert found_twice(found[:0], truth) == 0
    assert found_twice(found, truth[:0]) == 0
