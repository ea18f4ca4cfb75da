"""Every named model, with random weights, exported and run by ONNX Runtime and OpenVINO: how far from PyTorch.

    python -m benchmarks.export_parity [NAME ...] [--side 128] [--out rows.jsonl]

A row a model is added to the file; models that are in it are not done again, so that it may be stopped at any time.
`--table` prints the rows as Markdown. Models that differ in their training only are one network. How far PyTorch's own
fp32 is from its fp64 stands beside: where random weights let values grow, rounding alone moves boxes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tood.engines import Engine, open_exported
from tood.engines.onnx_file import onnx_session, session_run
from tood.export import Origin, description_of
from tood.export.config import ExportConfig
from tood.export.onnx_graph import network_graph, whole_graph
from tood.export.openvino_model import save_openvino, to_openvino
from tood.models import AnyDetector, AnyModelConfig, build_model
from tood.zoo import named_models

FOLDER = Path("runs/export_parity")
# Boxes, scores, and what a network says of its boxes' quality, if it does.
Predicted = tuple[Tensor, Tensor, Tensor | None]
Predict = Callable[[Tensor], Predicted]
COLUMNS = {"ONNX Runtime": "ONNX Runtime", "OpenVINO": "OpenVINO", "PyTorch in fp64": "PyTorch"}


def main() -> None:
    """Runs over the models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all if none")
    parser.add_argument("--side", type=int, default=128, help="least pixels of the input, to whole divisors")
    parser.add_argument("--out", type=Path, default=FOLDER / "rows.jsonl")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.table:
        print(table(rows))
        return
    done = {row["model"] for row in rows}
    for name, namesakes in networks().items():
        if name in done or (options.names and not {name, *namesakes} & set(options.names)):
            continue
        row = measured(name, options.side) | {"same": namesakes}
        print(row, flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def networks() -> dict[str, list[str]]:
    """First names of the networks, each with the names of those that differ from it in their training only."""
    found: dict[str, list[str]] = {}
    first: list[tuple[AnyModelConfig, str]] = []
    for name, card in named_models().items():
        config = card.config()
        twin = next((other for known, other in first if known == config), None)
        if twin is None:
            first.append((config, name))
            found[name] = []
        else:
            found[twin].append(name)
    return found


def measured(name: str, side: int) -> dict[str, Any]:
    """Largest differences of a model's boxes (pixels) and scores, qualities too, in each engine, over three shapes."""
    begin = time.perf_counter()
    torch.manual_seed(0)
    model = build_model(named_models()[name].config()).eval()
    _spread_scores(model)
    row: dict[str, Any] = {"model": name, "parameters": sum(weight.numel() for weight in model.parameters())}
    row["PyTorch"] = differences(model, _in_double(model), side)
    try:
        config = ExportConfig()
        description = description_of(Origin(model, ("class",) * model.config.classes), config)
        proto = whole_graph(network_graph(model, config), description)
        session = onnx_session(proto.SerializeToString(), torch.device("cpu"))
        engine = Engine(description, "onnxruntime", session_run(session))
        row["ONNX Runtime"] = differences(model, of_engine(engine), side)
        row["operators"] = sorted({node.op_type for node in proto.graph.node})
        del session
        if "DeformConv" in row["operators"]:
            proto = whole_graph(network_graph(model, ExportConfig("openvino")), description)
        row["OpenVINO"] = differences(model, of_engine(_openvino(proto, model)), side)
    except Exception as error:  # a row says so, and the next model is tried
        row["problem"] = f"{type(error).__name__}: {error}"[:300]
    row["seconds"] = round(time.perf_counter() - begin)
    return row


def _openvino(proto: onnx.ModelProto, model: AnyDetector) -> Engine:
    description = description_of(Origin(model, ("class",) * model.config.classes), ExportConfig("openvino"))
    path = FOLDER / "model.xml"
    save_openvino(to_openvino(proto), path, description)
    return open_exported(path)


def of_engine(engine: Engine) -> Predict:
    """What an engine gives of prepared images: boxes, scores and qualities."""

    def predict(images: Tensor) -> Predicted:
        given = engine.predictions(images, torch.zeros(len(images), 4))
        return given.boxes, given.scores, given.quality

    return predict


def _in_double(model: AnyDetector) -> Predict:
    network = copy.deepcopy(model).double()

    def predict(images: Tensor) -> Predicted:
        given = network(images.double())
        return given.boxes, given.probabilities(), given.quality

    return predict


def _spread_scores(model: nn.Module) -> None:
    """Weights as training finds them, but last layers whose outputs differ from place to place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.abs().max() < 0.05:
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


def differences(model: AnyDetector, other: Predict, side: int) -> list[float]:
    """Largest differences of boxes, in pixels, and of scores and qualities, over three shapes and batches."""
    divisor = model.config.input.divisor
    side = math.ceil(side / divisor) * divisor
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    for batch, height, width in ((1, side, side), (2, side, side + divisor), (3, side + divisor, side)):
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            wanted = model(images)
            given_boxes, given_scores, given_quality = other(images)
        boxes.append((given_boxes - wanted.boxes).abs().max())
        scores.append((given_scores - wanted.probabilities()).abs().max())
        if given_quality is not None and wanted.quality is not None:
            scores.append((given_quality.sigmoid() - wanted.quality.sigmoid()).abs().max())
    # PyTorch's maximum of what is no number is no number; Python's depends on the order.
    return [float(torch.stack(differences).max()) for differences in (boxes, scores)]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| model | parameters | " + " | ".join(f"{name}: boxes, px | scores" for name in COLUMNS) + " |"]
    lines.append("|---|---|" + "---|---|" * len(COLUMNS))
    for row in rows:
        names = ", ".join(f"`{name}`" for name in (row["model"], *row["same"]))
        if "problem" in row:
            lines.append(
                f"| {names} | {row['parameters'] / 1e6:.1f} M | {row['problem']} |{' |' * (2 * len(COLUMNS) - 1)}"
            )
            continue
        figures = " | ".join(f"{value:.1g}" for key in COLUMNS.values() for value in row[key])
        lines.append(f"| {names} | {row['parameters'] / 1e6:.1f} M | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
