"""Which family a file of weights is of."""

from __future__ import annotations

import json
import re
from typing import Any

from tood.errors import ToodError
from tood.models import FAMILIES, Family
from tood.weights.checkpoint import FRAMEWORK_CONFIG, Checkpoint
from tood.weights.framework_config import model_section
from tood.weights.safetensors_file import CONFIG, FORMAT, OURS


def family_of(checkpoint: Checkpoint, likely: Family[Any] | None = None) -> Family[Any] | None:
    """The one family that claims a file; None if it is of none.

    Our own metadata decides, else the head that the training framework's configuration in the file names, else the
    file's name, else the tensors' names. What says more comes first, as heads may differ in nothing that a tensor's
    name shows: a PAA's are called as an ATSS's.

    Args:
        checkpoint: the file.
        likely: the family that whoever names the file expects, which it is of if it says nothing itself and its tensors
            are called as that family's; None: nobody knows.

    Raises:
        ToodError: if several families claim it, or it says itself that it is of one that is not known here.
    """
    said = _our_family(checkpoint)
    if said is not None:
        return _only([family for family in FAMILIES if family.name == said], checkpoint, f"its metadata says '{said}'")
    head = framework_head(checkpoint)
    if head is not None:
        claims = [family for family in FAMILIES if head in family.weights.FRAMEWORK_TYPES]
        return _only(claims, checkpoint, f"its configuration says {head}") if claims else None
    for family in (likely, _family_in_file_name(checkpoint)):
        if family is not None and _are_called_as(family, checkpoint):
            return family
    claims = [family for family in FAMILIES if family.weights.matches(checkpoint.tensors.keys())]
    return _only(claims, checkpoint, "so are its tensors called") if claims else None


def said_family(checkpoint: Checkpoint) -> str | None:
    """What the file says of its family beside its tensors, None if nothing: by metadata, configuration or name."""
    named = _family_in_file_name(checkpoint)
    return _our_family(checkpoint) or framework_head(checkpoint) or (None if named is None else named.name)


def those_called_alike(checkpoint: Checkpoint, family: str) -> list[str]:
    """The other families of which the tensors' names could be."""
    return [other.name for other in FAMILIES if other.name != family and _are_called_as(other, checkpoint)]


def _family_in_file_name(checkpoint: Checkpoint) -> Family[Any] | None:
    """The one family whose name stands in the file's as a word of its own."""
    words = set(re.split(r"[^a-z0-9]+", checkpoint.path.name.lower()))
    found = [family for family in FAMILIES if family.name in words]
    return found[0] if len(found) == 1 else None


def _are_called_as(family: Family[Any], checkpoint: Checkpoint) -> bool:
    """Whether the tensors' names become the family's own where they are read as it is published."""
    try:
        return family.weights.matches(family.weights.from_published(checkpoint.tensors).keys())
    except ToodError:
        return False


def framework_head(checkpoint: Checkpoint) -> str | None:
    """Class of the head (else of the whole network) in the training framework's configuration, None if it tells none.

    A registry's name in front ("mmdet.TOODHead") is left out.
    """
    model = model_section(checkpoint.metadata.get(FRAMEWORK_CONFIG, ""))
    head = model.get("bbox_head")
    for section in (head, model):
        kind = section.get("type") if isinstance(section, dict) else None
        if isinstance(kind, str):
            return kind.rpartition(".")[2]
    return None


def _our_family(checkpoint: Checkpoint) -> str | None:
    """The family's name in the metadata of a file that this package wrote."""
    if checkpoint.metadata.get(FORMAT) != OURS:
        return None
    try:
        config = json.loads(checkpoint.metadata.get(CONFIG, "null"))
    except (ValueError, RecursionError):
        return None  # whoever needs the whole configuration says what is wrong with it
    name = config.get("family") if isinstance(config, dict) else None
    return name if isinstance(name, str) else None


def _only(claims: list[Family[Any]], checkpoint: Checkpoint, why: str) -> Family[Any]:
    if len(claims) == 1:
        return claims[0]
    if claims:
        names = " and ".join(family.name for family in claims)
        raise ToodError(
            f"{checkpoint.path} could be of the families {names} ({why}): give a file that holds the training "
            "framework's configuration too, whose head decides"
        )
    known = ", ".join(family.name for family in FAMILIES)
    raise ToodError(
        f"{checkpoint.path} is of a family that this version of tood has not ({why}; there are {known}): install the "
        "version that wrote it"
    )
