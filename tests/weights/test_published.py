"""The table of published weights, and what is said where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tood.errors import ToodError
from tood.models.backbones import ResNetConfig
from tood.weights import cache_path, detector_weights, imagenet_weights
from tood.weights.published import COCO_CLASSES
from tood.zoo import named_model, named_models
from weights.file_server import FileServer, Served

R101 = (3, 4, 23, 3)


# Where files lie whose hashes nobody states: Paddle's, YOLOX's authors', EasyCV's.
UNTOLD = (
    "https://paddledet.bj.bcebos.com/models/ppyoloe_",
    "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_",
    "https://pai-vision-data-hz.oss-cn-zhangjiakou.aliyuncs.com/EasyCV/modelzoo/detection/yolox/",
)


def test_every_published_model_has_a_name_here_and_says_where_its_weights_are() -> None:
    for name, card in named_models().items():
        assert card.name == name
        published = card.weights
        if published is None:
            continue
        assert published.hosted or published.authors_url, name
        if published.hosted is not None:
            url, prefix = published.hosted.url, published.hosted.sha256_prefix
            if not prefix:  # of hosts that tell no hash
                assert url.startswith(UNTOLD), name
                continue
            assert url.startswith("https://download.openmmlab.com/mmdetection/v2.0/")
            # These servers name a file by the beginning of its hash.
            assert url.endswith(f"-{prefix}.pth")
            assert len(prefix) == 8


def test_every_named_model_of_the_paper_is_published() -> None:
    for name, card in named_models().items():
        # Of the rivals' largest networks there are figures, but no file in a layout that is read here.
        if card.weights is not None or card.config().family == "tood":
            assert (card.published_ap is None) == (card.weights is None), name


@pytest.mark.parametrize(
    ("config", "file"),
    [
        (ResNetConfig(block="basic", blocks=(2, 2, 2, 2)), "resnet18-f37072fd.pth"),
        (ResNetConfig(block="basic"), "resnet34-b627a593.pth"),
        (ResNetConfig(frozen_stages=-1, norm_eval=False), "resnet50-0676ba61.pth"),
        (ResNetConfig(blocks=R101, deformable_stages=(1, 2, 3)), "resnet101-63fe2227.pth"),
        (ResNetConfig(blocks=R101, groups=64, width_per_group=4), "resnext101_64x4d-ee2c6f71.pth"),
        (ResNetConfig(blocks=R101, groups=32, width_per_group=4), None),
        (ResNetConfig(width=32), None),
        (ResNetConfig(stem_width=32), None),
        (ResNetConfig(blocks=(1, 1, 1, 1)), None),
    ],
)
def test_imagenet_weights_are_known_by_the_backbone_s_shape(config: ResNetConfig, file: str | None) -> None:
    hosted = imagenet_weights(config)
    assert (hosted.url.rpartition("/")[2] if hosted else None) == file
    assert hosted is None or hosted.sha256_prefix in hosted.url


def test_a_mirror_takes_the_place_of_the_servers(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = imagenet_weights(ResNetConfig())
    assert backbone is not None
    assert backbone.address == "https://download.pytorch.org/models/resnet50-0676ba61.pth"
    monkeypatch.setenv("TOOD_WEIGHTS_MIRROR", f"{server.address}/copies/")
    assert backbone.address == f"{server.address}/copies/models/resnet50-0676ba61.pth"
    served = Served(b"what somebody else put there")
    server.serve("/copies/models/resnet50-0676ba61.pth", served)
    with pytest.raises(ToodError, match=f"begins with 0676ba61, got {served.sha256[:8]}"):
        backbone.fetch()
    made = replace(backbone, sha256_prefix=served.sha256[:8])
    assert made.fetch() == cache_path(backbone.url), "a mirrored file is the file"


def test_what_only_a_person_can_download_and_what_was_never_published_is_said() -> None:
    with pytest.raises(ToodError) as caught:
        detector_weights(named_model("tood_x101_dcnv2_fpn_2x"))
    sentence = str(caught.value)
    for part in (
        "Google Drive",
        "1xYSuZF5RfK81rJImNlTZWbIhPWfb5S5-",
        "give its path",
        "`tood weights import FILE OUT`",
    ):
        assert part in sentence
    with pytest.raises(ToodError, match=r"'tood_tiny' names an architecture.*tood train --model tood_tiny"):
        detector_weights(named_model("tood_tiny"))


def test_the_class_names_are_coco_s(real_data: Path) -> None:
    content = json.loads((real_data / "coco128/annotations/instances_val2017.json").read_text())
    assert tuple(category["name"] for category in content["categories"]) == COCO_CLASSES
