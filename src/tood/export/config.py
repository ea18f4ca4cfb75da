"""What a model is to be exported as."""

from __future__ import annotations

from dataclasses import dataclass

from tood.choices import ExportFormat, ExportGraph, ExportPrecision, ExportTarget
from tood.errors import ToodError
from tood.models import AnyPostprocessConfig

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
# Rows a picture where the model's own configuration has no limit.
NO_LIMIT = 1000


@dataclass(frozen=True)
class ExportConfig:
    """What a model is to be exported as.

    Attributes:
        format: see `ExportFormat`.
        graph: where the graph ends.
        raw: whether it takes whole pictures rather than prepared images.
        precision: see `ExportPrecision`.
        size: height and width of the input where they are to be fixed.
        batch: pictures in a batch where their number is to be fixed.
        opset: version of ONNX's operators.
        target: see `ExportTarget`.
    """

    format: ExportFormat = "onnx"
    graph: ExportGraph = "dense"
    raw: bool = False
    precision: ExportPrecision = "fp32"
    size: tuple[int, int] | None = None
    batch: int | None = None
    opset: int = 20
    target: ExportTarget = "onnxruntime"

    def __post_init__(self) -> None:
        if self.format == "torch" and self.precision == "int8":
            raise ToodError(
                "PyTorch's programs are written in fp32 or fp16, as it has no int8 convolutions of its own for them: "
                "choose --to onnx or openvino"
            )
        if self.batch is not None and self.batch < 1:
            raise ToodError(f"batch is {self.batch}: give at least 1")
        if not 18 <= self.opset <= 23:
            raise ToodError(f"opset is {self.opset}: give 18 to 23")

    @property
    def suffix(self) -> str:
        """Ending of the file's name."""
        return SUFFIXES[self.format]


def rows_of(config: AnyPostprocessConfig) -> int:
    """Detections of a picture that a graph gives at most."""
    return config.max_detections or NO_LIMIT
