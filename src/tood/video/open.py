"""Which kind of video a person means by a number, an address, a folder or a file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tood.data.files import find_images
from tood.errors import ToodError
from tood.video.files import FrameFolder, VideoFile, require_av
from tood.video.frames import FrameSource
from tood.video.live import NetworkStream, Webcam, has_end, stream_options

# What is told apart from pictures by its name alone.
_SUFFIXES: tuple[str, ...] = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".mjpeg", ".mjpg", ".h264", ".h265", ".hevc"),
)


@dataclass(frozen=True)
class StreamConfig:
    """How sources of moving pictures are read.

    Attributes:
        folder_rate: frames a second of a folder of pictures.
        every_frame: of a live source take every frame, however late, and let it wait while `live.MOST_BYTES` of them
            wait here; else the newest, so that what is shown is now.
        patience: seconds for which a lost stream is tried again.
    """

    folder_rate: float = 25.0
    every_frame: bool = False
    patience: float = 60.0


def is_video(source: str) -> bool:
    """Whether a source looks like a video, by its name."""
    lowered = source.lower()
    return lowered.endswith(_SUFFIXES) or lowered.startswith(("rtsp://", "rtsps://", "rtmp://", "srt://", "udp://"))


def open_source(source: str | Path, config: StreamConfig = StreamConfig()) -> FrameSource:
    """The video that a source names.

    Args:
        source: a file, or its file:// address; a folder of pictures; the number of a webcam, from 0; or an address:
            rtsp, rtmp, srt, udp, tcp, or http(s) of a file or of a stream without an end.
        config: how it is read.

    Raises:
        ToodError: if there is none.
    """
    text = _without_scheme(str(source))
    if "://" in text:
        return _at_address(text, config)
    path = Path(text).expanduser()
    if path.is_dir():
        pictures = list(find_images(path).images)
        if not pictures:
            raise ToodError(f"there is no picture in the folder {path}")
        return FrameFolder(str(path), pictures, config.folder_rate)
    if path.exists():
        found = path.stat()
        return VideoFile(str(path), identity=[found.st_size, found.st_mtime_ns])
    if text.isascii() and text.isdigit():
        return Webcam(int(text), config.every_frame)
    raise ToodError(f"there is no video file or folder {path}: check the path")


def require_of_use(source: FrameSource, config: StreamConfig) -> None:
    """Raises a `ToodError` if something is asked for that changes nothing of how this source is read.

    Args:
        source: what is read.
        config: as it was asked for; what is as usual was not.
    """
    usual = StreamConfig()
    useless = {
        "--fps is of a folder of frames": config.folder_rate != usual.folder_rate
        and not isinstance(source, FrameFolder),
        "--every-frame is of live sources": config.every_frame and not source.live,
        "--patience is of streams from an address": config.patience != usual.patience
        and not isinstance(source, NetworkStream),
    }
    for told, is_useless in useless.items():
        if is_useless:
            raise ToodError(f"{told}, and {source.name} is none: leave it out")


def _without_scheme(source: str) -> str:
    """The path in a file:// address of this machine; anything else as it is."""
    if not source.lower().startswith("file://"):
        return source
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ToodError(f"{source} is no address of a file on this machine: give its path")
    return url2pathname(parts.path)


def _at_address(address: str, config: StreamConfig) -> FrameSource:
    av = require_av()
    opened: Any = None
    if address.lower().startswith(("http://", "https://")):
        # Some servers take one visitor alone: who is let in stays in.
        with suppress(av.FFmpegError, OSError, ValueError):
            opened = av.open(address, options=dict(stream_options(address)), timeout=(20.0, 20.0))
        if opened is not None and has_end(opened):
            opened.close()
            return VideoFile(address, stream_options(address), identity=address)
    return NetworkStream(address, config.every_frame, config.patience, opened)
