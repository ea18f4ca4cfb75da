"""What is stated of the named models' costs is what they cost."""

from __future__ import annotations

import pytest

from tood.models.measure import measure
from tood.zoo import cost_of, named_models
from tood.zoo.costs import COSTS


@pytest.mark.no_cover  # its time goes into PyTorch's Python for the device `meta`
def test_stated_costs_are_the_measured_ones() -> None:
    """What differs has to stand in `tood/zoo/costs.py`."""
    measured = {name: measure(card.config()) for name, card in named_models().items()}
    assert dict(COSTS) == measured
    assert all(cost_of(card) == measured[name] for name, card in named_models().items())
