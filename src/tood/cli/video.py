"""`tood video`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tood import choices
from tood.cli.options import FILES, HOW, MODEL_HELP, Device, Precision, Threads, model_identity, optional
from tood.cli.resuming import say_resumed
from tood.progress_bar import progress_bar

if TYPE_CHECKING:
    from tood.video import Summary

COUNTING = "Tracking and counting"


def video(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A video file, a folder of frames, the number of a webcam (0), or an address: rtsp, rtmp, srt, udp, "
            "tcp, http(s).",
            show_default=False,
        ),
    ],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "tood_r50_fpn_1x",
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Least score of what is shown and saved; but what --track follows is, from 0.1 on.",
            rich_help_panel=HOW,
        ),
    ] = 0.3,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", "--batch", min=1, help="Frames computed at once; 1 for live sources.", rich_help_panel=HOW
        ),
    ] = 1,
    device: Device = None,
    precision: Precision = "auto",
    threads: Threads = None,
    frames: Annotated[int | None, optional("Take only so many frames.", HOW, least=1)] = None,
    fps: Annotated[
        float, typer.Option(min=0.01, help="Frames a second of a folder of frames.", rich_help_panel=HOW)
    ] = 25.0,
    every_frame: Annotated[
        bool,
        typer.Option(
            "--every-frame",
            help="Of a live source take every frame, however late (it waits while 256 MiB of them wait here); else the "
            "newest, so that what is shown is now.",
            rich_help_panel=HOW,
        ),
    ] = False,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds for which a lost stream is tried again.", rich_help_panel=HOW)
    ] = 60.0,
    track: Annotated[
        choices.Tracker | None,
        optional(
            "Follow objects from frame to frame. botsort sees the camera move; it reads all frames to resume.", COUNTING
        ),
    ] = None,
    line: Annotated[
        list[str] | None,
        optional("Count who crosses a line: NAME=x1,y1,x2,y2 in pixels (may be repeated); wants --track.", COUNTING),
    ] = None,
    zone: Annotated[
        list[str] | None,
        optional("Count who stands in a polygon: NAME=x1,y1,x2,y2,x3,y3,... (may be repeated).", COUNTING),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.", rich_help_panel=FILES)] = Path("runs/video"),
    save_video: Annotated[
        bool,
        typer.Option("--save-video/--no-save-video", help="Write OUT/annotated.mp4.", rich_help_panel=FILES),
    ] = True,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write OUT/detections.jsonl, a line a frame.", rich_help_panel=FILES)
    ] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write OUT/detections.csv, a row a detection.", rich_help_panel=FILES)
    ] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write OUT/detections.parquet, the same.", rich_help_panel=FILES)
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the same run that was stopped or killed in OUT, if there is one, at the frame.",
            rich_help_panel=FILES,
        ),
    ] = False,
) -> None:
    """Find objects in a video or a stream, follow and count them.

    Boxes are x1 y1 x2 y2 in pixels of the upright frame, times in seconds from the first one.

    A frame that cannot be read is counted and left out. A live source ends by Ctrl-C, by --frames, or when it is lost
    for longer than --patience. Of a file Ctrl-C keeps what was found: --resume does the rest, and the files are those
    of a run that was never stopped, and one that is done it leaves alone. Earlier results in OUT are replaced, no other
    file is.

    Needs pip install 'tood\\[video]'; tracking and counting pip install 'tood\\[track]' and
    pip install --no-deps trackers.

    Examples:

    tood video clip.mp4 --model runs/x --csv

    tood video rtsp://camera/stream --model runs/x --track bytetrack --line door=100,300,500,300 --jsonl

    tood video 0 --model runs/x
    """
    from tood.errors import ToodError
    from tood.inference import Detector
    from tood.machine import busy_advice
    from tood.stop import StopSignal
    from tood.video import (
        StreamConfig,
        Tracking,
        VideoConfig,
        VideoOutputs,
        open_source,
        parse_line,
        parse_zone,
        require_of_use,
        require_tracking,
        run_video,
    )
    from tood.video.results import VideoFolder
    from tood.video.tables import require_parquet

    lines = tuple(parse_line(text, number) for number, text in enumerate(line or (), 1))
    zones = tuple(parse_zone(text, number) for number, text in enumerate(zone or (), 1))
    tracking = None if track is None else Tracking(track, threshold)
    if lines and tracking is None:
        raise ToodError("--line counts objects that are followed: give --track, too, such as --track bytetrack")
    if tracking is not None:
        tracking.build(25.0)
        # BoT-SORT remarks on every frame that has little to see the camera's motion by.
        logging.getLogger("trackers").setLevel(logging.ERROR)
    if zones:
        require_tracking("counting")
    if parquet:
        require_parquet()
    outputs = VideoOutputs(save_video, jsonl, csv, parquet, counts=bool(lines or zones))
    if not outputs.names:
        raise ToodError("nothing would be written: leave out --no-save-video, or give --jsonl, --csv or --parquet")
    reading = StreamConfig(fps, every_frame, patience)
    stream = open_source(source, reading)
    require_of_use(stream, reading)
    detector = Detector(model, device, threshold, precision=precision)
    start = (f"{detector.device}, {detector.precision}", busy_advice())
    typer.echo("; ".join(filter(None, start)), err=True)
    config = VideoConfig(1 if stream.live else batch_size, tracking, lines, zones, frames)
    settings = {
        "source": [source, stream.identity()],
        "model": model_identity(model),
        "threshold": threshold,
        "batch size": config.batch_size,
        "device": detector.device.type,
        "precision": detector.precision,
        "tracker": track,
        "lines": [[part.name, part.start, part.end] for part in lines],
        "zones": [[part.name, part.corners] for part in zones],
        "frames": frames,
        "frames a second": None if stream.live else stream.rate,
        "video": save_video,
    }
    begun = VideoFolder(out, settings, outputs, stream.name, resume=resume)
    with StopSignal() as stop, begun as folder:
        say_resumed(folder.frames_before, "frames", resume=resume, found_unfinished=folder.found_unfinished)
        with progress_bar("frames", stream.count) as move:
            summary = run_video(
                detector,
                stream,
                folder,
                config,
                stop=lambda: bool(stop.number),
                progress=move,
                waiting=stop.next_of,
            )
    _tell(summary, out, getattr(stream, "lost", 0), stop.number)


def _tell(summary: Summary, out: Path, lost: int, stopped: int) -> None:
    """How it went, and the exit code."""
    notes = [f"{summary.frames:,} {'frame' if summary.frames == 1 else 'frames'} done"]
    if summary.failed:
        notes.append(f"{summary.failed:,} could not be read (the first: {summary.first_failure})")
    if summary.passed_over:
        notes.append(f"{summary.passed_over:,} passed over to keep up")
    if lost:
        notes.append(f"the stream was lost and reached again {lost:,} {'time' if lost == 1 else 'times'}")
    typer.echo(f"{'; '.join(notes)}. Results: {', '.join(str(out / name) for name in summary.written) or 'none'}")
    if not summary.complete:
        typer.echo("tood: stopped; the same command with --resume does the rest", err=True)
        raise typer.Exit(128 + stopped)
    if not summary.frames:
        typer.echo("tood: not one frame could be read", err=True)
        raise typer.Exit(2)
