"""What a part is given: the device, how large things are to be, and where its findings go."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.gpu.result import Check, Result

T = TypeVar("T")

# A dry run's figures are of nothing: it only tries whether they can be taken.
DRY_SECONDS = 0.0


class Left(Exception):  # noqa: N818 - no error
    """A part cannot be done here, with the reason for a person."""


@dataclass(frozen=True)
class Settings:
    """What is the same for all parts.

    Attributes:
        dry_run: tiny sizes on the CPU.
        golden: folder of the golden values.
        peers: folder of the peers' environment.
    """

    dry_run: bool
    golden: Path
    peers: Path


class Bench:
    """A part at work; whatever it finds is in its file at once.

    Args:
        settings: of all parts.
        result: what it begins with.
        path: of its file.
        folder: for files of its own, gone afterwards.
        limit: seconds that it may take.

    Attributes:
        device: where it measures.
    """

    def __init__(self, settings: Settings, result: Result, path: Path, folder: Path, limit: float) -> None:
        self.settings, self.result, self.folder = settings, result, folder
        self.device = torch.device("cpu" if settings.dry_run else "cuda")
        self._path, self._began, self._limit = path, time.monotonic(), limit

    @property
    def dry(self) -> bool:
        """Whether sizes are tiny."""
        return self.settings.dry_run

    @property
    def on_gpu(self) -> bool:
        """Whether there is a device to wait for."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until the part is ended."""
        return self._limit - (time.monotonic() - self._began)

    def in_time(self, what: str, seconds: float) -> bool:
        """Whether there is time left for something that takes so long; if not, it is told that it was left out."""
        if self.dry or self.left >= seconds:
            return True
        self.result.left_out.append(what)
        print(f"{what}: left out, the part's time was up.", flush=True)
        self.save()
        return False

    def pick(self, full: T, tiny: T) -> T:
        """The first on a GPU, the second in a dry run."""
        return tiny if self.dry else full

    def fact(self, name: str, text: str) -> None:
        """Tells something of the machine."""
        self.result.facts[name] = text
        self.save()

    def cell(self, table: str, row: str, column: str, value: float, unit: str) -> None:
        """Puts a figure into a table."""
        self.result.tables.setdefault(table, {}).setdefault(row, {})[column] = (value, unit)
        print(f"{table} | {row} | {column}: {value:.6g} {unit}", flush=True)
        self.save()

    def check(self, name: str, met: bool, told: str = "") -> None:
        """Tells whether something that must hold does."""
        self.result.checks.append(Check(name, bool(met), told))
        print(f"{'met' if met else 'MISSED'}: {name}: {told}", flush=True)
        self.save()

    def note(self, sentence: str) -> None:
        """Tells what else a reader should know."""
        self.result.notes.append(sentence)
        print(sentence, flush=True)
        self.save()

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Goes on with what comes after it, whatever fails within; too little memory is told, all else is missed."""
        try:
            yield
        except Left:
            raise
        except Exception as error:
            traceback.print_exc()
            if isinstance(error, torch.OutOfMemoryError) or isinstance(error.__cause__, torch.OutOfMemoryError):
                self.note(f"{name}: the GPU's memory does not hold it.")
            else:
                told = str(error).strip().splitlines() or [""]
                self.check(name, False, f"{type(error).__name__}: {told[0]}")
        finally:
            gc.collect()
            if self.on_gpu:
                torch.cuda.empty_cache()

    def save(self) -> None:
        """Writes what was found so far."""
        self.result.seconds = time.monotonic() - self._began
        self.result.save(self._path)
