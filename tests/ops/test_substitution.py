"""Whoever watches, wraps or changes a layer of any family gets what plain PyTorch gives."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune

from narrow_models import EXAMPLES, lively
from tood.models import FAMILIES, build_model, for_inference
from tood.models.common.deform_conv import DeformConv2d
from tood.models.common.published import named
from tood.ops import is_awaited, plain
from tood.ops.same_conv import SameConv2d
from tood.training.batch_norm import SharedBatchNorm

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(build_model(EXAMPLES[name])).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@cache
def layers(name: str) -> dict[str, nn.Module]:
    """Each by its place in the network."""
    return {place: module for place, module in network(name).named_modules() if isinstance(module, LAYERS)}


def results(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of all parameters that learn."""
    model.zero_grad()
    found = model.train()(IMAGES)
    outputs = [found.scores, found.boxes / 10, *([] if found.quality is None else [found.quality])]
    sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outputs).backward()  # type: ignore[union-attr]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learning]
    return [out.detach() for out in outputs], gradients


def assert_same(ours: tuple[list[Tensor], list[Tensor]], theirs: tuple[list[Tensor], list[Tensor]]) -> None:
    for one, other in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4 * float(other.abs().max()))
    # As a whole: a ReLU or a maximum at its kink, which rounding decides, changes single entries by much. What is
    # next to none (weights before a norm, along themselves) is rounding alone.
    largest = max(float(other.norm()) for other in theirs[1])
    for one, other in zip(ours[1], theirs[1], strict=True):
        assert float((one - other).norm()) <= 0.05 * float(other.norm()) + 1e-5 * largest


class Scaled(nn.Module):
    """A parametrisation that learns too."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.factor


class LowRank(nn.Module):
    """A convolution with a term of low rank beside it, as LoRA has it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        geometry = (conv.kernel_size, conv.stride, conv.padding)
        kind = SameConv2d if isinstance(conv, SameConv2d) else nn.Conv2d
        self.down = kind(conv.in_channels, 2, *geometry, bias=False)  # type: ignore[arg-type]
        self.up = nn.Conv2d(2, conv.out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.up(self.down(x))  # type: ignore[no-any-return]


def put(model: nn.Module, place: str, module: nn.Module) -> None:
    parent, _, name = place.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def wrap(model: nn.Module, place: str, calls: list[str]) -> None:
    conv = model.get_submodule(place)
    assert isinstance(conv, nn.Conv2d)
    torch.manual_seed(1)
    put(model, place, LowRank(conv))


class Doubled(nn.GroupNorm):
    """Of a class of its own, with another forward."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def subclass(model: nn.Module, place: str, calls: list[str]) -> None:
    layer = model.get_submodule(place)
    assert type(layer) is nn.GroupNorm
    layer.__class__ = Doubled


def own_forward(model: nn.Module, place: str, calls: list[str]) -> None:
    layer = model.get_submodule(place)
    usual = layer.forward
    layer.forward = lambda x: (calls.append(place), usual(x) * 0.5)[1]  # type: ignore[method-assign, func-returns-value]


def forward_hook(model: nn.Module, place: str, calls: list[str]) -> None:
    model.get_submodule(place).register_forward_hook(lambda module, args, out: (calls.append(place), out * 0.5)[1])


def forward_pre_hook(model: nn.Module, place: str, calls: list[str]) -> None:
    hook = lambda module, args: (calls.append(place), (args[0] + 0.1,))[1]  # noqa: E731
    model.get_submodule(place).register_forward_pre_hook(hook)


def full_backward_hook(model: nn.Module, place: str, calls: list[str]) -> None:
    def halve(module: nn.Module, to_inputs: Any, to_outputs: Any) -> Any:
        calls.append(place)
        return tuple(None if gradient is None else gradient * 0.5 for gradient in to_inputs)

    model.get_submodule(place).register_full_backward_hook(halve)


def parametrise(model: nn.Module, place: str, calls: list[str]) -> None:
    parametrize.register_parametrization(model.get_submodule(place), "weight", Scaled())


def pruned(model: nn.Module, place: str, calls: list[str]) -> None:
    layer = model.get_submodule(place)
    mask = (layer.weight.abs() > layer.weight.abs().median()).float()  # type: ignore[union-attr, operator]
    prune.custom_from_mask(layer, "weight", mask)


CHANGES: list[Callable[[nn.Module, str, list[str]], None]] = [
    forward_hook,
    forward_pre_hook,
    full_backward_hook,
    parametrise,
    pruned,
    wrap,
    subclass,
    own_forward,
]
# Other layers are left as they are by these: an untouched network has a test of its own.
ONLY = {wrap: nn.Conv2d, subclass: nn.GroupNorm}


# A network of more layers than these has each of them changed in one way, any other in every way.
MANY = 50


@cache
def new_parts(name: str) -> list[str]:
    """Which parts of a network no other before it has changed in every way: operators of one know none of another."""

    def parts(config: Any) -> dict[str, Any]:
        return {
            "backbone": config.backbone,
            "neck": (config.backbone.channels, config.backbone.strides, config.neck),
            "head": (type(config), config.classes, config.head, config.neck, config.strides),
        }

    before = list(EXAMPLES)[: list(EXAMPLES).index(name)]
    known = [parts(EXAMPLES[other]) for other in before if len(layers(other)) <= MANY]
    return [part for part, of in parts(EXAMPLES[name]).items() if all(of != other[part] for other in known)]


def changed_layers(name: str, change: Callable[[nn.Module, str, list[str]], None]) -> list[str]:
    found = list(layers(name))
    if len(found) > MANY:
        found = found[CHANGES.index(change) :: len(CHANGES)]
    else:
        found = [place for place in found if place.partition(".")[0] in new_parts(name)]
    return [place for place in found if isinstance(layers(name)[place], ONLY.get(change, LAYERS))]


@cache
def usual_calls(name: str) -> Counter[str]:
    """How often plain PyTorch calls each layer."""
    model, calls = network(name), Counter[str]()
    for place in layers(name):
        model.get_submodule(place).register_forward_hook(lambda *_, place=place: calls.update([place]))
    with plain():
        model(IMAGES)
    return calls


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_changed_layer_gives_what_plain_pytorch_gives(
    name: str, change: Callable[[nn.Module, str, list[str]], None]
) -> None:
    for place in changed_layers(name, change):
        model, calls = network(name), list[str]()
        change(model, place, calls)
        ours = results(model)
        counted = len(calls)
        with plain():
            assert_same(ours, results(model))
        assert len(calls) == 2 * counted, place
        if change in (forward_hook, forward_pre_hook, own_forward):
            assert counted == usual_calls(name)[place], place
        with torch.inference_mode():
            found = for_inference(model.eval())(IMAGES)
            wanted = model(IMAGES)
        torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.boxes, wanted.boxes, rtol=1e-3, atol=0.1)


def test_each_change_is_made_in_some_network_and_most_are_in_all() -> None:
    for change in CHANGES:
        made = [bool(changed_layers(name, change)) for name in EXAMPLES]
        assert any(made) if change in ONLY else all(made), change.__name__


@pytest.mark.parametrize("name", EXAMPLES)
def test_untouched_networks_and_their_copies_give_what_plain_pytorch_gives(name: str) -> None:
    model = network(name)
    ours = results(model)
    for some, others in zip(ours, results(copy.deepcopy(model)), strict=True):
        assert all(map(torch.equal, some, others))
    with plain():
        assert_same(ours, results(model))


@pytest.mark.parametrize("name", EXAMPLES)
def test_hooks_on_every_block_and_on_all_modules(name: str) -> None:
    model, calls = network(name), list[str]()
    wanted = results(model)
    handles = [
        module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
        for module in model.modules()
        if type(module) not in (nn.ModuleList, nn.ParameterList)
    ]
    assert_same(results(model), wanted)
    seen = list(calls)
    for handle in handles:
        handle.remove()
    calls.clear()
    everywhere = register_module_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    try:
        assert_same(results(model), wanted)
        assert for_inference(model) is model
    finally:
        everywhere.remove()
    assert calls == seen
    assert not any(map(is_awaited, model.modules()))


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("tood-plain", "head.interactive.0.conv", "head.interactive.1.conv"),
        ("tood-plain", "head.classification_decomposition.reduction", "head.regression_decomposition.reduction"),
        ("tood-plain", "head.classification_decomposition.attention.0", "head.regression_decomposition.attention.0"),
        ("atss-plain", "head.classification_tower.0.conv", "head.regression_tower.1.conv"),
        ("atss-plain", "neck.outputs.0", "neck.outputs.1"),
    ],
)
def test_layers_that_share_their_weights(name: str, one: str, other: str) -> None:
    model = network(name)
    model.get_submodule(other).weight = model.get_submodule(one).weight
    ours = results(model)
    with plain():
        assert_same(ours, results(model))
    with torch.inference_mode():
        torch.testing.assert_close(
            for_inference(model.eval())(IMAGES).scores, model(IMAGES).scores, rtol=1e-3, atol=1e-4
        )


def test_parametrised_weights_are_in_the_copy_as_they_are_computed() -> None:
    model = network("tood-deformable")
    for module in list(model.modules()):
        if isinstance(module, LAYERS):
            parametrize.register_parametrization(module, "weight", Scaled())
    inference = for_inference(model)
    assert inference is not model
    with torch.inference_mode():
        torch.testing.assert_close(inference(IMAGES).scores, model(IMAGES).scores, rtol=1e-3, atol=1e-3)
    assert all(parametrize.is_parametrized(m) for m in model.modules() if isinstance(m, LAYERS))


@pytest.mark.parametrize("name", EXAMPLES)
def test_second_derivatives_are_refused_with_advice_and_there_in_plain(name: str) -> None:
    def penalty(model: nn.Module) -> Tensor:
        found = model(IMAGES)
        gradients = torch.autograd.grad(found.scores.sum(), list(model.backbone.parameters()), create_graph=True)  # type: ignore[union-attr]
        return sum(gradient.square().sum() for gradient in gradients)  # type: ignore[return-value]

    model = network(name)
    if any(isinstance(module, DeformConv2d) for module in model.modules()):
        return  # `grid_sample` and torchvision's operator have none either
    if name in ("tood-plain", "atss-plain"):
        with pytest.raises(RuntimeError, match=r"tood\.ops\.plain"):
            penalty(model).backward()
    if name != "tood-plain":  # `grid_sample` again
        with plain():
            penalty(model).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_step_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        model = build_model(EXAMPLES[name]).train()
        found = model(torch.empty(2, 3, 64, 96))
    (found.scores.sum() + found.boxes.sum()).backward()
    family = next(family for family in FAMILIES if isinstance(EXAMPLES[name], family.config))
    learnt = [model.get_parameter(name).grad for name in named(model.state_dict(), family.weights.CLASSIFIER)]
    assert learnt
    assert all(gradient is not None and gradient.is_meta for gradient in learnt)
    assert for_inference(model) is model


def test_plain_is_of_its_own_thread() -> None:
    import threading

    from tood.ops import is_followed

    seen: list[bool] = []
    with plain():
        assert is_followed()
        thread = threading.Thread(target=lambda: seen.append(is_followed()))
        thread.start()
        thread.join()
    assert seen == [False]
    assert not is_followed()


def test_the_deformable_layer_is_among_the_networks() -> None:
    assert any(isinstance(module, DeformConv2d) for module in network("tood-deformable").modules())


def test_norms_that_train_over_several_processes_fuse_as_they_are_evaluated() -> None:
    model = network("tood-plain")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SharedBatchNorm
    copied = for_inference(model)
    assert copied is not model
    with torch.inference_mode():
        torch.testing.assert_close(copied(IMAGES).scores, model(IMAGES).scores, rtol=1e-3, atol=1e-3)
