"""Moving pictures: files, webcams, network streams, folders of frames; tracking, counting and annotated video."""

from tood.video.counting import Counters, Line, Zone, parse_line, parse_zone
from tood.video.found import FoundFrame, detections
from tood.video.frames import FailedFrame, Frame, FrameSource, Position
from tood.video.open import StreamConfig, is_video, open_source, require_of_use
from tood.video.results import VideoOutputs
from tood.video.run import Summary, VideoConfig, run_video
from tood.video.tracking import Tracking, require_tracking

__all__ = [
    "Counters",
    "FailedFrame",
    "FoundFrame",
    "Frame",
    "FrameSource",
    "Line",
    "Position",
    "StreamConfig",
    "Summary",
    "Tracking",
    "VideoConfig",
    "VideoOutputs",
    "Zone",
    "detections",
    "is_video",
    "open_source",
    "parse_line",
    "parse_zone",
    "require_of_use",
    "require_tracking",
    "run_video",
]
