"""The learning rate against its formulas, and the clock of runs that are limited by time."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tood.errors import ToodError
from tood.training import CosineScheduleConfig, StepScheduleConfig, rate_factor
from tood.training.schedule import Clock

STEPS_AN_EPOCH = 7330  # COCO's 117,266 pictures with an object, 16 a step
PUBLISHED = StepScheduleConfig()


def published_factor(step: int) -> float:
    """The 1x as the specification words it."""
    decay = 0.1 ** ((step >= 8 * STEPS_AN_EPOCH) + (step >= 11 * STEPS_AN_EPOCH))
    warm_up = 0.001 + 0.999 * step / 500 if step < 500 else 1.0
    return decay * warm_up


@pytest.mark.parametrize("epochs", [1, 8, 11, 12])
def test_the_1x_drops_exactly_at_its_epochs(epochs: int) -> None:
    total = 12 * STEPS_AN_EPOCH
    for step in (epochs * STEPS_AN_EPOCH - 1, epochs * STEPS_AN_EPOCH):
        assert rate_factor(PUBLISHED, step, step / total) == pytest.approx(published_factor(step), rel=1e-12)


@given(st.integers(0, 12 * STEPS_AN_EPOCH - 1))
def test_the_1x_is_the_specifications(step: int) -> None:
    factor = rate_factor(PUBLISHED, step, step / (12 * STEPS_AN_EPOCH))
    assert factor == pytest.approx(published_factor(step), rel=1e-12)


@given(st.integers(1, 30), st.integers(1, 3000))
def test_milestones_fall_on_the_step_at_any_length(epochs: int, steps_an_epoch: int) -> None:
    config = StepScheduleConfig(milestones=(1, 2), of_epochs=3, warm_up_steps=0)
    total = epochs * steps_an_epoch
    first = math.ceil(total / 3)
    assert rate_factor(config, first, first / total) == pytest.approx(0.1 if first < 2 * total / 3 else 0.01)
    if first - 1 < total / 3:
        assert rate_factor(config, first - 1, (first - 1) / total) == 1


@given(st.floats(0, 1))
def test_the_cosine_is_half_a_cosine(progress: float) -> None:
    config = CosineScheduleConfig(final_ratio=0.05, warm_up_steps=0)
    expected = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))
    assert rate_factor(config, 10, progress) == pytest.approx(expected)


def test_the_warm_up_is_linear_and_ends_after_its_steps_or_its_share_of_the_run() -> None:
    config = StepScheduleConfig(milestones=(), warm_up_steps=100, warm_up_ratio=0.01, warm_up_share=0.1)
    assert rate_factor(config, 0, 0.0) == pytest.approx(0.01)
    assert rate_factor(config, 50, 0.001) == pytest.approx(0.505)
    assert rate_factor(config, 100, 0.001) == 1
    assert rate_factor(config, 5, 0.05) == pytest.approx(0.505), "a short run does not wait for the 100 steps"
    assert rate_factor(config, 10, 0.1) == 1


schedules = st.one_of(
    st.builds(
        StepScheduleConfig,
        milestones=st.lists(st.integers(0, 12), max_size=4).map(lambda epochs: tuple(sorted(epochs))),
        gamma=st.floats(0.01, 1),
        warm_up_steps=st.integers(0, 100),
    ),
    st.builds(CosineScheduleConfig, final_ratio=st.floats(0, 1), warm_up_steps=st.integers(0, 100)),
)


@given(schedules, st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_rate_never_rises_after_the_warm_up_however_uneven_the_time(
    config: StepScheduleConfig | CosineScheduleConfig, times: list[float]
) -> None:
    rates = [rate_factor(config, 1000 + step, progress) for step, progress in enumerate(sorted(times))]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rates))
    assert all(0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepScheduleConfig(milestones=(11, 8)), r"schedule\.milestones is \[11, 8\]"),
        (lambda: StepScheduleConfig(gamma=2), r"schedule\.gamma is 2"),
        (lambda: CosineScheduleConfig(final_ratio=-1), r"schedule\.final_ratio is -1"),
        (lambda: CosineScheduleConfig(warm_up_steps=-1), r"schedule\.warm_up_steps is -1"),
        (lambda: CosineScheduleConfig(warm_up_share=1.5), r"schedule\.warm_up_share is 1\.5"),
    ],
)
def test_impossible_schedules_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ToodError, match=message):
        make()


def test_a_clock_of_epochs_counts_steps() -> None:
    clock = Clock(total_steps=40, minutes=None)
    assert [clock.progress(step) for step in (0, 10, 40, 50)] == [0, 0.25, 1, 1]
    assert clock.seconds_left(0) is None


def test_a_clock_of_minutes_counts_time_goes_on_after_a_pause_and_stops_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tood.training.schedule.time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(total_steps=40, minutes=1, seconds=30)
    assert clock.progress(99) == 0.5, "not started yet"
    clock.start()
    now[0] += 7.5
    clock.pause()
    assert clock.seconds == 37.5
    now[0] += 4
    assert clock.seconds == 37.5
    assert clock.seconds_left(0) == 22.5
    clock.start()
    now[0] += 1
    assert clock.seconds == 38.5
    assert Clock(40, minutes=1, seconds=100).progress(0) == 1
