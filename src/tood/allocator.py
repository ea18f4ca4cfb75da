"""The C library's memory allocator: what it keeps of the memory that it is given back."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# mallopt's parameters (glibc's malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes; the largest that its C integer holds, to the page.
_MOST = 2**31 - 4096


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory for its next request instead of returning it to the system.

    Feature maps on a CPU are tens of megabytes each. By default glibc fetches each from the system and gives it back,
    and the system clears every page anew: a fifth of a bf16 training step at 800 x 1344. The process then stays as
    large as it once was, and a tenth larger than before. Training on a CPU calls this; other loops may, before their
    first large tensor.

    Returns:
        Whether it was done; other C libraries than glibc are left as they are.
    """
    mallopt = _from_glibc("mallopt")
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, _MOST)) and bool(mallopt(_MMAP_THRESHOLD, _MOST))


def return_freed_memory() -> None:
    """Gives the system back, once, what was freed so far: after a large thing is gone that will not come again."""
    trim = _from_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _from_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
