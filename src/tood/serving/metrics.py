"""What Prometheus is told; docs/serving.md lists the names, which dashboards are made of."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one server.

    Args:
        waiting: how many pictures were taken and not answered yet.
        limit: how many may be.
    """

    def __init__(self, waiting: Callable[[], int], limit: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter("tood_requests", "Requests answered.", ("route", "code"), registry=self.registry)
        self.request_seconds = Histogram(
            "tood_request_seconds",
            "From a request's headers to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refused = Counter("tood_refused", "Requests not done, by reason.", ("reason",), registry=self.registry)
        self.pictures = Counter("tood_pictures", "Pictures answered.", ("model",), registry=self.registry)
        self.detections = Counter("tood_detections", "Objects found in them.", ("model",), registry=self.registry)
        self.stage_seconds = Histogram(
            "tood_stage_seconds",
            "Of a picture: decode (with fetching), wait (in the queue), compute (with its batch).",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_pictures = Histogram(
            "tood_batch_pictures", "Pictures of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )
        queue = Gauge("tood_queue_pictures", "Pictures taken and not answered yet.", registry=self.registry)
        queue.set_function(waiting)
        Gauge("tood_queue_limit", "How many of them there may be.", registry=self.registry).set(limit)
        self.held_bytes = Gauge("tood_held_bytes", "Bytes of request bodies in memory.", registry=self.registry)
        self.loaded = Gauge(
            "tood_model_loaded_timestamp_seconds", "When a model was loaded.", ("model",), registry=self.registry
        )
        # A rate sees no first failure in a series that begins with it.
        self.requests.labels("/detect", "500")
        self.reloads = Counter("tood_model_reloads", "Changed files.", ("model", "result"), registry=self.registry)

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self.registry)
