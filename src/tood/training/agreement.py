"""What the processes of a run must see alike before a step, each with its own clock, signals and images."""

from __future__ import annotations

from dataclasses import dataclass

from tood.data import Batch
from tood.processes import Processes


@dataclass(frozen=True)
class Situation:
    """How the run looks from one process, or, once agreed, from all.

    Attributes:
        progress: of the run, 0 to 1.
        stopped_by: number of the signal to stop for, 0 for none.
        due: whether it is time for a checkpoint.
        failed: whether a process has failed.
    """

    progress: float
    stopped_by: int
    due: bool
    failed: bool


def agreed(
    own: Situation, group: list[Batch], accumulation: int, processes: Processes
) -> tuple[Situation, list[Batch]]:
    """The most of each in any process; the batches padded as all processes' images together would be.

    What a network finds near an image's border depends on its padding. No device is waited for.

    Args:
        own: of this process.
        group: batches of the next step, if there is one; at most `accumulation`.
        accumulation: batches that make a step.
        processes: of the run.
    """
    if processes.alone:
        return own, group
    shapes: list[float] = [side for batch in group for side in batch.images.shape[2:]]
    shapes += [0] * (2 * accumulation - len(shapes))
    progress, stopped_by, due, failed, *sides = processes.largest(
        [own.progress, own.stopped_by, own.due, own.failed, *shapes]
    )
    padded = [
        batch.padded_to(int(height), int(width))
        for batch, height, width in zip(group, sides[::2], sides[1::2], strict=False)
    ]
    return Situation(progress, int(stopped_by), bool(due), bool(failed)), padded
