"""Streams from real servers on this machine: read as they come, lost and reached again."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from tood.errors import ToodError
from tood.video import FailedFrame, Frame, StreamConfig, open_source
from tood.video.frames import Position
from tood.video.live import MOST_BYTES, NetworkStream, _Live
from video.films import film, pictures


@contextmanager
def sending(*films: bytes) -> Iterator[str]:
    """A listener that sends each visitor one film, the first to the first, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        with suppress(OSError):  # the listener is closed, or a visitor gone
            for content in films:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(content)

    threading.Thread(target=send, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def test_a_stream_that_drops_is_reached_again(tmp_path: Path) -> None:
    levels = (100, 200)
    films = [
        film(tmp_path / f"{level}.ts", [np.full((64, 96, 3), level, np.uint8)] * 40, codec="mpeg2video").read_bytes()
        for level in levels
    ]
    with sending(*films) as address:
        source = NetworkStream(address, every_frame=True, patience=60.0)
        items = (item for item in source.frames() if isinstance(item, Frame))
        frames = list(islice(items, 80))
    assert [len([f for f in frames if abs(f.pixels.mean() - level) < 10]) for level in levels] == [40, 40]
    assert source.lost == 1
    times = [frame.position.ticks for frame in frames]
    assert times == sorted(set(times))


@contextmanager
def http(body: bytes, told: str) -> Iterator[str]:
    """A web server of one file, which tells its `length`, sends it in `chunks`, or `hangs up` at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            self.send_response(200)
            if told == "length":
                self.send_header("Content-Length", str(len(body)))
            if told == "chunks":
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if told == "chunks" else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/film"
    finally:
        server.shutdown()
        server.server_close()


def test_a_web_address_of_a_file_is_a_file_and_one_without_an_end_a_stream(tmp_path: Path) -> None:
    for kind in ("mkv", "h264"):  # of raw H.264 nobody knows the seconds
        with http(film(tmp_path / f"a.{kind}", pictures(20)).read_bytes(), "length") as address:
            source = open_source(address)
            assert not source.live
            assert len(list(source.frames())) == 20
    with http(film(tmp_path / "a.ts", pictures(20)).read_bytes(), "hangs up") as address:
        source = open_source(address, StreamConfig(every_frame=True))
        assert source.live
        assert len(list(islice(source.frames(), 30))) == 30  # begun anew when it ended


def test_what_the_web_sent_to_its_end_is_not_begun_anew(tmp_path: Path) -> None:
    with http(film(tmp_path / "a.h264", pictures(20)).read_bytes(), "chunks") as address:
        source = open_source(address, StreamConfig(every_frame=True))
        assert source.live
        assert len(list(islice(source.frames(), 30))) == 20


def test_a_broadcast_by_playlist_ends_when_it_says_so(tmp_path: Path) -> None:
    film(tmp_path / "0.ts", pictures(25), codec="mpeg2video")
    lists = ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n0.ts\n"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = lists[0].encode() if self.path.endswith("m3u8") else (tmp_path / "0.ts").read_bytes()
            if self.path.endswith("ts"):
                lists[0] = lists[0].removesuffix("#EXT-X-ENDLIST\n") + "#EXT-X-ENDLIST\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = open_source(f"http://127.0.0.1:{server.server_port}/a.m3u8", StreamConfig(every_frame=True))
        assert source.live
        assert len(list(islice(source.frames(), 60))) == 25
        server.shutdown()


def test_a_stream_that_is_not_there_is_told() -> None:
    with socket.socket() as nobody:  # bound, so that nobody else listens there
        nobody.bind(("127.0.0.1", 0))
        source = open_source(f"http://127.0.0.1:{nobody.getsockname()[1]}/a.ts", StreamConfig(patience=0.3))
        with pytest.raises(ToodError, match="cannot be read: Connection refused"):
            list(source.frames())


class Camera(_Live):
    """Gives a picture, and all others as soon as that was taken."""

    def __init__(self, every_frame: bool) -> None:
        super().__init__("camera", every_frame)
        self.taken, self.given = threading.Event(), threading.Event()

    def pictures(self) -> Iterator[np.ndarray]:
        yield np.full((8, 8, 3), 0, np.uint8)
        self.taken.wait()
        for number in range(1, 60):
            yield np.full((8, 8, 3), number, np.uint8)
        self.given.set()


def test_a_slow_reader_gets_the_newest_frames_or_all() -> None:
    for every_frame, wanted in ((False, [0, 59]), (True, list(range(60)))):
        camera = Camera(every_frame)
        taken = []
        for item in camera.frames():
            assert isinstance(item, Frame)
            assert item.pixels[0, 0, 0] == item.position.number
            taken.append(item.position.number)
            camera.taken.set()
            camera.given.wait()
        assert taken == wanted
    with pytest.raises(ToodError, match="does not come again"):
        list(Camera(every_frame=True).frames(Position(3, 3)))


class LargeCamera(_Live):
    """Ten pictures of a quarter of what may wait, which take no memory."""

    def __init__(self) -> None:
        super().__init__("large camera", every_frame=True)
        self.given = 0

    def pictures(self) -> Iterator[np.ndarray]:
        for self.given in range(1, 11):
            yield np.broadcast_to(np.uint8(self.given), (MOST_BYTES // 12, 1, 3))


def live_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "live"}


def test_every_frame_waits_where_too_many_would_lie_in_memory() -> None:
    camera = LargeCamera()
    frames = camera.frames()
    next(frames)
    time.sleep(0.1)
    assert camera.given <= 6  # one taken, four that wait, one in hand
    assert [frame.pixels[0, 0, 0] for frame in frames if isinstance(frame, Frame)] == list(range(2, 11))

    camera, before = LargeCamera(), live_threads()
    frames = camera.frames()
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    for thread in live_threads() - before:
        thread.join(60)
        assert not thread.is_alive(), "it still waits for room"


class RtspServer:
    """The least of RTSP (RFC 2326) that a camera speaks: H.264 by RTP within the connection."""

    def __init__(self, frames: int) -> None:
        self._nals = _encoded(frames)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/cam"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(ConnectionError):
                self._speak(connection)

    def _speak(self, connection: socket.socket) -> None:
        text = b""
        while True:
            while b"\r\n\r\n" not in text:
                if not (more := connection.recv(4096)):
                    return
                text += more
            request, _, text = text.partition(b"\r\n\r\n")
            method = request.split(b" ", 1)[0].decode()
            number = re.search(rb"CSeq: *(\d+)", request)[1].decode()  # type: ignore[index]
            head, body = "", ""
            if method == "OPTIONS":
                head = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                sets = ",".join(base64.b64encode(nal).decode() for nal in self._nals[0][:2])
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                    "a=rtpmap:96 H264/90000\r\n"
                    f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track1\r\n"
                )
                head = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                head = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif method == "PLAY":
                head = "Session: 1\r\n"
            connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{head}\r\n{body}".encode())
            if method == "PLAY":
                self._play(connection)
                return

    def _play(self, connection: socket.socket) -> None:
        sequence = 0
        for time_stamp, nals in enumerate(self._nals):
            for place, nal in enumerate(nals):
                marker = 0x80 if place == len(nals) - 1 else 0
                header = bytes([0x80, 96 | marker]) + sequence.to_bytes(2, "big")
                packet = header + (3600 * time_stamp).to_bytes(4, "big") + b"\0\0\0\7" + nal
                connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                sequence += 1
            time.sleep(0.002)

    def close(self) -> None:
        self._listener.close()


def _encoded(frames: int) -> list[list[bytes]]:
    """The parts of each frame's H.264, small enough for a packet each."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 96, 64, "yuv420p", 25
    encoder.options = {"tune": "zerolatency", "g": "10", "preset": "ultrafast"}
    found = []
    for number, pixels in enumerate([*pictures(frames), None]):
        frame = None
        if pixels is not None:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
        for packet in encoder.encode(frame):
            nals = [part for part in re.split(rb"\x00\x00\x00?\x01", bytes(packet)) if part]
            found.append([nal for nal in nals if nal[0] & 31 != 6])
    return found


def test_rtsp_is_read_and_reached_again() -> None:
    server = RtspServer(60)
    try:
        source = open_source(server.address, StreamConfig(every_frame=True, patience=60.0))
        frames: list[Frame] = []
        for item in source.frames():
            assert not isinstance(item, FailedFrame) or "timed out" not in item.reason
            if isinstance(item, Frame):
                frames.append(item)
            if len(frames) >= 90:
                break
    finally:
        server.close()
    assert source.live
    assert source.lost >= 1  # type: ignore[attr-defined]
    wanted = pictures(60)
    close = [min(np.abs(frame.pixels.astype(int) - one).mean() for one in wanted) for frame in frames]
    assert max(close) < 20
