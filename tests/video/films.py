"""Films made for tests: real files by FFmpeg's encoders."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def pictures(count: int, height: int = 64, width: int = 96) -> list[NDArray[np.uint8]]:
    """A bright square that moves to the right over noise, each frame unlike the others."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    found = []
    for number in range(count):
        frame = np.roll(noise, number, axis=1).copy()
        at = 2 * number % (width - 24)
        frame[16:40, at : at + 24] = 230
        found.append(frame)
    return found


def film(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    stamps: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """A video file; `stamps` are thousandths of a second, else 25 frames a second."""
    height, width = frames[0].shape[:2]
    options = dict(options or {})
    if codec == "libx264":  # the same film on every processor
        options["x264-params"] = ":".join(filter(None, (options.get("x264-params"), "cpu-independent=1")))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            if stamps is not None:
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def stamps_of(path: Path) -> list[float]:
    """Seconds of all frames of a file."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
