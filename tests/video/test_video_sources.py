"""Frames of files and folders: all, in order, upright, with their times; from any of them on; bad ones counted."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from bright_square import picture, save_picture
from tood.errors import ToodError
from tood.video import FailedFrame, Frame, StreamConfig, is_video, open_source, require_of_use
from tood.video.frames import Clock
from video.films import film, pictures


def good(items: list[object]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def test_a_file_gives_its_frames_with_their_times(tmp_path: Path) -> None:
    stamps = [0, 40, 60, 200, 210, 1000, 1033]
    source = open_source(film(tmp_path / "a.mkv", pictures(7), stamps=stamps))
    frames = good(list(source.frames()))
    assert [round(1000 * frame.position.time) for frame in frames] == stamps
    assert [frame.position.number for frame in frames] == list(range(7))
    for frame, wanted in zip(frames, pictures(7), strict=True):
        assert frame.pixels.shape == (64, 96, 3)
        assert np.abs(frame.pixels.astype(int) - wanted).mean() < 12


@pytest.mark.parametrize("kind", ["b_frames.mp4", "open.mkv", "uneven.mkv", "stampless.h264", "stream.ts"])
def test_reading_from_a_frame_on_gives_what_reading_on_would_have(tmp_path: Path, kind: str) -> None:
    options = {"g": "12", "bf": "3"} if kind != "open.mkv" else {"g": "12", "bf": "3", "x264-params": "open-gop=1"}
    stamps = [40 * number + 7 * (number % 3) for number in range(60)] if kind == "uneven.mkv" else None
    source = open_source(film(tmp_path / kind, pictures(60), stamps=stamps, options=options))
    frames = good(list(source.frames()))
    assert len(frames) == 60
    for place in (0, 1, 11, 12, 13, 30, 58, 59):
        rest = good(list(source.frames(frames[place].position)))
        assert [frame.position for frame in rest] == [frame.position for frame in frames[place + 1 :]]
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(rest, frames[place + 1 :], strict=True))


def test_another_film_under_the_same_name_is_refused(tmp_path: Path) -> None:
    one = good(list(open_source(film(tmp_path / "a.mp4", pictures(20))).frames()))
    other = open_source(film(tmp_path / "a.mp4", [255 - frame for frame in pictures(20)]))
    with pytest.raises(ToodError, match="is not the video that it was"):
        list(other.frames(one[9].position))


def rotated(path: Path) -> Path:
    """Turns an mp4 by a quarter by the matrix in its track's header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    matrix = [0, 0x10000, 0, -0x10000 & 0xFFFFFFFF, 0, 0, 0, 0, 0x40000000]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big") for value in matrix)
    path.write_bytes(data)
    return path


def test_a_film_that_was_taken_lying_down_is_upright(tmp_path: Path) -> None:
    lying = np.zeros((64, 96, 3), np.uint8)
    lying[:20, :20] = 255  # top left as stored, top right as it is to be seen
    (frame, *_) = good(list(open_source(rotated(film(tmp_path / "a.mp4", [lying] * 3))).frames()))
    assert frame.pixels.shape == (96, 64, 3)
    assert frame.pixels[:16, -16:].mean() > 240
    assert frame.pixels[-30:].mean() < 20


def test_a_film_of_odd_sides_and_one_of_ten_bits(tmp_path: Path) -> None:
    odd = film(tmp_path / "odd.mkv", pictures(3, 63, 95), codec="ffv1", pix_fmt="bgr0")
    assert good(list(open_source(odd).frames()))[0].pixels.shape == (63, 95, 3)
    deep = film(tmp_path / "deep.mkv", pictures(3), codec="ffv1", pix_fmt="yuv420p10le")
    assert np.abs(good(list(open_source(deep).frames()))[1].pixels.astype(int) - pictures(3)[1]).mean() < 12


def test_a_cut_off_and_a_damaged_file_give_what_there_is(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mkv", pictures(60), codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    cut = good(list(open_source(tmp_path / "cut.mkv").frames()))
    assert 35 <= len(cut) <= 45
    data = bytearray(film(tmp_path / "b.avi", pictures(60), codec="ffv1", pix_fmt="bgr0").read_bytes())
    for place in range(len(data) // 3, len(data) // 3 + 9000):
        data[place] ^= 0x5A
    (tmp_path / "bad.avi").write_bytes(data)
    items = list(open_source(tmp_path / "bad.avi").frames())
    assert len(good(items)) >= 40
    numbers = [item.number if isinstance(item, FailedFrame) else item.position.number for item in items]
    assert numbers == list(range(len(items)))


def test_a_film_without_its_index_says_so_and_one_with_it_in_front_gives_what_there_is(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mov"):
        whole = film(tmp_path / f"a{suffix}", pictures(60)).read_bytes()
        cut = tmp_path / f"cut{suffix}"
        for length in (len(whole) // 9, len(whole) * 2 // 3, whole.rindex(b"moov") + 40):
            cut.write_bytes(whole[:length])
            with pytest.raises(ToodError, match=rf"cut\{suffix} cannot .* its index is missing.* download it again"):
                open_source(cut)
    with av.open(str(tmp_path / "a.mp4")) as old, av.open(str(cut), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert 10 <= len(good(list(open_source(cut).frames()))) < 60
    cut.write_bytes(b"no film at all, but text" * 9)
    with pytest.raises(ToodError, match="cannot be read as a video: Invalid data"):
        open_source(cut)


def test_a_folder_goes_by_the_numbers_in_its_names(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9, 3):
        save_picture(tmp_path / f"frame_{number}.png", picture(20, 30, (0, 0, number, 5)))
    (tmp_path / "frame_4.jpg").write_bytes(b"no picture")
    source = open_source(tmp_path, StreamConfig(folder_rate=10))
    items = list(source.frames())
    assert isinstance(items[3], FailedFrame)
    assert "frame_4.jpg" in items[3].reason
    frames = good(items)
    assert [int(frame.pixels[0].mean(axis=1).astype(bool).sum()) for frame in frames] == [1, 2, 3, 9, 10]
    assert [frame.position.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.4, 0.5])
    rest = good(list(source.frames(frames[1].position)))
    assert [frame.position for frame in rest] == [frame.position for frame in frames[2:]]


def test_what_is_no_video_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty").mkdir()
    for source, sentence in (
        (tmp_path / "text.mp4", "cannot be read as a video"),
        (tmp_path / "none.mp4", "there is no video file or folder"),
        (tmp_path / "empty", "there is no picture in the folder"),
        ("97", "there is no webcam 97"),
        ("file://elsewhere/film.mp4", "is no address of a file on this machine"),
        ("file:///none.mp4", "there is no video file or folder /none.mp4"),
    ):
        with pytest.raises(ToodError, match=sentence):
            open_source(source)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(ToodError, match="holds no video"):
        open_source(tmp_path / "sound.wav")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ToodError, match=r"pip install 'tood\[video\]'"):
        open_source(tmp_path / "text.mp4")


def test_a_webcam_that_is_not_there_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ToodError, match="there is no webcam 97 here"):
        open_source("97")
    assert capfd.readouterr() == ("", "")  # OpenCV's own lines, too


def test_the_address_of_a_file_here_is_the_file(tmp_path: Path) -> None:
    path = film(tmp_path / "a b.mp4", pictures(2))
    by_address, by_path = open_source(path.as_uri()), open_source(path)
    assert (by_address.live, by_address.name, by_address.identity()) == (False, str(path), by_path.identity())
    assert len(good(list(by_address.frames()))) == 2


def test_what_changes_nothing_of_a_source_is_refused(tmp_path: Path) -> None:
    clip = open_source(film(tmp_path / "a.mp4", pictures(2)))
    (tmp_path / "frames").mkdir()
    save_picture(tmp_path / "frames" / "1.png", pictures(1)[0])
    frames = open_source(tmp_path / "frames")
    for source, config, sentence in (
        (clip, StreamConfig(folder_rate=3), "--fps is of a folder of frames, and .*a.mp4 is none"),
        (clip, StreamConfig(every_frame=True), "--every-frame is of live sources, and .* is none: leave it out"),
        (clip, StreamConfig(patience=3), "--patience is of streams from an address"),
        (frames, StreamConfig(every_frame=True), "--every-frame is of live sources"),
    ):
        with pytest.raises(ToodError, match=sentence):
            require_of_use(source, config)
    require_of_use(clip, StreamConfig())
    require_of_use(frames, StreamConfig(folder_rate=3))


def test_a_playlist_reaches_no_other_machine(tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(ToodError, match="cannot be read as a video"):
        list(open_source(tmp_path / "list.m3u8").frames())


def test_times_rise_whatever_the_stamps_say() -> None:
    clock = Clock(10.0)
    stamps = [500, 600, None, 550, 900, 10**9, 10**9 + 100]
    ticks = [clock.tell(stamp, 0.001) for stamp in stamps]
    assert ticks[:3] == [0, 9000, 18000]
    assert all(later > earlier for earlier, later in pairwise(ticks))
    assert ticks[-1] - ticks[-2] == 9000  # after a leap it goes on from there


def test_videos_are_told_by_their_names() -> None:
    assert is_video("a/B.MP4")
    assert is_video("rtsp://host/x")
    assert not is_video("a.jpg")
