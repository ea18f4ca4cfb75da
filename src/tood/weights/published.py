"""Published weights on this machine: those of named models, and those that backbones start from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tood.errors import ToodError
from tood.models.common.detector import BackboneConfig
from tood.models.common.published import PublishedFile
from tood.weights.cache import FetchConfig, fetch
from tood.zoo import ModelCard

MIRROR_VARIABLE = "TOOD_WEIGHTS_MIRROR"


@dataclass(frozen=True)
class HostedFile(PublishedFile):
    """A file of weights that programs may fetch."""

    @property
    def address(self) -> str:
        """Where it is fetched from: `url`, or its path behind $TOOD_WEIGHTS_MIRROR, which names another server."""
        mirror = os.environ.get(MIRROR_VARIABLE)
        return mirror.rstrip("/") + urlsplit(self.url).path if mirror else self.url

    def fetch(self, config: FetchConfig = FetchConfig()) -> Path:  # noqa: B008 - frozen
        """The file, from the cache or from the web.

        Raises:
            ToodError: as `tood.weights.cache.fetch`.
        """
        return fetch(self.address, self.sha256_prefix, config)


# fmt: off
# COCO 2017's, in the order of their ids.
COCO_CLASSES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on


def detector_weights(card: ModelCard, config: FetchConfig = FetchConfig()) -> Path:  # noqa: B008 - frozen
    """The published file of a named model, fetched if need be.

    Raises:
        ToodError: if none was published, only a person can download it, or it cannot be fetched.
    """
    name, published = card.name, card.weights
    if published is None:
        raise ToodError(
            f"'{name}' names an architecture, which knows nothing before it is trained: train it with "
            f"`tood train --model {name}` and give its best.safetensors"
        )
    if published.hosted is None:
        raise ToodError(
            f"a program can fetch the weights of '{name}' from nowhere: download the authors' file from Google Drive, "
            f"{published.authors_url}, and give its path instead of the name, or make a safetensors file of it with "
            "`tood weights import FILE OUT`"
        )
    return HostedFile(published.hosted.url, published.hosted.sha256_prefix).fetch(config)


def imagenet_weights(backbone: BackboneConfig) -> HostedFile | None:
    """The published weights that training of this backbone starts from, None if there are none."""
    published = backbone.imagenet_file
    return None if published is None else HostedFile(published.url, published.sha256_prefix)
