"""PAA's network is ATSS's under other names; its boxes are selected and voted on by score and IoU together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from narrow_models import NARROW_ATSS, NARROW_PAA, lively
from tood.boxes import iou_matrix, nms
from tood.inference import postprocess
from tood.models import build_model, for_inference
from tood.models.atss.weights import to_published as atss_published
from tood.models.paa import PAA
from tood.models.paa.weights import from_published, matches, to_published


def narrow_model() -> PAA:
    model = build_model(NARROW_PAA)
    assert isinstance(model, PAA)
    return lively(model)


def test_the_network_is_atss_s_whose_names_its_published_file_has() -> None:
    atss = lively(build_model(NARROW_ATSS))
    model = narrow_model()
    model.load_state_dict(from_published(atss_published(atss.state_dict())))
    images = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        ours, theirs = model(images), atss(images)
    for name in ("scores", "boxes", "quality"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    assert to_published(model.state_dict()).keys() == atss_published(atss.state_dict()).keys()
    assert matches(model.state_dict())
    assert not matches(atss.state_dict())


def test_without_an_iou_branch_nothing_judges_the_boxes() -> None:
    config = replace(NARROW_PAA, head=replace(NARROW_PAA.head, iou=False))
    model = lively(build_model(config))
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 64, 64)).quality is None
        assert for_inference(model)(torch.randn(1, 3, 64, 64)).quality is None
    assert (NARROW_PAA.predicts_quality, config.predicts_quality) == (True, False)
    assert matches(model.state_dict())


@pytest.mark.parametrize("per_level", [1000, 20])
@pytest.mark.parametrize("fused", [False, True])
def test_detections_are_selected_and_voted_on_by_score_and_iou_together(fused: bool, per_level: int) -> None:
    """As MMDetection's head does it: so the threshold; and a level's best priors bring all of their pairs."""
    generator = torch.Generator().manual_seed(0)
    images, sizes = torch.randn(2, 3, 96, 128, generator=generator), torch.tensor([[90, 120], [96, 128]])
    model = for_inference(narrow_model()) if fused else narrow_model()
    config = replace(NARROW_PAA.postprocess, per_level=per_level, score_threshold=0.3)
    with torch.inference_mode():
        predictions = model(images)
        results = postprocess(predictions, torch.full((2, 2), 0.5), config, sizes)
    assert predictions.quality is not None
    for image, found in enumerate(results):
        limits = sizes[image].flip(0).repeat(2)
        boxes = torch.minimum(predictions.boxes[image].clamp(min=0), limits) * 2
        values = (predictions.scores[image].sigmoid() * predictions.quality[image].sigmoid()[:, None]).sqrt()
        kept, start = [], 0
        for size in predictions.priors.level_sizes:
            best = values[start : start + size].amax(dim=1).topk(min(per_level, size)).indices + start
            kept += best.sort().values.tolist()
            start += size
        pairs = [(n, c) for n in kept for c in range(7) if values[n, c] > 0.3 and (boxes[n, 2:] > boxes[n, :2]).all()]
        place, label = torch.tensor(pairs).T
        left = nms(boxes[place], values[place, label], label, 0.6)[:100]
        assert 10 < len(left) < len(pairs)
        assert torch.equal(found.labels, label[left])
        torch.testing.assert_close(found.scores, values[place[left], label[left]])
        for box, one in zip(found.boxes, left, strict=True):
            same = label == label[one]
            overlap = iou_matrix(boxes[place[one]][None], boxes[place[same]])[0]
            votes = (-((1 - overlap) ** 2) / 0.025).exp() * values[place[same], label[same]] * (overlap > 0.01)
            mean = (votes[:, None] * boxes[place[same]]).sum(dim=0) / votes.sum()
            torch.testing.assert_close(box, mean, rtol=1e-4, atol=1e-3)
