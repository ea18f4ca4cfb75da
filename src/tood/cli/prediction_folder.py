"""The folder that `tood predict` writes to: nobody else's file is replaced there, and what was found is never lost.

Each picture's result is a line of a journal as soon as it is there. The json and the CSV are made of the journal at the
end, be it the end of all pictures, a signal or an error; in the last two cases, and where pictures could not be read,
the journal stays, to be resumed from.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.claimed_folder import claim, not_writable, require_ours, require_own, require_same_settings
from tood.cli.picture_files import PictureFiles
from tood.cli.tile_journal import remove_done
from tood.errors import ToodError
from tood.file_identity import size_and_time
from tood.manifest import FileStamp, Manifest
from tood.run_journal import RunJournal
from tood.structures import Detections
from tood.whole_file import whole_file

MANIFEST = ".tood-predict.json"
"""File in the folder that lists what `tood predict` wrote there."""

JOURNAL = ".tood-predict.unfinished.jsonl"
"""File in the folder that has the results of a run which did not end by itself."""

LOCK = ".tood-predict.running"
"""File in the folder that is there while `tood predict` writes to it."""

WRITING = ".tood-predict.writing"
"""File in the folder that is there while json and CSV are written: until they are listed, too, they are ours."""

_COMMAND, _VERSION = "tood predict", 1

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
    return _written(Manifest.read(folder / MANIFEST) or Manifest({}), _read_journal(folder / JOURNAL)[1])


def _written(manifest: Manifest, lines: Sequence[Mapping[str, Any]]) -> Manifest:
    if not lines:
        return manifest
    drawn = {line["picture"]: FileStamp(**line["stamp"]) for line in lines if line["picture"]}
    # Their times are too near to the list's own to be believed.
    return Manifest({**manifest.files, **drawn})


class PredictionFolder:
    """A run's results on their way into a folder, which one run alone writes to.

    Entering the `with` block makes the folder, locks it and looks what is there. Leaving it completes the json and the
    CSV, with what there is by then; where that is nothing, what was made goes again.

    Args:
        out: the folder.
        images: path or address of every image of the run, in order.
        settings: whatever decides the results: a run is only resumed under the same.
        outputs: which files.
        batch_size: images computed together; a resumed run divides them as an uninterrupted one does.
        resume: go on with what a run that did not end has left there, if there is any.
        writes: whether anything will be added; else the folder is neither made nor locked.

    Attributes:
        to_do: positions in `images` of those of which there is no result yet.
        done: number of results.
        found_unfinished: whether there were results of a run that did not end.
        complete: to be set when nothing is left to do.
        failed: to be set where pictures could not be read: what was found stays to be resumed from, for them alone.

    Raises:
        ToodError: on entering, if another run writes there, a file that is to be written is somebody else's, or the run
            to resume had other settings.
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
        writes: bool = True,
    ) -> None:
        self.out, self.outputs, self.settings = out, outputs, dict(settings)
        self.complete = self.failed = self.found_unfinished = False
        self.to_do: list[int] = []
        self._batch_size, self._resume, self.writes = batch_size, resume, writes
        self._images = list(_keys(images))
        self._places: dict[Key, range] = {}
        self._results: Counter[str] = Counter()
        self._held = ExitStack()
        self._journal: RunJournal | None = None
        self._written: dict[str, FileStamp] = {}

    @property
    def done(self) -> int:
        """Number of pictures whose results are written."""
        return len(self._places)

    def __enter__(self) -> PredictionFolder:
        with ExitStack() as held:
            if self.writes:
                self._claim(held)
            self._look()
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._held:
            if self._journal is None:
                return
            # Where something went wrong it may be the disk: then the journal is what stays.
            unable = () if kind is None else (OSError, ToodError)
            try:
                with suppress(*unable):
                    self._finish()
            finally:
                self._journal.close()
                if not self._places:
                    (self.out / JOURNAL).unlink(missing_ok=True)

    def _claim(self, held: ExitStack) -> None:
        """Make the folder and lock it, until `held` is closed."""
        claim(self.out, LOCK, _COMMAND, held)

    def _look(self) -> None:
        """What is in the folder: which files may be replaced, and what is done already."""
        manifest, (journal, lines) = Manifest.read(self.out / MANIFEST), _read_journal(self.out / JOURNAL)
        require_ours(self.out / MANIFEST, manifest is not None, _COMMAND)
        require_ours(self.out / JOURNAL, journal is not None, _COMMAND)
        self._before = _written(manifest or Manifest({}), lines)
        killed_while_writing = journal is not None and (self.out / WRITING).exists()
        for name in () if killed_while_writing else self.outputs.names:
            require_own(self.out, name, _COMMAND, self._before)
        # What was drawn last may be without its line in the journal.
        adopted = self._batch_size if journal is not None and self._resume else 0
        self._pictures = PictureFiles(self.out, [source for source, _ in self._images], self._before, adopted)
        self.found_unfinished = journal is not None
        if journal is not None and self._resume:
            self._take_over(journal, lines)
        self.to_do = [at for at, image in enumerate(self._images) if image not in self._places]

    def add(
        self,
        result: Detections,
        picture: NDArray[np.uint8] | None,
        size: tuple[int, int] | None = None,
        *,
        tiled: bool = False,
    ) -> None:
        """Keep a result, and its annotated picture [H, W, 3] uint8 RGB if one is wanted.

        Args:
            result: of one image.
            picture: to be written.
            size: (height, width) of the image, where the result does not carry it.
            tiled: it was looked at by tiles, and shares no batch with others.

        Raises:
            ToodError: if it cannot be written; what was added before is kept.
        """
        source = str(result.path)
        name = ""
        try:
            journal = self._begun()
            name = self._pictures.write(source, picture) if picture is not None else ""
            line: dict[str, Any] = {
                "image": source,
                "changed": size_and_time(source),
                "picture": name,
                "stamp": asdict(FileStamp.of(self.out / name)) if name else None,
                "entry": entry(result, size),
                **({"tiled": True} if tiled else {}),
            }
            place = journal.add(line)
        except BaseException as error:
            if name:  # without its line nobody would know whose it is
                (self.out / name).unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise not_writable(self.out, error) from error
            raise
        self._places[source, self._results[source]] = place
        self._results[source] += 1
        if name:
            self._written[name] = FileStamp(**line["stamp"])

    def _take_over(self, journal: RunJournal, lines: Sequence[Mapping[str, Any]]) -> None:
        """The results of a run that did not end, as far as they still hold."""
        require_same_settings(self.out, journal.settings, self.settings)
        self._journal = journal
        # A batch that was not whole was computed otherwise than it will be.
        ordinary = [number for number, line in enumerate(lines) if not line.get("tiled")]
        begun = set(ordinary[len(ordinary) // self._batch_size * self._batch_size :])
        kept = [number for number in range(len(lines)) if number not in begun]
        journal.keep(kept)
        journal.open()
        wanted = set(self._images)
        for at, number in enumerate(kept):
            line, place = lines[number], journal.place(at)
            source, name = line["image"], line["picture"]
            key = (source, self._results[source])
            unchanged = line["changed"] == size_and_time(source) and (not name or self._before.holds(self.out, name))
            if key in wanted and unchanged:
                self._places[key] = place
                self._results[source] += 1
                if name:
                    self._written[name] = FileStamp(**line["stamp"])
                    self._pictures.keep(source, name)

    def _begun(self) -> RunJournal:
        """The journal to write to, begun if need be."""
        if self._journal is None:
            if self.found_unfinished:
                # Its pictures stay known as ours.
                self._before.write(self.out / MANIFEST)
            self._journal = RunJournal.begin(self.out / JOURNAL, {_COMMAND: _VERSION, "settings": self.settings})
            self._journal.open()
        return self._journal

    def _finish(self) -> None:
        """Write the json and the CSV, and list what is ours."""
        assert self._journal is not None
        writers: dict[str, Callable[[Path], None]] = {
            "predictions.json": self._write_json,
            "predictions.csv": self._write_csv,
        }
        # As it is now: another run may have ended here in the meantime.
        known = Manifest.read(self.out / MANIFEST) or Manifest({})
        names = self.outputs.names if self._places else []
        if not (self.out / WRITING).exists():
            for name in names:
                require_own(self.out, name, _COMMAND, known, self._before)
            (self.out / WRITING).touch()
        for name in names:
            with whole_file(self.out / name) as temporary:
                writers[name](temporary)
            self._written[name] = FileStamp.of(self.out / name)
        Manifest({**known.files, **self._before.files, **self._written}).write(self.out / MANIFEST)
        (self.out / WRITING).unlink(missing_ok=True)
        if self.complete:
            remove_done(self.out, self._results)
        if self.complete and not self.failed:
            self._journal.remove()

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The results in the order of the images."""
        assert self._journal is not None
        for image in self._images:
            if image in self._places:
                found: dict[str, Any] = self._journal.at(self._places[image])["entry"]
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


def entry(result: Detections, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """A result as the json has it: boxes to 2 decimals, scores to 4; `size` is as of `PredictionFolder.add`."""
    if size is None:
        assert result.image is not None
        size = (result.image.shape[0], result.image.shape[1])
    height, width = size
    rounded = [
        {**one, "box": [round(side, 2) for side in one["box"]], "score": round(one["score"], 4)}
        for one in result.to_dicts()
    ]
    return {"image": result.path, "width": width, "height": height, "detections": rounded}


def _read_journal(path: Path) -> tuple[RunJournal | None, list[dict[str, Any]]]:
    """The journal in a file, and its lines; None and no lines if there is none, or something else."""
    lines: list[dict[str, Any]] = []
    journal = RunJournal.read(path, _COMMAND, _VERSION, lines.append)
    return (None, []) if journal is None else (journal, lines)


def _keys(images: Sequence[str]) -> Iterator[Key]:
    seen: Counter[str] = Counter()
    for image in images:
        yield image, seen[image]
        seen[image] += 1


def _json_text(content: object) -> str:
    text = json.dumps(content, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no Unicode
        return json.dumps(content)
    return text
