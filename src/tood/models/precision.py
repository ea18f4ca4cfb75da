"""What a network computes in when it predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from tood.errors import ToodError

Precision = Literal["auto", "fp32", "bf16"]


def choose_precision(asked: Precision, device: torch.device) -> tuple[torch.dtype, str]:
    """What a network is to compute in on a device, and why: "auto" is bf16 where the CPU has instructions for it.

    Raises:
        ToodError: if there is no such precision.
    """
    if asked == "auto":
        if device.type == "cpu" and cpu_multiplies_bf16():
            return torch.bfloat16, "bf16, as this CPU has instructions for it"
        return torch.float32, "fp32"
    if asked not in ("fp32", "bf16"):
        raise ToodError(f"precision is '{asked}': choose auto, fp32 or bf16")
    return (torch.float32 if asked == "fp32" else torch.bfloat16), f"{asked}, as asked"


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for it; without them bf16 is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
