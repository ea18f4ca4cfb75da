"""Which arithmetic a network computes in on a device: single precision, or a half where the hardware is made for it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from tood.choices import TrainingPrecision
from tood.errors import ToodError
from tood.machine import processor_flags

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NO_HARDWARE = "no hardware for less"


class ChosenPrecision(NamedTuple):
    """What a network computes in.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        why: the reason, for a person; empty where nothing needs one.
    """

    name: str
    why: str

    @property
    def dtype(self) -> torch.dtype:
        """PyTorch's type of that name."""
        return _DTYPES[self.name]

    def __str__(self) -> str:
        return f"{self.name}, as {self.why}" if self.why else self.name


def choose_precision(asked: TrainingPrecision, device: torch.device, *, training: bool = False) -> ChosenPrecision:
    """What a network is to compute in on a device, and why.

    "auto" is bf16 on a CPU that has instructions for it and, in training, on a GPU that has it; else it is fp32.

    Args:
        asked: a precision, or "auto"; only training knows fp16.
        device: where it computes.
        training: whether it learns there, in mixed precision, or predicts.

    Raises:
        ToodError: if there is no such precision.
    """
    if asked != "auto":
        names = ("fp32", "bf16", "fp16") if training else ("fp32", "bf16")
        if asked not in names:
            raise ToodError(f"precision is '{asked}': choose auto, {', '.join(names[:-1])} or {names[-1]}")
        return ChosenPrecision(asked, "as configured" if training else "asked")
    if device.type == "cpu" and cpu_multiplies_bf16():
        return ChosenPrecision("bf16", "this CPU has instructions for it")
    if not training:
        return ChosenPrecision("fp32", "")
    if device.type == "cuda" and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ChosenPrecision("bf16", "the GPU has it")
        return ChosenPrecision("fp32", "the GPU has no bf16")
    return ChosenPrecision("fp32", _NO_HARDWARE)


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for it; without them bf16 is slower than fp32."""
    return not processor_flags()[1].isdisjoint(("amx_bf16", "avx512_bf16"))
