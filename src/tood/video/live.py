"""Webcams and network streams: what goes on whether anybody looks or not."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.errors import ToodError
from tood.inference import is_url
from tood.video.files import BrokenOff, decoded_frames, reason, require_av, upright
from tood.video.frames import TICKS, FailedFrame, Frame, Item, Position

# Seconds between two tries to reach a stream that was lost: each twice the one before.
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0
# Seconds without a byte after which a stream counts as lost.
_SILENCE = 10.0
# Seconds that a thread which waits for a camera gets to end.
_GRACE = 2.0
MOST_BYTES = 256 << 20
"""Bytes of frames that wait to be taken where every frame is; one larger than that waits alone."""
# Of these over HTTP, the end of a connection is not the end: broadcasts by playlist, Motion JPEG of cameras.
_ENDLESS = frozenset({"hls", "dash", "mpjpeg"})


class _Live:
    """What live sources share: the time of arrival, and a thread that reads so that nothing waits for the network.

    Args:
        name: for messages.
        every_frame: give every frame, however late: while `MOST_BYTES` of them wait, no more are read, and the source
            has to wait or lose some; else the newest only, what comes meanwhile being passed over.
    """

    live = True
    count: int | None = None
    rate = 30.0

    def __init__(self, name: str, every_frame: bool) -> None:
        self.name, self.every_frame = name, every_frame
        self.lost = 0
        self._ended = threading.Event()

    def identity(self) -> object:
        """Nothing: what was seen does not come again."""
        return None

    def pictures(self) -> Iterator[NDArray[np.uint8] | str]:
        """Pixels as they come, or why some did not; ends when `_ended` is set."""
        raise NotImplementedError

    def frames(self, after: Position | None = None) -> Iterator[Item]:
        """The frames from now on; their numbers count those that were passed over, too."""
        if after is not None:
            raise ToodError(f"{self.name} is live: what was not seen does not come again")
        arrived: deque[Item] = deque(maxlen=None if self.every_frame else 1)
        news = threading.Condition()
        over: list[BaseException | None] = []
        thread = threading.Thread(target=self._receive, args=(arrived, news, over), name="live", daemon=True)
        thread.start()
        try:
            while True:
                with news:
                    news.wait_for(lambda: arrived or over)
                    item = arrived.popleft() if arrived else None
                    news.notify()
                if item is None:
                    break
                yield item
        finally:
            with news:
                self._ended.set()
                news.notify()
            thread.join(_GRACE)
        if over[0] is not None:
            raise over[0]

    def _receive(self, arrived: deque[Item], news: threading.Condition, over: list[BaseException | None]) -> None:
        failure: BaseException | None = None
        start: float | None = None
        ticks, room = -1, 1
        try:
            for number, picture in enumerate(self.pictures()):
                now = time.monotonic()
                start = now if start is None else start
                item: Item
                if isinstance(picture, str):
                    item = FailedFrame(number, f"{self.name}: {picture}")
                else:
                    ticks = max(ticks + 1, round((now - start) * TICKS))
                    item = Frame(Position(number, ticks), picture)
                    room = max(1, MOST_BYTES // picture.nbytes)
                with news:
                    while self.every_frame and len(arrived) >= room and not self._ended.is_set():
                        news.wait()
                    # A failure does not push a picture out.
                    if isinstance(item, Frame) or not arrived or self.every_frame:
                        arrived.append(item)
                    news.notify()
                if self._ended.is_set():
                    break
        except BaseException as error:
            failure = error
        with news:
            over.append(failure)
            news.notify()


class NetworkStream(_Live):
    """RTSP, RTMP, SRT, UDP, TCP, or HTTP without an end; reached again when it is lost.

    What HTTP sent to its end in order has ended, unless it is a broadcast or a camera's Motion JPEG.

    Args:
        address: of the stream.
        every_frame: as of live sources.
        patience: seconds without a picture after which a lost stream counts as ended; the first picture must come
            within them, too.
        opened: a container of it that is open already.

    Attributes:
        lost: how often the stream was lost and reached again.
    """

    def __init__(self, address: str, every_frame: bool, patience: float, opened: Any = None) -> None:
        super().__init__(address, every_frame)
        self._opened = opened
        self.patience = patience
        self._options = stream_options(address)

    def pictures(self) -> Iterator[NDArray[np.uint8] | str]:
        """Pictures until the stream is lost for good."""
        av = require_av()
        latest, wait, seen, why, web = time.monotonic(), _FIRST_WAIT, False, "nothing came", is_url(self.name)
        while not self._ended.is_set():
            try:
                again = seen
                with closing(self._connected(av)) as container:
                    if seen and web and has_end(container):
                        break  # a broadcast that is over by now, and would be given from its beginning
                    stream = container.streams.video[0]
                    self.rate = float(stream.average_rate or stream.guessed_rate or 30)
                    broken_off = False
                    for decoded in decoded_frames(container, stream):
                        if self._ended.is_set():
                            return
                        broken_off = isinstance(decoded, BrokenOff)
                        if isinstance(decoded, str):
                            why = decoded
                            yield decoded
                            continue
                        self.lost += again
                        wait, seen, again = _FIRST_WAIT, True, False
                        yield upright(decoded)
                        latest = time.monotonic()  # now: whoever takes pictures may let them wait
                    if web and not broken_off and container.format.name not in _ENDLESS:
                        break
            except (av.FFmpegError, OSError, ValueError) as error:
                why = reason(error)
            except IndexError:
                why = "it holds no video"
            if time.monotonic() - latest > self.patience:
                break
            self._ended.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        if not seen and not self._ended.is_set():
            raise ToodError(f"{self.name} cannot be read: {why}, in {time.monotonic() - latest:.0f} seconds of trying")

    def _connected(self, av: Any) -> Any:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            return opened
        silence = min(_SILENCE, max(self.patience, 1.0))
        return av.open(self.name, options=dict(self._options), timeout=(silence, silence))


def has_end(container: Any) -> bool:
    """Whether what was opened at a web address says how long it is, in seconds or bytes."""
    return bool(container.duration) or (container.size > 0 and container.format.name not in _ENDLESS)


def stream_options(address: str) -> Mapping[str, str]:
    """FFmpeg's options for an address: RTSP by TCP, which loses no packets; no files of this machine."""
    options = {"protocol_whitelist": "rtsp,rtsps,rtp,rtmp,rtmps,srt,udp,tcp,tls,http,https,httpproxy,crypto,data"}
    if address.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    return options


class Webcam(_Live):
    """A camera of this machine, by its number.

    Args:
        index: 0 is the first.
        every_frame: as of live sources.

    Raises:
        ToodError: if there is none.
    """

    def __init__(self, index: int, every_frame: bool) -> None:
        import cv2

        super().__init__(f"webcam {index}", every_frame)
        # It prints a line for each way in which there is none.
        log = cv2.utils.logging
        level = log.getLogLevel()
        log.setLogLevel(log.LOG_LEVEL_SILENT)
        try:
            self._camera: Any = cv2.VideoCapture(index)
        finally:
            log.setLogLevel(level)
        if not self._camera.isOpened():
            raise ToodError(f"there is no webcam {index} here, or another program has it")
        self.rate = self._camera.get(cv2.CAP_PROP_FPS) or 30.0

    def pictures(self) -> Iterator[NDArray[np.uint8] | str]:
        """Pictures until the camera is unplugged."""
        import cv2

        try:
            while True:
                there, picture = self._camera.read()
                if not there:
                    return
                yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        finally:
            self._camera.release()
