"""A model that is served: its file, the detector of it, and what becomes of requests when the file changes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tood.errors import ToodError
from tood.file_identity import file_identity, size_and_time
from tood.inference import Detector
from tood.ops.allocator import return_freed_memory
from tood.weights import locate_weights
from tood.whole_file import sha256_of


@dataclass(frozen=True)
class ModelSource:
    """What to load, and under which name it is asked for."""

    name: str
    model: str


def model_sources(words: Sequence[str]) -> list[ModelSource]:
    """Models as a person lists them, `NAME=MODEL` or `MODEL`, which is named after its file or its run's folder.

    Raises:
        ToodError: if two have one name.
    """
    sources = [_source(word) for word in words]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ToodError(
                f"two models are called {name}: give each a name of its own, as in first=MODEL second=MODEL"
            )
    return sources


def _source(word: str) -> ModelSource:
    name, equals, model = word.partition("=")
    if equals and name and "/" not in name and not Path(word).exists():
        return ModelSource(name, model)
    path = Path(word)
    plain = path.stem if path.suffix and path.stem not in ("best", "last", "model") else path.name
    if path.suffix and path.stem in ("best", "last", "model"):
        plain = path.absolute().parent.name
    return ModelSource(plain or word, word)


@dataclass(frozen=True)
class LoadedModel:
    """A detector and what it was loaded from.

    Attributes:
        detector: computes.
        version: the first 12 digits of its file's SHA-256; of several files, of all their SHA-256.
        loaded: when, in seconds since 1970.
    """

    detector: Detector
    version: str
    loaded: float


class ServedModel:
    """The newest good content of a model's files: OpenVINO's .xml has its numbers in a .bin beside it.

    Pictures keep the detector that they were prepared by: while a new one is loaded and after it took its place, the
    former computes what it has taken.

    Args:
        source: what to load.
        load: makes a detector of a file or name.
        warm_up: computes something with a fresh detector, so that no request waits for what is done once.
    """

    def __init__(
        self, source: ModelSource, load: Callable[[str], Detector], warm_up: Callable[[Detector], None]
    ) -> None:
        self.name, self._source = source.name, source.model
        self._load, self._warm_up = load, warm_up
        self._files = locate_weights(source.model).files
        self._stamp = self._seen = _stamp(self._files)
        self.current = self._loaded()

    def refresh(self) -> bool:
        """Loads the files again if one changed and all rest since the last look; whether it did.

        Raises:
            ToodError: if what is there now cannot be loaded; the former model stays, until a file changes again.
        """
        stamp = _stamp(self._files)
        if stamp is None:  # between two files: the next look finds the new one
            return False
        resting, self._seen = stamp == self._seen, stamp
        if stamp == self._stamp or not resting:
            return False
        self._stamp = stamp
        try:
            self.current = self._loaded()
        except ToodError:
            raise
        except Exception as error:  # half a file, of any kind: the server goes on with the former
            raise ToodError(f"{self._files[0]} cannot be loaded: {error}") from error
        return_freed_memory()
        return True

    def _loaded(self) -> LoadedModel:
        detector = self._load(self._source)
        self._warm_up(detector)
        return LoadedModel(detector, _digest(self._files)[:12], time.time())


def _stamp(files: Sequence[Path]) -> tuple[object, ...] | None:
    """What tells one content of these files from the next without reading them; None if one is not there."""
    looks = [size_and_time(str(path)) for path in files]
    return None if None in looks else (looks, [file_identity(path) for path in files])


def _digest(files: Sequence[Path]) -> str:
    digests = [sha256_of(path) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
