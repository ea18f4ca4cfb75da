"""What a network knows before it is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tood.configuration import to_dict
from tood.counted import counted
from tood.errors import ToodError
from tood.models import AnyDetector
from tood.training.config import RunConfig
from tood.weights import imagenet_weights, initialise, load_imagenet, locate_weights, read_weights_file
from tood.weights.class_names import listed
from tood.weights.families import family_of
from tood.zoo import named_models

IMAGENET, SCRATCH = "imagenet", "scratch"


def starting_point(config: RunConfig) -> str:
    """`config.start_from`, decided where it is left open.

    That is ImageNet's weights where the backbone has a published file, else nothing.
    """
    if config.start_from is not None:
        return config.start_from
    return SCRATCH if imagenet_weights(config.model.backbone) is None else IMAGENET


def started(config: RunConfig) -> RunConfig:
    """The run with its start decided: from scratch all of its backbone learns (`thaw_scratch`)."""
    config = replace(config, start_from=starting_point(config))
    return config.from_scratch() if config.start_from == SCRATCH and config.thaw_scratch else config


def is_detector(start_from: str | None) -> bool:
    """Whether these weights, as `RunConfig.start_from` has them, are a detector's; they are fetched if need be.

    Raises:
        ToodError: if there are no such weights, or they cannot be fetched.
    """
    if start_from in (None, IMAGENET, SCRATCH):
        return False
    if start_from in named_models():
        return True
    return family_of(read_weights_file(locate_weights(str(start_from)).path)) is not None


def initialise_model(model: AnyDetector, start_from: str, class_names: Sequence[str] | None = None) -> str:
    """Gives a new network the weights that its training starts from, fetched if need be.

    Args:
        model: the network.
        start_from: "imagenet", "scratch", or what `locate_weights` finds: a detector's file to fine-tune, or that of a
            backbone which learned to classify.
        class_names: of the network's classes: those of a detector's file are matched with them (see `initialise`).

    Returns:
        What it starts from, for a person.

    Raises:
        ToodError: if there are no such weights, they cannot be fetched, or do not fit.
    """
    if start_from == SCRATCH:
        return f"from scratch{_frozen_note(model)}"
    if start_from == IMAGENET:
        path = _fetched_imagenet(model)
        load_imagenet(model.backbone, read_weights_file(path))
        return f"backbone from ImageNet ({path.name})"
    checkpoint = read_weights_file(locate_weights(start_from).path)
    if family_of(checkpoint) is None:
        load_imagenet(model.backbone, checkpoint)
        return f"backbone from {checkpoint.path}"
    try:
        return initialise(model, checkpoint, class_names)
    except ToodError as error:
        raise ToodError(f"{error}; train the model that the file is of: name it with --model") from error


def require_same_classes(before: Sequence[str], now: Sequence[str], out: Path) -> None:
    """Makes sure that each row of a classifier goes on with the class that it has learned.

    Args:
        before: class names that a run began with; now: those of its dataset.
        out: folder of the run, for the message.

    Raises:
        ToodError: if they differ.
    """
    if list(before) == list(now):
        return
    why = "the same names in another order"
    if sorted(before) != sorted(now):
        gone = [name for name in before if name not in now]
        new = [name for name in now if name not in before]
        why = "; ".join(f"{what}: {listed(names)}" for what, names in (("lost", gone), ("new", new)) if names)
    raise ToodError(
        f"the run in {out} learns {counted(len(before), 'class', 'classes')} ({listed(before)}), but the dataset now "
        f"has {len(now)} ({listed(now)}), {why or 'with a name repeated'}: give it the classes that it began "
        f"with, or start another run from its weights, which go to the classes by name: --out ANOTHER_FOLDER --from "
        f"{out / 'best.safetensors'}"
    )


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
