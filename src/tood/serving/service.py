"""What serves: models, the queue in front of them, and how much of it may be taken."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from tood.data.images import decode_image, image_size
from tood.errors import ToodError
from tood.inference import Detector, PreparedImage, SourceConfig, download
from tood.ops.allocator import return_freed_memory
from tood.serving.allowed_urls import AllowedUrls
from tood.serving.batcher import Batcher, Computed, Job
from tood.serving.config import ServeConfig
from tood.serving.keys import Keys
from tood.serving.log import JsonLog
from tood.serving.metrics import Metrics
from tood.serving.refusal import Refusal
from tood.serving.served_model import LoadedModel, ModelSource, ServedModel
from tood.serving.submitted import Submitted
from tood.serving.warm_up import warm_up

# Threads that fetch, apart from those that decode: a slow server elsewhere holds up nobody who sent a picture.
_FETCHERS = 8
_FETCH_SECONDS = 10.0


@dataclass(eq=False)
class Pending:
    """A picture that was taken.

    Attributes:
        name: for the answer.
        loaded: the model that answers.
        result: its detections, or why there are none.
        since: when it was taken.
        width, height: of the picture, once it is decoded.
        read_seconds: what fetching and decoding took.
    """

    name: str
    loaded: LoadedModel
    result: Future[Computed] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    width: int = 0
    height: int = 0
    read_seconds: float = 0.0

    def fail(self, error: Exception) -> None:
        """Tells whoever waits for it why there is no result."""
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


class Hold:
    """What one request's body, and what is fetched for it, takes of the memory for all of them.

    Args:
        change: tells the service of more bytes, or of fewer; raises a Refusal where there is no place.
    """

    def __init__(self, change: Callable[[int], None]) -> None:
        self._change, self._bytes, self._readers = change, 0, 1
        self._lock = threading.Lock()

    def grow(self, count: int) -> None:
        """Takes so many bytes more.

        Raises:
            Refusal: if other bodies fill the memory.
        """
        self._change(count)
        with self._lock:
            self._bytes += count

    def share(self, readers: int) -> None:
        """So many pictures of the body are still to be read."""
        self._readers = readers

    def release(self) -> None:
        """One of them is read."""
        with self._lock:
            self._readers -= 1
            left, self._bytes = self._bytes, 0 if self._readers <= 0 else self._bytes
        if self._readers <= 0 and left:
            self._change(-left)


class Service:
    """Takes pictures, as many as there is place for, and answers each.

    Args:
        sources: the models; the first answers where none is named.
        load: makes a detector of a file or name.
        config: limits and the like.
        log: where events go.

    Attributes:
        closing: set when it takes nothing more.
    """

    def __init__(
        self, sources: Sequence[ModelSource], load: Callable[[str], Detector], config: ServeConfig, log: JsonLog
    ) -> None:
        self.config, self.log = config, log
        self.urls, self.keys = AllowedUrls.of(config.url_hosts), Keys(config.keys)
        self._lock = threading.Lock()
        # What is still fetched is not in the queue: a slow server elsewhere takes nobody's place there.
        self._taken, self._fetching, self._answered, self._held = 0, 0, 0, 0
        self._pace = 0.05  # seconds a picture, smoothed
        self.metrics = Metrics(lambda: self._taken, config.limits.queue)
        warmed = partial(warm_up, size=config.batching.size)
        self.models = {source.name: ServedModel(source, load, warmed) for source in sources}
        for name in self.models:
            self.metrics.reloads.labels(name, "failed")
        self.batcher = Batcher(config.batching, self._watch_batch, config.limits.held_bytes)
        self._decoders = ThreadPoolExecutor(config.batching.lanes, thread_name_prefix="decode")
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")
        self.closing = threading.Event()
        for name, model in self.models.items():
            self.metrics.loaded.labels(name).set(model.current.loaded)
        self._watcher = threading.Thread(target=self._watch_files, name="watch", daemon=True)
        self._watcher.start()

    def model(self, name: str | None) -> ServedModel:
        """The model of this name; the first for None.

        Raises:
            Refusal: if there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Refusal(404, "no_model", f"there is no model '{name[:60]}' here: {', '.join(self.models)}")
        return self.models[name]

    def hold(self) -> Hold:
        """For one request's body."""
        return Hold(self._change_held)

    def take(self, pictures: Sequence[Submitted], model: ServedModel, exif: bool, hold: Hold) -> list[Pending]:
        """Takes all pictures of a request, or none.

        Args:
            pictures: of one request.
            model: that is to answer.
            exif: turn them as their EXIF orientation says.
            hold: released when all are read.

        Raises:
            Refusal: if they are too many, from where they may not be, or there is no place for them now.
        """
        limits = self.config.limits
        if len(pictures) > limits.pictures:
            raise Refusal(
                413, "too_many_pictures", f"{len(pictures)} pictures in a request are more than {limits.pictures}"
            )
        for picture in pictures:
            if isinstance(picture.content, str):
                try:
                    self.urls.check(picture.content)
                except ToodError as error:
                    raise Refusal(403, "url", str(error)) from error
        addresses = sum(isinstance(picture.content, str) for picture in pictures)
        with self._lock:
            if self._taken + len(pictures) > limits.queue or self._fetching + addresses > limits.queue:
                raise self._busy()
            self._fetching += addresses
            self._taken += len(pictures) - addresses
        hold.share(len(pictures))
        loaded = model.current
        pending = [Pending(picture.name, loaded) for picture in pictures]
        for picture, one in zip(pictures, pending, strict=True):
            if isinstance(picture.content, str):
                self._fetchers.submit(self._fetch, picture, one, exif, hold)
            else:
                self._decoders.submit(self._read, picture, one, exif, hold)
        return pending

    def close(self) -> None:
        """Answers what was taken, then ends all threads."""
        self.closing.set()
        self._fetchers.shutdown()
        self._decoders.shutdown()
        self.batcher.close()
        self._watcher.join()

    def _fetch(self, picture: Submitted, pending: Pending, exif: bool, hold: Hold) -> None:
        """Fetches a picture's bytes, and puts it in the queue."""
        try:
            if not pending.result.cancelled():
                picture = Submitted(picture.name, self._fetched(str(picture.content), pending.since, hold))
        except Exception as error:
            pending.fail(error)
        with self._lock:
            self._fetching -= 1
            self._taken += 1
            full = self._taken > self.config.limits.queue
        if full and not pending.result.done():
            pending.fail(self._busy())
        self._decoders.submit(self._read, picture, pending, exif, hold)

    def _read(self, picture: Submitted, pending: Pending, exif: bool, hold: Hold) -> None:
        """Decodes a picture, lays it out for the network and hands it on."""
        try:
            if pending.result.done():  # given up, or not to be fetched
                return
            started = time.monotonic()
            image = self._decoded(picture, pending, exif)
            pending.read_seconds = time.monotonic() - started
            self.metrics.stage_seconds.labels("decode").observe(pending.read_seconds)
            self.batcher.put(Job(pending.loaded.detector, image, pending.result))
        except Exception as error:  # whoever waits for it is told
            pending.fail(error)
        finally:
            hold.release()
            pending.result.add_done_callback(self._release)

    def _fetched(self, url: str, since: float, hold: Hold) -> bytes:
        """The bytes at an address, for a picture taken then: none is fetched for longer than it is waited for."""
        limits = self.config.limits
        seconds = min(_FETCH_SECONDS, limits.seconds - (time.monotonic() - since))
        patience = SourceConfig(url_timeout=seconds / 2, url_deadline=seconds, url_max_bytes=limits.body_bytes)
        try:
            return download(url, patience, self.urls.opener, hold.grow)
        except ToodError as error:
            raise Refusal(422, "fetch", str(error)) from error

    def _decoded(self, picture: Submitted, pending: Pending, exif: bool) -> PreparedImage:
        assert isinstance(picture.content, bytes)
        limit = self.config.limits.pixels
        try:
            width, height = image_size(picture.content, name=picture.name)
            if width * height > limit:
                raise Refusal(
                    413, "pixels", f"{picture.name}: {width}x{height} pixels are more than the {limit:,} served here"
                )
            pixels = decode_image(picture.content, exif=exif, max_pixels=limit, name=picture.name).pixels
        except ToodError as error:
            raise Refusal(422, "picture", str(error)) from error
        pending.height, pending.width = pixels.shape[:2]
        return pending.loaded.detector.prepare(pixels)

    def _release(self, _: Future[Computed]) -> None:
        with self._lock:
            self._taken -= 1
            self._answered += 1

    def _change_held(self, count: int) -> None:
        with self._lock:
            if count > 0 and self._held + count > self.config.limits.held_bytes:
                raise Refusal(429, "memory", "the server is busy with large requests: try again", self._retry_after())
            self._held += count
            self.metrics.held_bytes.set(self._held)

    def _busy(self) -> Refusal:
        return Refusal(429, "queue", "the server is busy: try again", self._retry_after())

    def _retry_after(self) -> int:
        """Whole seconds until about half of the queue is done."""
        return max(1, math.ceil(self._taken * self._pace / 2))

    def _watch_batch(self, computed: Computed) -> None:
        self.metrics.batch_pictures.observe(computed.batch)
        self.metrics.stage_seconds.labels("wait").observe(computed.waited)
        self.metrics.stage_seconds.labels("compute").observe(computed.computed)
        pace = computed.computed / (computed.batch * self.config.batching.lanes)
        self._pace += 0.1 * (pace - self._pace)

    def _watch_files(self) -> None:
        """Loads changed files; gives memory back when there is nothing to do."""
        answered = 0
        while not self.closing.wait(self.config.reload_seconds or 1.0):
            if self.config.reload_seconds:
                for model in self.models.values():
                    self._refresh(model)
            if self._answered != answered and not self._taken:
                return_freed_memory()
                answered = self._answered

    def _refresh(self, model: ServedModel) -> None:
        try:
            if not model.refresh():
                return
        except ToodError as error:
            self.metrics.reloads.labels(model.name, "failed").inc()
            self.log("error", "reload", {"model": model.name, "error": str(error)})
            return
        self.metrics.reloads.labels(model.name, "done").inc()
        self.metrics.loaded.labels(model.name).set(model.current.loaded)
        self.log("info", "reload", {"model": model.name, "version": model.current.version})


def stop_waiting(pending: Sequence[Pending]) -> None:
    """Nobody wants these pictures any more; those that are not computed yet are left out."""
    for one in pending:
        one.result.cancel()
