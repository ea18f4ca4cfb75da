"""The model that a person names, with what is known of where it comes from."""

from __future__ import annotations

from pathlib import Path

from tood.engines import is_exported
from tood.errors import ToodError
from tood.export.export import Origin
from tood.weights import load_detector_file, locate_weights
from tood.zoo import named_models


def origin_of(name_or_file: str | Path) -> Origin:
    """A trained model, as `Detector` takes it.

    Raises:
        ToodError: if there is none, or it is an exported file itself.
    """
    if is_exported(name_or_file):
        raise ToodError(f"{name_or_file} is exported already: name the weights that it was made of")
    located = locate_weights(name_or_file)
    model, class_names = load_detector_file(located.path, located.config)
    card = named_models().get(str(name_or_file))
    licence = card.weights.licence if located.config is not None and card is not None and card.weights else ""
    return Origin(model, class_names, str(name_or_file), licence, located.path)
