"""The C library's memory allocator: what it keeps of the memory that it is given back."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# mallopt's parameters (glibc's malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes; the largest that its C integer holds, to the page, and the most that older ones take.
_MOST, _MOST_FORMERLY = 2**31 - 4096, 2**25


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory for its next request instead of returning it to the system.

    Feature maps on a CPU are tens of megabytes each. By default glibc fetches each from the system and gives it back,
    and the system clears every page anew: a fifth of a bf16 training step at 800 x 1344. The process then stays as
    large as it once was, and a tenth larger than before; nothing undoes this. Training on a CPU calls it; other loops
    may, before their first large tensor.

    Returns:
        Whether it was done; other C libraries than glibc are left as they are.
    """
    mallopt = _from_glibc("mallopt")
    if mallopt is None:
        return False
    # The second one alone would do harm: it ends glibc's own adaptation of the first.
    kept = mallopt(_MMAP_THRESHOLD, _MOST) or mallopt(_MMAP_THRESHOLD, _MOST_FORMERLY)
    return bool(kept and mallopt(_TRIM_THRESHOLD, _MOST))


def return_freed_memory() -> None:
    """Gives the system back, once, what was freed so far: after a large thing is gone that will not come again."""
    trim = _from_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _from_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
