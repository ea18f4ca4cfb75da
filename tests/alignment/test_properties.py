"""TAL and ATSS against their definitions, written once more with loops over ground truths and priors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tood.alignment import ATSSAssigner, Progress, TaskAlignedAssigner, TaskAlignedCriterion
from tood.alignment.assigners import assignment, task_aligned
from tood.alignment.assigners.assignment import empty_assignment
from tood.alignment.assigners.nearest import nearest
from tood.alignment.criteria.criterion import class_losses, counted_priors
from tood.boxes import inside_distance, iou_matrix
from tood.models.common.priors import grid_priors
from tood.structures import DensePredictions, Targets

CLASSES = 4
PRIORS = grid_priors([torch.zeros(1, 1, 8, 10), torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 2, 3)], (8, 16, 32), 8.0)


def scene(seed: int, truths: int) -> tuple[Tensor, Tensor, Targets]:
    """Scores [N, C] and boxes [N, 4] of one image and its ground truths, some inside one another."""
    generator = torch.Generator().manual_seed(seed)
    count = len(PRIORS.centres)
    scores = torch.rand(count, CLASSES, generator=generator)
    reach = torch.rand(count, 4, generator=generator) * 24 + 1
    boxes = torch.cat([PRIORS.centres - reach[:, :2], PRIORS.centres + reach[:, 2:]], 1)
    corner = torch.rand(truths, 2, generator=generator) * torch.tensor([60.0, 44.0])
    size = torch.rand(truths, 2, generator=generator) * 40 + 3
    labels = torch.randint(0, CLASSES, (truths,), generator=generator)
    return scores, boxes, Targets(torch.cat([corner, corner + size], 1), labels, torch.zeros(truths, dtype=torch.bool))


def is_inside(point: list[float], box: list[float], margin: float = 0.01) -> bool:
    return min(point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1]) > margin


def settle(claims: dict[int, list[tuple[float, int]]]) -> dict[int, int]:
    """Prior -> the claiming ground truth of highest IoU, the first among equals."""
    return {prior: min(rivals, key=lambda claim: (-claim[0], claim[1]))[1] for prior, rivals in claims.items()}


def some_valid(seed: int) -> Tensor:
    """[N] about two thirds of the priors."""
    return torch.rand(len(PRIORS.centres), generator=torch.Generator().manual_seed(seed + 1)) > 0.3


def slow_tal(
    scores: Tensor, boxes: Tensor, truth: Targets, assigner: TaskAlignedAssigner, valid: list[bool]
) -> dict[int, int]:
    ious = iou_matrix(truth.boxes, boxes)
    centres = PRIORS.centres.tolist()
    claims: dict[int, list[tuple[float, int]]] = {}
    for g, box in enumerate(truth.boxes.tolist()):
        metric = (scores[:, truth.labels[g]] ** assigner.alpha * ious[g] ** assigner.beta).tolist()
        inside = [is_inside(centre, box) for centre in centres]
        if assigner.inside == "before":
            metric = [t if ok else 0.0 for t, ok in zip(metric, inside, strict=True)]
        best = sorted((n for n in range(len(metric)) if valid[n]), key=lambda n: -metric[n])[: assigner.topk]
        for prior in best:
            if metric[prior] > 0 and inside[prior]:
                claims.setdefault(prior, []).append((ious[g, prior].item(), g))
    return settle(claims)


def slow_atss(truth: Targets, topk: int, valid: list[bool]) -> dict[int, int]:
    ious = iou_matrix(truth.boxes, PRIORS.boxes)
    claims: dict[int, list[tuple[float, int]]] = {}
    for g, box in enumerate(truth.boxes):
        candidates, start = [], 0
        for size in PRIORS.level_sizes:
            distance = (PRIORS.centres[start : start + size] - (box[:2] + box[2:]) / 2).norm(dim=1)
            nearest = [start + int(i) for i in distance.argsort(stable=True)]
            candidates += [prior for prior in nearest if valid[prior]][:topk]
            start += size
        values = ious[g, candidates]
        threshold = values.mean() + values.std()
        for prior in candidates:
            if ious[g, prior] >= threshold and is_inside(PRIORS.centres[prior].tolist(), box.tolist()):
                claims.setdefault(prior, []).append((ious[g, prior].item(), g))
    return settle(claims)


def as_dict(gt_index: Tensor) -> dict[int, int]:
    return {n: int(g) for n, g in enumerate(gt_index.tolist()) if g >= 0}


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from(["before", "after"]), st.sampled_from([1, 5, 13]))
def test_tal_is_its_definition(seed: int, truths: int, inside: str, topk: int) -> None:
    scores, boxes, truth = scene(seed, truths)
    assigner = TaskAlignedAssigner(topk=topk, alpha=1.0, beta=6.0, inside=inside)  # type: ignore[arg-type]
    for valid in (None, some_valid(seed)):
        batch = None if valid is None else valid[None]
        assigned = as_dict(assigner(scores[None], boxes[None], PRIORS.centres, [truth], batch).gt_index[0])
        free = [True] * len(boxes) if valid is None else valid.tolist()
        assert assigned == slow_tal(scores, boxes, truth, assigner, free)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_atss_is_its_definition(seed: int, truths: int) -> None:
    _, _, truth = scene(seed, truths)
    for valid in (None, some_valid(seed)):
        batch = None if valid is None else valid[None]
        assigned = as_dict(ATSSAssigner(topk=5)(PRIORS, [truth], batch).gt_index[0])
        free = [True] * len(PRIORS.centres) if valid is None else valid.tolist()
        assert assigned == slow_atss(truth, 5, free)


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_target_scores_peak_at_the_best_overlap(seed: int, truths: int) -> None:
    scores, boxes, truth = scene(seed, truths)
    result = TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [truth])
    assert ((result.target_scores > 0) <= result.positive).all()
    for g in range(truths):
        mine = result.gt_index[0] == g
        if mine.any():
            largest = result.metric[0][mine].max()
            wanted = result.metric[0][mine] / (largest + 1e-7) * result.iou[0][mine].max()
            torch.testing.assert_close(result.target_scores[0][mine], wanted)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_a_batch_is_its_images(seed: int, counts: list[int]) -> None:
    scenes = [scene(seed + i, count) for i, count in enumerate(counts)]
    scores, boxes = torch.stack([s for s, _, _ in scenes]), torch.stack([b for _, b, _ in scenes])
    truths = [t for _, _, t in scenes]
    together = TaskAlignedAssigner()(scores, boxes, PRIORS.centres, truths)
    geometric = ATSSAssigner()(PRIORS, truths)
    for i, truth in enumerate(truths):
        alone = TaskAlignedAssigner()(scores[i : i + 1], boxes[i : i + 1], PRIORS.centres, [truth])
        assert torch.equal(together.gt_index[i], alone.gt_index[0])
        torch.testing.assert_close(together.target_scores[i], alone.target_scores[0])
        assert torch.equal(geometric.gt_index[i], ATSSAssigner()(PRIORS, [truth]).gt_index[0])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, boxes, truth = scene(5, 12)
    whole = TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [truth])
    geometric = ATSSAssigner()(PRIORS, [truth])
    monkeypatch.setattr(assignment, "BLOCK", 5 * len(PRIORS.centres))
    assert torch.equal(
        TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [truth]).gt_index, whole.gt_index
    )
    assert torch.equal(ATSSAssigner()(PRIORS, [truth]).gt_index, geometric.gt_index)


def test_crowds_and_invalid_places_are_never_positive() -> None:
    scores, boxes, truth = scene(1, 6)
    crowd = Targets(truth.boxes, truth.labels, torch.ones(6, dtype=torch.bool))
    assert not TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [crowd]).positive.any()
    assert not ATSSAssigner()(PRIORS, [crowd]).positive.any()
    valid = torch.rand(1, len(boxes), generator=torch.Generator().manual_seed(0)) > 0.5
    for result in (
        TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [truth], valid),
        ATSSAssigner()(PRIORS, [truth], valid),
    ):
        assert result.positive.any()
        assert not (result.positive & ~valid).any()


def test_a_tie_of_two_equal_objects_goes_to_the_first() -> None:
    scores, boxes, _ = scene(2, 0)
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).repeat(2, 1)
    twins = Targets(box, torch.tensor([1, 1]), torch.zeros(2, dtype=torch.bool))
    assert set(
        as_dict(TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [twins]).gt_index[0]).values()
    ) == {0}


@pytest.mark.parametrize("warm_up", [True, False])
@pytest.mark.parametrize("counts", [[0, 0], [0, 3]])
def test_losses_without_objects_are_finite(warm_up: bool, counts: list[int]) -> None:
    scenes = [scene(i, count) for i, count in enumerate(counts)]
    scores = torch.stack([s for s, _, _ in scenes]).requires_grad_()
    boxes = torch.stack([b for _, b, _ in scenes]).requires_grad_()
    predictions = DensePredictions(scores, boxes, PRIORS)
    losses = TaskAlignedCriterion()(predictions, [t for _, _, t in scenes], None, Progress() if warm_up else None)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert losses.terms["cls"] > 0
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert boxes.grad is not None
    assert (boxes.grad[0] == 0).all()
    assert (losses.terms["box"] > 0) == (sum(counts) > 0)


def test_infinite_boxes_of_negatives_do_not_poison_the_gradient() -> None:
    scores, boxes, truth = scene(3, 2)
    far = ~TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [truth]).positive[0]
    boxes[far.nonzero()[0]] = torch.tensor([-torch.inf, -torch.inf, torch.inf, torch.inf])
    boxes.requires_grad_()
    losses = TaskAlignedCriterion()(DensePredictions(scores[None], boxes[None], PRIORS), [truth])
    losses.total.backward()
    assert boxes.grad is not None
    assert torch.isfinite(boxes.grad).all()


def test_ten_thousand_objects_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    priors = grid_priors([torch.zeros(1, 1, 64, 64)], (8,), 8.0)
    corner = torch.rand(10_000, 2, generator=generator) * 500
    zeros = torch.zeros(10_000, dtype=torch.long)
    truth = Targets(torch.cat([corner, corner + 12], 1), zeros, zeros.bool())
    scores, boxes = torch.rand(1, 4096, 1, generator=generator), priors.boxes[None] * 0.99
    assert TaskAlignedAssigner()(scores, boxes, priors.centres, [truth]).positive.any()
    assert ATSSAssigner()(priors, [truth]).positive.any()


def dense_tal(scores: Tensor, boxes: Tensor, truth: Targets, assigner: TaskAlignedAssigner) -> Tensor:
    """[N] ground truth of each prior, from the whole matrix, every sort stable: of equal priors the first are taken."""
    iou = iou_matrix(truth.boxes, boxes)
    metric = scores.T[truth.labels] * (iou * iou * iou).square()
    inside = inside_distance(PRIORS.centres, truth.boxes[:, None]) > assigner.margin
    if assigner.inside == "before":
        metric = metric.masked_fill(~inside, 0)
    place = metric.sort(dim=1, descending=True, stable=True).indices.argsort(dim=1)
    claims = (place < assigner.topk) & (metric > 0) & inside
    best = torch.where(claims, iou, -1.0).max(dim=0)
    first = (torch.where(claims, iou, -1.0) == best.values).int().argmax(dim=0)
    return torch.where(best.values >= 0, first, -1)


LAYOUTS = ("random", "clustered", "nested", "tiny", "huge", "repeated")


def many(layout: str, seed: int, truths: int) -> Targets:
    """Ground truths in a picture of 80 x 64 pixels."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(truths, 2, generator=generator) * torch.tensor([80.0, 64.0])
    side = torch.rand(truths, 2, generator=generator) * 30 + 3
    if layout == "clustered":
        place = place / 10 + 30
    elif layout == "nested":
        place, side = place / 20 + 36, torch.linspace(1, 60, truths)[:, None].expand(-1, 2)
    elif layout == "tiny":
        side = side / 20
    elif layout == "huge":
        side = side * 50
    boxes = torch.cat([place - side / 2, place + side / 2], 1)
    if layout == "repeated":
        boxes = boxes[: truths // 4 + 1].repeat(4, 1)[:truths].round()
    labels = torch.randint(0, CLASSES, (truths,), generator=generator)
    return Targets(boxes, labels, torch.zeros(truths, dtype=torch.bool))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 7, 32, 33, 150]),
    st.sampled_from(LAYOUTS),
    st.sampled_from(["before", "after"]),
    st.booleans(),
)
def test_tal_of_few_or_many_objects_is_the_dense_definition_ties_included(
    seed: int, truths: int, layout: str, inside: str, ties: bool
) -> None:
    scores, boxes, _ = scene(seed, 0)
    if ties:  # whole numbers, and a score for all: many boxes are equally good
        scores, boxes = (scores * 2).round() / 2, (boxes / 8).round() * 8
    truth = many(layout, seed, truths)
    assigner = TaskAlignedAssigner(topk=9, inside=inside)  # type: ignore[arg-type]
    found = assigner(scores[None], boxes[None], PRIORS.centres, [truth])
    assert torch.equal(found.gt_index[0], dense_tal(scores, boxes, truth, assigner))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("inside", ["before", "after"])
@pytest.mark.parametrize(("few", "crowded"), [(0, 10_000), (0, 0), (10_000, 0)])
def test_every_way_to_search_gives_the_dense_definition(
    few: int, crowded: int, inside: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_aligned, "FEW", few)
    monkeypatch.setattr(task_aligned, "CROWDED", crowded)
    assigner = TaskAlignedAssigner(topk=9, inside=inside)  # type: ignore[arg-type]
    for seed, truths in enumerate((1, 20, 150)):
        scores, boxes, _ = scene(seed, 0)
        scores, boxes = (scores * 2).round() / 2, (boxes / 8).round() * 8
        truth = many(layout, seed, truths)
        free = some_valid(seed)
        found = assigner(scores[None], boxes[None], PRIORS.centres, [truth], free[None])
        usable = torch.where(free[:, None], boxes, 0)
        assert torch.equal(found.gt_index[0], dense_tal(scores, usable, truth, assigner))


@pytest.mark.parametrize("truths", [33, 150])
def test_crowded_images_of_a_batch_and_their_padding_are_each_as_if_alone(truths: int) -> None:
    scenes = [scene(seed, count) for seed, count in enumerate([truths, 0, 3])]
    scores, boxes = torch.stack([s for s, _, _ in scenes]), torch.stack([b for _, b, _ in scenes])
    valid = torch.stack([some_valid(seed) for seed in range(3)])
    together = TaskAlignedAssigner()(scores, boxes, PRIORS.centres, [t for _, _, t in scenes], valid)
    for i, (score, box, truth) in enumerate(scenes):
        alone = as_dict(together.gt_index[i])
        assert alone == slow_tal(score, box, truth, TaskAlignedAssigner(), valid[i].tolist())


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements of any tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_the_assigner_never_makes_a_matrix_of_boxes_and_priors() -> None:
    generator = torch.Generator().manual_seed(0)
    priors = grid_priors(
        [torch.zeros(1, 1, 80, 80), torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 20, 20)], (8, 16, 32), 8
    )
    reach = torch.rand(8400, 4, generator=generator) * 60 + 2
    boxes = torch.cat([priors.centres - reach[:, :2], priors.centres + reach[:, 2:]], 1)[None]
    scores = torch.rand(1, 8400, 80, generator=generator)
    largest = {}
    for truths in (2500, 5000):
        place, side = (
            torch.rand(truths, 2, generator=generator) * 640,
            torch.rand(truths, 2, generator=generator) * 30 + 4,
        )
        labels = torch.randint(0, 80, (truths,), generator=generator)
        truth = Targets(torch.cat([place - side, place + side], 1), labels, torch.zeros(truths, dtype=torch.bool))
        with LargestTensor() as seen:
            TaskAlignedAssigner()(scores, boxes, priors.centres, [truth])
        largest[truths] = seen.elements
    assert largest[5000] <= 1 << 20
    assert largest[5000] == largest[2500], "twice the boxes, the same largest piece"


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 14),
    st.integers(1, 14),
    st.booleans(),
    st.sampled_from(["all", "part", "any"]),
)
def test_the_nearest_places_are_those_of_the_whole_matrix_ties_included(
    seed: int, height: int, width: int, ties: bool, which: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    centres = grid_priors([torch.zeros(1, 1, height, width)], (8,), 8.0).centres
    points = torch.rand(2, 20, 2, generator=generator) * torch.tensor([width * 8.0, height * 8.0])
    points = (points / 2).round() * 2 if ties else points
    valid, k = None, min(9, height * width)
    if which == "part":
        valid = torch.stack([(centres < limit).all(dim=1) for limit in points[:, 0] + 1])
    elif which == "any":
        valid = torch.rand(2, height * width, generator=generator) > 0.5
    distance = (points[:, :, None] - centres).square().sum(dim=-1).sqrt()
    if valid is not None:
        distance = distance.masked_fill(~valid[:, None], torch.inf)
    values, index = distance.topk(k, dim=2, largest=False)
    found, places = nearest(centres, (height, width), points, valid, k)
    assert torch.equal(found, values)
    near = found < torch.inf
    # The same places; their order among equally near ones does not matter.
    missing = torch.full_like(index, -1)
    assert torch.equal(
        torch.where(near, places, missing).sort().values, torch.where(near, index, missing).sort().values
    )


@given(st.integers(0, 10_000), st.sampled_from(["tal", "atss"]), st.integers(0, 4), st.integers(0, 50))
def test_crowds_change_no_assignment_wherever_they_stand(seed: int, kind: str, crowds: int, singles: int) -> None:
    scores, boxes, targets = scene(seed, singles + crowds)
    crowd = torch.randperm(singles + crowds, generator=torch.Generator().manual_seed(seed)) < crowds
    mixed = replace(targets, crowd=crowd)
    alone = Targets(targets.boxes[~crowd], targets.labels[~crowd], targets.crowd[~crowd])
    found, expected = (
        TaskAlignedAssigner()(scores[None], boxes[None], PRIORS.centres, [truth])
        if kind == "tal"
        else ATSSAssigner()(PRIORS, [truth])
        for truth in (mixed, alone)
    )
    for name in ("gt_index", "labels", "boxes", "iou", "metric", "target_scores"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_ignored_priors_learn_nothing() -> None:
    losses, valid = torch.ones(1, 4, 3), torch.tensor([[True, True, True, False]])
    ignoring = replace(empty_assignment(1, 4, losses.device), ignored=torch.tensor([[False, True, False, False]]))
    assert class_losses(losses, counted_priors(ignoring, valid), torch.tensor(1.0)).tolist() == [[3, 0, 3, 0]]
    assert class_losses(losses, counted_priors(ignoring, None), torch.tensor(1.0)).tolist() == [[3, 0, 3, 3]]
