"""Published detectors in every layout become ours, with the same outputs, and go back without loss."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from golden_values import FOLDER, NARROW, golden, narrow_model
from tood.errors import ToodError
from tood.models import AnyDetector, build_model
from tood.models.atss import ATSS, ATSSConfig
from tood.models.backbones import ResNetConfig
from tood.models.tood import TOOD, TOODConfig
from tood.models.tood import weights as tood_weights
from tood.weights import (
    export_weights,
    import_weights,
    initialise,
    load_detector_file,
    load_imagenet,
    load_weights,
    read_weights_file,
    save_weights,
)
from weights.published_files import CONFIG, original_names, write_checkpoint

AnyDetectorT = TypeVar("AnyDetectorT", TOOD, ATSS)
CLASSES = ["cat", "dog", "élan", "d", "e", "f", "g"]
DEFORMABLE = replace(
    NARROW,
    backbone=replace(NARROW.backbone, deformable_stages=(1, 2, 3)),
    head=replace(NARROW.head, deformable_layers=2),
)
GOLDEN = {"anchor_free": NARROW, "dcn_r50": DEFORMABLE}
RESNEXT = replace(
    NARROW,
    backbone=ResNetConfig(
        width=16, stem_width=8, groups=4, width_per_group=2, blocks=(1, 2, 2, 1), deformable_stages=(2, 3)
    ),
    head=replace(NARROW.head, interactive_layers=4, deformable_layers=1, deform_groups=2),
)


def outputs(model: AnyDetector) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        predictions = model(torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)))
    return predictions.scores, predictions.boxes


def randomised(model: AnyDetectorT) -> AnyDetectorT:
    """The model with none of its tensors as it was initialised."""
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        else:
            tensor.copy_(tensor + 0.05 * torch.rand_like(tensor))
    return model.eval()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("layout", ["original", "mmdet2", "mmdet3", "plain"])
@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_model_in_every_layout(tmp_path: Path, name: str, layout: str, legacy: bool) -> None:
    state = golden(name)["state_dict"]
    path = write_checkpoint(tmp_path / "a.pth", layout, state, CLASSES, legacy=legacy)
    model, names = load_detector_file(path)
    assert model.config == GOLDEN[name]
    assert names == (tuple(f"class {i}" for i in range(7)) if layout == "plain" else tuple(CLASSES))
    for given, wanted in zip(outputs(model), outputs(narrow_model(name, GOLDEN[name])), strict=True):
        torch.testing.assert_close(given, wanted, rtol=0, atol=0)


def test_plain_safetensors_of_all_names(tmp_path: Path) -> None:
    state = golden("anchor_free")["state_dict"]
    ours = {name: tensor.clone() for name, tensor in narrow_model().state_dict().items()}
    for tensors in (state, dict(original_names(state)), ours):
        save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
        assert load_detector_file(tmp_path / "a.safetensors")[0].config == NARROW


@pytest.mark.parametrize(
    "config",
    [
        RESNEXT,
        replace(NARROW, backbone=ResNetConfig(block="basic", blocks=(2, 2, 2, 2), width=16, stem_width=8)),
        replace(NARROW, classes=1, backbone=replace(NARROW.backbone, blocks=(3, 4, 23, 3))),
        replace(NARROW, backbone=replace(NARROW.backbone, outputs=(2, 3)), neck=replace(NARROW.neck, levels=3)),
        replace(NARROW, neck=replace(NARROW.neck, width=16), head=replace(NARROW.head, attention_reduction=4)),
    ],
    ids=["resnext-dcn", "basic", "r101", "two maps", "narrow neck"],
)
def test_the_architecture_shows_in_the_tensors(tmp_path: Path, config: TOODConfig) -> None:
    model = randomised(TOOD(config))
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    again, _ = load_detector_file(tmp_path / "a.safetensors")
    assert again.config == config
    for given, wanted in zip(outputs(again), outputs(model), strict=True):
        torch.testing.assert_close(given, wanted, rtol=0, atol=0)


def test_what_does_not_show_is_read_from_the_configuration_or_the_name(tmp_path: Path) -> None:
    state = golden("anchor_free")["state_dict"]
    for layout in ("original", "mmdet3"):
        text = CONFIG.format(anchor="anchor_based", groups=4)
        head = load_detector_file(write_checkpoint(tmp_path / "a.pth", layout, state, CLASSES, text))[0].config.head
        assert (head.anchor, head.norm_groups) == ("based", 4)
    named = write_checkpoint(tmp_path / "tood_r50_fpn_anchor_based_1x_coco-b776c134.pth", "mmdet2", state, CLASSES)
    assert load_detector_file(named)[0].config.head.anchor == "based"
    assert load_detector_file(named, settings=["head.anchor=free"])[0].config == NARROW
    broken = write_checkpoint(tmp_path / "b.pth", "mmdet2", state, CLASSES, "model = dict(bbox_head=run(")
    assert load_detector_file(broken)[0].config == NARROW


def test_a_network_that_only_looks_the_same_is_refused(tmp_path: Path) -> None:
    text = CONFIG.format(anchor="anchor_free", groups=8).replace("style='pytorch'", "style='caffe'")
    path = write_checkpoint(tmp_path / "a.pth", "mmdet2", golden("anchor_free")["state_dict"], CLASSES, text)
    with pytest.raises(ToodError, match=r"backbone\.style = 'caffe'"):
        load_detector_file(path)


@pytest.mark.parametrize("layout", ["original", "mmdet"])
@pytest.mark.parametrize("config", [NARROW, DEFORMABLE, RESNEXT], ids=["plain", "dcn", "resnext-dcn"])
def test_import_of_an_export_is_bit_identical(tmp_path: Path, config: TOODConfig, layout: str) -> None:
    config = replace(config, head=replace(config.head, anchor="based", norm_groups=16, anchor_scale=4.0))
    model = randomised(TOOD(config))
    save_weights(tmp_path / "a.safetensors", model, CLASSES)
    export_weights(tmp_path / "a.safetensors", tmp_path / "a.pth", layout)
    import_weights(tmp_path / "a.pth", tmp_path / "b.safetensors")
    again, names = load_weights(tmp_path / "b.safetensors")
    assert again.config == config
    assert names == tuple(CLASSES)
    wanted, given = model.state_dict(), again.state_dict()
    assert list(given) == list(wanted)
    for name, tensor in wanted.items():
        assert given[name].dtype == tensor.dtype
        assert torch.equal(given[name], tensor), name
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("layout", "file_layout"), [("original", "original"), ("mmdet", "plain")])
def test_an_export_has_exactly_the_published_tensors(tmp_path: Path, layout: str, file_layout: str) -> None:
    state = golden("dcn_r50")["state_dict"]
    source = write_checkpoint(tmp_path / "a.pth", file_layout, state, CLASSES)
    export_weights(source, tmp_path / "b.pth", layout)
    # As the published code would read it.
    saved = torch.load(tmp_path / "b.pth", weights_only=True)
    published = original_names(state) if layout == "original" else state
    assert saved["state_dict"].keys() == published.keys()
    assert all(torch.equal(saved["state_dict"][name], tensor) for name, tensor in published.items())
    if file_layout == "original":
        assert saved["meta"]["CLASSES"] == tuple(CLASSES)


def test_atss_travels_the_same_way(tmp_path: Path) -> None:
    config = ATSSConfig(
        classes=7,
        backbone=NARROW.backbone,
        neck=NARROW.neck,
        head=replace(ATSSConfig().head, width=32, norm_groups=8, tower_layers=2),
    )
    model = randomised(ATSS(config))
    save_weights(tmp_path / "a.safetensors", model, CLASSES)
    export_weights(tmp_path / "a.safetensors", tmp_path / "a.pth")
    # As a file of theirs, which knows nothing of ours.
    torch.save(torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"], tmp_path / "theirs.pth")
    again, _ = load_detector_file(tmp_path / "theirs.pth")
    assert again.config == config
    wanted = model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())
    assert "bbox_head.atss_cls.weight" in read_weights_file(tmp_path / "theirs.pth").tensors
    with pytest.raises(ToodError, match=r"there is no layout 'original' of an atss with .*: choose mmdet"):
        export_weights(tmp_path / "a.safetensors", tmp_path / "b.pth", "original")
    assert not (tmp_path / "b.pth").exists()


def test_the_origin_is_remembered(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "theirs.pth", "mmdet3", golden("anchor_free")["state_dict"], CLASSES)
    said = import_weights(source, tmp_path / "a.safetensors")
    assert said.startswith("a tood with ResNet-50 and 7 classes, 383 tensors; its input is assumed")
    export_weights(tmp_path / "a.safetensors", tmp_path / "a.pth")
    assert read_weights_file(tmp_path / "a.safetensors").metadata["source"] == "theirs.pth"
    assert read_weights_file(tmp_path / "a.pth").metadata["source"] == "theirs.pth"


def published_names(model: str) -> dict[str, Tensor]:
    text = gzip.decompress((FOLDER / "state_dict_names" / f"{model}.tsv.gz").read_bytes()).decode()
    pairs = (line.split("\t") for line in text.splitlines())
    shapes = {name: () if size == "scalar" else tuple(map(int, size.split("x"))) for name, size in pairs}
    return {name: torch.empty(size, device="meta") for name, size in shapes.items()}


@pytest.mark.parametrize(
    ("name", "parameters", "trainable"),
    [
        ("tood_r50_fpn_1x", 32_200_494, 31_975_150),
        ("tood_r50_fpn_anchor_based_1x", 32_200_494, 31_975_150),
        ("tood_r101_fpn_2x", 51_192_622, 50_967_278),
        ("tood_x101_fpn_2x", 90_098_734, 89_695_982),
        ("tood_r101_dcnv2_fpn_2x", 53_619_760, 53_394_416),
        ("tood_x101_dcnv2_fpn_2x", 97_813_444, 97_410_692),
    ],
)
def test_every_published_tensor_has_its_place_and_none_is_left_over(name: str, parameters: int, trainable: int) -> None:
    published = published_names(name)
    ours = tood_weights.from_published(published)
    with torch.device("meta"):
        model = build_model(tood_weights.infer_config(ours))
    expected = model.state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: t.shape for key, t in expected.items()}
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    assert tood_weights.to_published(expected, "mmdet").keys() == published.keys()
    original = tood_weights.to_published(expected, "original")
    assert original.keys() == original_names(published).keys()
    assert tood_weights.from_published(original).keys() == expected.keys()


def test_another_class_count_leaves_only_the_classifier_anew(tmp_path: Path) -> None:
    state = golden("anchor_free")["state_dict"]
    checkpoint = read_weights_file(write_checkpoint(tmp_path / "a.pth", "original", state, CLASSES))
    model = TOOD(replace(NARROW, classes=3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = initialise(model, checkpoint)
    assert said.endswith("a.pth; it knows 7 classes and this model 3, so the classifier starts anew")
    wanted = narrow_model().state_dict()
    for name, tensor in model.state_dict().items():
        fresh = name in ("head.classifier.weight", "head.classifier.bias")
        assert torch.equal(tensor, before[name] if fresh else wanted[name]), name
    same = TOOD(NARROW)
    assert initialise(same, checkpoint).startswith("starts from all 383 tensors")
    assert torch.equal(same.head.classifier.weight, wanted["head.classifier.weight"])


def test_what_does_not_fit_is_listed_and_nothing_taken(tmp_path: Path) -> None:
    state = dict(golden("anchor_free")["state_dict"])
    state["neck.more.weight"] = torch.ones(1)
    del state["backbone.layer1.0.bn1.weight"], state["bbox_head.tood_reg.bias"]
    checkpoint = read_weights_file(write_checkpoint(tmp_path / "a.pth", "mmdet2", state, CLASSES))
    model = TOOD(replace(NARROW, head=replace(NARROW.head, width=16)))
    before = model.state_dict()["backbone.conv1.weight"].clone()
    with pytest.raises(ToodError) as error:
        initialise(model, checkpoint)
    assert "a.pth does not fit a tood with ResNet-50 and 7 classes: 2 tensors missing (backbone.layer1.0.bn1." in str(
        error.value
    )
    assert "head.regressor.bias" in str(error.value)
    assert "1 tensor unexpected (neck.more.weight)" in str(error.value)
    assert "head.interactive.0.conv.weight [32, 32, 3, 3] instead of [16, 32, 3, 3]" in str(error.value)
    assert torch.equal(model.state_dict()["backbone.conv1.weight"], before)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bbox_head.cls_decomp.la_conv1.weight": torch.ones(1)}, "layouts cannot be mixed"),
        ({"bbox_head.tood_cls.weight": torch.ones(7)}, r"head\.classifier\.weight has the shape \[7\]"),
        ({"backbone.conv1.weight": None}, r"backbone\.conv1\.weight is missing"),
        ({"neck.lateral_convs.0.conv.weight": torch.ones(32, 99, 1, 1)}, "does not fit a tood"),
        ({"bbox_head.tood_cls.weight": torch.ones(9, 32, 3, 3)}, "names 7 classes, but its classifier knows 9"),
        ({"bbox_head.cls_decomp.reduction_conv.conv.weight": None}, "no detector of a known family"),
        ({"bbox_head.cls_decomp.layer_attention.0.weight": torch.ones(64, 192, 1, 1)}, "does not fit a tood"),
    ],
)
def test_a_wrong_architecture_is_one_sentence(tmp_path: Path, change: dict[str, Tensor | None], sentence: str) -> None:
    state = dict(golden("anchor_free")["state_dict"]) | change
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    torch.save({"state_dict": kept, "meta": {"CLASSES": CLASSES}}, tmp_path / "a.pth")
    with pytest.raises(ToodError, match=rf"a\.pth .*{sentence}"):
        load_detector_file(tmp_path / "a.pth")


@pytest.mark.parametrize("prefix", ["", "backbone.", "module."])
@pytest.mark.parametrize("config", [RESNEXT.backbone, ResNetConfig(block="basic", blocks=(1, 1, 1, 1), width=16)])
def test_an_imagenet_backbone(tmp_path: Path, prefix: str, config: ResNetConfig) -> None:
    plain = randomised(TOOD(replace(NARROW, backbone=replace(config, deformable_stages=())))).backbone
    state = {f"{prefix}{name}": tensor for name, tensor in plain.state_dict().items()}
    # As files from before PyTorch 0.4.1 are, with a classifier of torchvision's and timm's name.
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    head = "head.fc" if prefix == "backbone." else f"{prefix}fc"
    state |= {f"{head}.weight": torch.ones(1000, 64), f"{head}.bias": torch.ones(1000)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    backbone = TOOD(replace(NARROW, backbone=config)).backbone
    load_imagenet(backbone, read_weights_file(tmp_path / "a.pth"))
    for name, tensor in backbone.state_dict().items():
        if ".offset." in name:
            assert not tensor.any()
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, plain.state_dict()[name]), name


def test_another_backbone_is_listed(tmp_path: Path) -> None:
    save_file(TOOD(RESNEXT).backbone.state_dict(), tmp_path / "a.safetensors")
    backbone = TOOD(NARROW).backbone
    with pytest.raises(ToodError, match=r"a\.safetensors does not fit the backbone: .* missing .* of another shape"):
        load_imagenet(backbone, read_weights_file(tmp_path / "a.safetensors"))


def test_rows_go_to_the_classes_by_name(tmp_path: Path) -> None:
    state = golden("anchor_free")["state_dict"]
    checkpoint = read_weights_file(write_checkpoint(tmp_path / "a.pth", "original", state, CLASSES))
    wanted = narrow_model().state_dict()
    model = TOOD(replace(NARROW, classes=3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = initialise(model, checkpoint, ["g", "bird", "Dog"])
    assert "a.pth; classes by name: 2 of 3 kept (g, Dog), 1 starts anew (bird), 5 of the file's are dropped" in said
    assert said.endswith("; 'dog' as 'Dog'")
    for name, tensor in model.state_dict().items():
        if name in ("head.classifier.weight", "head.classifier.bias"):
            assert torch.equal(tensor, torch.stack([wanted[name][6], before[name][1], wanted[name][1]]))
        else:
            assert torch.equal(tensor, wanted[name]), name


def test_a_file_without_class_names_says_what_is_assumed(tmp_path: Path) -> None:
    state = golden("anchor_free")["state_dict"]
    nameless = write_checkpoint(tmp_path / "a.pth", "plain", state, CLASSES)
    wanted = narrow_model().state_dict()["head.classifier.weight"]
    import_weights(nameless, tmp_path / "a.safetensors")  # it then names them "class 0" and so on
    for path in (nameless, tmp_path / "a.safetensors"):
        same = TOOD(NARROW)
        assert (
            "it names none of its 7 classes: they are taken to be the dataset's, in its order (cat, dog, "
            in initialise(same, read_weights_file(path), CLASSES)
        )
        assert torch.equal(same.head.classifier.weight, wanted)
        other = TOOD(replace(NARROW, classes=2))
        before = other.head.classifier.weight.clone()
        said = initialise(other, read_weights_file(path), ["cat", "dog"])
        assert said.endswith("names none of its 7 classes and this model has 2, so the classifier starts anew")
        assert torch.equal(other.head.classifier.weight, before)


def test_80_classes_without_names_are_coco_s(tmp_path: Path) -> None:
    donor = randomised(TOOD(replace(NARROW, classes=80)))
    save_file(donor.state_dict(), tmp_path / "a.safetensors")
    names = [f"thing {i}" for i in range(80)]
    names[4], names[7] = "tooth brush", "person"
    model = TOOD(replace(NARROW, classes=80))
    before = model.head.classifier.weight.clone()
    said = initialise(model, read_weights_file(tmp_path / "a.safetensors"), names)
    assert "it names no classes, COCO's are assumed; classes by name: 1 of 80 kept (person), 79 start anew" in said
    assert torch.equal(model.head.classifier.weight[7], donor.head.classifier.weight[0])
    assert torch.equal(model.head.classifier.weight[4], before[4])


def test_a_file_that_names_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.pth", "original", golden("anchor_free")["state_dict"], CLASSES[:5])
    with pytest.raises(ToodError, match=r"a\.pth names 5 classes, but its classifier knows 7"):
        initialise(TOOD(NARROW), read_weights_file(path), CLASSES)
