"""Which engine runs a model soonest on this machine."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tood.choices import ExportFormat, ExportPrecision
from tood.engines import open_exported
from tood.errors import ToodError, quoted
from tood.export.config import ExportConfig
from tood.export.export import Export, Origin, Proof, require_packages
from tood.export.network import DeformForm
from tood.export.onnx_graph import deform_form, network_graph
from tood.export.sample_pictures import CALIBRATING, require_pictures
from tood.inference import Detector
from tood.precision import cpu_multiplies_bf16
from tood.whole_file import scratch_folder

if TYPE_CHECKING:
    from onnx import ModelProto

# Faster by less than this is not worth another file.
_WORTH_IT = 1.05


@dataclass(frozen=True)
class BenchRow:
    """An engine's time.

    Attributes:
        engine: its name, for people.
        seconds: median of a picture, from pixels to boxes; None where it could not be run.
        command: what makes a file for it, empty for PyTorch.
        problem: why it could not be run.
        device: that it computes on.
        precision: that it computes in.
    """

    engine: str
    seconds: float | None
    command: str = ""
    problem: str = ""
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True, eq=False)
class _Candidate:
    """What may run the model: the row without a time, and what makes a detector."""

    row: BenchRow
    make: Callable[[], Detector]


@dataclass(frozen=True, eq=False)
class _Files:
    """The model's files, each made once, for all devices.

    Attributes:
        origin: the model.
        folder: that they lie in.
        calibration: what int8 learns the range of values from, if anything.
        graphs: the network's own graph, which several files share.
    """

    origin: Origin
    folder: Path
    calibration: str | None
    graphs: dict[DeformForm, ModelProto] = field(default_factory=dict)

    def detector(self, config: ExportConfig, device: str) -> Detector:
        """Of the file that `tood export` writes for the configuration."""
        require_packages(config)
        path = self.folder / f"{config.precision}{config.suffix}"
        if not path.exists():
            export = Export.of(self.origin, config, Proof(calibration=self.calibration))
            if config.format == "torch":
                export.program(path)
            else:
                form = deform_form(config)
                if form not in self.graphs:
                    self.graphs[form] = network_graph(export.origin.model, config)
                export.files(self.graphs[form], path)
        return Detector.from_engine(open_exported(path, torch.device(device)))


def bench_engines(
    origin: Origin,
    picture: NDArray[np.uint8],
    repeats: int,
    device: torch.device,
    say: Callable[[str], None] = lambda _: None,
    *,
    calibration: str | None = None,
) -> list[BenchRow]:
    """The engines that are installed, in each precision that makes them faster here; the soonest first.

    That is fp32; with PyTorch bf16 where there is hardware; of files fp16 on a GPU, as CPUs compute such files in fp32;
    int8 on the CPU where there are pictures to learn ranges from. Files are those that `export_model` writes.

    Args:
        origin: the model, on the CPU.
        picture: [H, W, 3] uint8 RGB.
        repeats: times that each runs; one more, which is not counted, comes first.
        device: what is measured beside the CPU, if it is another one.
        say: told what is being done.
        calibration: dataset or folder of pictures that int8 learns the range of values from; None: int8 is left out.

    Raises:
        ToodError: if a picture of the calibration cannot be read.
    """
    rows = []
    if calibration is not None:
        require_pictures(calibration, CALIBRATING)
    with scratch_folder() as folder:
        for candidate in _candidates(_Files(origin, folder, calibration), device):
            row = candidate.row
            say(row.engine)
            try:
                detector = candidate.make()
            except ToodError as error:
                rows.append(replace(row, problem=str(error)))
                continue
            call = partial(detector, picture, keep_image=False)
            rows.append(replace(row, seconds=_median(call, repeats, torch.device(row.device))))
    return sorted(rows, key=lambda row: float("inf") if row.seconds is None else row.seconds)


def _candidates(files: _Files, device: torch.device) -> list[_Candidate]:
    model, names = files.origin.model, files.origin.class_names

    def pytorch(place: str, precision: Literal["fp32", "bf16"]) -> _Candidate:
        row = BenchRow(f"PyTorch, {precision}{_on(place)}", None, device=place, precision=precision)
        # A detector takes the model along to its device, and the next engine wants it where it was.
        return _Candidate(row, lambda: Detector.from_model(copy.deepcopy(model), names, place, precision=precision))

    def exported(format: ExportFormat, place: str, precision: ExportPrecision) -> _Candidate:
        name = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch's program"}[format]
        command = f"tood export {quoted(files.origin.source or 'MODEL')} --to {format}"
        if precision != "fp32":
            command += f" --precision {precision}"
        if precision == "int8":  # what it loses is told by the AP alone
            command += f" --calibrate {quoted(files.calibration or '')} --data DATASET"
        row = BenchRow(f"{name}, {precision}{_on(place)}", None, command, device=place, precision=precision)
        config = ExportConfig(format, precision=precision)
        return _Candidate(row, lambda: files.detector(config, place))

    candidates = [pytorch("cpu", "fp32")]
    if cpu_multiplies_bf16():
        candidates.append(pytorch("cpu", "bf16"))
    candidates += [
        exported("onnx", "cpu", "fp32"),
        exported("openvino", "cpu", "fp32"),
        exported("torch", "cpu", "fp32"),
    ]
    if files.calibration is not None:
        candidates += [exported("onnx", "cpu", "int8"), exported("openvino", "cpu", "int8")]
    if device.type != "cpu":
        candidates.append(pytorch(str(device), "fp32"))
    if device.type == "cuda":
        if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
            candidates.append(pytorch(str(device), "bf16"))
        candidates += [exported("onnx", str(device), "fp32"), exported("onnx", str(device), "fp16")]
    return candidates


def not_timed(rows: list[BenchRow]) -> str:
    """What export offers besides and why it has no row, in a sentence for each; empty where nothing is left out."""
    timed = {row.precision for row in rows}
    told = []
    if "int8" not in timed:
        told.append("int8 learns from pictures: it is timed with --calibrate DATASET.")
    if "fp16" not in timed:
        told.append(
            "fp16 is for GPUs and smaller files (tood export --precision fp16): on CPUs it is computed in fp32."
        )
    return " ".join(told)


def _on(device: str) -> str:
    return "" if device == "cpu" else f" on {device}"


def advice(rows: list[BenchRow]) -> str:
    """Which one to take, in a sentence: beside PyTorch in fp32 on the GPU, where that was measured, else on the CPU."""
    best = rows[0]
    plain = [row for row in rows if not row.command and row.precision == "fp32" and row.seconds is not None]
    own = next((row for row in plain if row.device != "cpu"), plain[0])
    assert best.seconds is not None
    assert own.seconds is not None
    if own.seconds < best.seconds * _WORTH_IT:
        return f"Take PyTorch in fp32{_on(own.device)}, without a file of its own: nothing is faster by 5 %."
    gain = own.seconds / best.seconds
    return f"Take {best.engine}, {gain:.2f} times as fast as PyTorch in fp32{_on(own.device)}{_how(best, own)}"


def _how(best: BenchRow, own: BenchRow) -> str:
    """What to do for it; `own` is PyTorch where a `Detector` computes by itself."""
    if best.command:
        return f": {best.command}" + ("" if best.device == "cpu" else f", then --device {best.device}")
    if own.device == "cpu":
        return ", as `Detector` and `tood predict` do by themselves"
    precision = "" if best.precision == "fp32" else f" --precision {best.precision}"
    return f": --device {best.device}{precision}"


def _median(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    call()
    times = []
    for _ in range(repeats):
        _wait_for(device)
        begin = time.perf_counter()
        call()
        _wait_for(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _wait_for(device: torch.device) -> None:
    """Until it has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
