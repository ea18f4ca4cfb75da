"""Where a run's figures go besides its own files: TensorBoard, Weights & Biases, MLflow, each through Accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from tood.errors import ToodError, first_line

Tracker = Literal["tensorboard", "wandb", "mlflow"]
# What the services file runs under.
PROJECT = "tood"


class Trackers:
    """The trackers of a run, in the one process that writes.

    Args:
        names: which.
        folder: of the run; its name is the run's.
        settings: the run's configuration, flat.
        step: that the run goes on from, 0 for a new one.
        ids: of the services' runs that it goes on with.

    Raises:
        ToodError: if one is not installed, or does not start.
    """

    def __init__(
        self, names: Sequence[Tracker], folder: Path, settings: Mapping[str, Any], step: int, ids: Mapping[str, str]
    ) -> None:
        self._trackers: dict[Tracker, GeneralTracker] = {}
        for name in names:
            if importlib.util.find_spec(name) is None:
                raise ToodError(f"trackers has {name}, which is not installed: pip install 'tood[{name}]'")
            tracker = _build(name, folder, step, ids.get(name))
            try:
                tracker.start()
                if name != "tensorboard" and step == 0:  # its table of settings would be a run of its own
                    tracker.store_init_configuration(dict(settings))
            except Exception as error:  # each service has its own kinds
                raise ToodError(
                    f"{name} does not start ({first_line(error)}): set it up, or leave it out of trackers"
                ) from error
            self._trackers[name] = tracker

    @property
    def ids(self) -> dict[str, str]:
        """The number that each service has given its run, by which a resumed run goes on with it."""
        found = {}
        if "wandb" in self._trackers:
            found["wandb"] = str(self._trackers["wandb"].tracker.id)
        if "mlflow" in self._trackers:
            found["mlflow"] = str(self._trackers["mlflow"].tracker.info.run_id)
        return found

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Sends scalars, by name, to every tracker."""
        for tracker in self._trackers.values():
            tracker.log(dict(values), step=step)

    def finish(self) -> None:
        """Sends what the trackers still hold and closes them."""
        for tracker in self._trackers.values():
            tracker.finish()


def _build(name: Tracker, folder: Path, step: int, id: str | None) -> GeneralTracker:
    if name == "tensorboard":
        return TensorBoardTracker("tensorboard", str(folder), purge_step=step + 1 if step else None)
    if name == "wandb":
        resume = {} if id is None else {"id": id, "resume": "allow"}
        return WandBTracker(PROJECT, name=folder.name, dir=str(folder), **resume)
    return MLflowTracker(PROJECT, run_id=id, run_name=folder.name)
