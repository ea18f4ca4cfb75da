"""Which engine runs a model soonest on this machine."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tood.engines import open_exported
from tood.errors import ToodError, quoted
from tood.export.config import SUFFIXES, ExportConfig
from tood.export.export import Origin, describe
from tood.export.onnx_graph import network_graph, whole_graph
from tood.export.openvino_model import save_openvino, to_openvino
from tood.inference import Detector
from tood.precision import cpu_multiplies_bf16
from tood.whole_file import scratch_folder

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
    """What may run the model: the row without a time, and what makes a detector in a folder."""

    row: BenchRow
    make: Callable[[Path], Detector]


def bench_engines(
    origin: Origin,
    picture: NDArray[np.uint8],
    repeats: int,
    device: torch.device,
    say: Callable[[str], None] = lambda _: None,
) -> list[BenchRow]:
    """The engines that are installed, in fp32 and, with PyTorch, in bf16 where there is hardware; the soonest first.

    Args:
        origin: the model, on the CPU.
        picture: [H, W, 3] uint8 RGB.
        repeats: times that each runs; one more, which is not counted, comes first.
        device: what is measured beside the CPU, if it is another one.
        say: told what is being done.
    """
    rows = []
    with scratch_folder() as folder:
        for candidate in _candidates(origin, device):
            row = candidate.row
            say(row.engine)
            try:
                detector = candidate.make(folder)
            except ToodError as error:
                rows.append(replace(row, problem=str(error)))
                continue
            call = partial(detector, picture, keep_image=False)
            rows.append(replace(row, seconds=_median(call, repeats, torch.device(row.device))))
    return sorted(rows, key=lambda row: float("inf") if row.seconds is None else row.seconds)


def _candidates(origin: Origin, device: torch.device) -> list[_Candidate]:
    model, names, called = origin.model, origin.class_names, quoted(origin.source or "MODEL")
    to_onnx, to_openvino = (f"tood export {called} --to {name}" for name in ("onnx", "openvino"))

    def pytorch(place: str, precision: Literal["fp32", "bf16"]) -> _Candidate:
        row = BenchRow(f"PyTorch, {precision}{_on(place)}", None, device=place, precision=precision)
        # A detector takes the model along to its device, and the next engine wants it where it was.
        return _Candidate(row, lambda _: Detector.from_model(copy.deepcopy(model), names, place, precision=precision))

    def onnx_runtime(place: str) -> _Candidate:
        row = BenchRow(f"ONNX Runtime, fp32{_on(place)}", None, to_onnx, device=place)
        return _Candidate(row, lambda folder: _onnx(origin, folder, place))

    candidates = [pytorch("cpu", "fp32")]
    if cpu_multiplies_bf16():
        candidates.append(pytorch("cpu", "bf16"))
    candidates.append(onnx_runtime("cpu"))
    openvino = BenchRow("OpenVINO, fp32", None, to_openvino)
    candidates.append(_Candidate(openvino, lambda folder: _openvino(origin, folder)))
    if device.type != "cpu":
        candidates.append(pytorch(str(device), "fp32"))
    if device.type == "cuda":
        if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
            candidates.append(pytorch(str(device), "bf16"))
        candidates.append(onnx_runtime(str(device)))
    return candidates


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


def _onnx(origin: Origin, folder: Path, device: str) -> Detector:
    """Of a file that is made once for all devices."""
    import onnx

    config, path = ExportConfig("onnx"), folder / f"model{SUFFIXES['onnx']}"
    if not path.exists():
        onnx.save(whole_graph(network_graph(origin.model, config), describe(origin, config)), path)
    return Detector.from_engine(open_exported(path, torch.device(device)))


def _openvino(origin: Origin, folder: Path) -> Detector:
    config, path = ExportConfig("openvino"), folder / f"model{SUFFIXES['openvino']}"
    description = describe(origin, config)
    proto = whole_graph(network_graph(origin.model, config), description)
    save_openvino(to_openvino(proto), path, description)
    return Detector.from_engine(open_exported(path))
