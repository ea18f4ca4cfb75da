"""Any backbone with any neck with any head, trained by any criterion, from the configuration alone."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from narrow_models import lively
from tood import configuration
from tood.alignment import Losses, Progress, TaskAlignedCriterionConfig
from tood.errors import ToodError
from tood.input import InputConfig
from tood.models import FAMILIES, AnyCriterionConfig, AnyDetector, AnyModelConfig, build_model, for_inference
from tood.models.families import family_of
from tood.models.inference import InferenceDetector
from tood.structures import Targets
from tood.training import RunConfig, run_config
from tood.training.freeze import freeze_parts
from tood.training.optim import parameter_groups
from tood.weights import initialise, load_detector_file, read_weights_file, save_weights

BACKBONES: dict[str, dict[str, Any]] = {
    "resnet": {"block": "basic", "blocks": [1, 1, 1], "width": 8, "stem_width": 8, "frozen_stages": -1},
    "efficientnet_lite": {"outputs": [1, 2, 3], "norm_eval": False},
    "csp_darknet": {"width": 8, "blocks": [1, 1, 1]},
    "csp_rep_resnet": {"widths": [8, 8, 12, 16], "blocks": [1, 1, 1], "alpha": True},
    "repvgg": {"widths": [8, 8, 16, 32], "blocks": [1, 2, 1]},
}
# Of one width, as heads with the same weights for all levels want it.
NECKS: dict[str, dict[str, Any]] = {
    "fpn": {"width": 16, "levels": 4},
    "csp_pan": {"widths": [16, 16, 16], "blocks": 1},
    "csp_pafpn": {"blocks": 1, "width": 16},
}
HEADS = {family.name: next(iter(family.examples().values())).head for family in FAMILIES}
CRITERIA = {criterion().kind: criterion for family in FAMILIES for criterion in family.criteria}  # type: ignore[call-arg]
TRUNKS = list(itertools.product(BACKBONES, NECKS))
CLASSES = 3


def network(family: str, backbone: str, neck: str, **head: Any) -> AnyModelConfig:
    """As a configuration file would say it."""
    raw = {
        "family": family,
        "classes": CLASSES,
        "backbone": {"kind": backbone, "outputs": [0, 1, 2]} | BACKBONES[backbone],
        "neck": {"kind": neck} | NECKS[neck],
        "head": configuration.to_dict(HEADS[family]) | head,
        "input": {"short": 64, "long": 96},
    }
    config: AnyModelConfig = configuration.from_dict(AnyModelConfig, raw)
    return config


def judging(family: str) -> list[str]:
    """What a head judges its boxes with apart from their class."""
    head = HEADS[family]
    whole = replace(next(iter({f.name: f for f in FAMILIES}[family].examples().values())), head=head)
    if not whole.predicts_quality:
        return []
    switches = [field.name for field in fields(head) if getattr(head, field.name) is True]
    return [name for name in switches if not replace(whole, head=replace(head, **{name: False})).predicts_quality]


@pytest.mark.parametrize(("family", "kind"), list(itertools.product(HEADS, CRITERIA)))
def test_every_head_learns_by_every_criterion(family: str, kind: str) -> None:
    """Each pair on a trunk of its own: boxes that come nearer, and gradients in every part."""
    backbone, neck = TRUNKS[(list(HEADS).index(family) * len(CRITERIA) + list(CRITERIA).index(kind)) % len(TRUNKS)]
    criterion_config = CRITERIA[kind]()  # type: ignore[call-arg]
    off = {} if criterion_config.trains_quality else dict.fromkeys(judging(family), False)
    torch.manual_seed(0)
    config = network(family, backbone, neck, **off)
    RunConfig(model=config, criterion=criterion_config).require_all_trained()
    model, criterion = build_model(config).train(), criterion_config.build()
    images = torch.randn(2, 3, 64, 96)
    targets = [
        Targets(
            torch.tensor([[8.0, 8, 40, 40], [50, 20, 90, 60]]), torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool)
        ),
        Targets(torch.tensor([[20.0, 10, 60, 56]]), torch.tensor([2]), torch.zeros(1, dtype=torch.bool)),
    ]
    before = _box_loss(model, images, targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first: Losses | None = None
    # Both phases of a criterion that has two.
    for progress in (*(Progress(0, 0.0),) * 4, *(None,) * 4):
        losses = criterion(model(images), targets, progress=progress)
        first = first or losses
        optimizer.zero_grad()
        losses.total.backward()
        assert losses.total.isfinite()
        assert losses.assignment.positive.any()
        for part in (model.backbone, model.neck, model.head):
            gradients = [value.grad for value in part.parameters() if value.grad is not None]
            assert all(gradient.isfinite().all() for gradient in gradients)
            reached = any(gradient.any() for gradient in gradients)
            assert reached or losses is first, (
                "PP-YOLOE's predictors start at zero, and pass nothing on in the first step"
            )
        optimizer.step()
    assert _box_loss(model, images, targets) < before


def _box_loss(model: AnyDetector, images: torch.Tensor, targets: list[Targets]) -> float:
    """A yardstick for all criteria, whose own targets may move with what is predicted: GIoU losses by geometry."""
    with torch.no_grad():
        losses = TaskAlignedCriterionConfig().build()(model(images), targets, progress=Progress(0, 0.0))
    return losses.terms["box"].item()


@pytest.mark.parametrize(("backbone", "neck"), TRUNKS)
def test_every_backbone_and_neck_predict_the_same_fused(backbone: str, neck: str) -> None:
    number = TRUNKS.index((backbone, neck))
    for family in (list(HEADS)[number % len(HEADS)], list(HEADS)[(number + 3) % len(HEADS)]):
        torch.manual_seed(number)
        config = network(family, backbone, neck)
        model = lively(build_model(config)).eval()
        images = torch.randn(2, 3, 64, 96)
        with torch.no_grad():
            fast = for_inference(model)
            assert isinstance(fast, InferenceDetector)
            expected, found = model(images), fast(images)
        assert found.priors.shapes == expected.priors.shapes
        assert [64 // height for height, _ in expected.priors.shapes] == list(config.strides)
        torch.testing.assert_close(found.probabilities(), expected.probabilities(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-2)
        _is_known_by_its_tensors(model)


def _is_known_by_its_tensors(model: AnyDetector) -> None:
    """The parts are told from the tensors alone."""
    state = model.state_dict()
    weights = family_of(model.config).weights
    for layout in weights.layouts(state.keys()):
        if layout != "paddle":  # which has no counters
            assert weights.from_published(weights.to_published(state, layout)).keys() == state.keys()
    inferred = weights.infer_config(state, type(weights.infer_config.__defaults__[0])())  # type: ignore[attr-defined]
    assert (inferred.backbone.kind, inferred.neck.kind) == (model.config.backbone.kind, model.config.neck.kind)
    build_model(inferred).load_state_dict(state)


def test_a_mixed_network_is_saved_and_loaded(tmp_path: Path) -> None:
    model = build_model(network("tood", "csp_rep_resnet", "csp_pan"))
    save_weights(tmp_path / "mixed.safetensors", model, ("a", "b", "c"))
    loaded = load_detector_file(tmp_path / "mixed.safetensors")
    assert loaded[0].config == model.config  # type: ignore[index]


@pytest.mark.parametrize("family", ["ppyoloe", "yolox"])
def test_other_classes_are_learned_on_as_many_levels_as_there_are(family: str, tmp_path: Path) -> None:
    config = network(family, "resnet", "fpn")  # of four levels, one more than published
    save_weights(tmp_path / "three.safetensors", build_model(config), ("a", "b", "c"))
    model = build_model(replace(config, classes=2))
    told = initialise(model, read_weights_file(tmp_path / "three.safetensors"), ("c", "new"))
    assert "starts from" in told
    learned = load_detector_file(tmp_path / "three.safetensors")[0].state_dict()
    name = {"ppyoloe": "head.classifiers.3.weight", "yolox": "head.class_predictors.3.weight"}[family]
    assert torch.equal(model.state_dict()[name][0], learned[name][2])


def test_stages_of_mixed_parts_learn_at_rates_of_their_own_and_are_frozen() -> None:
    for backbone in BACKBONES:
        model = build_model(network("ppyoloe", backbone, "fpn"))
        groups = parameter_groups(model, 0.0, True, layer_decay=0.5)
        shares = sorted({group["rate_share"] for group in groups}, reverse=True)
        assert shares[0] == 1
        assert len(shares) == len(model.stages())
        learning = sum(len(group["params"]) for group in groups)
        assert learning == sum(parameter.requires_grad for parameter in model.parameters())
        freeze_parts(model, ["backbone"])
        assert not any(value.requires_grad for value in model.backbone.parameters())
        assert all(value.requires_grad for value in model.neck.parameters())


WIDE = {"kind": "csp_pan", "widths": [8, 16, 32], "blocks": 1}
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "levels of several widths for one head": (
        {"neck": WIDE},
        ("model.neck, a csp_pan", "[8, 16, 32]", "model.head, that of tood", "model.neck.widths"),
    ),
    "unprojected levels for one head": (
        {"neck": {"kind": "csp_pafpn", "blocks": 1}},
        ("model.neck, a csp_pafpn", "[8, 16, 32]", "model.head", "model.neck.width"),
    ),
    "a level too few": (
        {"neck": WIDE | {"widths": [16, 16]}},
        ("model.neck.widths", "[16, 16]", "the backbone gives 3 maps"),
    ),
    "no pyramid for so many maps": (
        {"neck": {"kind": "fpn", "width": 16, "levels": 2}},
        ("model.neck.levels is 2", "3 maps of model.backbone.outputs"),
    ),
    "maps that leave a stride out": (
        {"backbone": {"outputs": [0, 2]}},
        ("model.backbone.outputs [0, 2] of the resnet", "[4, 16]", "model.neck, a fpn"),
    ),
    "two maps of one stride": (
        {"backbone": {"kind": "efficientnet_lite", "outputs": [3, 4]}},
        ("model.backbone.outputs [3, 4] of the efficientnet_lite", "[16, 16]", "model.neck, a fpn"),
    ),
    "a stage that is not there": (
        {"backbone": {"outputs": [1, 2, 7]}},
        ("model.backbone.outputs is [1, 2, 7]", "stages 0 to 2"),
    ),
    "stages in another order": ({"backbone": {"outputs": [2, 1, 0]}}, ("model.backbone.outputs is [2, 1, 0]",)),
    "fused levels of other channels": (
        {
            "backbone": {"kind": "efficientnet_lite", "outputs": [1, 2, 3]},
            "neck": {"kind": "csp_pafpn", "fusion": "asff"},
        },
        ("model.neck.fusion is 'asff'", "the backbone gives [24, 40, 80]"),
    ),
    "fused levels of odd sizes": (
        {
            "neck": {"kind": "csp_pafpn", "fusion": "asff", "width": 16},
            "input": {"short": 64, "long": 96, "divisor": 8},
        },
        ("model.input.divisor is 8", "model.backbone, a resnet", "model.neck, a csp_pafpn", "multiples of 16"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_parts_that_do_not_fit_are_told_before_they_are_built(name: str) -> None:
    changes, words = WRONG[name]
    raw = configuration.to_dict(network("tood", "resnet", "fpn"))
    for part, change in changes.items():
        raw[part] = change if part != "backbone" or "kind" in change else raw[part] | change
    config = configuration.from_dict(AnyModelConfig, raw)
    with pytest.raises(ToodError) as caught:
        build_model(config)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_are_exchanged_on_the_command_line() -> None:
    run = configuration.apply_overrides(
        run_config("tood_tiny"),
        [
            "model.backbone.kind=csp_rep_resnet",
            "model.backbone.widths=[8, 8, 12, 16, 16]",
            "model.backbone.blocks=[1, 1, 1, 1]",
            "model.neck.kind=csp_pan",
            "model.neck.widths=[32, 32, 32]",
        ],
    )
    assert (run.model.backbone.kind, run.model.neck.kind) == ("csp_rep_resnet", "csp_pan")  # type: ignore[attr-defined]
    with torch.device("meta"):
        build_model(run.model)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_parts_without_a_kind_are_those_of_the_family(family: Any) -> None:
    config = family.config()
    raw = configuration.to_dict(config)
    del raw["backbone"]["kind"], raw["neck"]["kind"]
    assert configuration.from_dict(AnyModelConfig, raw) == config


def test_the_example_of_the_documentation_trains(tmp_path: Path) -> None:
    from tood.data.transforms import AugmentConfig, CanvasStep
    from tood.training import DataConfig, train
    from training.pictures import coco_folder

    page = (Path(__file__).parents[2] / "docs" / "mixing.md").read_text("utf-8")
    text = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "mixed.yaml").write_text(text, encoding="utf-8")
    run = configuration.load(tmp_path / "mixed.yaml", RunConfig)
    assert run.model.family == "tood"
    small = replace(run.model, input=InputConfig(64, 64))
    result = train(
        replace(
            run,
            model=small,
            data=DataConfig(path=str(coco_folder(tmp_path / "data")), workers=0),
            augment=AugmentConfig((CanvasStep(64),)),
            epochs=1,
            batch_size=2,
            accumulation=1,
            trackers=(),
            device="cpu",
            out=tmp_path / "run",
        )
    )
    assert result.steps > 0
    assert result.best is not None
    assert CRITERIA[run.criterion.kind] is type(run.criterion)
    assert isinstance(run.criterion, AnyCriterionConfig)  # type: ignore[misc, arg-type]
