"""What a server is told: its limits, how it computes, who may ask."""

from __future__ import annotations

from dataclasses import dataclass, field

from tood.errors import SettingError


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may cost.

    Attributes:
        body_bytes: of a request's body, and of each picture that is fetched.
        pixels: of one picture.
        pictures: in one request.
        seconds: for a request's body to arrive; then once more for its pictures to be done.
        queue: pictures that were taken and not answered yet; more are refused with 429.
        held_bytes: of all bodies and fetched pictures together that are in memory; more are refused with 429. Decoded
            pictures that wait for the network may be as many again: until there is place, no other is decoded.
        connections: open at once; with so many, a request is refused with 503 when its head has come.
        header_seconds: for a request's first line and headers to arrive.
    """

    body_bytes: int = 32 << 20
    pixels: int = 50_000_000
    pictures: int = 32
    seconds: float = 30.0
    queue: int = 64
    held_bytes: int = 256 << 20
    connections: int = 900
    header_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("body_bytes", "pixels", "pictures", "queue", "held_bytes", "connections"):
            if getattr(self, name) < 1:
                raise SettingError(f"limits.{name}", f"is {getattr(self, name)}: expected at least 1")
        if self.pictures > self.queue:
            raise SettingError("limits.pictures", f"is {self.pictures}: more than the queue of {self.queue} ever takes")


@dataclass(frozen=True)
class BatchConfig:
    """How pictures are computed.

    Attributes:
        lanes: batches that are computed side by side, each in a thread of its own.
        size: pictures of a batch. Every batch is of just this size, filled up with blank pictures, so that the same
            kernels run whatever the load: what a picture gets never depends on how many others came with it.
        wait: seconds that a batch which is not full waits for more pictures of its shape.
    """

    lanes: int = 1
    size: int = 1
    wait: float = 0.005

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.size < 1 or self.wait < 0:
            raise SettingError("batching", f"is {self}: expected at least one lane, one picture and no less than 0 s")


@dataclass(frozen=True)
class ServeConfig:
    """A server's settings.

    Attributes:
        limits, batching: see there.
        url_hosts: where pictures may be fetched from, see `allowed_urls.AllowedUrls`; empty: from nowhere.
        keys: of whom /detect, /models and /metrics are for; empty: for all.
        reload_seconds: between two looks whether a model's file changed; 0 never looks.
    """

    limits: Limits = field(default_factory=Limits)
    batching: BatchConfig = field(default_factory=BatchConfig)
    url_hosts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    reload_seconds: float = 1.0
