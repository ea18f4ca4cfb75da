"""Values read between cells: by index what `grid_sample` gives, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tood.ops.sampling import gathered_at_offsets, plain_sampled_at_offsets, sampled_at_offsets


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)),
    spread=st.sampled_from([0.0, 0.3, 2.0, 20.0]),
    seed=st.integers(0, 1000),
)
def test_by_index_it_is_grid_sample(shape: tuple[int, int, int, int], spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch, count, height, width = shape
    maps = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    offsets = torch.randn(batch, 2 * count, height, width, generator=generator, dtype=torch.float64) * spread
    offsets = (offsets + 1e-3).requires_grad_()  # off the cells themselves, where the derivative jumps
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    results = []
    for function in (gathered_at_offsets, plain_sampled_at_offsets):
        out = function(maps, offsets)
        results.append([out, *torch.autograd.grad((out * weights).sum(), [maps, offsets])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_its_gradient_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 2, 4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    offsets = torch.randn(2, 4, 4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(gathered_at_offsets, [maps, offsets])
    assert torch.autograd.gradgradcheck(gathered_at_offsets, [maps, offsets])


def test_without_offsets_the_map_itself_is_read() -> None:
    maps = torch.randn(2, 4, 5, 6)
    assert torch.equal(gathered_at_offsets(maps, torch.zeros(2, 8, 5, 6)), maps)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_a_place_that_is_no_number_reads_nothing_of_the_map(value: float) -> None:
    maps, offsets = torch.ones(1, 1, 3, 3).requires_grad_(), torch.zeros(1, 2, 3, 3)
    offsets[0, 1, 1, 1] = value
    out = gathered_at_offsets(maps, offsets)
    assert out[0, 0, 1, 1] == 0
    out.sum().backward()
    assert maps.grad is not None
    assert int(maps.grad.sum()) == 8


def test_it_is_chosen_where_a_gpu_is_to_be_deterministic() -> None:
    def graph(device: str) -> str:
        maps = torch.ones(1, 4, 3, 3, device=device, requires_grad=True)
        out = sampled_at_offsets(maps, torch.zeros(1, 8, 3, 3, device=device))
        out.sum().backward()
        names, ahead = [], [out.grad_fn]
        while ahead:
            node = ahead.pop()
            names.append(type(node).__name__)
            ahead += [after for after, _ in node.next_functions if after is not None]  # type: ignore[union-attr]
        return " ".join(names)

    assert "GridSampler" in graph("meta")
    torch.use_deterministic_algorithms(True)
    try:
        assert "GatherBackward" in graph("meta")
        assert "GridSampler" not in graph("meta")
        assert "GridSampler" in graph("cpu")
    finally:
        torch.use_deterministic_algorithms(False)
