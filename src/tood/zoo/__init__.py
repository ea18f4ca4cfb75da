"""The named models, a card each: configuration, recipe, criterion, published figures and files."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from tood.errors import ToodError
from tood.models.measure import Cost, measure
from tood.zoo.atss import CARDS as ATSS
from tood.zoo.card import ModelCard, PublishedWeights, Recipe
from tood.zoo.costs import COSTS
from tood.zoo.gfl import CARDS as GFL
from tood.zoo.paa import CARDS as PAA
from tood.zoo.ppyoloe import CARDS as PPYOLOE
from tood.zoo.tood import CARDS as TOOD
from tood.zoo.yolox import CARDS as YOLOX

__all__ = ["ModelCard", "PublishedWeights", "Recipe", "cost_of", "named_model", "named_models"]

# Family by family, the smaller models first; the cards of a new one join here.
_CARDS: tuple[ModelCard, ...] = (*TOOD, *ATSS, *GFL, *PAA, *PPYOLOE, *YOLOX)
_NAMED: Mapping[str, ModelCard] = MappingProxyType({card.name: card for card in _CARDS})


def named_models() -> Mapping[str, ModelCard]:
    """All named models, family by family, the smaller ones first."""
    return _NAMED


def named_model(name: str) -> ModelCard:
    """The model of that name.

    Raises:
        ToodError: if there is none.
    """
    if name in _NAMED:
        return _NAMED[name]
    close = get_close_matches(name, _NAMED, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise ToodError(f"there is no model named '{name}': {hint}`tood models` lists them all")


def cost_of(card: ModelCard) -> Cost:
    """What a named model costs, as stated, else measured."""
    return COSTS.get(card.name) or measure(card.config())
