"""What each operator gains: a training step of `tood_r50_fpn_1x` with all of them, and with plain definitions instead.

python -m benchmarks.operators [--side 320] [--rounds 5] [--bf16]

Variants take turns in one process, the best of each counts: hosts drift by half between minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from tood.models import build_model
from tood.ops import plain
from tood.ops.conv_geometry import Geometry, library_gradients
from tood.ops.conv_norm import plain_conv_norm
from tood.ops.shared_conv import plain_shared_conv
from tood.zoo import named_model

Patches = dict[str, Any]


def _never(*_: object) -> bool:
    return False


def _library_gradients(
    conv: Any, x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, *, to_x: bool, to_weight: bool
) -> tuple[Any, Any]:
    return library_gradients(Geometry.of(conv, x), x, weight, gradient, to_x=to_x, to_weight=to_weight)


# Each is named where it is used.
VARIANTS: dict[str, Patches] = {
    "conv_norm": {"tood.models.backbones.resnet.conv_norm": plain_conv_norm},
    "conv_gradients": {
        "tood.ops.conv_norm.convolution_gradients": _library_gradients,
        "tood.ops.shared_conv.convolution_gradients": _library_gradients,
        "tood.ops.shared_conv.is_small": _never,
    },
    "winograd": {"tood.ops.conv_norm.pays_in_training": _never, "tood.ops.shared_conv.pays_in_training": _never},
    "shared_conv": {
        "tood.models.common.layers.shared_conv": plain_shared_conv,
        "tood.models.necks.fpn.shared_conv": plain_shared_conv,
    },
    "trunk read once": {"tood.models.tood.head.may_read_at_once": _never},
}


@contextmanager
def without(patches: Patches) -> Iterator[None]:
    """Within it, these names stand for these functions."""
    with ExitStack() as stack:
        for name, value in patches.items():
            stack.enter_context(patch(name, value))
        yield


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    asked = parser.parse_args()
    torch.manual_seed(0)
    config = named_model("tood_r50_fpn_1x").config()
    model = build_model(config).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(2, 3, asked.side, asked.side).contiguous(memory_format=torch.channels_last)

    def step() -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=asked.bf16):
            found = model(images)
        (found.scores.mean() + found.boxes.mean()).backward()
        model.zero_grad(set_to_none=True)
        return time.perf_counter() - begin

    def plainly() -> float:
        with plain():
            return step()

    times: dict[str, list[float]] = {}
    turns: dict[str, Callable[[], float]] = {"all": step, "none (plain)": plainly}
    for _ in range(asked.rounds):
        for name, turn in turns.items():
            times.setdefault(name, []).append(turn())
        for name, patches in VARIANTS.items():
            with without(patches):
                times.setdefault(f"without {name}", []).append(step())
    best = min(times["all"])
    for name, seconds in times.items():
        print(f"{name:28} {min(seconds) * 1e3:7.0f} ms  {min(seconds) / best - 1:+.1%}")


if __name__ == "__main__":
    main()
