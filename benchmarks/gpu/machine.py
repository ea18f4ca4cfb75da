"""What the GPU is and gives: products, a convolution as large as a detector's, copies."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.clock import seconds_a_call
from benchmarks.gpu.work import tf32

ROOT = Path(__file__).parents[2]
# TFLOP/s of dense bf16 products by NVIDIA's data sheets, for what the driver calls the card; the longest name counts.
DATA_SHEET = {
    "NVIDIA H200": 989.4,
    "NVIDIA H100": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA A100": 312.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA A10": 125.0,
}


def run(bench: Bench) -> None:
    """Facts, and the machine's limits."""
    _facts(bench)
    side, seconds = bench.pick((8192, 0.8), (128, 0.0))
    table, device = "what the machine gives", bench.device
    for name, dtype, allowed in (
        ("bf16", torch.bfloat16, False),
        ("fp16", torch.float16, False),
        ("fp32 by TF32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        with bench.trying(f"product in {name}"), tf32(allowed):
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            rate = 2 * side**3 / seconds_a_call(lambda a=a, b=b: a @ b, device, seconds) / 1e12
            bench.cell(table, f"matrix product, {name}", "measured", rate, "TFLOP/s")
            told = bf16_data_sheet(device) if name == "bf16" else None
            if told is not None:
                bench.cell(table, f"matrix product, {name}", "data sheet", told, "TFLOP/s")
    with bench.trying("convolution"), torch.inference_mode():
        images, height, width = bench.pick((16, 100, 168), (1, 10, 16))
        convolution = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=torch.bfloat16)
        convolution.to(memory_format=torch.channels_last)
        maps = torch.randn(images, 256, height, width, device=device, dtype=torch.bfloat16)
        maps = maps.contiguous(memory_format=torch.channels_last)
        operations = 2 * 256 * 256 * 9 * images * height * width
        rate = operations / seconds_a_call(lambda: convolution(maps), device, seconds) / 1e12
        bench.cell(table, "3x3 convolution of 256 channels, bf16", "measured", rate, "TFLOP/s")
    with bench.trying("copy"):
        source = torch.randn(bench.pick(1 << 28, 1 << 12), device=device)
        target = torch.empty_like(source)
        rate = 2 * source.nbytes / seconds_a_call(lambda: target.copy_(source), device, seconds) / 1e9
        bench.cell(table, "copy, read and written", "measured", rate, "GB/s")
    if bench.on_gpu:
        bench.check("bf16 on the device", torch.cuda.is_bf16_supported(including_emulation=False))


def bf16_data_sheet(device: torch.device) -> float | None:
    """TFLOP/s of dense bf16 products that are told of this card, None if it is not in the list."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = [card for card in DATA_SHEET if name == card or name.startswith((card + " ", card + "-"))]
    return DATA_SHEET[max(known, key=len)] if known else None


def _facts(bench: Bench) -> None:
    if bench.on_gpu:
        properties = torch.cuda.get_device_properties(bench.device)
        bench.fact("GPU", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        bench.fact("multiprocessors", f"{properties.multi_processor_count}, sm_{properties.major}{properties.minor}")
        bench.fact("driver", _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"))
    bench.fact("CPU cores", str(os.cpu_count()))
    bench.fact("PyTorch", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    bench.fact("Python", platform.python_version())
    bench.fact("commit", _first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"))
    bench.fact("date", time.strftime("%Y-%m-%d"))


def _first_line(*command: str) -> str:
    """What a program prints first, "unknown" where there is none of that name or it fails."""
    if shutil.which(command[0]) is None:
        return "unknown"
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout.strip().splitlines() or ["unknown"])[0]
