"""`Detections.plot` draws what `tood.plots.draw_detections` draws, and opens no room above the data classes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from tood.plots import draw_detections
from tood.structures import Detections

IMAGE = np.full((120, 160, 3), 200, np.uint8)
# The last label is of a class without a name, the last score below the threshold.
FOUND = Detections(
    torch.tensor([[10.0, 40, 80, 100], [60, 50, 150, 110], [5, 5, 30, 30]]),
    torch.tensor([0.9, 0.6, 0.1]),
    torch.tensor([0, 7, 0]),
    ("cat",),
    image=IMAGE,
)

ROOMS = """
import sys
import numpy, torch
from tood.structures import Detections
image = numpy.zeros((60, 60, 3), numpy.uint8)
Detections(torch.tensor([[5.0, 5, 40, 40]]), torch.tensor([0.9]), torch.tensor([0]), ("cat",), image=image).plot()
print(*sorted({name.split(".")[1] for name in sys.modules if name.startswith("tood.")}))
"""


def test_a_plot_is_the_detections_drawn() -> None:
    assert np.array_equal(FOUND.plot(0.3), draw_detections(IMAGE, FOUND.above(0.3)))
    assert not np.array_equal(FOUND.plot(0.3), FOUND.plot(0.0))


def test_a_plot_needs_no_room_above_the_data_classes() -> None:
    opened = subprocess.run([sys.executable, "-c", ROOMS], capture_output=True, text=True, check=True).stdout.split()
    assert set(opened) <= {"structures", "drawing", "errors"}, opened
