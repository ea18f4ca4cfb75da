"""An annotated video that a killed run loses nothing of: parts written whole, joined at the end without loss.

Each part begins with a key frame, is encoded by an encoder of its own and looks back at nothing before it, so that it
is the same to the last bit whenever it is made. No frame is stored out of order (no B frames): its time is what the
journal says.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tood.errors import ToodError
from tood.video.files import reason, require_av
from tood.video.frames import TICKS

_UNIT = Fraction(1, TICKS)
# The same to the last bit each time: in one thread, as x264's stream depends on their number, and without the code for
# some processors that computes other numbers than its plain C. (That of AVX-512 for `mbtree` gives now one result and
# now another.)
_ENCODER = "libx264"
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0", "threads": "1", "g": "250"}
_OPTIONS |= {"x264-params": "cpu-independent=1"}
_BT709, _LIMITED = 1, 1


class SegmentWriter:
    """One part of a video.

    Args:
        path: of the file, an mp4.
        size: (height, width) of the video; frames of others are scaled to it. H.264 has even sides alone: of odd ones
            the last row or column is doubled.
        rate: frames a second, about.

    Raises:
        ToodError: if no encoder is there.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        self.path, self._size = path, size
        av = require_av()
        try:
            av.codec.Codec(_ENCODER, "w")
        except ValueError:  # what an unknown codec raises
            raise ToodError(
                f"this FFmpeg has no {_ENCODER}: pip install av (its own wheels have), or take --no-save-video"
            ) from None
        self._container: Any = av.open(str(path), "w", format="mp4")
        about = Fraction(rate).limit_denominator(1001)
        self._stream: Any = self._container.add_stream(_ENCODER, rate=about, options=_OPTIONS)
        context = self._stream.codec_context
        context.height, context.width = (side + side % 2 for side in size)
        context.pix_fmt = "yuv420p"
        context.time_base = _UNIT
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self.first: int | None = None

    def add(self, pixels: NDArray[np.uint8], ticks: int) -> None:
        """A frame [H, W, 3] uint8 RGB at a time in ticks."""
        av = require_av()
        height, width = self._size
        if pixels.shape[:2] != self._size:
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self.first = ticks if self.first is None else self.first
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", threads=1)
        frame.pts, frame.time_base = ticks - self.first, _UNIT
        frame.colorspace, frame.color_range = _BT709, _LIMITED
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Ends the file; what goes wrong is raised."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Lets go of the file."""
        self._container.close()


def join(parts: Sequence[Path], times: Sequence[int], last: int, path: Path) -> None:
    """One video of several parts, whose frames are taken as they are.

    Args:
        parts: in order.
        times: of all frames, in ticks.
        last: how long the last frame is shown.
        path: to write to, an mp4.

    Raises:
        ToodError: if a part cannot be read, or holds more or fewer frames than there are times.
    """
    av = require_av()
    ends = [*times[1:], times[-1] + last]
    at = 0
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as joined:
            stream: Any = None
            for part in parts:
                with av.open(str(part), options={"protocol_whitelist": "file"}) as container:
                    if stream is None:
                        stream = joined.add_stream_from_template(container.streams.video[0])
                        stream.time_base = _UNIT
                    for packet in container.demux(video=0):
                        if packet.size:
                            packet.stream, packet.time_base = stream, _UNIT
                            packet.pts = packet.dts = times[at]
                            packet.duration = ends[at] - times[at]
                            joined.mux(packet)
                            at += 1
    except (av.FFmpegError, IndexError) as error:
        raise ToodError(f"the parts of {path} cannot be joined: {reason(error)}") from error
    if at != len(times):
        raise ToodError(f"the parts of {path} hold {at} frames, not {len(times)}: begin anew, without --resume")
