"""A network as one graph of PyTorch operations: what every runtime's export begins with."""

from __future__ import annotations

import math

import torch
from torch.export import Dim, ExportedProgram

from tood.models.families import AnyDetector


def export_program(model: AnyDetector) -> ExportedProgram:
    """The network as `torch.export` sees it, in evaluation mode, for any batch and any usual size of image.

    The program takes `images` [B, 3, H, W], normalised, and returns `DensePredictions` as the model does. H and W are
    multiples of the input's divisor and larger than it and than the coarsest stride (128 pixels in the published
    models): for maps of a single row or column PyTorch makes another graph, which an example of that size would give.
    """
    config = model.config
    divisor = config.input.divisor
    side = 2 * math.lcm(config.strides[-1], divisor)
    example = torch.zeros(2, 3, side, side + divisor, device=next(model.parameters()).device)
    dimensions = {0: Dim("batch"), 2: divisor * Dim("_height"), 3: divisor * Dim("_width")}
    was_training = model.training
    try:
        return torch.export.export(model.eval(), (example,), dynamic_shapes={"images": dimensions}, strict=False)
    finally:
        model.train(was_training)
