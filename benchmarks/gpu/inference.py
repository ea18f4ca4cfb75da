"""Predictions a second: the network as `Detector` runs it, as it is and as a CUDA graph, and what follows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.clock import peak_mib, seconds_a_call
from benchmarks.gpu.work import MAIN, SMALL, captured, sized
from tood.inference import postprocess
from tood.models import AnyModelConfig, build_model, for_inference
from tood.structures import DensePredictions
from tood.zoo import named_model

LEAST_SECONDS = 4.0
PRECISIONS = {"fp32 (TF32 convolutions)": torch.float32, "bf16": torch.bfloat16}


def run(bench: Bench) -> None:
    """The paper's model and small ones."""
    for name in bench.pick((MAIN, *SMALL), SMALL[:1]):
        with bench.trying(name):
            _model(bench, name, sized(named_model(name).config(), bench.pick(None, (64, 64))))


def _model(bench: Bench, name: str, config: AnyModelConfig) -> None:
    network = build_model(config).eval().to(bench.device)
    copies = {precision: for_inference(network, dtype) for precision, dtype in PRECISIONS.items()}
    # A graph that cannot be captured may spoil what comes after it.
    for graph in (False, True)[: bench.pick(2, 1)]:
        for precision, copied in copies.items():
            for count in bench.pick((1, 8, 32), (1, 2)):
                row = f"{name}, {count} image{'s' if count > 1 else ''}"
                if bench.in_time(f"{row}, {precision}", LEAST_SECONDS):
                    with bench.trying(f"{row}, {precision}"):
                        _network(bench, config, copied, count, row, precision, graph)
        if not graph:
            with bench.trying(f"post-processing of {name}"):
                _postprocessing(bench, config, name, network)


@torch.inference_mode()
def _network(
    bench: Bench, config: AnyModelConfig, network: nn.Module, count: int, row: str, precision: str, graph: bool
) -> None:
    size = config.input.padded(config.input.short, config.input.long)
    images = torch.randn(count, 3, *size, device=bench.device).contiguous(memory_format=torch.channels_last)

    def predict() -> object:
        return network(images)

    timing = bench.pick((0.6, 3), (0.0, 0))
    if graph:
        replay = captured(predict)
        _told(bench, row, f"{precision}, CUDA graph", count, seconds_a_call(replay, bench.device, *timing))
        return
    _told(bench, row, precision, count, seconds_a_call(predict, bench.device, *timing))
    bench.cell("memory beside the weights", row, precision, peak_mib(predict, bench.device), "MiB")


def _told(bench: Bench, row: str, way: str, count: int, seconds: float) -> None:
    bench.cell("images a second, network alone", row, way, count / seconds, "")
    bench.cell("milliseconds a batch, network alone", row, way, seconds * 1e3, "ms")


@torch.inference_mode()
def _postprocessing(bench: Bench, config: AnyModelConfig, name: str, network: nn.Module) -> None:
    """Of scores of 0 to 0.3 everywhere, of which most pass the threshold: the hardest that there is."""
    size = config.input.padded(config.input.short, config.input.long)
    found: Any = network(torch.randn(1, 3, *size, device=bench.device))
    scores = torch.rand(found.scores.shape, generator=torch.Generator().manual_seed(0)).to(bench.device) * 0.3
    dense = DensePredictions(scores, found.boxes, found.priors)
    limits = torch.tensor([size])
    seconds = seconds_a_call(
        lambda: postprocess(dense, None, config.postprocess, limits), bench.device, *bench.pick((0.4, 3), (0.0, 0))
    )
    bench.cell("post-processing of an image full of scores", name, "milliseconds", seconds * 1e3, "ms")
