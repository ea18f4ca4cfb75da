"""One shard of pictures: fetched, looked at, written as one parquet file."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from socket import EAI_AGAIN, gaierror
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError, URLError

from tood.choices import PredictionPrecision
from tood.clusters.model import ShippedModel
from tood.clusters.pictures import Picture, read_rows
from tood.clusters.plan import Plan
from tood.clusters.storage import Place, telling
from tood.errors import PictureError, ToodError
from tood.inference import Detector, SourceConfig, is_url
from tood.inference.sources import ImageSource, download
from tood.machine import limit_threads
from tood.structures import Detections
from tood.whole_file import scratch_folder

# HTTP statuses of servers that are overloaded, restarted or out of reach of the one before them.
_PASSING = {408, 425, 429, 500, 502, 503, 504}

# Name, type in pyarrow's words, nullable. A row a picture.
SCHEMA: tuple[tuple[str, str], ...] = (
    ("image", "string"),
    ("width", "int32"),
    ("height", "int32"),
    ("error", "string"),
    ("boxes", "list<list<float>>"),
    ("scores", "list<float>"),
    ("labels", "list<int32>"),
    ("names", "list<string>"),
)
"""Columns of the results and their types. `error` is null where the picture was looked at, else why not."""


@dataclass(frozen=True)
class WorkerConfig:
    """How a worker looks at pictures.

    Attributes:
        threshold: least score of a detection.
        batch_size: pictures computed at once.
        device: such as "cpu" or "cuda".
        precision: the same on all machines, so that results do not depend on who made them.
        exif: turn photographs as their EXIF orientation says.
        threads: that compute on a CPU; None leaves PyTorch's.
        readers: pictures fetched at a time: buckets answer slowly, but many at once.
        waits: seconds before each further try of a download that failed in passing (a server that is overloaded, an
            answer that does not come or breaks off): a row with an error is final.
    """

    threshold: float = 0.3
    batch_size: int = 1
    device: str = "cpu"
    precision: PredictionPrecision = "fp32"
    exif: bool = False
    threads: int | None = None
    readers: int = 8
    waits: tuple[float, ...] = (1.0, 4.0, 15.0)


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        number: of the shard.
        pictures: in it.
        failures: pictures that could not be looked at.
        detections: in all of them.
        seconds: that it took; 0 for one whose results were there already.
    """

    number: int
    pictures: int
    failures: int = 0
    detections: int = 0
    seconds: float = 0.0


class ShardWorker:
    """Looks at shards of a plan, one after the other.

    Args:
        plan: the run.
        model: the network.
        config: how.
        begins: told the number of each shard that is begun.
    """

    def __init__(
        self, plan: Plan, model: ShippedModel, config: WorkerConfig, begins: Callable[[int], object] = lambda _: None
    ) -> None:
        self.plan, self.config, self._begins = plan, config, begins
        if config.threads is not None:
            limit_threads(config.threads)
        with scratch_folder() as folder:
            self._detector = Detector(
                model.unpack(folder),
                config.device,
                config.threshold,
                precision=config.precision,
                sources=SourceConfig(exif=config.exif),
            )

    def __call__(self, number: int) -> ShardReport:
        """Looks at a shard and writes its results, unless they are there.

        Raises:
            ToodError: if its list cannot be read or its results not be written; a picture's own error is in its row.
        """
        started = monotonic()
        place, rows = self.plan.part(number), self.plan.shards[number]
        if place.exists():  # by a worker that died when it had written it
            return ShardReport(number, rows.count, failures_in(place))
        self._begins(number)
        found = self.look(read_rows(rows))
        place.write(as_parquet(found))
        failures = sum(row["error"] is not None for row in found)
        detections = sum(len(row["scores"] or ()) for row in found)
        return ShardReport(number, len(found), failures, detections, monotonic() - started)

    def look(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        """A row of results for each picture, in order."""
        rows: list[dict[str, Any]] = [_failed(picture.name, "was not looked at") for picture in pictures]

        def fail(number: str, error: ToodError) -> None:
            # The one who decodes knows pictures by their numbers.
            reason = error.reason if isinstance(error, PictureError) else str(error)
            rows[int(number)] = _failed(pictures[int(number)].name, reason)

        order: deque[int] = deque()
        sources = _sources(pictures, self.config, fail, order)
        unread: set[int] = set()

        def fail_reading(number: str, error: ToodError) -> None:
            unread.add(int(number))
            fail(number, error)

        for result in self._detector.stream(
            sources, keep_image=True, batch_size=self.config.batch_size, on_error=fail_reading
        ):
            while order[0] in unread:
                order.popleft()
            at = order.popleft()
            rows[at] = _row(pictures[at].name, result)
        return rows


def _sources(pictures: Sequence[Picture], config: WorkerConfig, fail: Any, order: deque[int]) -> Iterator[ImageSource]:
    """Each picture's bytes under its number, a few fetched ahead; `order` gets the numbers of those that are given."""
    ahead = 2 * config.readers
    places: dict[str, Place] = {}
    with ThreadPoolExecutor(config.readers) as pool:
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        remaining = iter(enumerate(pictures))
        while True:
            while len(waiting) < ahead and (following := next(remaining, None)) is not None:
                at, picture = following
                waiting.append((at, pool.submit(_fetch, picture, places, config.waits)))
            if not waiting:
                return
            at, content = waiting.popleft()
            try:
                source = ImageSource(str(at), content.result())
            except ToodError as error:
                fail(str(at), error)
                continue
            order.append(at)
            yield source


def _fetch(picture: Picture, places: dict[str, Place], waits: Sequence[float]) -> bytes:
    if isinstance(picture.content, bytes):
        return picture.content
    if is_url(picture.content):
        return _download(picture.content, waits)
    folder, _, name = picture.content.rpartition("/")
    place = places.get(folder)
    if place is None:  # a bucket's file system is made once
        place = places[folder] = Place.of(folder)
    return place.inside(name).read()


def _download(url: str, waits: Sequence[float]) -> bytes:
    """Tried again after each of `waits` seconds while it fails in passing."""
    for wait in waits:
        try:
            return download(url, SourceConfig())
        except ToodError as error:
            if not _passes(error):
                raise
        sleep(wait)
    return download(url, SourceConfig())


def _passes(error: ToodError) -> bool:
    """Whether a download that failed so may succeed a little later."""
    cause = error.__cause__
    if isinstance(cause, HTTPError):
        return cause.code in _PASSING
    if isinstance(cause, URLError) and isinstance(cause.reason, Exception):
        cause = cause.reason
    if isinstance(cause, gaierror):
        return cause.errno == EAI_AGAIN
    return isinstance(cause, (ConnectionError, TimeoutError, HTTPException))


def _failed(name: str, reason: str) -> dict[str, Any]:
    return {column: None for column, _ in SCHEMA} | {"image": name, "error": reason}


def _row(name: str, result: Detections) -> dict[str, Any]:
    assert result.image is not None
    height, width = result.image.shape[:2]
    return {
        "image": name,
        "width": width,
        "height": height,
        "error": None,
        "boxes": result.boxes.tolist(),
        "scores": result.scores.tolist(),
        "labels": result.labels.tolist(),
        "names": result.names,
    }


def failures_in(part: Place) -> int:
    """Pictures that could not be looked at, of a file of results.

    Raises:
        ToodError: if it cannot be read.
    """
    import pyarrow.parquet as pq

    with telling(part.uri, "be read as results"), part.system.open(part.path, "rb") as file:
        errors = pq.ParquetFile(file).read(columns=["error"])["error"]
    return len(errors) - int(errors.null_count)


def as_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """A parquet file of results: the same bytes for the same rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = {"string": pa.string(), "int32": pa.int32(), "float": pa.float32()}

    def kind(text: str) -> pa.DataType:
        return pa.list_(kind(text[5:-1])) if text.startswith("list<") else numbers[text]

    schema = pa.schema([(name, kind(text)) for name, text in SCHEMA])
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), written, compression="zstd")
    return written.getvalue()
