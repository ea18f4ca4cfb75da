"""The model that a person names, with what is known of where it comes from."""

from __future__ import annotations

from pathlib import Path

from tood.engines import require_weights
from tood.export.export import Origin
from tood.weights import load_detector_file, locate_weights
from tood.zoo import named_models


def origin_of(name_or_file: str | Path) -> Origin:
    """A trained model, as `Detector` takes it.

    Raises:
        ToodError: if there is none, or it is an exported file itself.
    """
    require_weights(name_or_file)
    located = locate_weights(name_or_file)
    model, class_names = load_detector_file(located.path, located.config)
    card = named_models().get(str(name_or_file))
    licence = card.weights.licence if located.config is not None and card is not None and card.weights else ""
    return Origin(model, class_names, str(name_or_file), licence, located.path)
