"""All that a run needs to go on from where it stands, as the dictionary that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tood.errors import ToodError
from tood.training.learner import LaunchedStep, Learner
from tood.training.resuming import TrainingImages, batch_to_go_on_with
from tood.training.start import require_same_classes
from tood.training.state import Position, Window


@dataclass(frozen=True)
class StepUnderWay:
    """A step whose numbers have not been read.

    Attributes:
        step: that was launched.
        before: where the run stood before it.
        images: that it learns from, of all processes.
    """

    step: LaunchedStep
    before: Position
    images: int


@dataclass(frozen=True)
class RunState:
    """Where a run stands, beside its weights.

    Attributes:
        position: in its epochs and steps.
        window: sums since the last row of the log.
        seconds: spent on the run.
        random_states: of each process.
        tracker_ids: the trackers' names of the run.
    """

    position: Position
    window: Window
    seconds: float
    random_states: Sequence[Mapping[str, Any]]
    tracker_ids: Mapping[str, str]

    def to_dict(self, learner: Learner, images: TrainingImages, seed: int) -> dict[str, Any]:
        """With the learner's weights and what tells whether a run that goes on sees the same images."""
        return {
            **learner.state_dict(),
            "position": asdict(self.position),
            "images_per_step": learner.images_per_step,
            "accumulation": learner.accumulation,
            "images": images.digest,
            "class_names": list(images.class_names),
            "order": images.order,
            "seed": seed,
            "window": self.window.state_dict(),
            "seconds": self.seconds,
            "random_states": list(self.random_states),
            "trackers": dict(self.tracker_ids),
        }

    @staticmethod
    def take_up(
        state: Mapping[str, Any], learner: Learner, images: TrainingImages, seed: int, out: Path
    ) -> tuple[RunState, list[str]]:
        """What `to_dict` gave, its weights in the learner; and remarks for a person.

        Raises:
            ToodError: if it is of another network or optimiser, or cannot go on with these images.
        """
        require_same_classes(state.get("class_names", images.class_names), images.class_names, out)
        try:
            learner.load_state_dict(state)
            position = Position(**state["position"])
            position.batch, remarks = batch_to_go_on_with(
                state, images, seed, learner.images_per_step, learner.accumulation, out
            )
            window = Window.from_state(state["window"]) if "window" in state else Window()
            taken = RunState(position, window, state["seconds"], state["random_states"], state["trackers"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            text = " ".join(str(error).split())
            raise ToodError(f"the checkpoint in {out} is of another model or recipe: {text[:300]}") from error
        return taken, remarks
