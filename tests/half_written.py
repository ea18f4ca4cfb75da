"""What SIGKILL leaves of files and folders that were being written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tood


def half_written(target: Path, kind: str = "whole_file") -> None:
    """Leaves, beside a file or folder, what a process that was killed while it wrote that leaves."""
    script = f"import os, sys; from pathlib import Path; from tood.whole_file import {kind}\n"
    script += f"with {kind}(Path(sys.argv[1])) as t: os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1])}
    before = set(target.parent.iterdir())
    subprocess.run([sys.executable, "-c", script, str(target)], env=environment, check=False)
    assert len(set(target.parent.iterdir()) - before) == 1
