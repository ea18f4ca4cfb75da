"""The folder that `tood video` writes to, and what it writes there when a run ends, at the last frame or before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tood.claimed_folder import claim, require_ours, require_own, require_same_settings
from tood.errors import ToodError
from tood.file_identity import file_identity
from tood.manifest import FileStamp, Manifest
from tood.video.journal import COMMAND, Journal
from tood.video.segments import join
from tood.video.tables import write_csv, write_jsonl, write_parquet
from tood.whole_file import whole_file

MANIFEST = ".tood-video.json"
"""File in the folder that lists what was written there."""
FINISHED = ".tood-video.finished.json"
"""File in it that says which run was the last to do its whole video."""
UNFINISHED = ".tood-video.unfinished"
"""Folder in it that holds what a run which did not end has found."""
LOCK = ".tood-video.running"
"""File in it that is there while a run writes."""


@dataclass(frozen=True)
class Finished:
    """A run that did its whole video.

    Attributes:
        settings: whatever decided its results.
        frames: that were read.
        written: names of its files.
    """

    settings: Mapping[str, Any]
    frames: int
    written: Sequence[str]

    @staticmethod
    def read(path: Path) -> Finished | None:
        """What a file says; None if it is not there or says nothing that is understood."""
        try:
            return Finished(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write it; the file appears whole or not at all."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True)
class VideoOutputs:
    """Which files are written.

    Attributes:
        video: the annotated video.
        jsonl, csv, parquet: the detections of each frame.
        counts: what was counted at lines and in zones.
    """

    video: bool = True
    jsonl: bool = False
    csv: bool = False
    parquet: bool = False
    counts: bool = False

    @property
    def names(self) -> list[str]:
        """Names that these files have in the folder."""
        wanted = {
            "annotated.mp4": self.video,
            "detections.jsonl": self.jsonl,
            "detections.csv": self.csv,
            "detections.parquet": self.parquet,
            "counts.json": self.counts,
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]


class VideoFolder:
    """A run's results on their way into a folder, which one run alone writes to.

    Args:
        out: the folder.
        settings: whatever decides the results: a run is only resumed under the same.
        outputs: which files.
        source: path of the video, which is never written over.
        resume: go on with what a run that did not end has left; leave alone what one that did end has written.

    Attributes:
        finished: the run that did all of this before, and whose files are all there: nothing is to be done.
        journal: what is found, where that is None.
        resumed: whether there is something of an earlier run in it.
        found_unfinished: whether there was, be it taken or not.

    Raises:
        ToodError: on entering, if another run writes there, a file that is to be written is somebody else's, or the run
            to resume had other settings, or wrote other files.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], outputs: VideoOutputs, source: str, *, resume: bool
    ) -> None:
        self.out, self.outputs, self.settings = out, outputs, json.loads(json.dumps(dict(settings)))
        self.resumed = self.found_unfinished = False
        self._source, self._resume = source, resume
        self._held = ExitStack()
        self.finished: Finished | None = None
        self.journal: Journal

    def __enter__(self) -> VideoFolder:
        with ExitStack() as held:
            claim(self.out, LOCK, COMMAND, held)
            manifest = Manifest.read(self.out / MANIFEST)
            require_ours(self.out / MANIFEST, manifest is not None, COMMAND)
            self._manifest = manifest or Manifest({})
            found = Journal.read(self.out / UNFINISHED)
            self.found_unfinished = found is not None
            self._refuse_source()
            if found is None and self._resume:
                self.finished = self._done_before()
            if self.finished is not None:
                self._held = held.pop_all()
                return self
            for name in self.outputs.names if found is None or not found.writing else ():
                require_own(self.out, name, COMMAND, self._manifest)
            if found is not None and self._resume:
                require_same_settings(self.out, found.file.settings, self.settings)
                self.journal, self.resumed = found, True
            else:
                self.journal = Journal.begin(self.out / UNFINISHED, self.settings)
            held.callback(self._forget_nothing)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @property
    def frames_before(self) -> int:
        """Number of frames that earlier runs of the same have read, and that are kept."""
        return self.journal.frames if self.finished is None else self.finished.frames

    def _done_before(self) -> Finished | None:
        """The finished run of these settings and files; None if there is none, or a file of it is gone or changed."""
        done = Finished.read(self.out / FINISHED)
        if done is None or not all(self._manifest.holds(self.out, name) for name in done.written):
            return None
        require_same_settings(self.out, done.settings, self.settings)
        other = [name for name in self.outputs.names if name not in done.written]
        if other:
            raise ToodError(
                f"{self.out}: the run that is to be resumed is done, and did not write {', '.join(other)}: leave out "
                "--resume to begin anew, or name another --out"
            )
        return done

    def _forget_nothing(self) -> None:
        """A journal without a line is none."""
        self.journal.file.close()
        if self.journal.file.is_empty:
            self.journal.remove()

    def _refuse_source(self) -> None:
        source = file_identity(Path(self._source).expanduser())
        if any(file_identity(self.out / name) == source for name in self.outputs.names):
            raise ToodError(f"{self._source} is what would be written: name another --out")

    def finish(
        self,
        class_names: Sequence[str],
        times: Sequence[int],
        last: int,
        counts: Mapping[str, Any],
        *,
        frames: int,
        complete: bool,
    ) -> list[str]:
        """Write the results and list them; what is left of the run is removed where it is complete.

        Args:
            class_names: of all classes.
            times: of the frames of the annotated video, in ticks.
            last: how long its last frame is shown.
            counts: of lines and zones.
            frames: that were read.
            complete: whether nothing is left to do.

        Returns:
            Names of the files that were written.
        """
        writers: dict[str, Callable[[Path], None]] = {
            "annotated.mp4": lambda path: join(self.journal.parts(), times, last, path),
            "detections.jsonl": lambda path: write_jsonl(self._lines(), class_names, path),
            "detections.csv": lambda path: write_csv(self._lines(), class_names, path),
            "detections.parquet": lambda path: write_parquet(self._lines(), class_names, path),
            "counts.json": lambda path: _write_counts(counts, path),
        }
        names = [name for name in self.outputs.names if name != "annotated.mp4" or times]
        known = Manifest.read(self.out / MANIFEST) or Manifest({})
        if not self.journal.writing:
            for name in names:
                require_own(self.out, name, COMMAND, known, self._manifest)
            self.journal.mark_writing()
        written = {}
        for name in names:
            with whole_file(self.out / name) as temporary:
                writers[name](temporary)
            written[name] = FileStamp.of(self.out / name)
        files = {**known.files, **self._manifest.files, **written}
        if complete:
            for name in files.keys() - written.keys():  # of an earlier video
                if known.holds(self.out, name):
                    (self.out / name).unlink()
                del files[name]
        Manifest(files).write(self.out / MANIFEST)
        self.journal.mark_writing(False)
        (self.out / FINISHED).unlink(missing_ok=True)
        if complete:
            if frames:
                Finished(self.settings, frames, names).write(self.out / FINISHED)
            self.journal.remove()
        return names

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self.journal.scratch.open(encoding="utf-8") as file:
            for text in file:
                yield json.loads(text)


def _write_counts(counts: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(counts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
