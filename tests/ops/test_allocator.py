"""Memory that a process keeps, and that it gives back."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")

HEAD = """
import resource, torch
from pathlib import Path
from tood.ops.allocator import keep_freed_memory, return_freed_memory
def fetched(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident(): return int(Path("/proc/self/statm").read_text().split()[1])
"""


def pages(script: str) -> int:
    """What a process prints: a number of pages, 4 KiB each."""
    done = subprocess.run([sys.executable, "-c", HEAD + script], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again() -> None:
    ten_times_48_mib = """
def touch():
    for _ in range(10): torch.ones(12 << 20)
touch()
before = fetched()
touch()
print(fetched() - before)
"""
    assert pages("assert keep_freed_memory()" + ten_times_48_mib) < 20_000  # of 122,880


def test_freed_memory_is_given_back() -> None:
    script = """
keep_freed_memory()
tensors = [torch.ones(1 << 18) for _ in range(64)]
del tensors[::2]
before = resident()
return_freed_memory()
print(before - resident())
"""
    assert pages(script) > 4_000  # of 8,192
