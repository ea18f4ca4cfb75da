"""Where published weights are: detectors by name, ImageNet backbones by shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from tood.errors import ToodError
from tood.models.backbones import ResNetConfig
from tood.weights.cache import FetchConfig, fetch

MIRROR_VARIABLE = "TOOD_WEIGHTS_MIRROR"

_MMDETECTION = "https://download.openmmlab.com/mmdetection/v2.0"
_TORCHVISION = "https://download.pytorch.org/models"


@dataclass(frozen=True)
class HostedFile:
    """A file of weights on the web.

    Attributes:
        url: its address.
        sha256_prefix: first hexadecimal digits of its SHA-256.
    """

    url: str
    sha256_prefix: str

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
class PublishedWeights:
    """Where weights of a named model are.

    Attributes:
        hosted: the file that is fetched by name, None where nobody hosts one for programs.
        authors_drive_id: the original authors' file on Google Drive, which only a person can download.
    """

    hosted: HostedFile | None
    authors_drive_id: str | None = None

    @property
    def authors_url(self) -> str | None:
        """The page from which a person downloads the authors' file."""
        if self.authors_drive_id is None:
            return None
        return f"https://drive.google.com/file/d/{self.authors_drive_id}/view"


def _mmdetection(path: str, sha256_prefix: str) -> HostedFile:
    return HostedFile(f"{_MMDETECTION}/{path}-{sha256_prefix}.pth", sha256_prefix)


def _torchvision(name: str, sha256_prefix: str) -> HostedFile:
    return HostedFile(f"{_TORCHVISION}/{name}-{sha256_prefix}.pth", sha256_prefix)


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

# All are of these classes.
_DETECTORS: Mapping[str, PublishedWeights] = MappingProxyType(
    {
        "tood_r50_fpn_1x": PublishedWeights(
            _mmdetection("tood/tood_r50_fpn_1x_coco/tood_r50_fpn_1x_coco_20211210_103425", "20e20746"),
            "1M7ccIsfQKA5pEtgMlRSadokLu_cFKO4B",
        ),
        "tood_r50_fpn_anchor_based_1x": PublishedWeights(
            _mmdetection(
                "tood/tood_r50_fpn_anchor_based_1x_coco/tood_r50_fpn_anchor_based_1x_coco_20211214_100105", "b776c134"
            ),
            "1G3Waqs3Xh7h1bfwcUfek91S1JKRCTAdV",
        ),
        "tood_r50_fpn_2x": PublishedWeights(
            _mmdetection("tood/tood_r50_fpn_mstrain_2x_coco/tood_r50_fpn_mstrain_2x_coco_20211210_144231", "3b23174c"),
        ),
        "tood_r101_fpn_2x": PublishedWeights(
            _mmdetection(
                "tood/tood_r101_fpn_mstrain_2x_coco/tood_r101_fpn_mstrain_2x_coco_20211210_144232", "a18f53c8"
            ),
            "14NTtLVpG0I75jb55hB6smnibknkQ4wdb",
        ),
        "tood_x101_fpn_2x": PublishedWeights(
            _mmdetection(
                "tood/tood_x101_64x4d_fpn_mstrain_2x_coco/tood_x101_64x4d_fpn_mstrain_2x_coco_20211211_003519",
                "a4f36113",
            ),
            "1IbCZ5Lim_vkgRctsJ7Sb8czrOFQpmuRF",
        ),
        "tood_r101_dcnv2_fpn_2x": PublishedWeights(
            _mmdetection(
                "tood/tood_r101_fpn_dconv_c3-c5_mstrain_2x_coco/"
                "tood_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20211210_213728",
                "4a824142",
            ),
            "1ufipVoODv-NgthQ8ZvLeW12TEIsCgWl5",
        ),
        "tood_x101_dcnv2_fpn_2x": PublishedWeights(None, "1xYSuZF5RfK81rJImNlTZWbIhPWfb5S5-"),
        "atss_r50_fpn_1x": PublishedWeights(
            _mmdetection("atss/atss_r50_fpn_1x_coco/atss_r50_fpn_1x_coco_20200209", "985f7bd0")
        ),
    }
)

# (block, blocks, groups, width of a group) of backbones as wide as the original ones.
_BACKBONES: Mapping[tuple[str, tuple[int, ...], int, int], HostedFile] = MappingProxyType(
    {
        ("basic", (2, 2, 2, 2), 1, 64): _torchvision("resnet18", "f37072fd"),
        ("basic", (3, 4, 6, 3), 1, 64): _torchvision("resnet34", "b627a593"),
        ("bottleneck", (3, 4, 6, 3), 1, 64): _torchvision("resnet50", "0676ba61"),
        ("bottleneck", (3, 4, 23, 3), 1, 64): _torchvision("resnet101", "63fe2227"),
        ("bottleneck", (3, 4, 23, 3), 64, 4): HostedFile(
            "https://download.openmmlab.com/pretrain/third_party/resnext101_64x4d-ee2c6f71.pth", "ee2c6f71"
        ),
    }
)


def published_weights() -> Mapping[str, PublishedWeights]:
    """Where the weights are of every named model that was trained on COCO and published, by its name."""
    return _DETECTORS


def detector_weights(name: str, config: FetchConfig = FetchConfig()) -> Path:  # noqa: B008 - frozen
    """The published file of a named model, fetched if need be.

    Raises:
        ToodError: if none was published, only a person can download it, or it cannot be fetched.
    """
    published = _DETECTORS.get(name)
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
    return published.hosted.fetch(config)


def imagenet_weights(config: ResNetConfig) -> HostedFile | None:
    """The backbone's weights of ImageNet classification that the published recipes start from, None if there are none.

    A deformable convolution takes the ordinary one's weight, so deformable stages make no difference.
    """
    if (config.width, config.stem_width) != (64, 64):
        return None
    return _BACKBONES.get((config.block, config.blocks, config.groups, config.width_per_group))
