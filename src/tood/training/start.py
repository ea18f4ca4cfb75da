"""What a network knows before it is trained."""

from __future__ import annotations

import json
from pathlib import Path

from tood.configuration import to_dict
from tood.errors import ToodError
from tood.models import AnyDetector
from tood.training.config import RunConfig
from tood.weights import imagenet_weights, initialise, load_imagenet, locate_weights, read_checkpoint
from tood.weights.families import family_of

IMAGENET, SCRATCH = "imagenet", "scratch"


def starting_point(config: RunConfig) -> str:
    """`config.start_from`, decided where it is left open.

    That is ImageNet's weights where the backbone has a published file, else nothing.
    """
    if config.start_from is not None:
        return config.start_from
    return SCRATCH if imagenet_weights(config.model.backbone) is None else IMAGENET


def initialise_model(model: AnyDetector, start_from: str) -> str:
    """Gives a new network the weights that its training starts from, fetched if need be.

    Args:
        model: the network.
        start_from: "imagenet", "scratch", or what `locate_weights` finds: a detector's file to fine-tune, or that of a
            backbone which learned to classify.

    Returns:
        What it starts from, for a person.

    Raises:
        ToodError: if there are no such weights, they cannot be fetched, or do not fit.
    """
    if start_from == SCRATCH:
        return f"from scratch{_frozen_note(model)}"
    if start_from == IMAGENET:
        path = _fetched_imagenet(model)
        load_imagenet(model.backbone, read_checkpoint(path))
        return f"backbone from ImageNet ({path.name})"
    checkpoint = read_checkpoint(locate_weights(start_from).path)
    if family_of(checkpoint.tensors) is None:
        load_imagenet(model.backbone, checkpoint)
        return f"backbone from {checkpoint.path}"
    try:
        return initialise(model, checkpoint)
    except ToodError as error:
        raise ToodError(f"{error}; train the model that the file is of: name it with --model") from error


def _fetched_imagenet(model: AnyDetector) -> Path:
    published = imagenet_weights(model.config.backbone)
    if published is None:
        raise ToodError(
            "no ImageNet weights are published for this model's backbone: train it with --from scratch, or give a file "
            "of its weights with --from FILE"
        )
    try:
        return published.fetch()
    except ToodError as error:
        raise ToodError(f"{error}; or train without it: --from scratch") from error


def _frozen_note(model: AnyDetector) -> str:
    now, free = (to_dict(backbone) for backbone in (model.config.backbone, model.config.backbone.from_scratch()))
    if now == free:
        return ""
    settings = [f"model.backbone.{key}={json.dumps(value)}" for key, value in free.items() if value != now[key]]
    return (
        ", though the configuration keeps parts of the backbone as they are drawn at random "
        f"({' and '.join(settings)} let{'s' * (len(settings) == 1)} all of it learn)"
    )
