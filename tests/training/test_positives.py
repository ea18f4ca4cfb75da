"""A run in which no object gets a positive sample says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tood.alignment import TaskAlignedCriterionConfig
from tood.data import Batch
from tood.training.loop import Trainer
from tood.training.state import Positives
from training.fakes import Order, Squares, tiny_run, tiny_trainer


def nothing_learned(trainer: Trainer) -> list[str]:
    said: list[str] = []
    trainer.display.say = said.append  # type: ignore[method-assign]
    trainer.run()
    return [line for line in said if "got a positive sample" in line]


class Specks(Squares):
    """Objects of 3 pixels between the corners and the middles of the finest grid's cells of 8 pixels."""

    def __getitem__(self, keys: tuple[int, ...]) -> Batch:
        batch = super().__getitem__(keys)
        speck = torch.tensor([[8.5, 8.5, 11.5, 11.5]])
        return replace(batch, targets=tuple(replace(targets, boxes=speck) for targets in batch.targets))


def specks_loader() -> DataLoader[Batch]:
    return DataLoader(Specks(), batch_sampler=Order(6, 2), collate_fn=lambda items: items[0])


def test_objects_that_never_get_a_positive_are_told_once(tmp_path: Path) -> None:
    trainer = tiny_trainer(tiny_run(tmp_path), loader=specks_loader())
    (told,) = nothing_learned(trainer)
    assert told.startswith("no object in epoch 1 got a positive sample, so that nothing was learned of any")
    assert "too small in this input; take a larger one (--size, now 32), or cut the pictures into tiles" in told


def test_others_are_not(tmp_path: Path) -> None:
    criterion = TaskAlignedCriterionConfig(warm_up_epochs=0)  # ATSS has no positive for them in so small a picture
    assert nothing_learned(tiny_trainer(replace(tiny_run(tmp_path), criterion=criterion))) == []


def test_of_half_an_epoch_nothing_is_said() -> None:
    positives = Positives()
    positives.begin(whole=False)
    positives.add({"cls": 1.0, "box": 0.0})
    assert positives.complaint(1, 32) == ""
    positives.begin(whole=True)
    assert positives.complaint(2, 32) == "", "all of its steps were passed over"
    positives.add({"cls": 1.0, "box": 0.0})
    assert "no object in epoch 2" in positives.complaint(2, 32)
    assert positives.complaint(2, 32) == "", "once"
    positives = Positives()
    positives.begin(whole=True)
    positives.add({"cls": 1.0, "box": 1e-9})
    positives.begin(whole=True)
    positives.add({"cls": 1.0, "box": 0.0})
    assert positives.complaint(2, 32) == "", "they were cropped away this time"
