"""Which model a run trains where none was named."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tood.choices import LARGER_MODEL, MANY_OBJECTS, PLAIN_MODEL, PRETRAINED_MODEL
from tood.errors import ToodError
from tood.models import AnyModelConfig
from tood.training.config import RunConfig
from tood.training.recipes import run_config
from tood.training.start import IMAGENET, SCRATCH
from tood.weights import describe_architecture, imagenet_weights, locate_weights, network_of
from tood.weights.published import InstalledFile
from tood.zoo import ModelCard, named_model, named_models


@dataclass(frozen=True)
class ModelChoice:
    """A model that was chosen for somebody.

    Attributes:
        name: of the model; its family's, where it is the network of some weights and no named model.
        why: the reason in words, to be told.
        card: the named model whose recipe and criterion it is trained by: itself, where it is one.
        config: the network, None for the named model's own.
    """

    name: str
    why: str
    card: str
    config: AnyModelConfig | None = None

    def run(self, size: int | None = None, recipe: str | None = None) -> RunConfig:
        """The run that it is meant for; arguments as for `run_config`."""
        return replace(run_config(self.card, size, recipe, self.config), name=self.name)


def default_model(start_from: str | None = None, objects: int | None = None) -> ModelChoice:
    """The model for a run that names none.

    Args:
        start_from: what training is to start from, as `RunConfig.start_from` has it; a detector's weights decide, and
            are fetched if need be.
        objects: that it is to learn from, None where nobody knows: then they are taken for few.

    Raises:
        ToodError: if there are no such weights, they are no detector's, or ImageNet's are wanted and not installed.
    """
    if start_from in named_models():
        return _named(str(start_from), "training starts from it")
    if start_from == SCRATCH:
        return _named(PLAIN_MODEL, "the smallest one learns soonest from scratch")
    if start_from not in (None, IMAGENET):
        return _model_of(str(start_from))
    if missing := missing_weights(PRETRAINED_MODEL):
        told = f"what {PRETRAINED_MODEL} knows of photographs is not installed"
        if start_from == IMAGENET:
            raise ToodError(f"--from imagenet: {told}: {missing}, or name another model with --model")
        return _named(PLAIN_MODEL, f"{told} ({missing})")
    why = "its backbone knows ImageNet's photographs"
    if objects is None or objects < MANY_OBJECTS:
        return _named(PRETRAINED_MODEL, why)
    if missing := missing_weights(LARGER_MODEL):
        return _named(PRETRAINED_MODEL, f"{why} and {LARGER_MODEL}'s weights are not installed ({missing})")
    return _named(LARGER_MODEL, f"{why}, and {objects:,} objects are enough for more of it than {PRETRAINED_MODEL} has")


def chosen_run(
    model: str | None, size: int | None = None, recipe: str | None = None, objects: int | None = None
) -> RunConfig:
    """The run that `tood train` would do of a named model, or of the one that it would take; as `run_config`.

    Without a name the objects that it would learn from decide, too.
    """
    if model is None:
        return default_model(objects=objects).run(size, recipe)
    return run_config(model, size, recipe)


def missing_weights(model: str) -> str:
    """The command that installs what a named model's backbone knows of photographs; empty where that is there."""
    published = imagenet_weights(named_model(model).config().backbone)
    return published.remedy if isinstance(published, InstalledFile) and published.find() is None else ""


def _named(name: str, why: str) -> ModelChoice:
    return ModelChoice(name, why, name)


def _model_of(start_from: str) -> ModelChoice:
    """The model that a file of weights, or a run's folder, is of."""
    found = network_of(locate_weights(start_from).path)
    if found is None:
        raise ToodError(f"{start_from} holds no detector's weights, so that it tells no model: name one with --model")
    config, told = found
    for card in named_models().values():
        own = card.config()
        if _shape(own) == _shape(config):
            # What a file tells of its pictures is what its weights have learned; frozen stages are the card's again.
            network = replace(own, input=config.input) if told and config.input != own.input else None
            return ModelChoice(card.name, f"{start_from} is of it", card.name, network)
    card = _nearest(config)
    why = f"{start_from} is of it: {describe_architecture(config)}, no named model, trained as {card.name} is"
    return ModelChoice(config.family, why, card.name, config)


def _nearest(config: AnyModelConfig) -> ModelCard:
    """The first named model of the same family and, if there is one, the same backbone."""
    cards = [card for card in named_models().values() if card.config().family == config.family]
    backbone = config.backbone.from_scratch()
    return next((card for card in cards if card.config().backbone.from_scratch() == backbone), cards[0])


def _shape(config: AnyModelConfig) -> AnyModelConfig:
    """The configuration without what leaves the weights' shapes as they are."""
    plain = named_model(PLAIN_MODEL).config()
    return replace(
        config,
        classes=plain.classes,
        input=plain.input,
        postprocess=plain.postprocess,
        backbone=config.backbone.from_scratch(),
    )
