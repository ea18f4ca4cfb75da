"""Every named model, with random weights, exported and run by ONNX Runtime and OpenVINO: how far from PyTorch.

    python -m benchmarks.export_parity [NAME ...] [--side 128] [--out rows.jsonl]

A row a model is added to the file; models that are in it are not done again, so that it may be stopped at any time.
`--table` prints the rows as Markdown. Models that differ in their training only are one network.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tood.engines import Engine, open_exported
from tood.engines.onnx_file import onnx_session, session_run
from tood.export import Origin, describe
from tood.export.config import ExportConfig
from tood.export.onnx_graph import network_graph, whole_graph
from tood.export.openvino_model import save_openvino, to_openvino
from tood.models import AnyDetector, AnyModelConfig, build_model
from tood.zoo import named_models

FOLDER = Path("runs/export_parity")


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
    try:
        config = ExportConfig()
        description = describe(Origin(model, ("class",) * model.config.classes), config)
        proto = whole_graph(network_graph(model, config), description)
        session = onnx_session(proto.SerializeToString(), torch.device("cpu"))
        row["ONNX Runtime"] = differences(model, Engine(description, "onnxruntime", session_run(session)), side)
        row["operators"] = sorted({node.op_type for node in proto.graph.node})
        del session
        if "DeformConv" in row["operators"]:
            proto = whole_graph(network_graph(model, ExportConfig("openvino")), description)
        row["OpenVINO"] = differences(model, _openvino(proto, model), side)
    except Exception as error:  # a row says so, and the next model is tried
        row["problem"] = f"{type(error).__name__}: {error}"[:300]
    row["seconds"] = round(time.perf_counter() - begin)
    return row


def _openvino(proto: onnx.ModelProto, model: AnyDetector) -> Engine:
    description = describe(Origin(model, ("class",) * model.config.classes), ExportConfig("openvino"))
    path = FOLDER / "model.xml"
    save_openvino(to_openvino(proto), path, description)
    return open_exported(path)


def _spread_scores(model: nn.Module) -> None:
    """Weights as training finds them, but last layers whose outputs differ from place to place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.abs().max() < 0.05:
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


def differences(model: AnyDetector, engine: Engine, side: int) -> list[float]:
    """Largest differences of boxes, in pixels, and of scores and qualities, over three shapes and batches."""
    divisor = model.config.input.divisor
    side = math.ceil(side / divisor) * divisor
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    for batch, height, width in ((1, side, side), (2, side, side + divisor), (3, side + divisor, side)):
        images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            wanted = model(images)
        given = engine.predictions(images, torch.zeros(batch, 4))
        boxes.append((given.boxes - wanted.boxes).abs().max())
        scores.append((given.scores - wanted.probabilities()).abs().max())
        if given.quality is not None and wanted.quality is not None:
            scores.append((given.quality.sigmoid() - wanted.quality.sigmoid()).abs().max())
    # PyTorch's maximum of what is no number is no number; Python's depends on the order.
    return [float(torch.stack(differences).max()) for differences in (boxes, scores)]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| model | parameters | ONNX Runtime: boxes, px | scores | OpenVINO: boxes, px | scores |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        names = ", ".join(f"`{name}`" for name in (row["model"], *row["same"]))
        if "problem" in row:
            lines.append(f"| {names} | {row['parameters'] / 1e6:.1f} M | {row['problem']} | | | |")
            continue
        figures = " | ".join(f"{value:.1g}" for engine in ("ONNX Runtime", "OpenVINO") for value in row[engine])
        lines.append(f"| {names} | {row['parameters'] / 1e6:.1f} M | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
