"""The folder that `tood predict` writes to: nobody else's file is replaced there, and what was found is never lost.

Each picture's result is a line of a journal as soon as it is there. The json and the CSV are made of the journal at the
end, be it the end of all pictures, a signal or an error; in the last two cases the journal stays, to be resumed from.
"""

from __future__ import annotations

import csv
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.cli.picture_files import PictureFiles
from tood.errors import ToodError
from tood.manifest import FileStamp, Manifest
from tood.structures import Detections
from tood.whole_file import whole_file

MANIFEST = ".tood-predict.json"
"""File in the folder that lists what `tood predict` wrote there."""

JOURNAL = ".tood-predict.unfinished.jsonl"
"""File in the folder that has the results of a run which did not end by itself."""

_VERSION = 1

Key = tuple[str, int]
"""An image of a run: its path or address, and how many of the same came before it."""


@dataclass(frozen=True)
class Outputs:
    """Which files of results are written besides the annotated pictures."""

    json: bool = False
    csv: bool = False

    @property
    def names(self) -> list[str]:
        """Names that these files have in the folder."""
        return ["predictions.json"] * self.json + ["predictions.csv"] * self.csv


def written_before(folder: Path) -> Manifest:
    """The files in a folder that `tood predict` wrote, in runs that ended and in one that did not."""
    manifest = Manifest.read(folder / MANIFEST) or Manifest({})
    journal = _read_journal(folder / JOURNAL)
    if journal is None:
        return manifest
    drawn = {line["picture"]: FileStamp(**line["stamp"]) for line, _ in journal.lines if line["picture"]}
    # Their times are too near to the list's own to be believed.
    return Manifest({**manifest.files, **drawn})


class PredictionFolder:
    """A run's results on their way into a folder, which is made at the first of them.

    Leaving the `with` block completes the json and the CSV, with what there is by then.

    Args:
        out: the folder.
        images: path or address of every image of the run, in order.
        settings: whatever decides the results: a run is only resumed under the same.
        outputs: which files.
        batch_size: images computed together; a resumed run divides them as an uninterrupted one does.
        resume: go on with what a run that did not end has left there, if there is any.

    Attributes:
        to_do: positions in `images` of those of which there is no result yet.
        done: number of results.
        found_unfinished: whether there were results of a run that did not end.
        complete: to be set when nothing is left to do.

    Raises:
        ToodError: if a file that is to be written is somebody else's, or the run to resume had other settings.
    """

    def __init__(
        self,
        out: Path,
        images: Sequence[str],
        settings: Mapping[str, Any],
        outputs: Outputs,
        batch_size: int,
        *,
        resume: bool,
    ) -> None:
        self.out, self.outputs, self.settings = out, outputs, dict(settings)
        self.complete = False
        _require_ours(out / MANIFEST, Manifest.read(out / MANIFEST) is not None)
        journal = _read_journal(out / JOURNAL)
        _require_ours(out / JOURNAL, journal is not None)
        self._before = written_before(out)
        for name in outputs.names:
            _require_own(out, name, self._before)
        self._images = list(_keys(images))
        self._places: dict[Key, range] = {}
        self._results: Counter[str] = Counter()
        self._file: FileIO | None = None
        self._written: dict[str, FileStamp] = {}
        self._pictures = PictureFiles(out, images, self._before)
        self.found_unfinished = journal is not None
        if journal is not None and resume:
            self._take_over(journal, batch_size)
        self.to_do = [at for at, image in enumerate(self._images) if image not in self._places]

    @property
    def done(self) -> int:
        """Number of pictures whose results are written."""
        return len(self._places)

    def __enter__(self) -> PredictionFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            return
        # Where something went wrong it may be the disk: then the journal is what stays.
        unable = () if kind is None else (OSError, ToodError)
        try:
            with suppress(*unable):
                self._finish()
        finally:
            self._file.close()
            if not self._places:
                (self.out / JOURNAL).unlink(missing_ok=True)

    def add(self, result: Detections, picture: NDArray[np.uint8] | None) -> None:
        """Keep a result, and its annotated picture [H, W, 3] uint8 RGB if one is wanted.

        Raises:
            ToodError: if it cannot be written; what was added before is kept.
        """
        source = str(result.path)
        name = ""
        try:
            file = self._journal()
            name = self._pictures.write(source, picture) if picture is not None else ""
            line: dict[str, Any] = {
                "image": source,
                "changed": _change(source),
                "picture": name,
                "stamp": asdict(FileStamp.of(self.out / name)) if name else None,
                "entry": entry(result),
            }
            place = _append(file, line)
        except BaseException as error:
            if name:  # without its line nobody would know whose it is
                (self.out / name).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise ToodError(f"{self.out} cannot be written to: {error.strerror or error}") from error
            raise
        self._places[source, self._results[source]] = place
        self._results[source] += 1
        if name:
            self._written[name] = FileStamp(**line["stamp"])

    def _take_over(self, journal: _Journal, batch_size: int) -> None:
        """The results of a run that did not end, as far as they still hold."""
        other = [key for key, value in self.settings.items() if journal.settings.get(key) != value]
        if other:
            told = ", ".join(f"{key} {journal.settings.get(key)!r}, now {self.settings[key]!r}" for key in other)
            raise ToodError(
                f"{self.out}: the run that is to be resumed had other settings ({told}): give the same, or leave out "
                "--resume to begin anew"
            )
        self._file = (self.out / JOURNAL).open("r+b", buffering=0)
        # A batch that was not whole was computed otherwise than it will be.
        kept = journal.lines[: len(journal.lines) // batch_size * batch_size]
        self._file.truncate(kept[-1][1].stop if kept else journal.header)
        wanted = set(self._images)
        for line, place in kept:
            source, name = line["image"], line["picture"]
            key = (source, self._results[source])
            unchanged = line["changed"] == _change(source) and (not name or self._before.holds(self.out, name))
            if key in wanted and unchanged:
                self._places[key] = place
                self._results[source] += 1
                if name:
                    self._written[name] = FileStamp(**line["stamp"])
                    self._pictures.keep(source, name)

    def _journal(self) -> FileIO:
        """The journal to write to, begun if need be."""
        if self._file is None:
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / JOURNAL
            if _read_journal(path) is not None:
                # Its pictures stay known as ours.
                self._before.write(self.out / MANIFEST)
                path.unlink()
            self._file = path.open("x+b", buffering=0)
            _append(self._file, {"tood predict": _VERSION, "settings": self.settings})
        return self._file

    def _finish(self) -> None:
        """Write the json and the CSV, and list what is ours."""
        assert self._file is not None
        writers: dict[str, Callable[[Path], None]] = {
            "predictions.json": self._write_json,
            "predictions.csv": self._write_csv,
        }
        # As it is now: another run may have ended here in the meantime.
        known = Manifest.read(self.out / MANIFEST) or Manifest({})
        for name in self.outputs.names if self._places else ():
            _require_own(self.out, name, known)
            with whole_file(self.out / name) as temporary:
                writers[name](temporary)
            self._written[name] = FileStamp.of(self.out / name)
        Manifest({**known.files, **self._before.files, **self._written}).write(self.out / MANIFEST)
        if self.complete:
            path = self.out / JOURNAL
            own = path.exists() and os.path.samestat(path.stat(), os.fstat(self._file.fileno()))
            self._file.close()  # Windows removes no open file
            if own:
                path.unlink()

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The results in the order of the images."""
        assert self._file is not None
        for image in self._images:
            if image in self._places:
                self._file.seek(self._places[image].start)
                found: dict[str, Any] = json.loads(self._file.read(len(self._places[image])))["entry"]
                yield found

    def _write_json(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            for number, found in enumerate(self._entries()):
                file.write(",\n" if number else "[\n")
                file.write(_json_text(found))
            file.write("\n]\n")

    def _write_csv(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["image", "name", "label", "score", "x1", "y1", "x2", "y2"])
            for found in self._entries():
                for one in found["detections"]:
                    table.writerow([found["image"], one["name"], one["label"], one["score"], *one["box"]])


def entry(result: Detections) -> dict[str, Any]:
    """A result as the json has it: boxes to 2 decimals, scores to 4."""
    assert result.image is not None
    height, width = result.image.shape[:2]
    rounded = [
        {**one, "box": [round(side, 2) for side in one["box"]], "score": round(one["score"], 4)}
        for one in result.to_dicts()
    ]
    return {"image": result.path, "width": width, "height": height, "detections": rounded}


@dataclass(frozen=True)
class _Journal:
    """A journal as read: its settings, its whole lines with their places in bytes, and the length of its header."""

    settings: Mapping[str, Any]
    lines: Sequence[tuple[dict[str, Any], range]]
    header: int


def _read_journal(path: Path) -> _Journal | None:
    """The journal in a file; None if there is none, or something else."""
    lines: list[tuple[dict[str, Any], range]] = []
    try:
        content = path.read_bytes().splitlines(keepends=True)
        header = json.loads(content[0])
        if header["tood predict"] != _VERSION:
            return None
        place = len(content[0])
        for text in content[1:]:
            if not text.endswith(b"\n"):  # the disk was full, or the process killed
                break
            lines.append((json.loads(text), range(place, place + len(text))))
            place += len(text)
        return _Journal(header["settings"], lines, len(content[0]))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _append(file: FileIO, content: object) -> range:
    """Add a line to a journal; gives its place in bytes."""
    line = json.dumps(content).encode() + b"\n"
    start = file.seek(0, os.SEEK_END)
    if file.write(line) < len(line):
        file.truncate(start)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return range(start, start + len(line))


def _keys(images: Sequence[str]) -> Iterator[Key]:
    seen: Counter[str] = Counter()
    for image in images:
        yield image, seen[image]
        seen[image] += 1


def _change(source: str) -> list[int] | None:
    """By what a changed image is known; None for one that is no file."""
    try:
        found = Path(source).stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _require_own(out: Path, name: str, manifest: Manifest) -> None:
    """Refuse to write a file over one that is not an earlier result."""
    path = out / name
    if os.path.lexists(path) and not manifest.holds(out, name):
        raise ToodError(
            f"{path} was not written by tood predict, or has changed since: move it away, or name another --out"
        )


def _require_ours(path: Path, readable: bool) -> None:
    """Refuse a folder in which something else has the name of our list or journal."""
    if os.path.lexists(path) and (path.is_symlink() or not readable):
        raise ToodError(f"{path} is none of this version of tood predict: move it away, or name another --out")


def _json_text(content: object) -> str:
    text = json.dumps(content, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no Unicode
        return json.dumps(content)
    return text
