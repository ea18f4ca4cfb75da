"""When a run is evaluated, and what follows from the figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tood.models import AnyDetector
from tood.training.config import RunConfig
from tood.training.state import Position, Scores


@dataclass(frozen=True)
class Validation:
    """The validation images of a run.

    Attributes:
        evaluate: AP of a network on them; all processes call it at once.
        images: their number, to guess the time that takes.
        selects: whether the AP may choose the best weights; it may not where they are those of the test or of training.
    """

    evaluate: Callable[[AnyDetector], Scores]
    images: int
    selects: bool = True

    def due(self, config: RunConfig, position: Position, images_per_step: int, seconds: float) -> bool:
        """Whether to evaluate after this epoch.

        Args:
            config: of the run.
            position: where it stands.
            images_per_step: that it trains on.
            seconds: spent on it so far.
        """
        if position.epoch % config.evaluate_every:
            return False
        if config.minutes is None:
            return True
        # In a timed run all evaluations together may take `evaluation_share` of the time so far. One takes what the
        # earlier ones took or, for the first one, half the time of training on as many images.
        expected = self.images * seconds / (position.step * images_per_step) / 2
        if position.evaluations:
            expected = position.evaluation_seconds / position.evaluations
        return bool(position.evaluation_seconds + expected <= config.evaluation_share * seconds)

    def run(self, model: AnyDetector, position: Position) -> tuple[Scores, bool]:
        """Evaluates and notes it in the position; whether these weights are the best so far."""
        started = time.monotonic()
        scores = self.evaluate(model)
        position.evaluations += 1
        position.evaluation_seconds += time.monotonic() - started
        if scores.ap < 0:  # COCO's mark of nothing to measure: the last weights are as good as any
            position.ap = position.ap50 = position.ap75 = position.best_ap = None
            return scores, True
        position.ap, position.ap50, position.ap75 = scores.ap, scores.ap50, scores.ap75
        rises = position.highest_ap is None or scores.ap > position.highest_ap
        position.evaluations_since_rise = 0 if rises else position.evaluations_since_rise + 1
        position.highest_ap = scores.ap if rises else position.highest_ap
        best = rises or not self.selects
        if best:
            position.best_ap = scores.ap
        return scores, best
