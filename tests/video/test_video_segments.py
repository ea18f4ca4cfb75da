"""The parts of an annotated video, and the whole that they become."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tood.errors import ToodError
from tood.video import segments
from tood.video.segments import SegmentWriter, join
from video.films import pictures

STAMPS = [0, 3000, 3600, 50000, 50090, 90000, 91000, 99999, 200000, 200001]


def write(folder: Path, size: tuple[int, int]) -> list[Path]:
    frames = pictures(10, *size)
    parts = []
    for start, stop in ((0, 4), (4, 7), (7, 10)):
        part = SegmentWriter(folder / f"{start}.mp4", size, 25.0)
        for place in range(start, stop):
            part.add(frames[place], STAMPS[place])
        part.close()
        parts.append(part.path)
    return parts


def test_parts_are_joined_without_loss_at_the_times_of_their_frames(tmp_path: Path) -> None:
    parts = write(tmp_path, (64, 96))
    join(parts, STAMPS, 3600, tmp_path / "whole.mp4")
    with av.open(str(tmp_path / "whole.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert [round(frame.pts * frame.time_base * 90000) for frame in frames] == STAMPS
        assert round(stream.duration * stream.time_base * 90000) == STAMPS[-1] + 3600
    single = []
    for part in parts:
        with av.open(str(part)) as container:
            single += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    whole = [frame.to_ndarray(format="rgb24") for frame in frames]
    assert all(np.array_equal(one, other) for one, other in zip(whole, single, strict=True))
    shown = [np.abs(one.astype(int) - other).mean() for one, other in zip(whole, pictures(10), strict=True)]
    assert max(shown) < 12


def test_frames_of_odd_and_of_other_sizes(tmp_path: Path) -> None:
    part = SegmentWriter(tmp_path / "a.mp4", (63, 95), 25.0)
    for place, frame in enumerate([*pictures(2, 63, 95), *pictures(2, 126, 190)]):
        part.add(frame, 3600 * place)
    part.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [(frame.height, frame.width) for frame in container.decode(video=0)] == [(64, 96)] * 4


def test_a_part_that_lacks_frames_is_told(tmp_path: Path) -> None:
    parts = write(tmp_path, (64, 96))
    with pytest.raises(ToodError, match="hold 7 frames, not 10"):
        join([parts[0], parts[2]], STAMPS, 3600, tmp_path / "whole.mp4")
    parts[1].write_bytes(b"broken")
    with pytest.raises(ToodError, match="cannot be joined"):
        join(parts, STAMPS, 3600, tmp_path / "whole.mp4")


def test_an_encoder_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_ENCODER", "none")
    with pytest.raises(ToodError, match="--no-save-video"):
        SegmentWriter(tmp_path / "a.mp4", (64, 96), 25.0)
