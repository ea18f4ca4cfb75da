"""YOLOX and YOLOX-PAI against the reference's numbers, names and sizes."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from golden_values import FOLDER, golden, targets_of
from narrow_models import EXAMPLES, lively
from tood.alignment import Progress, SimOTACriterionConfig
from tood.alignment.assigners import SimOTAAssigner
from tood.boxes import iou_matrix
from tood.errors import ToodError
from tood.inference import postprocess
from tood.models import build_model, for_inference
from tood.models.backbones import CSPDarknetConfig
from tood.models.common.published import Hints
from tood.models.common.rep_block import RepBlock
from tood.models.inference import InferenceDetector
from tood.models.measure import measure
from tood.models.necks import CSPPAFPNConfig
from tood.models.yolox import YOLOX, YOLOXConfig, YOLOXHeadConfig
from tood.models.yolox.weights import from_published, infer_config, layouts, matches, to_published
from tood.structures import DensePredictions
from tood.weights import load_detector_file
from tood.zoo import named_model, named_models

PAI = ("yolox_pai_thead", "yolox_pai_gsconv")
EASYCV = SimOTACriterionConfig(assigner=SimOTAAssigner(epsilon=1e-8), box_loss="hull")
# Parameters, and thousand millions of multiply-adds, as MMDetection and EasyCV have them with 80 classes.
SIZES = {
    "yolox_nano": (912_159, 0.523),
    "yolox_tiny": (5_055_855, 3.206),
    "yolox_s": (8_968_255, 13.343),
    "yolox_m": (25_326_495, 36.765),
    "yolox_l": (54_208_895, 77.646),
    "yolox_x": (99_071_455, 140.705),
    "yolox_pai_s": (17_089_727, 25.041),
    "yolox_pai_s_asff": (22_490_923, 29.192),
    "yolox_pai_s_asff_sim": (20_193_579, 27.881),
    "yolox_pai_s_asff_thead3": (23_239_837, 33.733),
    "yolox_pai_s_asff_thead6": (23_987_191, 38.275),
    "yolox_pai_s_gsconv_asff_thead3": (21_627_757, 32.389),
    "yolox_pai_s_gsconvpart_asff": (22_050_731, 28.911),
}


def golden_model(name: str) -> YOLOX:
    state = from_published(golden(name)["state_dict"])
    model = YOLOX(infer_config(state))
    model.load_state_dict(state)
    return model.eval()


def layout_of(name: str) -> str:
    return "mmdet" if name == "yolox" else "easycv"


def by_place(maps: list[Tensor]) -> Tensor:
    """[B, C, h, w] of every level -> [B, N, C]."""
    return torch.cat([features.flatten(2).transpose(1, 2) for features in maps], dim=1)


def centred(boxes: Tensor) -> Tensor:
    """x1 y1 x2 y2 -> centre, size."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def close(given: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_maps_and_logits_are_mmdetection_s() -> None:
    model, values = golden_model("yolox"), golden("yolox")
    with torch.inference_mode():
        maps = model.neck(model.backbone(values["images"]))
        stems = [stem(features) for stem, features in zip(model.head.stems, maps, strict=True)]
        predictions = model(values["images"])
    for given, wanted in zip(stems, values["neck"], strict=True):
        close(given, wanted)
    close(predictions.scores, by_place(values["cls_logits"]))
    assert predictions.quality is not None
    close(predictions.quality, by_place(values["objectness_logits"])[..., 0])
    raw, strides = by_place(values["bbox_preds"]), predictions.priors.strides[:, None]
    boxes = torch.cat([predictions.priors.centres + raw[..., :2] * strides, raw[..., 2:].exp() * strides], dim=-1)
    close(centred(predictions.boxes), boxes)


def test_detections_are_mmdetection_s() -> None:
    model, values = golden_model("yolox"), golden("yolox")
    scales = values["scale_factors"][:, None].expand(-1, 2)
    with torch.inference_mode():
        found = postprocess(model(values["images"]), scales, model.config.postprocess)
    for given, wanted in zip(found, values["detections"], strict=True):
        assert len(given.boxes) == len(wanted["boxes"])
        torch.testing.assert_close(given.scores, wanted["scores"], rtol=1e-4, atol=1e-6)
        # Among scores that rounding alone tells apart the order is free.
        partner = iou_matrix(wanted["boxes"], given.boxes).argmax(dim=1)
        assert torch.equal(partner.sort().values, torch.arange(len(partner)))
        assert torch.equal(given.labels[partner], wanted["labels"])
        torch.testing.assert_close(given.boxes[partner], wanted["boxes"], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", PAI)
def test_outputs_are_easycv_s_and_stay_so_where_branches_become_one(name: str) -> None:
    model, values = golden_model(name), golden(name)
    fused = for_inference(model)
    assert isinstance(fused, InferenceDetector)
    with torch.inference_mode():
        maps = model.backbone(values["images"])
        for given, wanted in zip([*maps, *model.neck(maps)], [*values["backbone"], *values["neck"]], strict=True):
            close(given, wanted)
        for network, wanted in ((model, values["eval"]), (fused, values["eval"]), (fused, values["deploy"]["eval"])):
            predictions = network(values["images"])
            judged = predictions.quality[..., None].sigmoid()
            close(torch.cat([judged, predictions.scores.sigmoid()], dim=-1), wanted[..., 4:])
            close(centred(predictions.boxes), wanted[..., :4])


@pytest.mark.parametrize("name", PAI)
def test_merged_blocks_are_easycv_s(name: str) -> None:
    values, model = golden(name), golden_model(name)
    state = model.state_dict()
    ours = dict(zip(to_published(state, "easycv"), state, strict=True))
    wanted = values["deploy"]["state_dict"]
    assert len(wanted) >= 8
    for key, value in wanted.items():
        place, kind = key.split(".rbr_reparam.")
        block = model.get_submodule(ours[f"{place}.rbr_dense.conv.weight"].removesuffix(".dense.conv.weight"))
        assert isinstance(block, RepBlock)
        close(getattr(block.merged(), kind), value)


@pytest.mark.parametrize("phase", ["without_l1", "with_l1"])
@pytest.mark.parametrize("name", ["yolox", *PAI])
def test_losses_gradients_and_assignments(name: str, phase: str) -> None:
    values, model = golden(name), golden_model(name)
    targets = targets_of(values["gt_boxes"], values["gt_labels"])
    criterion = (SimOTACriterionConfig() if name == "yolox" else EASYCV).build()
    losses = criterion(model(values["images"]), targets, None, Progress() if phase == "without_l1" else None)
    wanted = values[phase].get("losses", values[phase])
    names = ("loss_cls", "loss_bbox", "loss_obj", "loss_l1") if name == "yolox" else ("cls", "iou", "objectness", "l1")
    for term, key in zip(("cls", "box", "objectness", "l1"), names, strict=True):
        if term in losses.terms:
            torch.testing.assert_close(losses.terms[term], wanted[key], rtol=1e-3, atol=1e-6)
    assert ("l1" in losses.terms) == (phase == "with_l1")
    if name != "yolox":
        torch.testing.assert_close(losses.total, wanted["loss"], rtol=1e-3, atol=0)
    for image, owned in enumerate(values["assignment"]):
        positive, index = losses.assignment.positive[image], losses.assignment.gt_index[image]
        if name == "yolox":
            assert torch.equal(index + 1, owned["gt_inds"])
            torch.testing.assert_close(
                losses.assignment.iou[image][positive], owned["ious"][positive], rtol=1e-3, atol=0
            )
        else:
            assert torch.equal(positive, owned["positive"])
            assert torch.equal(index[positive], owned["gt"])
            torch.testing.assert_close(losses.assignment.iou[image][positive], owned["iou"], rtol=1e-3, atol=0)
    losses.total.backward()
    # Whole, as the layout shows in all names together.
    found = dict(model.state_dict()) | {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    gradients = to_published(found, layout_of(name))
    for key, wanted_gradient in values[phase]["grads"].items():
        given, largest = gradients[key], float(wanted_gradient.abs().max())
        torch.testing.assert_close(given, wanted_gradient, rtol=1e-3, atol=1e-3 * largest + 1e-6, msg=key)


@pytest.mark.parametrize("case", ["second_image", "both_images"])
def test_images_without_objects(case: str) -> None:
    values, model = golden("yolox"), golden_model("yolox")
    kept = 1 if case == "second_image" else 0
    targets = [
        target if image < kept else type(target).empty()
        for image, target in enumerate(targets_of(values["gt_boxes"], values["gt_labels"]))
    ]
    losses = SimOTACriterionConfig().build()(model(values["images"]), targets)
    for term, key in (("cls", "loss_cls"), ("box", "loss_bbox"), ("objectness", "loss_obj"), ("l1", "loss_l1")):
        torch.testing.assert_close(losses.terms[term], values["empty"][case][key], rtol=1e-3, atol=1e-6)


def published(name: str) -> dict[str, tuple[tuple[int, ...], bool]]:
    lines = gzip.decompress((FOLDER / f"state_dict_names/{name}.tsv.gz").read_bytes()).decode().splitlines()
    split = [line.split("\t") for line in lines]
    return {key: (tuple(map(int, re.findall(r"\d+", shape))), trained == "1") for key, shape, trained in split}


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name: str) -> None:
    config = named_model(name).config()
    assert isinstance(config, YOLOXConfig)
    with torch.device("meta"):
        model = build_model(config)
    state, listed = model.state_dict(), published(name)
    given = to_published(state, "easycv" if "pai" in name else "mmdet")
    assert {key: tuple(tensor.shape) for key, tensor in given.items()} == {k: shape for k, (shape, _) in listed.items()}
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    ours = from_published({key: torch.empty(shape, device="meta") for key, (shape, _) in listed.items()})
    assert ours.keys() == state.keys()
    back = dict(zip(ours, listed, strict=True))
    assert {back[key] for key in learning} == {key for key, (_, trained) in listed.items() if trained}
    parameters, giga = SIZES[name]
    cost = measure(config)
    assert cost.parameters == cost.trainable == parameters
    assert cost.multiply_adds / 1e9 == pytest.approx(giga, rel=0.02)
    assert replace(infer_config(state), classes=80) == config


def test_merged_networks_are_as_small_as_published() -> None:
    """YOLOX-PAI-s: 15,905,343 parameters, which leaves the norms of its plain convolutions."""
    assert measure(named_model("yolox_pai_s").config()).merged == 15_905_343


SHOWN = {name: config for name, config in EXAMPLES.items() if name.startswith("yolox")} | {
    # As Nano is.
    "depthwise neck": replace(EXAMPLES["yolox-depthwise"], neck=CSPPAFPNConfig(2, depthwise=True)),  # type: ignore[type-var]
    "light neck": replace(
        EXAMPLES["yolox-pai"], neck=CSPPAFPNConfig(2, gsconv="all", fusion="asff_sim", fusion_channels=3)
    ),  # type: ignore[type-var]
}


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, layout) for name in SHOWN for layout in ("mmdet", "easycv") if layout == "easycv" or name == "yolox-plain"],
)
def test_the_network_shows_in_its_tensors(name: str, layout: str) -> None:
    config = SHOWN[name]
    state = build_model(config).state_dict()
    assert layout in layouts(state)
    names = to_published(state, layout)
    assert len(names) == len(state)
    assert matches(names)
    assert from_published(names).keys() == state.keys()
    shown = infer_config(from_published(names), Hints(model={"bbox_head": {"norm_cfg": {"num_groups": 4}}}))
    assert replace(shown, input=config.input) == config


def test_what_a_network_sees_shows_in_its_parts_and_its_framework() -> None:
    plain = build_model(EXAMPLES["yolox-plain"]).state_dict()
    pai = build_model(EXAMPLES["yolox-pai"]).state_dict()
    assert (infer_config(plain).input.channels, infer_config(plain).input.std) == ("bgr", (1.0, 1.0, 1.0))
    for config in (infer_config(pai), infer_config(plain, Hints(model={"type": "YOLOX", "nms_thre": 0.65}))):
        assert (config.input.channels, config.input.std) == ("rgb", (58.395, 57.12, 57.375))
    for config in (infer_config(plain), infer_config(pai)):
        assert (config.input.fit, config.input.letterbox, config.input.pad) == ("letterbox", "corner", (114,) * 3)


def test_the_head_starts_without_objects() -> None:
    torch.manual_seed(0)
    head = build_model(EXAMPLES["yolox-pai"]).head
    for predictors in (head.class_predictors, head.objectness_predictors):
        for predictor in predictors:
            torch.testing.assert_close(predictor.bias, torch.full_like(predictor.bias, -4.59512))
    assert not any(predictor.bias.any() for predictor in head.box_predictors)
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"classes": 0}, r"model\.classes is 0"),
        ({"head": YOLOXHeadConfig(width=16, interactive_layers=1, norm_groups=5)}, r"model\.head\.norm_groups is 5"),
        (
            {"head": YOLOXHeadConfig(width=16, interactive_layers=1, norm_groups=4)},
            r"model\.head\.attention_reduction is 32",
        ),
        (
            {
                "backbone": CSPDarknetConfig(width=8, blocks=(1, 1, 1), outputs=(1, 2)),
                "neck": CSPPAFPNConfig(1, fusion="asff"),
            },
            r"model\.neck\.fusion is 'asff', which joins three maps.*\[32, 64\]",
        ),
    ],
)
def test_impossible_architectures_are_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ToodError, match=complaint):
        YOLOX(replace(EXAMPLES["yolox-plain"], **change))  # type: ignore[arg-type, type-var]


def test_a_neck_takes_any_number_of_maps() -> None:
    backbone = CSPDarknetConfig(width=8, blocks=(1, 1, 1, 1), outputs=(0, 1, 2, 3))
    model = YOLOX(replace(EXAMPLES["yolox-plain"], backbone=backbone)).eval()  # type: ignore[arg-type, type-var]
    with torch.inference_mode():
        predictions: DensePredictions = model(torch.zeros(1, 3, 64, 96))
    assert predictions.priors.shapes == ((16, 24), (8, 12), (4, 6), (2, 3))


def test_objectness_can_be_left_out() -> None:
    config = replace(EXAMPLES["yolox-plain"], head=YOLOXHeadConfig(width=16, objectness=False))  # type: ignore[type-var]
    model = lively(build_model(config))
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 96)).quality is None
    assert not config.predicts_quality
    assert not infer_config(model.state_dict()).head.objectness


@pytest.mark.parametrize("name", PAI)
def test_wrong_files_get_a_sentence(name: str, tmp_path: Path) -> None:
    state = dict(golden(name)["state_dict"])
    path = tmp_path / "a.pth"
    torch.save({key: value for key, value in state.items() if "head.stems.0" not in key}, path)
    with pytest.raises(
        ToodError, match=r"a\.pth does not show its architecture: head\.stems\.0\.conv\.weight is missing"
    ):
        load_detector_file(path)
    deep = next(key for key in state if "C3_n4.conv1.conv" in key or "vovGSCSP4.cv1.conv" in key)
    torch.save(state | {deep: torch.zeros(3, 3, 1, 1)}, path)
    with pytest.raises(ToodError, match=r"a\.pth does not fit a yolox with .* and 7 classes"):
        load_detector_file(path)
    torch.save(
        {
            key: value
            for key, value in state.items()
            if not key.startswith("backbone.backbone.stage0.") and not key.startswith("backbone.backbone.stem.")
        },
        path,
    )
    with pytest.raises(ToodError, match=r"a\.pth does not show its architecture: backbone\.stem\.conv\.conv\.weight"):
        load_detector_file(path)
    whole = tmp_path / "b.pth"
    torch.save(state, whole)
    path.write_bytes(whole.read_bytes()[:-4000])
    with pytest.raises(ToodError, match=r"a\.pth"):
        load_detector_file(path)


def test_cards_say_what_was_published() -> None:
    published_ap = {name: card.published_ap for name, card in named_models().items() if name.startswith("yolox")}
    assert {name: ap for name, ap in published_ap.items() if ap is not None} == {
        "yolox_nano": 25.8,
        "yolox_tiny": 32.0,
        "yolox_s": 40.5,
        "yolox_m": 46.9,
        "yolox_l": 49.4,
        "yolox_x": 50.9,
        "yolox_pai_s": 41.4,
        "yolox_pai_s_asff": 42.8,
        "yolox_pai_s_asff_thead3": 43.9,
    }


@pytest.mark.parametrize("name", ["yolox_digits", "yolox_pai_tiny"])
def test_small_networks_have_the_budget_of_tood_tiny(name: str) -> None:
    own, wanted = (measure(named_model(model).config()) for model in (name, "tood_tiny"))
    assert own.size == wanted.size
    assert own.multiply_adds == pytest.approx(wanted.multiply_adds, rel=0.1)
