"""What a run that goes on may change, and where in its epoch it does: with the images not seen there yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from tood.configuration import flat
from tood.data import Batch
from tood.errors import ToodError
from tood.processes import Processes
from tood.training.config import RunConfig


@dataclass(frozen=True)
class TrainingImages:
    """What a run learns from.

    Attributes:
        loader: batches of this process; its batch sampler has `set_epoch`.
        class_names: saved with the weights.
        digest: SHA-256 of all images and boxes; it tells a run that is resumed whether they are still the same.
        order: digest of what decides, with the seed, which images make a step.
        tell: says what was found in the pictures; all processes call it at once.
    """

    loader: DataLoader[Batch]
    class_names: tuple[str, ...]
    digest: str = ""
    order: str = ""
    tell: Callable[[Processes], None] = lambda _processes: None

    @property
    def count(self) -> int:
        """Number of the images, of all processes together."""
        return len(self.loader.dataset)  # type: ignore[arg-type]  # it has a length


def batch_to_go_on_with(
    state: Mapping[str, Any], images: TrainingImages, seed: int, images_per_step: int, accumulation: int, out: Path
) -> tuple[int, list[str]]:
    """Batches of the epoch under way that are done, and remarks for a person.

    Args:
        state: of the checkpoint.
        images: what the run learns from now.
        seed: of the run now.
        images_per_step, accumulation: of the run now; where more or fewer batches make a step, it keeps its images.
        out: the run's folder, for messages.

    Raises:
        ToodError: a step would have other images than before, or the epoch another order.
    """
    if images_per_step != state["images_per_step"]:
        raise ToodError(
            f"the run in {out} takes {state['images_per_step']} images a step, this would be {images_per_step}: give "
            "the --batch-size or the number of processes that makes them equal"
        )
    batch = state["position"]["batch"] // state["accumulation"] * accumulation
    if state["images"] != images.digest:
        return 0, [
            "the training images or their boxes are not those that the run began with: it goes on with the new "
            "ones, from the start of its epoch"
        ]
    before = state.get("seed", seed)
    if batch and before != seed:
        raise ToodError(
            f"the run in {out} stands within an epoch that seed {before} has shuffled, of which seed {seed} would show "
            f"some images twice and others not at all: leave --seed out, or give {before}"
        )
    if batch and state.get("order", images.order) != images.order:
        return 0, [
            "other images than before are left out of training, or they are grouped in another way: the epoch under "
            "way begins anew, and those of it that were seen are seen again"
        ]
    return batch, []


# So many changed settings are told.
_SHOWN = 6


def changed_settings(before: RunConfig, now: RunConfig) -> str:
    """What a run that goes on does otherwise than it was begun, in one line; empty where that is nothing.

    Args:
        before: the configuration that its folder holds.
        now: the one that it goes on with.

    Raises:
        ToodError: it would be another network.
    """
    # Other classes are told with their names, from the checkpoint.
    own = before.model
    network = replace(now.model, classes=own.classes, input=own.input, postprocess=own.postprocess)
    if network != own:
        told = _differences(flat(own), flat(network), "model.")
        raise ToodError(
            f"the run in {now.out} trains another network than is asked for ({told}): leave out what changes it, such "
            "as --model, or give another --out"
        )
    told = _differences(flat(replace(before, out=now.out)), flat(now), "")
    return f"changed since the run began: {told}" if told else ""


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    shown = [f"{prefix}{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}" for key in keys]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return "; ".join(shown[:_SHOWN]) + more
