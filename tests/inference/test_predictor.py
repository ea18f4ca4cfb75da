"""Any network behind a function, and pictures read while it works."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tood.errors import ToodError
from tood.inference.predictor import Predictor, read_ahead
from tood.input import Fit, InputConfig, prepare, stacked
from tood.models import PostprocessConfig
from tood.structures import DensePredictions, Priors

CONFIG = InputConfig(short=64, long=64, divisor=16, mean=(0, 0, 0), std=(255, 255, 255))


def finds_white(images: Tensor) -> DensePredictions:
    """A network without a weight: the box around what is white in each image."""
    boxes = []
    for image in images:
        rows, columns = (image.amin(dim=0) > 0.99).nonzero(as_tuple=True)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    found = torch.tensor(boxes, dtype=torch.float32)[:, None]
    priors = Priors(torch.zeros(1, 2), torch.ones(1), torch.ones(1), ((1, 1),))
    return DensePredictions(torch.full((len(images), 1, 1), 0.9), found, priors)


@pytest.mark.parametrize("fit", ["keep_ratio", "letterbox", "stretch"])
@pytest.mark.parametrize("clip", [False, True])
def test_boxes_come_out_in_pixels_of_the_images(fit: Fit, clip: bool) -> None:
    config = replace(CONFIG, fit=fit)
    predictor = Predictor(finds_white, config, PostprocessConfig(clip=clip), torch.device("cpu"))
    images = []
    for height, width, box in ((128, 64, [16, 32, 48, 96]), (64, 128, [0, 0, 128, 64])):
        image = np.zeros((height, width, 3), np.uint8)
        image[box[1] : box[3], box[0] : box[2]] = 255
        images.append(image)
    prepared = [prepare(image, config) for image in images]
    batch = torch.from_numpy(stacked([pixels for pixels, _ in prepared], config)).permute(0, 3, 1, 2)
    first, second = predictor(batch, [geometry for _, geometry in prepared])
    # Half a pixel for what bilinear scaling does to a white border.
    np.testing.assert_allclose(first.boxes[0].tolist(), [16, 32, 48, 96], atol=2)
    np.testing.assert_allclose(second.boxes[0].tolist(), [0, 0, 128, 64], atol=1e-4)


def test_reading_goes_on_while_results_are_used() -> None:
    waiting = threading.Event()

    def read(item: int) -> int:
        if item == 1:
            waiting.set()
        return item * item

    results = read_ahead(range(5), read, ahead=2)
    assert next(results)() == 0
    assert waiting.wait(60), "the second was read though nobody has asked for it"
    assert [result() for result in results] == [1, 4, 9, 16]


def test_no_more_is_read_than_may_wait() -> None:
    read: list[int] = []
    results = read_ahead(range(100), read.append, ahead=3)
    next(results)()
    time.sleep(0.2)
    assert len(read) <= 4
    results.close()
    assert len(read) <= 5


def test_what_nobody_waits_for_holds_up_neither_the_caller_nor_the_end_of_the_program() -> None:
    code = """
import threading, time
from tood.inference import read_ahead
results = read_ahead(range(3), lambda item: threading.Event().wait(300), ahead=2)
result = next(results)
begin = time.monotonic()
results.close()
print(time.monotonic() - begin)
"""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert float(done.stdout) < 10
    assert time.monotonic() - begin < 200
    assert not done.stderr


def test_an_error_is_raised_in_its_turn() -> None:
    def read(item: int) -> int:
        if item == 1:
            raise ToodError("broken")
        return item

    first, second, third = read_ahead(range(3), read, ahead=8)
    assert first() == 0
    with pytest.raises(ToodError, match="broken"):
        second()
    assert third() == 2
