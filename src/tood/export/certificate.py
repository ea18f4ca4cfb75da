"""What is known of an exported file: how far it is from PyTorch, what was lost, and what it was made with."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from tood.choices import ExportGraph
from tood.engines import ENGINE_NAMES, EngineKind, ExportedModel
from tood.export.parity import MOST_UNMATCHED, TOLERANCES, ParityCase, Tolerance
from tood.version import own_version

# AP, on 0 to 1, that may be lost: so much, or this share of what there was.
_AP_LOSS = {"fp32": 0.001, "fp16": 0.002}
_AP_SHARE = 0.01

# Packages whose versions are told, and what people call them.
_PACKAGES = {
    "torch": "PyTorch",
    "onnx": "ONNX",
    "onnxscript": "ONNX Script",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "nncf": "NNCF",
    "numpy": "NumPy",
    "opencv-python-headless": "OpenCV",
}
_GRAPHS: dict[ExportGraph, str] = {
    "dense": "every box and its scores, nothing suppressed (`dense`)",
    "nms": "detections, suppressed (`nms`)",
    "topk": "the best detections of a head that gives each object once (`topk`)",
}
_NAMES = {**_PACKAGES, "python": "Python"}


@dataclass(frozen=True)
class ApChange:
    """AP on a dataset, 0 to 1, by PyTorch and by the exported file.

    Attributes:
        dataset: where it lies; split, images: what of it.
        before, after: AP, -1 where there is nothing to measure.
    """

    dataset: str
    split: str
    images: int
    before: float
    after: float


@dataclass(frozen=True)
class Certificate:
    """What is known of an exported file.

    Attributes:
        file: its name, and those of files that belong to it, with the SHA-256 of each.
        bytes: of all of them.
        description: what the file says of itself.
        engine: what ran it.
        pictures: what was compared on.
        cases: the comparisons.
        ap: None where no dataset was given.
        operators: how often the graph has each.
        versions: of this package and of those that it was made and run with.
        float_parts: parts of the network that were left in floating point in an int8 file.
    """

    file: Mapping[str, str]
    bytes: int
    description: ExportedModel
    engine: EngineKind
    pictures: str
    cases: tuple[ParityCase, ...]
    ap: ApChange | None
    operators: Mapping[str, int]
    versions: Mapping[str, str]
    float_parts: tuple[str, ...] = ()

    @property
    def largest(self) -> tuple[float, float]:
        """The largest differences of boxes and of scores."""
        # NumPy's maximum of what is no number is no number; Python's depends on the order.
        boxes, scores = np.max([(case.boxes, case.scores) for case in self.cases], axis=0)
        return float(boxes), float(scores)

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is beyond the tolerance, in sentences; none where all is well."""
        return (*self._of_predictions(), *self._of_ap())

    @property
    def _tolerance(self) -> Tolerance | None:
        """By how much predictions may differ; None where AP judges them."""
        precision = self.description.precision
        judged = self.ap is not None and self.ap.before > 0
        return None if precision == "fp16" and judged else TOLERANCES.get(precision)

    @property
    def _allowed_loss(self) -> float | None:
        """AP that may be lost, None where it was not measured."""
        if self.ap is None or self.ap.before < 0:
            return None
        return _AP_LOSS.get(self.description.precision, _AP_SHARE * self.ap.before)

    def _of_predictions(self) -> list[str]:
        if self._tolerance is None:
            return []
        compared, unmatched = (sum(getattr(case, name) for case in self.cases) for name in ("compared", "unmatched"))
        if not compared and not unmatched:
            return [
                f"nothing was compared, as neither PyTorch nor the file finds anything on {self.pictures}: "
                "give pictures or a dataset of what the model knows with --pictures or --data"
            ]
        boxes, scores = self.largest
        most_pixels, most_score = self._tolerance
        told = []
        if not boxes <= most_pixels:
            told.append(f"boxes differ by up to {boxes:.3g} pixels, more than {most_pixels}")
        if not scores <= most_score:
            told.append(f"scores differ by up to {scores:.2g}, more than {most_score}")
        if unmatched > MOST_UNMATCHED * compared:
            told.append(f"{unmatched} of {compared} detections are PyTorch's alone or the file's alone")
        return told

    def _of_ap(self) -> list[str]:
        precision = self.description.precision
        if self.ap is None:
            return ["what int8 loses was measured on no dataset: give one with --data"] if precision == "int8" else []
        allowed = self._allowed_loss
        if precision == "int8" and self.ap.before <= 0:
            reason = "AP cannot be measured there" if allowed is None else "the AP is 0 before"
            return [f"nothing tells what int8 loses, as {reason}: give a dataset of what the model knows with --data"]
        if allowed is None:
            return []
        if self.ap.before - self.ap.after <= allowed:
            return []
        return [f"AP falls from {self.ap.before:.4f} to {self.ap.after:.4f}, by more than {allowed:.4f}"]

    def as_json(self) -> str:
        """Everything, for programs."""
        boxes, scores = self.largest
        content = {
            "certificate": 1,
            "within_tolerance": not self.complaints,
            "complaints": list(self.complaints),
            "sha256": dict(self.file),
            "bytes": self.bytes,
            "largest_error": {"boxes_pixels": boxes, "scores": scores},
            "cases": [asdict(case) for case in self.cases],
            "ap": None if self.ap is None else asdict(self.ap),
            "engine": self.engine,
            "pictures": self.pictures,
            "operators": dict(self.operators),
            "versions": dict(self.versions),
            "left_in_floating_point": list(self.float_parts),
            "description": self.description.texts(),
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def as_page(self) -> str:
        """One page of Markdown, for people."""
        about = self.description
        boxes, scores = self.largest
        name = next(iter(self.file))
        verdict = (
            f"**Within the tolerance** ({self._allowed()})."
            if not self.complaints
            else f"**BEYOND the tolerance** ({self._allowed()}): {'; '.join(self.complaints)}."
        )
        engine = f"{ENGINE_NAMES[self.engine]} {self.versions.get(self.engine, '')}".rstrip()
        lines = [
            f"# {name}",
            "",
            verdict,
            "",
            f"Largest difference from PyTorch in fp32, run by {engine} on the CPU on {self.pictures}: "
            f"boxes {boxes:.2g} pixels, scores {scores:.2g}.",
            "",
            f"- model: `{about.source or 'in memory'}`, family {about.model.family}, {about.model.classes} classes",
            f"- licence of its weights: {about.licence or 'not stated'}",
            f"- file: {about.precision}, {self.bytes / 1e6:.1f} MB",
            f"- takes: {_input(about)}, in batches of {about.batch or 'any size'}",
            f"- gives: {_GRAPHS[about.graph]}",
            "",
        ]
        if self.ap is not None:
            lines += [
                f"AP on {self.ap.dataset}, split {self.ap.split} ({self.ap.images} images): "
                f"{self.ap.before:.4f} before, {self.ap.after:.4f} after.",
                "",
            ]
        if self.float_parts:
            lines += [f"Left in floating point to keep the AP: {', '.join(self.float_parts)}.", ""]
        lines += ["Pictures of three shapes (height x width), what the network saw of them, and how many at once:", ""]
        lines += ["| picture | input | batch | boxes, pixels | scores | boxes compared | found by one alone |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [
            f"| {_sides(case.picture)} | {_sides(case.input)} | {case.batch} | {case.boxes:.2g} | {case.scores:.2g} "
            f"| {case.compared} | {case.unmatched} |"
            for case in self.cases
        ]
        lines += ["", "| file | SHA-256 |", "|---|---|", *(f"| {file} | `{sha}` |" for file, sha in self.file.items())]
        lines += ["", f"Operators: {', '.join(f'{name} {count}' for name, count in self.operators.items())}.", ""]
        versions = (f"{_NAMES.get(name, name)} {number}" for name, number in self.versions.items())
        lines += [f"Versions: {', '.join(versions)}.", ""]
        return "\n".join(lines)

    def _allowed(self) -> str:
        """The tolerance, for people."""
        told = [] if self._tolerance is None else ["boxes {:g} pixels, scores {:g}".format(*self._tolerance)]
        if self._allowed_loss is not None:
            told.append(f"{self._allowed_loss:.4f} of AP")
        return ", ".join(told) or "by the AP alone"


def versions() -> dict[str, str]:
    """Of this package, Python and those that export and run models, as far as they are installed."""
    found = {"tood": own_version(), "python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _input(about: ExportedModel) -> str:
    if about.raw:
        within = "" if about.size is None else f", which the network sees as {_sides(about.size)}"
        return f"whole pictures, uint8 RGB, of any size{within}"
    return f"prepared images, float32, of {'any size' if about.size is None else _sides(about.size)}"


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
