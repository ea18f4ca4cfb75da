"""What the machine gives: GFLOP/s of a matrix product and of a 3x3 convolution as large as a detector's."""

from __future__ import annotations

import torch

from benchmarks.timing import THREADS, emit, fastest


def main() -> None:
    """Prints four figures."""
    torch.set_num_threads(THREADS)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = torch.randn(2048, 2048).to(dtype)
        emit(f"matmul {name}", 2 * 2048**3 / fastest(lambda m=matrix: m @ m) / 1e9, "GFLOP/s")
        convolution = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False)
        convolution = convolution.to(dtype).to(memory_format=torch.channels_last)
        maps = torch.randn(1, 256, 100, 168).to(dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = fastest(lambda c=convolution, x=maps: c(x), 7)
        emit(f"convolution {name}", 2 * 256 * 256 * 9 * 100 * 168 / seconds / 1e9, "GFLOP/s")


if __name__ == "__main__":
    main()
