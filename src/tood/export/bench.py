"""Which engine runs a model soonest on this machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tood.engines import open_exported
from tood.errors import ToodError, quoted
from tood.export.config import SUFFIXES, ExportConfig
from tood.export.export import Origin, describe
from tood.export.onnx_graph import network_graph, whole_graph
from tood.export.openvino_model import save_openvino, to_openvino
from tood.inference import Detector
from tood.precision import cpu_multiplies_bf16

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
    """

    engine: str
    seconds: float | None
    command: str = ""
    problem: str = ""


def bench_engines(
    origin: Origin, picture: NDArray[np.uint8], repeats: int, say: Callable[[str], None] = lambda _: None
) -> list[BenchRow]:
    """The engines that are installed, in fp32 and, with PyTorch, in bf16 where the CPU has it; the soonest first.

    Args:
        origin: the model.
        picture: [H, W, 3] uint8 RGB.
        repeats: times that each runs; one more, which is not counted, comes first.
        say: told what is being done.
    """
    model, names, called = origin.model, origin.class_names, quoted(origin.source or "MODEL")
    makers: list[tuple[str, str, Callable[[Path], Detector]]] = [
        ("PyTorch, fp32", "", lambda _: Detector.from_model(model, names, "cpu", precision="fp32")),
        ("ONNX Runtime, fp32", f"tood export {called} --to onnx", lambda folder: _onnx(origin, folder)),
        ("OpenVINO, fp32", f"tood export {called} --to openvino", lambda folder: _openvino(origin, folder)),
    ]
    if cpu_multiplies_bf16():
        makers.insert(1, ("PyTorch, bf16", "", lambda _: Detector.from_model(model, names, "cpu", precision="bf16")))
    rows = []
    for engine, command, make in makers:
        say(engine)
        with tempfile.TemporaryDirectory(prefix="tood-bench-") as folder:
            try:
                detector = make(Path(folder))
            except ToodError as error:
                rows.append(BenchRow(engine, None, command, str(error)))
                continue
            rows.append(BenchRow(engine, _median(partial(detector, picture, keep_image=False), repeats), command))
    return sorted(rows, key=lambda row: float("inf") if row.seconds is None else row.seconds)


def advice(rows: list[BenchRow]) -> str:
    """Which one to take, in a sentence."""
    best = rows[0]
    own = next(row for row in rows if row.engine == "PyTorch, fp32")
    assert best.seconds is not None
    assert own.seconds is not None
    if own.seconds < best.seconds * _WORTH_IT:
        return "Take PyTorch in fp32, without a file of its own: nothing is faster by 5 %."
    gain = own.seconds / best.seconds
    how = f": {best.command}" if best.command else ", as `Detector` and `tood predict` do by themselves"
    return f"Take {best.engine}, {gain:.2f} times as fast as PyTorch in fp32{how}"


def _median(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _onnx(origin: Origin, folder: Path) -> Detector:
    import onnx

    config, path = ExportConfig("onnx"), folder / f"model{SUFFIXES['onnx']}"
    proto = whole_graph(network_graph(origin.model, config), describe(origin, config))
    onnx.save(proto, path)
    return Detector.from_engine(open_exported(path))


def _openvino(origin: Origin, folder: Path) -> Detector:
    config, path = ExportConfig("openvino"), folder / f"model{SUFFIXES['openvino']}"
    description = describe(origin, config)
    proto = whole_graph(network_graph(origin.model, config), description)
    save_openvino(to_openvino(proto), path, description)
    return Detector.from_engine(open_exported(path))
