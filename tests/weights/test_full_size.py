"""Whole published models through the published layout and back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# The paper's main model at the size of COCO's evaluation; its largest, of every kind of layer, on a smaller picture, as
# its tensors are what could differ.
@pytest.mark.parametrize(
    ("name", "options"), [("tood_r50_fpn_1x", ()), ("tood_x101_dcnv2_fpn_2x", ("--size", "320", "544"))]
)
def test_a_full_size_model_is_the_same_afterwards(
    name: str, options: tuple[str, ...], real_data: Path, tmp_path: Path
) -> None:
    image = real_data / "coco128/val2017/000000000139.jpg"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.full_size", str(image), "--model", name, "--threads", "1", *options],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "100 detections, identical afterwards" in done.stdout
    assert not list(tmp_path.iterdir())
