"""How far what an exported model gives is from what PyTorch gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tood.boxes import iou_matrix
from tood.engines import Engine
from tood.inference import Found, Predictor, engine_predictor
from tood.input import Geometry, prepare, stacked
from tood.input.normalise import normalise
from tood.models import AnyDetector
from tood.models.common import head_for
from tood.ops import plain

# Height and width of the pictures that are compared; what the network sees of them is as its input says.
SHAPES = ((240, 320), (320, 240), (288, 288))
BATCHES = (1, 2, 3)
# Detections of one class are partners where their boxes overlap by more, however far their scores are apart.
_SAME_BOX = 0.9


class Tolerance(NamedTuple):
    """Largest differences that are let pass: pixels of boxes, and of a score."""

    pixels: float
    score: float


# By precision; what int8 loses is told by the AP alone.
TOLERANCES = {"fp32": Tolerance(0.5, 1e-3), "fp16": Tolerance(2.0, 2e-2)}
# Detections without a partner that are let pass, of all: ties and what lies at a threshold may go either way.
MOST_UNMATCHED = 0.01


@dataclass(frozen=True)
class ParityCase:
    """One batch of pictures of one size.

    Attributes:
        picture: height and width of the pictures.
        input: height and width of what the network saw.
        batch: how many pictures.
        boxes: largest difference of a coordinate in pixels, of the network's input, or of the picture where the file
            takes whole pictures; of boxes with a score above the model's threshold, or of all where there is none.
        scores: largest difference of a probability, of all predictions.
        compared: boxes that were compared, of graphs that give detections PyTorch's.
        unmatched: detections of either that have no partner among the other's; 0 of graphs that give every prior.
    """

    picture: tuple[int, int]
    input: tuple[int, int]
    batch: int
    boxes: float
    scores: float
    compared: int
    unmatched: int


def compare(model: AnyDetector, engine: Engine, pictures: Sequence[NDArray[np.uint8]]) -> list[ParityCase]:
    """The exported model beside the network, over pictures of `SHAPES` and batches of `BATCHES`, or of its own size.

    Args:
        model: in evaluation mode, on the CPU; computed in fp32 as it is, by no faster operator.
        engine: the exported model.
        pictures: [H, W, 3] uint8 RGB, at least one; they are scaled to the shapes and taken in turn.
    """
    reference = Predictor(
        model, engine.description.network_input, engine.description.model.postprocess, torch.device("cpu")
    )
    cases = []
    turn = 0
    for height, width in SHAPES:
        for batch in BATCHES if engine.description.batch is None else (engine.description.batch,):
            chosen = [pictures[(turn + number) % len(pictures)] for number in range(batch)]
            turn += batch
            resized = [cv2.resize(picture, (width, height)) for picture in chosen]
            with plain():
                cases.append(_compared(reference, engine, resized))
    return cases


def _compared(reference: Predictor, engine: Engine, pictures: list[NDArray[np.uint8]]) -> ParityCase:
    images, geometries = _batch(reference, pictures)
    if engine.description.graph == "dense":
        boxes, scores, compared, unmatched = _dense_errors(reference, engine, pictures, images, geometries)
    else:
        given_predictor = engine_predictor(engine)
        taken = _batch(given_predictor, pictures)
        wanted = _rows(reference, engine)(images, geometries)
        pixels = TOLERANCES.get(engine.description.precision, max(TOLERANCES.values())).pixels
        boxes, scores, compared, unmatched = errors_of_found(wanted, given_predictor(*taken), pixels)
    shape = (images.shape[2], images.shape[3])
    return ParityCase(geometries[0].image, shape, len(pictures), boxes, scores, compared, unmatched)


def _rows(reference: Predictor, engine: Engine) -> Predictor:
    """PyTorch's, with no more detections than the file has room for."""
    return replace(
        reference, postprocess=replace(reference.postprocess, max_detections=engine.description.max_detections)
    )


def _batch(predictor: Predictor, pictures: list[NDArray[np.uint8]]) -> tuple[Tensor, list[Geometry]]:
    """Pictures as the predictor takes them: [B, 3, H, W] uint8, and where each lies."""
    prepared = [prepare(picture, predictor.input) for picture in pictures]
    pixels = stacked([image for image, _ in prepared], predictor.input)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), [geometry for _, geometry in prepared]


def _dense_errors(
    reference: Predictor,
    engine: Engine,
    pictures: list[NDArray[np.uint8]],
    images: Tensor,
    geometries: list[Geometry],
) -> tuple[float, float, int, int]:
    canvases = torch.tensor([geometry.canvas for geometry in geometries])
    normalised = normalise(images, canvases, reference.input)
    assert not isinstance(reference.network, Engine)
    with torch.inference_mode():
        wanted = head_for(reference.network(normalised), reference.postprocess)
        windows = torch.zeros(len(pictures), 4)
        taken = torch.from_numpy(np.stack(pictures)) if engine.description.raw else normalised
        given = engine.predictions(taken, windows)
    wanted_boxes = wanted.boxes
    if engine.description.raw:
        scale = torch.tensor([geometry.scale * 2 for geometry in geometries])[:, None]
        offset = torch.tensor([geometry.offset[::-1] * 2 for geometry in geometries])[:, None]
        wanted_boxes = (wanted_boxes - offset) / scale
    scores = (given.probabilities() - wanted.probabilities()).abs().max()
    if given.quality is not None and wanted.quality is not None:
        scores = torch.maximum(scores, (given.quality.sigmoid() - wanted.quality.sigmoid()).abs().max())
    # What post-processing would not look at may be anywhere: boxes that sampling turns inside out, and others hardly.
    seen = wanted.probabilities().amax(dim=2) > reference.postprocess.score_threshold  # [B, N]
    seen = seen if seen.any() else torch.ones_like(seen)
    boxes = (given.boxes - wanted_boxes).abs().amax(dim=2)[seen].max()
    return float(boxes), float(scores), int(seen.sum()), 0


def errors_of_found(wanted: list[Found], given: list[Found], pixels: float) -> tuple[float, float, int, int]:
    """Largest differences between detections and their partners, how many there were, and how many have no partner.

    A detection has one partner at most: of its class, with a box that overlaps by 0.9, or of which no coordinate is
    further off than is let pass, as of small boxes; of several the one that is nearest in overlap and score.

    Args:
        wanted, given: PyTorch's and the file's, of each picture.
        pixels: difference of a coordinate that is let pass.

    Returns:
        Difference of a coordinate in pixels; of a score; number of PyTorch's detections; of those of either without a
        partner. Memory for a picture grows with the product of both numbers of detections.
    """
    boxes = scores = torch.zeros(())
    compared = unmatched = 0
    for one, other in zip(wanted, given, strict=True):
        rows, columns = _partners(one, other, pixels)
        compared += len(one.boxes)
        unmatched += len(one.boxes) + len(other.boxes) - 2 * len(rows)
        if len(rows):
            # PyTorch's maximum of what is no number is no number.
            boxes = torch.maximum(boxes, (one.boxes[rows] - other.boxes[columns]).abs().max())
            scores = torch.maximum(scores, (one.scores[rows] - other.scores[columns]).abs().max())
    return float(boxes), float(scores), compared, unmatched


def _partners(one: Found, other: Found, pixels: float) -> tuple[Tensor, Tensor]:
    """Places of partners among N and M detections, [P] each: again and again those that are each other's nearest."""
    if not len(one.boxes) or not len(other.boxes):
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    overlap = iou_matrix(one.boxes, other.boxes)  # [N, M]
    apart = (one.boxes[:, None] - other.boxes).abs().amax(dim=2)
    same = (one.labels[:, None] == other.labels) & ((overlap > _SAME_BOX) | (apart <= pixels))
    nearness = overlap - (one.scores[:, None] - other.scores).abs()
    nearness = nearness.masked_fill(~same, -torch.inf)
    rows: list[Tensor] = []
    columns: list[Tensor] = []
    while True:
        best, column = nearness.max(dim=1)
        row = torch.arange(len(best))
        mutual = (best > -torch.inf) & (nearness.argmax(dim=0)[column] == row)
        if not mutual.any():
            return torch.cat([*rows, row[:0]]), torch.cat([*columns, row[:0]])
        rows.append(row[mutual])
        columns.append(column[mutual])
        nearness[rows[-1]] = -torch.inf
        nearness[:, columns[-1]] = -torch.inf
