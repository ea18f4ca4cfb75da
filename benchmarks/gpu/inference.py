"""Predictions a second: the network as `Detector` runs it, as it is and as a CUDA graph, and what follows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.clock import peak_mib, seconds_a_call
from benchmarks.gpu.work import MAIN, captured, sized, small_models
from tood.inference import postprocess
from tood.models import AnyModelConfig, build_model, for_inference
from tood.structures import DensePredictions
from tood.zoo import named_model

LEAST_SECONDS = 6.0


def run(bench: Bench) -> None:
    """The paper's model and the small ones."""
    names = [MAIN, *(card.name for card in small_models())]
    for name in names[bench.pick(0, 1) :]:
        config = sized(named_model(name).config(), bench.pick(None, (64, 64)))
        for dtype, precision in ((torch.float32, "fp32 (TF32 convolutions)"), (torch.bfloat16, "bf16")):
            network = for_inference(build_model(config).eval().to(bench.device), dtype)
            for count in bench.pick((1, 8, 32), (1, 2)):
                row = f"{name}, {count} image{'s' if count > 1 else ''}"
                if bench.left < LEAST_SECONDS and not bench.dry:
                    bench.note(f"{row}, {precision}: left out, the part's time was up")
                    continue
                with bench.trying(f"{row}, {precision}"), torch.inference_mode():
                    _network(bench, config, network, count, row, precision)
        with bench.trying(f"post-processing of {name}"), torch.inference_mode():
            _postprocessing(bench, config, name)


def _network(bench: Bench, config: AnyModelConfig, network: nn.Module, count: int, row: str, precision: str) -> None:
    size = config.input.padded(config.input.short, config.input.long)
    images = torch.randn(count, 3, *size, device=bench.device).contiguous(memory_format=torch.channels_last)

    def predict() -> object:
        return network(images)

    seconds, warm_up = bench.pick((0.6, 3), (0.0, 0))
    _told(bench, row, precision, count, seconds_a_call(predict, bench.device, seconds, warm_up))
    bench.cell("memory beside the weights", row, precision, peak_mib(predict, bench.device), "MiB")
    if bench.on_gpu:
        way = f"{precision}, CUDA graph"
        _told(bench, row, way, count, seconds_a_call(captured(predict), bench.device, seconds, warm_up))


def _told(bench: Bench, row: str, way: str, count: int, seconds: float) -> None:
    bench.cell("images a second, network alone", row, way, count / seconds, "")
    bench.cell("milliseconds a batch, network alone", row, way, seconds * 1e3, "ms")


def _postprocessing(bench: Bench, config: AnyModelConfig, name: str) -> None:
    """Of scores of 0 to 0.3 everywhere, of which most pass the threshold: the hardest that there is."""
    network = build_model(config).eval().to(bench.device)
    size = config.input.padded(config.input.short, config.input.long)
    found: Any = network(torch.randn(1, 3, *size, device=bench.device))
    scores = torch.rand(found.scores.shape, generator=torch.Generator().manual_seed(0)).to(bench.device) * 0.3
    dense = DensePredictions(scores, found.boxes, found.priors)
    limits = torch.tensor([size])
    seconds = seconds_a_call(
        lambda: postprocess(dense, None, config.postprocess, limits), bench.device, *bench.pick((0.4, 3), (0.0, 0))
    )
    bench.cell("post-processing of an image full of scores", name, "milliseconds", seconds * 1e3, "ms")
