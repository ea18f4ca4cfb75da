"""`torch.export` of every kind of network: one graph for any batch and any size, with the numbers of the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from narrow_models import BASED, FREE, NARROW_ATSS, RESNEXT_DEFORMABLE, lively
from tood.models import AnyModelConfig, build_model
from tood.models.export import export_program
from tood.models.tood import TOODConfig


def short(config: TOODConfig) -> TOODConfig:
    """With three levels and two interactive layers, the first one deformable where some are: tracing takes its time."""
    return replace(
        config,
        neck=replace(config.neck, levels=3),
        head=replace(config.head, interactive_layers=2, deformable_layers=min(config.head.deformable_layers, 1)),
    )


CONFIGS: dict[str, AnyModelConfig] = {
    "anchor-free": replace(short(FREE), neck=FREE.neck),
    "anchor-based": short(BASED),
    "resnext-dcn": short(RESNEXT_DEFORMABLE),
    "atss": replace(
        NARROW_ATSS, neck=replace(NARROW_ATSS.neck, levels=3), head=replace(NARROW_ATSS.head, tower_layers=1)
    ),
}
# The traced one, then others.
SIZES = ((2, 256, 288), (1, 160, 224), (3, 320, 160), (1, 192, 416))


@pytest.mark.parametrize("name", CONFIGS)
def test_one_graph_for_any_batch_and_size(name: str) -> None:
    model = lively(build_model(CONFIGS[name]))
    exported = export_program(model).module()
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            given, wanted = exported(images), model(images)
        assert given.priors.shapes == wanted.priors.shapes
        torch.testing.assert_close(given.scores, wanted.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(given.boxes, wanted.boxes, rtol=1e-5, atol=1e-3)
        assert (given.quality is None) == (wanted.quality is None)
        if wanted.quality is not None:
            torch.testing.assert_close(given.quality, wanted.quality, rtol=1e-5, atol=1e-5)
    # A map of a single row or column would need another graph: refused, never computed wrongly.
    with pytest.raises((AssertionError, RuntimeError)):
        exported(torch.zeros(1, 3, model.config.strides[-1], 256))
