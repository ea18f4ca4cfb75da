"""PP-YOLOE's input and its pooled NMS against PaddleDetection's numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from golden_values import golden
from tood.inference.postprocess import postprocess
from tood.input import normalise, prepare
from tood.models import PostprocessConfig
from tood.models.ppyoloe.config import LEGACY_INPUT, PLUS_INPUT
from tood.structures import DensePredictions, Priors


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", ["ppyoloe", "ppyoloe_plus"])
def test_pictures_become_the_reference_s_numbers(number: int, kind: str) -> None:
    values = golden("ppyoloe_training")["preprocessing"][number]
    height, width = values["target"]
    image = values["image"].numpy()
    base = LEGACY_INPUT if kind == "ppyoloe" else PLUS_INPUT
    # Of a picture that stands the sides are meant the other way round.
    config = replace(base, short=min(height, width), long=max(height, width))
    pixels, geometry = prepare(image, config)
    given = normalise(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2), torch.tensor([[height, width]]), config)
    torch.testing.assert_close(given[0].contiguous(), values[kind], rtol=1e-4, atol=1e-5)
    assert geometry.scale[::-1] == pytest.approx(values["scale_factor"].tolist())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_pooled_nms_keeps_what_the_reference_keeps(number: int) -> None:
    values = golden("ppyoloe_training")["nms"]
    settings = values["results"][number]["settings"]
    config = PostprocessConfig(
        score_threshold=settings["score_threshold"],
        per_class=settings["nms_top_k"],
        iou_threshold=settings["nms_threshold"],
        max_detections=settings["keep_top_k"],
    )
    boxes, scores = values["boxes"], values["scores"]
    priors = Priors(torch.zeros(len(boxes), 2), torch.ones(len(boxes)), torch.ones(len(boxes)), ((len(boxes), 1),))
    (found,) = postprocess(DensePredictions(scores.T[None], boxes[None], priors), None, config)
    given = torch.cat([found.labels[:, None].float(), found.scores[:, None], found.boxes], dim=1)
    wanted = values["results"][number]["detections"]
    wanted = wanted[wanted[:, 1].argsort(descending=True, stable=True)]
    torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-4)


def test_the_best_of_each_class_are_taken_over_all_levels() -> None:
    generator = torch.Generator().manual_seed(3)
    count, classes, limit = 60, 4, 7
    scores = torch.rand(count, classes, generator=generator)
    scores[:30, 1] = 0.5  # equal ones
    scores[4, 2] = torch.nan
    corner = torch.arange(count)[:, None] * 100.0
    boxes = torch.cat([corner, corner, corner + 10, corner + 10], dim=1)  # none overlaps another
    priors = Priors(torch.zeros(count, 2), torch.ones(count), torch.ones(count), ((40, 1), (20, 1)))
    config = PostprocessConfig(score_threshold=0.3, per_class=limit, max_detections=1000)
    (found,) = postprocess(DensePredictions(scores[None], boxes[None], priors), None, config)
    wanted = set()
    for label in range(classes):
        ranked = sorted((n for n in range(count) if scores[n, label] > 0.3), key=lambda n: -scores[n, label].item())
        wanted |= {(n, label) for n in ranked[:limit]}
    places = (found.boxes[:, 0] / 100).round().long().tolist()
    assert set(zip(places, found.labels.tolist(), strict=True)) == wanted
    assert np.all(np.diff(found.scores.numpy()) <= 0)
