"""What a piece of code asks PyTorch to do: the same on every machine, unlike its time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    """Counts operations, and the largest result of any that copies."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.largest_cat = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket._qualified_op_name
        self.counts[name] += 1
        if name == "aten::cat" and out.dim() == 4:
            self.largest_cat = max(self.largest_cat, out.numel())
        return out
