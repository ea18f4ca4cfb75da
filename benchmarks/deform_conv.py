"""Time and memory of a deformable 3x3 convolution beside an ordinary one: `python -m benchmarks.deform_conv`.

The maps are those of an 800 x 1344 image; every figure includes the convolution that predicts offsets and masks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import torch
from torch import nn

from benchmarks.timing import fastest, peak_growth
from tood.models.common.deform_conv import DeformConv2d
from tood.ops.deform_conv import torchvision_operator

# (what, channels, groups, deformable groups, height, width)
CASES = (
    ("R101's C4", 256, 1, 1, 50, 84),
    ("the head on P4", 256, 1, 4, 50, 84),
    ("X101's C4", 1024, 64, 1, 50, 84),
    ("R101's C3", 128, 1, 1, 100, 168),
    ("the head on P3", 256, 1, 4, 100, 168),
)


def ratios(layer: nn.Module, ordinary: nn.Module, x: torch.Tensor) -> tuple[float, float, float]:
    """Seconds of the ordinary convolution, then `layer`'s over these: forward; forward and backward."""
    with torch.inference_mode():
        base = fastest(lambda: ordinary(x), 7)
        forward = fastest(lambda: layer(x), 7) / base
    x = x.clone().requires_grad_()
    both = [fastest(lambda m=module: m(x).sum().backward(), 4) for module in (ordinary, layer)]
    return base, forward, both[1] / both[0]


def trained_layer(channels: int, groups: int, deform_groups: int) -> DeformConv2d:
    """A layer whose offsets are about one cell."""
    layer = DeformConv2d(channels, channels, groups=groups, deform_groups=deform_groups)
    nn.init.normal_(layer.offset.weight, std=channels**-0.5 / 3)
    return layer


def print_peak(batch: int, channels: int, height: int, width: int, backward: bool) -> None:
    """Prints, in MiB, by how much a call raises the peak memory of this process."""
    layer = trained_layer(channels, 1, 1)
    x = torch.randn(batch, channels, height, width, requires_grad=backward)

    def call() -> None:
        with torch.set_grad_enabled(backward):
            out = layer(x)
            if backward:
                out.sum().backward()

    print(round(peak_growth(call)))


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", type=int, nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.peak:
        *shape, backward = arguments.peak
        print_peak(*shape, backward=bool(backward))
        return
    which = "PyTorch formulation" if torchvision_operator() is None else "torchvision's operator"
    print(f"{which}, {arguments.threads} threads; times over those of an ordinary 3x3 convolution of the same shape")
    for what, channels, groups, deform_groups, height, width in CASES:
        layer = trained_layer(channels, groups, deform_groups)
        ordinary = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(1, channels, height, width).contiguous(memory_format=layout)
            for module in (layer, ordinary):
                module.to(memory_format=layout)
            base, forward, both = ratios(layer, ordinary, x)
            print(
                f"{what:16} {channels:5} channels {groups:3} groups {height:4} x {width:<4} {str(layout)[6:]:18} "
                f"ordinary {base * 1e3:6.1f} ms, forward {forward:5.2f}, with backward {both:5.2f}",
                flush=True,
            )
    for batch, channels, height, width in ((16, 256, 100, 168),):
        samples = batch * channels * 9 * height * width * 4 / 2**20
        for backward in (False, True):
            # In a process of its own: a peak never falls.
            command = [sys.executable, "-m", "benchmarks.deform_conv", "--threads", str(arguments.threads), "--peak"]
            command += [str(number) for number in (batch, channels, height, width, int(backward))]
            peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            print(
                f"batch {batch} of {channels} x {height} x {width} (all samples: {samples:.0f} MiB), "
                f"{'forward and backward' if backward else 'forward'}: {peak} MiB of memory"
            )


if __name__ == "__main__":
    main()
