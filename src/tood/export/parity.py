"""How far what an exported model gives is from what PyTorch gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from tood.ops import plain

# Height and width of the pictures that are compared; what the network sees of them is as its input says.
SHAPES = ((240, 320), (320, 240), (288, 288))
BATCHES = (1, 2, 3)
# Detections that a graph gives itself agree where their boxes overlap by this and their scores differ by less.
_SAME_BOX, _SAME_SCORE = 0.9, 0.01


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
        compared: boxes that were compared.
        unmatched: detections of either that the other does not have; 0 of graphs that give every prior.
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
        boxes, scores, compared, unmatched = _errors_of_found(wanted, given_predictor(*taken))
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
        wanted = reference.network(normalised)
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


def _errors_of_found(wanted: list[Found], given: list[Found]) -> tuple[float, float, int, int]:
    """Largest differences of detections that are the same, how many there were, and how many have no partner."""
    boxes = scores = 0.0
    compared = unmatched = 0
    for one, other in zip(wanted, given, strict=True):
        compared += len(one.boxes)
        if not len(one.boxes) or not len(other.boxes):
            unmatched += len(one.boxes) + len(other.boxes)
            continue
        same = iou_matrix(one.boxes, other.boxes) * (one.labels[:, None] == other.labels)
        same = same * ((one.scores[:, None] - other.scores).abs() < _SAME_SCORE)
        overlap, partner = same.max(dim=1)
        has_partner = overlap > _SAME_BOX
        unmatched += int((~has_partner).sum()) + int((same.amax(dim=0) <= _SAME_BOX).sum())
        if has_partner.any():
            pairs = partner[has_partner]
            boxes = max(boxes, float((one.boxes[has_partner] - other.boxes[pairs]).abs().max()))
            scores = max(scores, float((one.scores[has_partner] - other.scores[pairs]).abs().max()))
    return boxes, scores, compared, unmatched
