"""How long a run is that nobody gave a length: until its AP stays where it is."""

from __future__ import annotations

import math
from dataclasses import replace

from tood.training.config import RunConfig

# It shows at most so many images, or passes over them so often where that is more.
MOST_IMAGES, LEAST_EPOCHS = 12_000, 30
# Training images between two evaluations: so many, and so many for each validation image, that they cost little.
IMAGES_BETWEEN, IMAGES_EACH = 800, 8
# Evaluations without a higher AP that are a plateau, and what the run takes after it over what it took before.
PATIENCE, COOL_DOWN = 4, 0.25


def with_length(config: RunConfig, images: int, validation_images: int | None) -> RunConfig:
    """The run with a length: as it is where it has one, else until a plateau.

    Args:
        config: of the run.
        images: that it learns from.
        validation_images: on which AP may choose weights; None where there are none, and no plateau can be seen.
    """
    if config.epochs is not None or config.minutes is not None:
        return config
    epochs = max(LEAST_EPOCHS, math.ceil(MOST_IMAGES / images))
    between = max(IMAGES_BETWEEN, IMAGES_EACH * (validation_images or 0))
    every = max(config.evaluate_every, min(math.ceil(between / images), epochs))
    config = replace(config, epochs=epochs, evaluate_every=every)
    if validation_images is None:
        return config
    return replace(
        config,
        patience=PATIENCE if config.patience is None else config.patience,
        cool_down=COOL_DOWN if config.cool_down is None else config.cool_down,
    )
