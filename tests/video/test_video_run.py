"""`tood video`: every file that it writes, whatever stops it, and nothing of anybody else's."""

from __future__ import annotations

import csv
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from benchmarks.kills import make_model, results

from bright_square import picture, save_picture
from cli.test_eval_predict import refused, tood
from tood.errors import ToodError
from tood.inference import Detector
from tood.video import FoundFrame, Summary, Tracking, VideoConfig, VideoOutputs, detections, open_source, run_video
from tood.video import journal as journal_room
from tood.video import run as run_room
from tood.video.frames import Frame, Item, Position
from tood.video.results import UNFINISHED, VideoFolder
from tood.video.tracking import Seen
from video.films import film, pictures, stamps_of

TABLES = ("--jsonl", "--csv", "--parquet")
SEGMENT = 20


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of few frames, so that a short film has several."""
    for module in (journal_room, run_room):
        monkeypatch.setattr(module, "SEGMENT", SEGMENT)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return Detector(model, "cpu", 0.1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("clip") / "clip.mp4", pictures(2 * SEGMENT + 13))


def test_all_that_is_written_tells_the_same(model: Path, tmp_path: Path) -> None:
    stamps = [0, 40, 60, 200, 210, 1000, 1033]
    clip = film(tmp_path / "a.mkv", pictures(7, 63, 95), stamps=stamps, codec="ffv1", pix_fmt="bgr0")
    out = tmp_path / "out"
    result = tood("video", clip, "--model", model, "--out", out, *TABLES)
    assert result.exit_code == 0, result.output
    assert "7 frames done" in result.stdout
    assert set(results(out)) == {"annotated.mp4", "detections.jsonl", "detections.csv", "detections.parquet"}
    lines = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    assert [line["time"] for line in lines] == [stamp / 1000 for stamp in stamps]
    rows = list(csv.DictReader((out / "detections.csv").open()))
    table = pyarrow.parquet.read_table(out / "detections.parquet").to_pylist()
    told = [(line["frame"], one) for line in lines for one in line["detections"]]
    assert len(told) > 5
    assert len(rows) == len(table) == len(told)
    for (frame, one), row, entry in zip(told, rows, table, strict=True):
        assert (frame, one["name"], one["score"]) == (int(row["frame"]), row["name"], float(row["score"]))
        assert [float(row[side]) for side in ("x1", "y1", "x2", "y2")] == one["box"]
        assert (entry["frame"], entry["label"], entry["track"]) == (frame, one["label"], None)
        assert entry["x1"] == pytest.approx(one["box"][0])
    assert [round(1000 * time) for time in stamps_of(out / "annotated.mp4")] == stamps
    drawn = next(iter(open_source(out / "annotated.mp4").frames()))
    assert isinstance(drawn, Frame)
    assert drawn.pixels.shape == (64, 96, 3)  # even sides


class Killed(BaseException):
    """Ends a run at once."""


class Fragile:
    """A source that kills the run before a frame."""

    def __init__(self, path: Path, before: int) -> None:
        self._source, self._before = open_source(path), before
        self.name, self.live, self.rate, self.count = str(path), False, self._source.rate, None

    def identity(self) -> object:
        return self._source.identity()

    def frames(self, after: Position | None = None) -> Iterator[Item]:
        for item in self._source.frames(after):
            if isinstance(item, Frame) and item.position.number >= self._before:
                raise Killed
            yield item


def run(
    detector: Detector, clip: Path, out: Path, config: VideoConfig, before: int | None = None, *, resume: bool = False
) -> None:
    outputs = VideoOutputs(True, True, True, True)
    source = open_source(clip) if before is None else Fragile(clip, before)
    with VideoFolder(out, {"clip": str(clip)}, outputs, str(clip), resume=resume) as folder:
        run_video(detector, source, folder, config, stop=lambda: False)


@pytest.mark.parametrize("tracker", [None, "bytetrack", "ocsort", "botsort"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    detector: Detector, clip: Path, tmp_path: Path, tracker: str | None
) -> None:
    config = VideoConfig(3, None if tracker is None else Tracking(tracker, 0.2))  # type: ignore[arg-type]
    run(detector, clip, tmp_path / "alone", config)
    wanted = results(tmp_path / "alone")
    out = tmp_path / "killed"
    few = tracker in ("ocsort", "botsort")
    moments = (4, SEGMENT + 2) if few else (0, 1, 4, 14, SEGMENT, SEGMENT + 2, 2 * SEGMENT + 12)
    for before in moments:
        with pytest.raises(Killed):
            run(detector, clip, out, config, before, resume=True)
        assert not out.exists() or results(out) == {}
    run(detector, clip, out, config, resume=True)
    assert results(out) == wanted
    assert not (out / UNFINISHED).exists()


def test_frames_are_not_computed_twice(detector: Detector, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(detector, clip, tmp_path, VideoConfig(), 30, resume=True)
    computed = []
    counting = detector.with_threshold(0.1)
    original = counting.detect
    counting.detect = lambda pictures: computed.append(len(pictures)) or original(pictures)  # type: ignore
    run(counting, clip, tmp_path, VideoConfig(), resume=True)
    assert sum(computed) == 2 * SEGMENT + 13 - 30


def test_stopped_by_the_number_of_frames_and_resumed_under_other_settings(
    model: Path, clip: Path, tmp_path: Path
) -> None:
    command = ("video", clip, "--model", model, "--out", tmp_path, "--jsonl")
    assert "9 frames done" in tood(*command, "--frames", 9).stdout
    assert len((tmp_path / "detections.jsonl").read_text().splitlines()) == 9
    assert len(stamps_of(tmp_path / "annotated.mp4")) == 9
    assert "9 frames done before" in tood(*command, "--frames", 9, "--resume").stderr
    detector = Detector(model, "cpu", 0.1)
    with pytest.raises(Killed):
        run(detector, clip, tmp_path, VideoConfig(), 5)
    refused(tood(*command, "--resume"), "had other settings")
    assert tood(*command, "--frames", 3).exit_code == 0
    assert len((tmp_path / "detections.jsonl").read_text().splitlines()) == 3


def test_resuming_a_run_that_is_done_leaves_it_alone(model: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    film_file = shutil.copyfile(clip, tmp_path / "a.mp4")
    short = ("video", film_file, "--model", model, "--out", out, "--frames", 4, "--no-save-video")
    command = (*short, "--jsonl", "--parquet", "--zone", "all=0,0,60,0,60,60")
    assert "nothing to resume" in tood(*command, "--resume").stderr
    wanted = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert len(results(out)) == 3

    def unchanged() -> bool:
        return wanted == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}

    for again in (command, (*short, "--jsonl", "--zone", "all=0,0,60,0,60,60")):
        told = tood(*again, "--resume")
        assert (told.exit_code, "4 frames done before" in told.stderr) == (0, True)
        assert "4 frames done. Results: " in told.stdout
        assert unchanged()
    refused(tood(*short, "--resume", "--jsonl"), "had other settings (zones")
    refused(tood(*command, "--resume", "--csv"), "is done, and did not write detections.csv: leave out --resume")
    film_file.touch()
    refused(tood(*command, "--resume"), "had other settings (source")
    assert unchanged()
    (out / "detections.jsonl").unlink()  # what is gone is made again
    assert "4 frames done" in tood(*command).stdout
    (out / "detections.jsonl").unlink()
    assert "nothing to resume" in tood(*command, "--resume").stderr
    assert (out / "detections.jsonl").read_bytes() == wanted["detections.jsonl"][0]


class Watched(Fragile):
    """A source that tells when a frame is asked for that it does not have."""

    asked_for_more = False

    def frames(self, after: Position | None = None) -> Iterator[Item]:
        yield from super().frames(after)
        self.asked_for_more = True


def test_a_wish_to_stop_after_the_last_frame_is_no_stop(detector: Detector, clip: Path, tmp_path: Path) -> None:
    def summary(source: Watched, stop: Callable[[], bool]) -> Summary:
        with VideoFolder(tmp_path, {}, VideoOutputs(False, True), str(clip), resume=True) as folder:
            return run_video(detector, source, folder, VideoConfig(4), stop=stop)

    source = Watched(clip, 1000)
    answers = iter([False])
    assert not summary(source, lambda: next(answers, True)).complete
    assert (tmp_path / UNFINISHED).exists()
    assert summary(source, lambda: source.asked_for_more).complete
    assert not (tmp_path / UNFINISHED).exists()


def test_files_of_somebody_else_stay(model: Path, clip: Path, tmp_path: Path) -> None:
    command = ("video", clip, "--model", model, "--frames", 3)
    (tmp_path / "a" / UNFINISHED).mkdir(parents=True)
    (tmp_path / "a" / UNFINISHED / "mine.txt").write_text("mine")
    refused(tood(*command, "--out", tmp_path / "a"), "is none of tood video")
    (tmp_path / "old" / UNFINISHED).mkdir(parents=True)
    old = tmp_path / "old" / UNFINISHED / "journal.jsonl"
    old.write_text('{"tood video": 0, "settings": {}}\n')
    for more in ((), ("--resume",)):
        refused(tood(*command, "--out", tmp_path / "old", *more), "is none of this version of tood video")
    assert old.read_text() == '{"tood video": 0, "settings": {}}\n'
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "annotated.mp4").write_text("mine")
    refused(tood(*command, "--out", tmp_path / "b"), "was not written by tood video")
    assert (tmp_path / "b" / "annotated.mp4").read_text() == "mine"
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["annotated.mp4"]
    assert tood(*command, "--out", tmp_path / "c").exit_code == 0
    own = tmp_path / "c" / "annotated.mp4"
    was = own.read_bytes()
    for outputs in ((), ("--jsonl",), TABLES):  # of which most are not there yet
        refused(tood("video", own, "--model", model, "--out", tmp_path / "c", *outputs), "is what would be written")
    assert own.read_bytes() == was
    refused(tood(*command, "--out", tmp_path / "d", "--no-save-video"), "nothing would be written")


def test_what_cannot_be_watched_is_told_in_a_sentence_and_leaves_nothing(
    model: Path, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])  # its index is at the end
    with socket.socket() as nobody:  # bound, so that nobody else listens there
        nobody.bind(("127.0.0.1", 0))
        for source, sentence in (
            (tmp_path / "text.mp4", "text.mp4 cannot be read as a video: Invalid data"),
            (tmp_path / "half.mp4", "half.mp4 cannot be read as a video: its index is missing"),
            ("97", "there is no webcam 97 here"),
            (f"rtsp://127.0.0.1:{nobody.getsockname()[1]}/cam", "cannot be read: Connection refused"),
        ):
            options = ("--out", tmp_path / "out", "--jsonl", "--patience", 0.1)
            result = tood("video", source, "--model", model, *options)
            refused(result, sentence)
            assert not (tmp_path / "out").exists()


def test_frames_that_fail_are_counted(model: Path, tmp_path: Path) -> None:
    for number in range(6):
        save_picture(tmp_path / "in" / f"{number}.png", picture(40, 60, (5, 5, 25, 25)))
    (tmp_path / "in" / "3.png").write_bytes(b"no picture")
    save_picture(tmp_path / "in" / "4.png", picture(30, 50))  # of another size
    result = tood("video", tmp_path / "in", "--model", model, "--out", tmp_path / "out", "--jsonl")
    assert result.exit_code == 0, result.output
    assert "5 frames done; 1 could not be read (the first:" in result.stdout
    lines = [json.loads(line) for line in (tmp_path / "out" / "detections.jsonl").read_text().splitlines()]
    assert [("error" in line, line["frame"]) for line in lines] == [(n == 3, n) for n in range(6)]
    assert len(stamps_of(tmp_path / "out" / "annotated.mp4")) == 5


def crossing(tmp_path: Path) -> Path:
    """A bright square from the left to the right and back."""
    steps = [*range(4, 70, 2), *range(70, 4, -2)]
    return film(tmp_path / "walk.mp4", [picture(64, 96, (at, 20, at + 20, 44)) for at in steps])


def walk(tracks: bool = True) -> list[Seen]:
    steps = [*range(4, 70, 2), *range(70, 4, -2)]
    return [
        Seen(
            np.array([[at, 20, at + 20, 44]], np.float32),
            np.array([0.9], np.float32),
            np.array([1]),
            np.array([7 if tracks else -1]),
        )
        for at in steps
    ]


@pytest.mark.parametrize("kind", ["bytetrack", "ocsort", "botsort"])
def test_an_object_keeps_its_number_and_is_counted_at_a_line_and_in_a_zone(kind: str) -> None:
    from tood.video import Counters, parse_line, parse_zone

    counters = Counters([parse_line("door=48,0,48,64", 1)], [parse_zone("0,0,30,0,30,64,0,64", 1)])
    tracker = Tracking(kind, 0.3).build(25.0)  # type: ignore[arg-type]
    seen = [tracker.update(one, number / 25, np.zeros((64, 96, 3), np.uint8)) for number, one in enumerate(walk(False))]
    numbers = [one.tracks.tolist() for one in seen]
    assert len({number for (number,) in numbers} - {-1}) == 1
    assert numbers[5:] == [numbers[5]] * (len(numbers) - 5)
    told = [counters.update(one, (64, 96)) for one in seen]
    assert told[-1]["door"] == {"in": 1, "out": 1}
    totals = counters.totals(["cat", "dog"])
    assert totals["lines"]["door"] == {"in": {"dog": 1}, "out": {"dog": 1}}
    assert totals["zones"]["zone 1"] == {"most": 1, "most_by_class": {"dog": 1}, "objects": {"dog": 1}}


def test_a_zone_without_tracking_counts_the_most_of_each_class_at_once() -> None:
    from tood.video import Counters, parse_zone

    counters = Counters(zones=[parse_zone("yard=0,0,30,0,30,64,0,64", 1)], tracked=False)
    for labels, inside in (([0, 0, 1], 3), ([1, 1], 2), ([], 0)):
        boxes = np.array([[2, 20, 12, 44]] * len(labels) + [[60, 20, 80, 44]], np.float32)  # one is elsewhere
        one = Seen(boxes, np.ones(len(boxes), np.float32), np.array([*labels, 1]), np.full(len(boxes), -1))
        assert counters.update(one, (64, 96)) == {"yard": {"now": inside}}
    zones = counters.totals(["cat", "dog"])["zones"]
    assert zones == {"yard": {"most": 3, "most_by_class": {"cat": 2, "dog": 2}}}


def test_tracks_and_counts_are_written(model: Path, tmp_path: Path) -> None:
    command = ("video", crossing(tmp_path), "--model", model, "--threshold", 0.1, "--jsonl", "--out", tmp_path / "out")
    result = tood(*command, "--track", "bytetrack", "--line", "door=48,0,48,64", "--zone", "yard=0,0,96,0,96,64")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "out" / "detections.jsonl").read_text().splitlines()]
    assert any("track" in one for line in lines for one in line["detections"])
    assert set(lines[-1]["counts"]) == {"door", "yard"}
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert set(counts["lines"]["door"]) == {"in", "out"}
    assert set(counts["zones"]["yard"]) == {"most", "most_by_class", "objects"}
    refused(tood(*command, "--line", "1,2,3,4"), "give --track")
    assert tood(*command, "--zone", "yard=0,0,96,0,96,64,0,64").exit_code == 0
    (yard,) = json.loads((tmp_path / "out" / "counts.json").read_text())["zones"].values()
    assert set(yard) == {"most", "most_by_class"}
    assert yard["most_by_class"]
    (tmp_path / "out" / "notes.txt").write_text("of somebody else")
    other = ("video", crossing(tmp_path), "--model", model, "--csv", "--no-save-video", "--out", tmp_path / "out")
    assert tood(*other).exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"detections.csv", "notes.txt"}
    refused(tood(*command, "--track", "bytetrack", "--line", "1,2,3"), "expected numbers")
    refused(tood(*command, "--zone", "a=1,2,3,4"), "three places or more")
    refused(tood(*command, "--zone", "a=0,0,1e30,0,1e30,1e30"), "no video is so large")


@pytest.mark.parametrize(
    "place",
    [
        ("--zone", "yard=200,0,300,0,300,64"),
        ("--track", "bytetrack", "--line", "door=-9,70,200,80"),
        ("--track", "bytetrack", "--line", "door=90,-9,110,9"),
    ],
)
def test_places_outside_of_the_frame_are_refused(
    model: Path, clip: Path, tmp_path: Path, place: tuple[str, ...]
) -> None:
    command = ("video", clip, "--model", model, "--out", tmp_path / "out", "--no-save-video", "--jsonl")
    refused(tood(*command, *place), "outside of the frames, which are 96x64 pixels: it would count nothing")
    assert not (tmp_path / "out").exists()


def test_options_that_change_nothing_are_refused(model: Path, clip: Path, tmp_path: Path) -> None:
    command = ("video", clip, "--model", model, "--out", tmp_path / "out")
    refused(tood(*command, "--fps", 3), "--fps is of a folder of frames")
    assert not (tmp_path / "out").exists()


def test_a_zone_may_reach_far_beyond_the_frame() -> None:
    import supervision

    from tood.video import Counters, parse_zone

    size = (50, 70)
    places = np.stack(np.meshgrid(np.arange(71), np.arange(51)), 2).reshape(-1, 2).astype(np.float32)
    boxes = np.concatenate([places - np.float32([0, 1]), places], 1)
    numbers = np.arange(len(places))
    everywhere = Seen(boxes, np.ones(len(places), np.float32), np.zeros_like(numbers), numbers)

    def counted(corners: str, seen: Seen) -> int:
        counters = Counters(zones=[parse_zone(corners, 1)])
        counters.update(everywhere, (30, 40))  # a folder may hold frames of several sizes
        told: int = counters.update(seen, size)["zone 1"]["now"]
        return told

    for corners in ("3.6,4,40,8,30,49,2,50", "0,0,70,0,70,50,0,50"):
        polygon = np.array([float(side) for side in corners.split(",")]).reshape(-1, 2).round().astype(np.int64)
        inside = supervision.PolygonZone(polygon).trigger(supervision.Detections(boxes))
        assert counted(corners, everywhere) == inside.sum()
    for corners in ("-20,5,90,30,60,200", "0,0,200000,0,200000,200000", "-9,-1000000,1000000,25,60,1000000"):
        polygon = np.array([float(side) for side in corners.split(",")], np.float32).reshape(-1, 2)
        away = np.array([cv2.pointPolygonTest(polygon, place, True) for place in places.tolist()])
        clear = np.abs(away) > 1  # what is on its outline may be within or not
        assert counted(corners, everywhere.chosen(clear)) == (away > 1).sum() > 500


def test_the_python_way(detector: Detector, clip: Path) -> None:
    found = list(detections(detector, clip, batch_size=4, track=Tracking("bytetrack", 0.2)))
    assert len(found) == 2 * SEGMENT + 13
    assert all(isinstance(one, FoundFrame) and one.seen is not None for one in found)


def test_a_missing_package_is_told_with_the_command(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ToodError, match="pip install --no-deps trackers"):
        Tracking("bytetrack").build(25.0)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ToodError, match=r"pip install 'tood\[track\]'"):
        Tracking("bytetrack").build(25.0)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused(tood("video", clip, "--parquet", "--out", tmp_path), "pip install 'tood[video]'")
