"""Which model a run trains where none was named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tood.models import AnyModelConfig
from tood.training.start import IMAGENET, SCRATCH
from tood.weights import architecture_of, imagenet_weights
from tood.weights.published import InstalledFile
from tood.zoo import named_model, named_models

# Where what its backbone has learned from ImageNet is on this machine; and for all else.
PRETRAINED, PLAIN = "tood_lite0", "tood_tiny"


@dataclass(frozen=True)
class ModelChoice:
    """A model that was chosen for somebody.

    Attributes:
        name: of the model.
        why: the reason in words, to be told.
    """

    name: str
    why: str


def default_model(start_from: str | None = None) -> ModelChoice:
    """The model for a run that names none.

    Args:
        start_from: what training is to start from, as `RunConfig.start_from` has it; a model's name or file decides.
    """
    if start_from in named_models():
        return ModelChoice(str(start_from), "training starts from it")
    if start_from == SCRATCH:
        return ModelChoice(PLAIN, "the smallest one learns soonest from scratch")
    if start_from not in (None, IMAGENET):
        found = _model_of(Path(str(start_from)).expanduser())
        return ModelChoice(found or PLAIN, f"{start_from} is of it" if found else f"{start_from} tells no other")
    published = imagenet_weights(named_model(PRETRAINED).config().backbone)
    if isinstance(published, InstalledFile) and published.find() is None:
        return ModelChoice(PLAIN, f"what {PRETRAINED} knows of photographs is not installed ({published.remedy})")
    return ModelChoice(PRETRAINED, "its backbone knows ImageNet's photographs")


def _model_of(file: Path) -> str | None:
    """The named model that a file of weights, or a run's folder, holds; None where it is of none or does not tell."""
    config = architecture_of(file / "best.safetensors" if file.is_dir() else file)
    if config is None:
        return None
    return next((name for name, card in named_models().items() if _shape(card.config()) == _shape(config)), None)


def _shape(config: AnyModelConfig) -> AnyModelConfig:
    """The configuration without what leaves the weights' shapes as they are."""
    plain = named_model(PLAIN).config()
    return replace(
        config,
        classes=plain.classes,
        input=plain.input,
        postprocess=plain.postprocess,
        backbone=config.backbone.from_scratch(),
    )
