"""What is known of an exported file: how far it is from PyTorch, what was lost, and what it was made with."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from tood.engines import ExportedModel
from tood.export.parity import ParityCase
from tood.version import own_version

# Largest differences that are let pass: pixels of boxes and probabilities; detections without a partner, of all.
_TOLERANCES = {"fp32": (0.5, 1e-3), "fp16": (2.0, 2e-2)}
_UNMATCHED = 0.01
# AP, on 0 to 1, that may be lost: so much, or this share of what there was.
_AP_LOSS = {"fp32": 0.001, "fp16": 0.002}
_AP_SHARE = 0.01

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "numpy", "opencv-python-headless")


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
    engine: str
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

    def _of_predictions(self) -> list[str]:
        precision = self.description.precision
        if precision not in _TOLERANCES or (precision == "fp16" and self.ap is not None):
            return []  # AP judges them
        boxes, scores = self.largest
        most_pixels, most_score = _TOLERANCES[precision]
        told = []
        if not boxes <= most_pixels:
            told.append(f"boxes differ by up to {boxes:.3g} pixels, more than {most_pixels}")
        if not scores <= most_score:
            told.append(f"scores differ by up to {scores:.2g}, more than {most_score}")
        compared, unmatched = (sum(getattr(case, name) for case in self.cases) for name in ("compared", "unmatched"))
        if unmatched > _UNMATCHED * compared:
            told.append(f"{unmatched} of {compared} detections are PyTorch's alone or the file's alone")
        return told

    def _of_ap(self) -> list[str]:
        precision = self.description.precision
        if self.ap is None:
            return ["what int8 loses was measured on no dataset: give one with --data"] if precision == "int8" else []
        if self.ap.before < 0:
            return ["AP cannot be measured on this dataset"] if precision == "int8" else []
        allowed = _AP_LOSS.get(precision, _AP_SHARE * self.ap.before)
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
            "Within the tolerance." if not self.complaints else f"BEYOND the tolerance: {'; '.join(self.complaints)}."
        )
        lines = [
            f"# {name}",
            "",
            f"{about.model.family}, {about.model.classes} classes, {about.precision}, graph `{about.graph}`, "
            f"{'whole pictures' if about.raw else 'prepared images'} of {_size(about)}; {self.bytes / 1e6:.1f} MB.",
            f"Made of `{about.source}`; licence of its weights: {about.licence or 'not stated'}.",
            "",
            f"**{verdict}** Largest difference from PyTorch in fp32, run by {self.engine} on {self.pictures}: "
            f"boxes {boxes:.2g} pixels, scores {scores:.2g}.",
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
        lines += ["| picture | input | batch | boxes, pixels | scores | compared | without a partner |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [
            f"| {_sides(case.picture)} | {_sides(case.input)} | {case.batch} | {case.boxes:.2g} | {case.scores:.2g} "
            f"| {case.compared} | {case.unmatched} |"
            for case in self.cases
        ]
        lines += ["", "| file | SHA-256 |", "|---|---|", *(f"| {file} | `{sha}` |" for file, sha in self.file.items())]
        lines += ["", f"Operators: {', '.join(f'{name} {count}' for name, count in self.operators.items())}.", ""]
        lines += [f"Versions: {', '.join(f'{name} {number}' for name, number in self.versions.items())}.", ""]
        return "\n".join(lines)


def versions() -> dict[str, str]:
    """Of this package, Python and those that export and run models, as far as they are installed."""
    found = {"tood": own_version(), "python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _size(about: ExportedModel) -> str:
    return "any size" if about.size is None else f"an input of {_sides(about.size)}"


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
