"""What an exported model's file says of itself, so that nothing else is needed to run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from tood.choices import ExportGraph
from tood.configuration import from_dict, to_dict
from tood.engines.inputs import FixedInput, WholeInput
from tood.errors import ToodError
from tood.input import InputConfig
from tood.models import AnyModelConfig, AnyPostprocessConfig
from tood.models.common import TopKConfig
from tood.models.common.priors import grid_priors
from tood.structures import DensePredictions, Priors

GRAPHS: tuple[ExportGraph, ...] = get_args(ExportGraph)

FORMAT = "tood-export"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class PriorGrid:
    """Where the priors of a network lie: one a cell, at ((x + offset) * stride, (y + offset) * stride).

    Attributes:
        offset: in cells.
        anchor_scale: side of the square anchors, in strides.
    """

    offset: float
    anchor_scale: float

    @staticmethod
    def of(priors: Priors) -> PriorGrid:
        """The grid that these priors are of, the first of which lies in the first cell."""
        stride = float(priors.strides[0])
        return PriorGrid(float(priors.centres[0, 0]) / stride, float(priors.sizes[0]) / stride)

    def priors(self, height: int, width: int, strides: tuple[int, ...]) -> Priors:
        """The priors of an input of so many pixels."""
        maps = [torch.empty(1, 0, -(-height // stride), -(-width // stride)) for stride in strides]
        return grid_priors(maps, strides, self.anchor_scale, self.offset)


@dataclass(frozen=True)
class ExportedModel:
    """An exported model, as its file describes it.

    Attributes:
        model: configuration of the network that was exported: its family, input, thresholds.
        class_names: name of every class, indexed by label.
        graph: see `ExportGraph`.
        raw: whether it takes whole pictures [B, H, W, 3] uint8 RGB of any size, else images [B, 3, H, W] float32 laid
            out and normalised as `model.input` says.
        precision: "fp32", "fp16" or "int8".
        grid: where its priors lie.
        size: height and width of the input where they are fixed, None where they are free.
        batch: pictures in a batch where their number is fixed, None where it is free.
        max_detections: rows that "nms" and "topk" give for each picture.
        licence: SPDX identifier of the weights' licence, empty where nobody said.
        version: of tood that wrote it.
        source: what was exported.
        weights_sha256: of the file of weights that was exported, empty where it was a model in memory.
    """

    model: AnyModelConfig
    class_names: tuple[str, ...]
    graph: ExportGraph
    raw: bool
    precision: str
    grid: PriorGrid
    size: tuple[int, int] | None = None
    batch: int | None = None
    max_detections: int = 0
    licence: str = ""
    version: str = ""
    source: str = ""
    weights_sha256: str = ""

    @property
    def network_input(self) -> InputConfig:
        """What the network within wants of a picture."""
        return self.model.input if self.size is None else FixedInput.of(self.model.input, *self.size)

    @property
    def input(self) -> InputConfig:
        """What whoever runs the file is to make of a picture."""
        return WholeInput.of(self.model.input) if self.raw else self.network_input

    @property
    def postprocess(self) -> AnyPostprocessConfig:
        """How what the file gives becomes detections."""
        own = self.model.postprocess
        if self.graph == "dense":
            return own
        # The file has applied the threshold to scores of classes, and what these are times a quality may be less.
        threshold = 0.0 if self.model.predicts_quality else own.score_threshold
        return TopKConfig(threshold, self.max_detections, clip=own.clip and self.graph == "topk")

    @property
    def wants_windows(self) -> bool:
        """Whether a second input tells where each picture lies: boxes are cut to that before others are suppressed."""
        return self.graph == "nms" and self.model.postprocess.clip and not self.raw

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the graph's outputs are called, in their order."""
        if self.graph != "dense":
            return "boxes", "scores", "labels", "counts"
        return ("boxes", "scores", "quality") if self.model.predicts_quality else ("boxes", "scores")

    def texts(self) -> dict[str, str]:
        """The description as texts by name, as files keep metadata."""
        config = self.model
        readable = {
            "class_names": list(self.class_names),
            "model": to_dict(config),
            "strides": list(config.strides),
            "grid": {"offset": self.grid.offset, "anchor_scale": self.grid.anchor_scale},
            "size": None if self.size is None else list(self.size),
            "batch": self.batch,
            "max_detections": self.max_detections,
            "raw": self.raw,
        }
        return {
            "format": FORMAT,
            "format_version": str(_FORMAT_VERSION),
            "family": config.family,
            "graph": self.graph,
            "precision": self.precision,
            "licence": self.licence,
            "version": self.version,
            "source": self.source,
            "weights_sha256": self.weights_sha256,
            # Within the configuration, too; told apart for whoever runs the file without this package.
            "input": json.dumps(to_dict(config.input)),
            "postprocess": json.dumps(to_dict(config.postprocess)),
            **{key: json.dumps(value, ensure_ascii=False) for key, value in readable.items()},
        }

    @staticmethod
    def from_texts(texts: Mapping[str, str], path: Path) -> ExportedModel:
        """What `texts` wrote.

        Raises:
            ToodError: if it is not of a file that `tood export` wrote, or of a version of it that is not known here.
        """
        if texts.get("format") != FORMAT:
            raise ToodError(
                f"{path} was not written by `tood export`: it does not say what its input is to be; export the model "
                "again from its weights"
            )
        if texts.get("format_version") != str(_FORMAT_VERSION):
            raise ToodError(f"{path} was written by another version of tood ({texts.get('version')}): install that one")
        try:
            kind: Any = AnyModelConfig  # a union, which is no type to mypy
            grid, size = json.loads(texts["grid"]), json.loads(texts["size"])
            batch = json.loads(texts.get("batch", "null"))
            graph = next(graph for graph in GRAPHS if graph == texts["graph"])
            return ExportedModel(
                from_dict(kind, json.loads(texts["model"]), where=str(path)),
                tuple(map(str, json.loads(texts["class_names"]))),
                graph,
                bool(json.loads(texts["raw"])),
                texts["precision"],
                PriorGrid(float(grid["offset"]), float(grid["anchor_scale"])),
                None if size is None else (int(size[0]), int(size[1])),
                None if batch is None else int(batch),
                int(json.loads(texts["max_detections"])),
                texts["licence"],
                texts["version"],
                texts["source"],
                texts["weights_sha256"],
            )
        except (KeyError, ValueError, TypeError, IndexError, StopIteration, RecursionError) as error:
            raise ToodError(f"{path} has broken metadata ({error!r}): export the model again") from error

    def predictions(self, outputs: Mapping[str, Tensor], height: int, width: int) -> DensePredictions:
        """What the file gave, as any network of this package gives it.

        Args:
            outputs: by name.
            height, width: of the network's input in pixels.
        """
        boxes, scores = outputs["boxes"], outputs["scores"]
        if self.graph == "dense":
            priors = self.grid.priors(height, width, self.model.strides)
            quality = outputs.get("quality")
            return DensePredictions(scores, boxes, priors, quality=None if quality is None else quality.logit())
        # Rows without a detection have a score of 0, which no class gets.
        labels = outputs["labels"].clamp(min=0)
        by_class = scores.new_zeros(*scores.shape, self.model.classes)
        by_class.scatter_(2, labels[..., None], scores[..., None])
        places = boxes.new_zeros(boxes.shape[1], 2)
        priors = Priors(places, places[:, 0], places[:, 0], ((1, boxes.shape[1]),))
        return DensePredictions(by_class, boxes, priors)
