"""Post-processing against the reference's detections, and against a slow formulation of the same rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from golden_values import golden
from tood.boxes import decode_distances, iou_matrix
from tood.inference import postprocess
from tood.inference.postprocess import _best_pairs
from tood.models.common import AnyPostprocessConfig, PostprocessConfig, ScoreVotingConfig, TopKConfig
from tood.models.common.postprocess_config import Ranking
from tood.models.common.priors import grid_priors
from tood.structures import DensePredictions, Priors


def priors_of(shapes: list[tuple[int, int]]) -> Priors:
    count = sum(height * width for height, width in shapes)
    return Priors(torch.zeros(count, 2), torch.zeros(count), torch.zeros(count), tuple(shapes))


def golden_predictions() -> DensePredictions:
    values = golden("anchor_free")
    maps, boxes = values["cls_scores"], values["bbox_preds"]
    strides = [8, 16, 32, 64, 128]
    return DensePredictions(
        torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1),
        torch.cat([(level * s).flatten(2).transpose(1, 2) for level, s in zip(boxes, strides, strict=True)], 1),
        priors_of([(level.shape[2], level.shape[3]) for level in maps]),
    )


@pytest.mark.parametrize("logits", [False, True])
def test_detections_are_the_reference_s(logits: bool) -> None:
    predictions = golden_predictions()
    if logits:
        predictions = replace(predictions, scores=predictions.scores.logit(), logits=True)
    scales = golden("anchor_free")["scale_factors"][:, None].expand(-1, 2)
    results = postprocess(predictions, scales, PostprocessConfig())
    for found, wanted in zip(results, golden("anchor_free")["detections"], strict=True):
        assert torch.equal(found.labels, wanted["labels"])
        torch.testing.assert_close(found.scores, wanted["scores"], rtol=1e-4, atol=0)
        torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=0, atol=1e-2)


def random_predictions(seed: int, logits: bool = False) -> DensePredictions:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 5), (2, 3), (1, 1)]
    count = sum(height * width for height, width in shapes)
    # Few distinct scores: ties are the rule.
    scores = torch.randint(0, 10, (2, count, 3), generator=generator) / 10
    corner = torch.randint(0, 40, (2, count, 2), generator=generator).float()
    sides = torch.randint(-1, 30, (2, count, 2), generator=generator).float()
    return DensePredictions(scores, torch.cat([corner, corner + sides], 2), priors_of(shapes), logits)


def slow(scores: Tensor, boxes: Tensor, sizes: list[int], config: PostprocessConfig) -> list[tuple[int, int]]:
    """(prior, class) of every detection, by sorting and comparing one by one."""
    candidates = []
    start = 0
    for size in sizes:
        pairs = [(p, c) for p in range(start, start + size) for c in range(scores.shape[1])]
        pairs = [pair for pair in pairs if scores[pair] > config.score_threshold]
        candidates += sorted(sorted(pairs, key=lambda pair: -scores[pair].item())[: config.per_level])
        start += size
    candidates = [(p, c) for p, c in candidates if (boxes[p, 2:] > boxes[p, :2]).all()]
    kept: list[tuple[int, int]] = []
    for p, c in sorted(candidates, key=lambda pair: -scores[pair].item()):
        rivals = [q for q, d in kept if d == c]
        if not rivals or iou_matrix(boxes[[p]], boxes[rivals]).max() <= config.iou_threshold:
            kept.append((p, c))
    return kept[: config.max_detections]


@given(st.integers(0, 10_000), st.sampled_from([1, 7, 1000]), st.sampled_from([0.0, 0.35, 0.8]))
def test_rules_one_by_one(seed: int, per_level: int, threshold: float) -> None:
    config = PostprocessConfig(score_threshold=threshold, per_level=per_level, iou_threshold=0.3, max_detections=9)
    predictions = random_predictions(seed)
    results = postprocess(predictions, None, config)
    for found, scores, boxes in zip(results, predictions.scores, predictions.boxes, strict=True):
        wanted = slow(scores, boxes, predictions.priors.level_sizes, config)
        assert found.labels.tolist() == [c for _, c in wanted]
        assert found.boxes.tolist() == [boxes[p].tolist() for p, _ in wanted]
        assert found.scores.tolist() == [scores[pair].item() for pair in wanted]


def golden_gfl() -> DensePredictions:
    """GFL's head outputs decoded: class logits, and boxes from the expected side distances in strides."""
    logits, distributions = golden("gfl")["head_outputs"]
    strides = (8, 16, 32, 64, 128)
    priors = grid_priors(logits, strides, 8.0)
    sides = [
        level.flatten(2).transpose(1, 2).unflatten(2, (4, 17)).softmax(3) @ torch.arange(17.0) * stride
        for level, stride in zip(distributions, strides, strict=True)
    ]
    scores = torch.cat([level.flatten(2).transpose(1, 2) for level in logits], 1)
    return DensePredictions(scores, decode_distances(priors.centres, torch.cat(sides, 1)), priors, logits=True)


def test_clipped_detections_of_logits_are_the_reference_s() -> None:
    values = golden("gfl")
    scales = values["scale_factors"][:, None].expand(-1, 2)
    results = postprocess(golden_gfl(), scales, PostprocessConfig(clip=True), values["img_shapes"])
    for found, wanted in zip(results, values["detections"], strict=True):
        assert torch.equal(found.labels, wanted["labels"])
        torch.testing.assert_close(found.scores, wanted["scores"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=0, atol=1e-2)


def test_clipping_needs_the_images_sizes() -> None:
    with pytest.raises(ValueError, match="sizes"):
        postprocess(random_predictions(1), None, PostprocessConfig(clip=True))


def slow_with_quality(
    scores: Tensor, boxes: Tensor, quality: Tensor, sizes: list[int], image: tuple[int, int], config: PostprocessConfig
) -> list[tuple[float, int, list[float]]]:
    """(score, class, box) of every detection: selected by class score, then ranked by score times quality."""
    candidates = []
    start = 0
    for size in sizes:
        pairs = [(p, c) for p in range(start, start + size) for c in range(scores.shape[1])]
        pairs = [pair for pair in pairs if scores[pair].sigmoid() > config.score_threshold]
        candidates += sorted(sorted(pairs, key=lambda pair: -scores[pair].item())[: config.per_level])
        start += size
    height, width = image
    found: list[tuple[float, int, list[float]]] = []
    for p, c in candidates:
        x1, y1, x2, y2 = boxes[p].tolist()
        box = [min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)]
        if box[2] > box[0] and box[3] > box[1]:
            found.append(((scores[p, c].sigmoid() * quality[p].sigmoid()).item(), c, box))
    kept: list[tuple[float, int, list[float]]] = []
    for score, c, box in sorted(found, key=lambda item: -item[0]):
        rivals = [other for _, d, other in kept if d == c]
        if not rivals or iou_matrix(torch.tensor([box]), torch.tensor(rivals)).max() <= config.iou_threshold:
            kept.append((score, c, box))
    return kept[: config.max_detections]


@given(st.integers(0, 10_000), st.sampled_from([2, 9, 1000]), st.sampled_from([0.05, 0.4]))
def test_a_quality_ranks_what_the_class_scores_selected(seed: int, per_level: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    plain = random_predictions(seed)
    predictions = replace(
        plain,
        scores=torch.randn(plain.scores.shape, generator=generator),
        quality=torch.randn(plain.scores.shape[:2], generator=generator) * 3,
        logits=True,
    )
    assert predictions.quality is not None
    config = PostprocessConfig(threshold, per_level, iou_threshold=0.3, max_detections=9, clip=True)
    sizes = torch.tensor([[30, 40], [44, 35]])
    results = postprocess(predictions, None, config, sizes)
    for i, found in enumerate(results):
        image = (int(sizes[i, 0]), int(sizes[i, 1]))
        levels = predictions.priors.level_sizes
        wanted = slow_with_quality(
            predictions.scores[i], predictions.boxes[i], predictions.quality[i], levels, image, config
        )
        assert found.scores.tolist() == pytest.approx([score for score, _, _ in wanted])
        assert found.labels.tolist() == [c for _, c, _ in wanted]
        assert found.boxes.tolist() == [box for _, _, box in wanted]


def test_a_quality_may_lower_a_score_below_the_threshold() -> None:
    predictions = replace(random_predictions(5), quality=torch.full((2, 27), -3.0))
    config = PostprocessConfig(score_threshold=0.5)
    found, plain = (postprocess(p, None, config)[0] for p in (predictions, replace(predictions, quality=None)))
    assert len(found.scores) == len(plain.scores) > 0
    torch.testing.assert_close(found.scores, plain.scores * torch.tensor(-3.0).sigmoid())


def test_scales_bring_boxes_to_original_pixels() -> None:
    predictions = random_predictions(3)
    config = PostprocessConfig(iou_threshold=1.0)
    plain = postprocess(predictions, None, config)
    scaled = postprocess(predictions, torch.tensor([[2.0, 4.0], [0.5, 1.0]]), config)
    torch.testing.assert_close(scaled[0].boxes * torch.tensor([2.0, 4.0, 2.0, 4.0]), plain[0].boxes)
    torch.testing.assert_close(scaled[1].boxes * torch.tensor([0.5, 1.0, 0.5, 1.0]), plain[1].boxes)


def test_boxes_that_are_no_numbers_are_dropped() -> None:
    predictions = random_predictions(1)
    predictions.scores[0] = 0
    predictions.scores[0, :4, 0] = torch.tensor([0.9, 0.8, torch.nan, 0.7])
    predictions.boxes[0, :4] = torch.tensor([[0, 0, torch.inf, 5], [0, 0, torch.nan, 5], [0, 0, 5, 5], [0, 0, 4, 4]])
    found = postprocess(predictions, None, PostprocessConfig())[0]
    assert found.boxes.tolist() == [[0, 0, 4, 4]]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("threshold", [0.95, 1.0])
def test_nothing_above_the_threshold(threshold: float, logits: bool) -> None:
    predictions = random_predictions(2)
    predictions = replace(predictions, scores=predictions.scores.logit(), logits=True) if logits else predictions
    for found in postprocess(predictions, None, PostprocessConfig(score_threshold=threshold)):
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == found.labels.shape == (0,)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 5, 40]), st.booleans(), st.booleans())
def test_the_best_pairs_are_those_of_a_stable_sort(seed: int, limit: int, ties: bool, holes: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(60, 7, generator=generator)
    if ties:
        scores = (scores * 4).round() / 4
    if holes:
        scores[torch.rand(60, 7, generator=generator) < 0.05] = torch.nan
    flat = scores.flatten().nan_to_num(nan=-1.0)
    ordered = flat.sort(descending=True, stable=True).indices[:limit]
    expected = ordered[flat[ordered] > 0.3].sort().values
    assert torch.equal(_best_pairs(scores, 0.3, limit), expected)


@given(st.integers(0, 10_000), st.sampled_from(["score", "product", "geometric_mean"]))
def test_ranking_decides_what_a_detection_scores(seed: int, ranking: Ranking) -> None:
    predictions = usable_predictions(seed)
    quality = torch.randn(predictions.scores.shape[:2], generator=torch.Generator().manual_seed(seed))
    predictions = replace(predictions, quality=quality)
    config = PostprocessConfig(score_threshold=0.2, iou_threshold=1.0, ranking=ranking, max_detections=1000)
    for i, found in enumerate(postprocess(predictions, None, config)):
        scores, judged = predictions.scores[i], quality[i].sigmoid()[:, None]
        wanted = {"score": scores, "product": scores * judged, "geometric_mean": (scores * judged).sqrt()}[ranking]
        torch.testing.assert_close(found.scores, wanted[scores > 0.2].sort(descending=True).values)


def test_boxes_of_other_classes_suppress_where_classes_do_not_matter() -> None:
    predictions = two_classes_in_one_place()
    (of_classes,) = postprocess(predictions, None, PostprocessConfig(score_threshold=0.1))
    (agnostic,) = postprocess(predictions, None, PostprocessConfig(score_threshold=0.1, class_agnostic=True))
    assert of_classes.labels.tolist() == [1, 0]
    assert agnostic.labels.tolist() == [1]
    assert agnostic.boxes.tolist() == [[0, 0, 10, 10]]


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_without_suppression_the_best_pairs_are_all_there_is(seed: int, limit: int) -> None:
    predictions = usable_predictions(seed)
    for i, found in enumerate(postprocess(predictions, None, TopKConfig(max_detections=limit))):
        order = predictions.scores[i].flatten().sort(descending=True, stable=True)
        best = order.indices[:limit][order.values[:limit] > 0]
        classes = predictions.scores.shape[2]
        assert torch.equal(found.scores, predictions.scores[i].flatten()[best])
        assert torch.equal(found.labels, best % classes)
        assert torch.equal(found.boxes, predictions.boxes[i][best // classes])


def test_without_suppression_the_one_to_one_head_speaks() -> None:
    first, second = usable_predictions(1), usable_predictions(2)
    both = replace(first, one_to_one=second)
    for config, expected in ((TopKConfig(), second), (PostprocessConfig(), first)):
        for found, wanted in zip(postprocess(both, None, config), postprocess(expected, None, config), strict=True):
            assert torch.equal(found.scores, wanted.scores)


@pytest.mark.parametrize(
    "voting",
    [
        ScoreVotingConfig(score_threshold=0.3, iou_threshold=0.5),
        PostprocessConfig(score_threshold=0.3, iou_threshold=0.5, voting_sigma=0.025),
    ],
    ids=["PAA", "NMS"],
)
@given(seed=st.integers(0, 10_000))
def test_voting_moves_boxes_to_the_mean_of_those_of_their_class_that_they_overlap(
    voting: AnyPostprocessConfig, seed: int
) -> None:
    predictions = usable_predictions(seed)
    plain = PostprocessConfig(score_threshold=0.3, iou_threshold=0.5)
    results = zip(postprocess(predictions, None, voting), postprocess(predictions, None, plain), strict=True)
    for i, (voted, kept) in enumerate(results):
        assert torch.equal(voted.scores, kept.scores)
        assert torch.equal(voted.labels, kept.labels)
        for box, start, label in zip(voted.boxes, kept.boxes, kept.labels, strict=True):
            scores = predictions.scores[i, :, label]
            overlap = iou_matrix(start[None], predictions.boxes[i])[0]
            votes = scores * (-((1 - overlap) ** 2) / 0.025).exp() * (overlap > 0.01) * (scores > 0.3)
            mean = (votes[:, None] * predictions.boxes[i]).sum(dim=0) / votes.sum()
            torch.testing.assert_close(box, mean, rtol=1e-4, atol=1e-4)


def two_classes_in_one_place() -> DensePredictions:
    priors = Priors(torch.zeros(2, 2), torch.ones(2), torch.ones(2), ((1, 2),))
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9]]])
    return DensePredictions(torch.tensor([[[0.05, 0.9], [0.8, 0.05]]]), boxes, priors)


def usable_predictions(seed: int) -> DensePredictions:
    """As `random_predictions`, but every box has an area."""
    predictions = random_predictions(seed)
    corners = predictions.boxes[..., :2]
    return replace(predictions, boxes=torch.cat([corners, corners + 2 + corners.flip(1)], 2))


@pytest.mark.parametrize("logits", [False, True])
def test_a_place_gives_its_best_class_by_what_it_is_ranked_by(logits: bool) -> None:
    """As YOLOX does: the product of class score and objectness passes the threshold, and nothing is limited."""
    rng = torch.Generator().manual_seed(4)
    priors = Priors(torch.zeros(30, 2), torch.ones(30), torch.ones(30), ((4, 5), (2, 5)))
    scores, quality = torch.rand(1, 30, 4, generator=rng), torch.randn(1, 30, generator=rng)
    corner = torch.rand(1, 30, 2, generator=rng) * 90
    boxes = torch.cat([corner, corner + 5 + torch.rand(1, 30, 2, generator=rng) * 20], dim=2)
    given = DensePredictions(scores.logit() if logits else scores, boxes, priors, logits, quality)
    config = PostprocessConfig(0.3, None, 1.0, None, threshold_on="ranked", best_class=True)
    (found,) = postprocess(given, None, config)
    best, label = scores[0].max(dim=1)
    ranked = best * quality[0].sigmoid()
    order = [i for i in ranked.argsort(descending=True).tolist() if ranked[i] > 0.3]
    assert 3 < len(order) < 30
    torch.testing.assert_close(found.scores, ranked[order])
    assert torch.equal(found.labels, label[order])
    torch.testing.assert_close(found.boxes, boxes[0, order])
    # By the class score alone more pass, and their order stays that of the product.
    (more,) = postprocess(given, None, replace(config, threshold_on="score"))
    assert len(more.scores) == int((best > 0.3).sum()) > len(order)
    torch.testing.assert_close(more.scores[: len(order)], found.scores)
    (few,) = postprocess(given, None, replace(config, per_level=2, max_detections=3))
    wanted = sorted([*sorted(ranked[:20].tolist())[-2:], *sorted(ranked[20:].tolist())[-2:]], reverse=True)
    assert few.scores.tolist() == pytest.approx([value for value in wanted if value > 0.3][:3])
