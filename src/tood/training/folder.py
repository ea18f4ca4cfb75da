"""A run's folder: claimed by one run, locked while it is written, given back where nothing came of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal

from tood.errors import ToodError
from tood.folder_lock import FolderLock, give_back, make_folder
from tood.processes import Launch
from tood.training.checkpoint import CHECKPOINT, DAMAGED, NUMBERED, is_checkpoint
from tood.whole_file import remove_unfinished, whole_file

Resume = bool | Literal["auto"]

CONFIG = "config.yaml"
# By which a run's configuration is told from another program's file of that name: how its first line begins.
CONFIG_MARK = "# tood train --config "
LOCK = ".tood-running"
# Which start of torchrun the run in the folder is of, which alone may go on with it by itself.
LAUNCH = ".tood-launch.json"
RUNS = Path("runs")

_WRITTEN = (CONFIG, "metrics.csv", "best.safetensors", "last.safetensors", CHECKPOINT, DAMAGED, "tensorboard")
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class RunFolder:
    """A folder that this run alone writes to.

    Attributes:
        path: of it.
        resumes: whether a run is in it already, to go on with.
    """

    path: Path
    resumes: bool = False


@contextmanager
def claimed_folder(
    out: Path | None,
    candidates: Iterable[Path],
    resume: Resume = False,
    also: Sequence[str] = (),
    launch: Launch | None = None,
) -> Iterator[RunFolder]:
    """The folder of a run, its alone while this lasts.

    It is made if need be, and locked (`FolderLock`). Where the body fails before anything is written, what was made
    goes again.

    Args:
        out: the folder that the person named, None for the first of `candidates` that does not exist.
        candidates: where to look for one.
        resume: True goes on with the run in `out`, "auto" does so if there is one, False wants none there.
        also: names of more that the caller writes into a new run's folder.
        launch: torchrun's, if that started this process and may do so again: its next attempt goes on with the run of
            the one before, and with no other.

    Raises:
        ToodError: another run is writing there, the folder holds a run that is not to be resumed, or files that this
            one would replace, or it cannot be written.
    """
    if resume is True and out is not None:
        _require_run(out)
    made: list[Path] = []
    try:
        lock = _first_free(candidates, made) if out is None else _named(out, made)
    except OSError as error:
        give_back(made)
        where = error.filename or out
        raise ToodError(f"{where} cannot be written: {error.strerror or error}; give another --out") from error
    except ToodError:
        give_back(made)
        raise
    done = recorded = False
    try:
        resumes = _look_into(lock.folder, resume or _is_next_attempt(lock.folder, launch), also)
        if launch is not None:
            _write_launch(lock.folder / LAUNCH, launch)
            recorded = True
        yield RunFolder(lock.folder, resumes)
        done = True
    finally:
        if recorded and not done and not holds_run(lock.folder):
            with suppress(OSError):
                (lock.folder / LAUNCH).unlink()
        lock.release()
        if not done:
            give_back(made)


def next_run_folder(name: str, parent: Path = RUNS) -> Path:
    """`runs/<name>-1`, or the next number that is free now; `train` claims it."""
    return next(folder for folder in run_folders(name, parent) if not folder.exists())


def run_folders(name: str, parent: Path = RUNS, unnumbered: bool = False) -> Iterator[Path]:
    """`runs/<name>-1`, `runs/<name>-2` and so on for ever.

    Args:
        name: of the run.
        parent: of the folders.
        unnumbered: the first one is `runs/<name>`.
    """
    numbered = (parent / f"{name}-{number}" for number in count(2 if unnumbered else 1))
    return chain([parent / name], numbered) if unnumbered else numbered


def latest_run_folder(parent: Path = RUNS) -> Path:
    """The folder whose checkpoint is the newest.

    Raises:
        ToodError: if there is none.
    """
    checkpoints = sorted(parent.glob(f"*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise ToodError(f"there is no run to resume in {parent}/: name its folder with --out")
    return checkpoints[-1].parent


def holds_run(folder: Path) -> bool:
    """Whether a run of this package is in it: by the mark in its configuration, or in its checkpoint."""
    try:
        with (folder / CONFIG).open(encoding="utf-8", errors="replace") as file:
            marked = file.read(len(CONFIG_MARK)) == CONFIG_MARK
    except OSError:
        return False
    return marked or is_checkpoint(folder / CHECKPOINT)


def _require_run(out: Path) -> None:
    if not (out / CONFIG).exists():
        raise ToodError(f"there is no run in {out} to resume: leave --resume out to start a new one")
    if not holds_run(out):
        raise ToodError(
            f"{out / CONFIG} is not of a run of tood (such a file begins with '{CONFIG_MARK.strip()}'): there is "
            "nothing to resume; give the --out of a run"
        )


def _look_into(out: Path, resume: Resume, also: Sequence[str]) -> bool:
    """Whether to go on with a run in the folder, which is locked."""
    if holds_run(out):
        if resume is False:
            raise ToodError(f"{out} already holds a run: add --resume to continue it, or give another --out")
        remove_unfinished(out)
        return True
    names = [name for name in (*_WRITTEN, *also) if os.path.lexists(out / name)]
    names += [path.name for path in out.glob("checkpoint-*.pt") if re.fullmatch(NUMBERED, path.name)]
    if names:
        shown = ", ".join(names[:_NAMED_AT_MOST]) + (", ..." if len(names) > _NAMED_AT_MOST else "")
        raise ToodError(
            f"{out} holds no run of tood, but {shown}, which a run would replace: give another --out, or move "
            f"{'them' if len(names) > 1 else 'it'} away"
        )
    return False


def _is_next_attempt(out: Path, launch: Launch | None) -> bool:
    """Whether the run in the folder is of an earlier attempt of the launch."""
    if launch is None or launch.attempt == 0:
        return False
    try:
        return launch.is_same(Launch(**json.loads((out / LAUNCH).read_text("utf-8"))))
    except (OSError, ValueError, TypeError):
        return False


def _write_launch(path: Path, launch: Launch) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(launch)), encoding="utf-8")


# --- claiming ------------------------------------------------------------------------------------------------------


def _first_free(candidates: Iterable[Path], made: list[Path]) -> FolderLock:
    for folder in candidates:
        if os.path.lexists(folder) or not make_folder(folder, made):
            continue
        lock = FolderLock(folder, LOCK)
        if lock.acquire():
            return lock
        made.remove(folder)  # of who named it, and was faster
    raise AssertionError("the candidates never end")


def _named(out: Path, made: list[Path]) -> FolderLock:
    make_folder(out, made)
    lock = FolderLock(out, LOCK)
    if not lock.acquire():
        raise ToodError(f"a run is being written to {out} by {lock.holder}: wait for its end, or give another --out")
    return lock
