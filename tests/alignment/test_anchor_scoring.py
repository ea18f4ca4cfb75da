"""PAA's assignment against a plain formulation with loops: candidates, mixtures, the split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.slow_paa import nested, slow_candidates, slow_densities, slow_paa, slow_split
from tood.alignment import AnchorScoringAssigner, Assignment, MaxIoUAssigner, MixtureFit
from tood.alignment.assigners.anchor_scoring import _split
from tood.alignment.assigners.mixture import log_densities_of_two
from tood.models.common.priors import grid_priors
from tood.models.measure import HeldBytes
from tood.structures import Targets

PRIORS = grid_priors([torch.zeros(1, 1, 8, 10), torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 2, 3)], (8, 16, 32), 4.0)
COUNT = len(PRIORS.centres)


def truth_of(kind: str, seed: int) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    number = {"empty": 0, "one": 1, "few": 4, "crowded": 40, "nested": 6}[kind]
    corner = torch.rand(number, 2, generator=generator) * torch.tensor([60.0, 44.0])
    boxes = torch.cat([corner, corner + torch.rand(number, 2, generator=generator) * 40 + 3], 1)
    if kind == "nested":
        boxes = nested(number)
    crowd = torch.rand(number, generator=generator) < (0.2 if kind == "crowded" else 0.0)
    return Targets(boxes, torch.randint(0, 5, (number,), generator=generator), crowd)


def costs_of(batch: int, seed: int) -> Tensor:
    """[B, N] losses of two kinds of anchors."""
    generator = torch.Generator().manual_seed(seed)
    good = torch.rand(batch, COUNT, generator=generator) < 0.3
    spread = torch.randn(batch, COUNT, generator=generator)
    return torch.where(good, 0.8 + 0.2 * spread, 3.0 + 0.7 * spread).abs()


def owners_of(assignment: Assignment, image: int) -> dict[int, int]:
    owners = assignment.gt_index[image].tolist()
    return {n: g for n, g in enumerate(owners) if g >= 0}


@pytest.mark.parametrize("block", [1 << 21, 1])
@pytest.mark.parametrize("kind", ["empty", "one", "few", "crowded", "nested"])
def test_candidates_and_split_are_those_of_the_loops(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tood.alignment.assigners.assignment.BLOCK", block)
    targets = [truth_of(kind, 0), truth_of("few", 1), truth_of("empty", 2)]
    valid = torch.rand(3, COUNT, generator=torch.Generator().manual_seed(5)) > 0.2
    costs = costs_of(3, 7)
    candidates = MaxIoUAssigner()(PRIORS, targets, valid)
    for beyond in ("negative", "ignored"):
        assigner = AnchorScoringAssigner(beyond_peak=beyond)  # type: ignore[arg-type]
        assignment = assigner(PRIORS, targets, lambda _: costs, valid)
        for image, truth in enumerate(targets):
            there = valid[image].tolist()
            assert owners_of(candidates, image) == slow_candidates(PRIORS, truth, there)
            positives, uncertain = slow_paa(PRIORS, truth, costs[image], there)
            assert owners_of(assignment, image) == positives
            if beyond == "ignored":
                assert assignment.ignored is not None
                assert set(assignment.ignored[image].nonzero().flatten().tolist()) == uncertain
            single = truth.boxes[~truth.crowd]
            for n, g in positives.items():
                assert torch.equal(assignment.boxes[image, n], single[g])
                assert assignment.labels[image, n] == truth.labels[~truth.crowd][g]
        assert (beyond == "ignored") == (assignment.ignored is not None)
    positive = assignment.positive
    assert torch.equal(assignment.target_scores, positive.float())
    assert not assignment.boxes[~positive].any()
    assert (assignment.labels[~positive] == -1).all()


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12))
def test_any_scene_is_split_as_the_loops_do(seed: int, topk: int, number: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * 70 - 5
    boxes = torch.cat([corner, corner + torch.rand(number, 2, generator=generator).square() * 60], 1)
    truth = Targets(boxes, torch.zeros(number, dtype=torch.long), torch.zeros(number, dtype=torch.bool))
    costs = costs_of(1, seed)
    assignment = replace(AnchorScoringAssigner(), topk=topk)(PRIORS, [truth], lambda _: costs)
    assert owners_of(assignment, 0) == slow_paa(PRIORS, truth, costs[0], [True] * COUNT, topk)[0]


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 1 << 16), min_size=0, max_size=45, unique=True), min_size=1, max_size=6))
def test_mixtures_of_many_sets_at_once_are_those_of_each_alone(sets: list[list[int]]) -> None:
    rows = [sorted(value / 9973 for value in one) for one in sets]
    values, present = torch.full((len(rows), 45), torch.nan), torch.zeros(len(rows), 45, dtype=torch.bool)
    for row, numbers in enumerate(rows):
        values[row, : len(numbers)] = torch.tensor(numbers)
        present[row, : len(numbers)] = True
    found = log_densities_of_two(values, present)
    for row, numbers in enumerate(rows):
        if len(numbers) > 1:
            wanted = torch.tensor(slow_densities(values[row, : len(numbers)].tolist()), dtype=torch.float64)
            torch.testing.assert_close(found[row, :, : len(numbers)].T, wanted, rtol=1e-6, atol=1e-4)


# Of scikit-learn 1.9.1, `GaussianMixture(2, covariance_type="diag")` from the same starting values: losses, how many of
# them MMDetection's rule makes positives, the first two log-likelihoods. Of two alike ones rounding decides.
REFERENCE = [
    ("2.5004 3.5889", 1, (-0.808324, -0.808325)),
    ("0.9008 1.2007 3.1027", 2, (0.073049, 0.0730506)),
    ("0.0098 2.8092 3.3836", 1, (4.89021, -0.576827)),
    ("0.8759 0.9016 3.0527 3.1784 3.2449", 2, (2.01914, 2.01924)),
    ("0.7312 0.8139 0.9941 1.1391 2.0494 2.0791 2.3552 2.7712 2.8825", 3, (-0.594144, -0.10984)),
    (
        "0.0472 0.1427 0.1758 0.7696 0.9901 1.8648 1.9875 2.0565 2.0596 2.4502 2.5169 3.6687",
        3,
        (-1.28819, -1.07884),
    ),
    (
        "0.0083 0.1272 0.1449 0.2388 0.2503 0.3026 0.3556 0.3839 0.6347 0.9038 1.0143 1.0679 1.1482 1.2233 1.3966 "
        "1.4044 1.7481 2.243 3.0749 3.7954",
        9,
        (-1.35438, -1.07878),
    ),
    (
        "0.4889 0.4956 0.4957 0.497 0.498 0.4988 0.4999 0.5035 0.5117 1.1859 1.3247 1.4836 1.64 1.6673 1.7504 1.8641 "
        "1.8782 1.9903 1.9978 2.0656 2.0822 2.1387 2.2334 2.2612 2.2674 2.4209 2.8979",
        6,
        (1.73079, 2.96128),
    ),
    (
        "1.9789 1.9793 1.9828 1.9959 1.9965 1.9984 2.0007 2.0018 2.0039 2.0052 2.0099 2.0104 2.014 2.0194",
        3,
        (2.00019, 2.0569),
    ),
]


@pytest.mark.parametrize(("losses", "positives", "likelihoods"), REFERENCE)
def test_the_split_is_that_of_scikit_learn_s_mixture(
    losses: str, positives: int, likelihoods: tuple[float, float]
) -> None:
    values = torch.tensor([[float(number) for number in losses.split()]])
    assert slow_split(values[0].tolist())[0] == list(range(positives))
    densities = log_densities_of_two(values, torch.ones_like(values, dtype=torch.bool))
    assert torch.logaddexp(*densities[0])[:2].tolist() == pytest.approx(likelihoods, rel=1e-4)
    lower, _ = _split(values[None], MixtureFit())
    assert lower[0, 0].nonzero().flatten().tolist() == list(range(positives))


def test_a_single_candidate_is_no_positive_and_two_are_one_or_more() -> None:
    truth = Targets(torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([2]), torch.zeros(1, dtype=torch.bool))
    costs = costs_of(1, 0)
    valid = torch.zeros(1, COUNT, dtype=torch.bool)
    candidates = MaxIoUAssigner()(PRIORS, [truth]).positive[0].nonzero().flatten()
    for number in (1, 2):
        valid[0, candidates[:number]] = True
        found = AnchorScoringAssigner()(PRIORS, [truth], lambda _: costs, valid)
        assert int(found.positive.sum()) == number - 1


def test_equal_losses_and_no_numbers_split_without_an_error() -> None:
    truth = truth_of("few", 3)
    for value in (0.0, 2.0, 1e4, torch.nan, torch.inf):
        found = AnchorScoringAssigner()(PRIORS, [truth], lambda _, value=value: torch.full((1, COUNT), value))
        assert owners_of(found, 0).items() <= owners_of(MaxIoUAssigner()(PRIORS, [truth]), 0).items()
        assert torch.isfinite(found.boxes).all()


def test_a_ground_truth_that_overlaps_no_anchor_has_none() -> None:
    boxes = torch.tensor([[500.0, 500, 520, 520], [20, 20, 20, 40], [10, 10, 40, 40]])
    truth = Targets(boxes, torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.bool))
    assert set(owners_of(MaxIoUAssigner()(PRIORS, [truth]), 0).values()) == {2}


def test_iterations_end_where_they_are_told_to() -> None:
    values = torch.linspace(0, 4, 20)[None]
    present = torch.ones_like(values, dtype=torch.bool)
    none = log_densities_of_two(values, present, MixtureFit(max_iterations=0))
    torch.testing.assert_close(
        none[0, 0].exp(),
        0.5 * torch.distributions.Normal(0.0, 1.0).log_prob(values[0]).exp().double(),
        rtol=1e-5,
        atol=0,
    )
    few, many = (log_densities_of_two(values, present, MixtureFit(steps, tolerance=0)) for steps in (2, 50))
    assert torch.logaddexp(*many[0]).mean() > torch.logaddexp(*few[0]).mean()


def test_memory_does_not_grow_with_objects_times_priors() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(4000, 2, generator=generator) * 500
    targets = Targets(
        torch.cat([corner, corner + 30], 1), torch.zeros(4000, dtype=torch.long), torch.zeros(4000, dtype=torch.bool)
    )
    priors = grid_priors([torch.zeros(1, 1, 72, 72)], (8,), 4.0)
    with HeldBytes([]) as held:
        assignment = MaxIoUAssigner()(priors, [targets])
    assert assignment.positive.any()
    assert held.most < 7 * (8 << 20) < 4 * 4000 * len(priors.centres)  # one matrix of all pairs alone
