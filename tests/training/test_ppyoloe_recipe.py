"""How PP-YOLOE trains: average, rates, what decays, recipes, against PaddleDetection's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from golden_values import golden
from narrow_models import EXAMPLES
from tood import configuration
from tood.data.transforms import StretchStep
from tood.errors import ToodError
from tood.models import build_model
from tood.models.common.norms import BiasedBatchNorm2d
from tood.training import EMA, EMAConfig, RunConfig, StretchedCosineScheduleConfig, rate_factor, run_config
from tood.training.batch_norm import SharedBatchNorm, share_batch_statistics
from tood.training.optim import build_optimizer
from training.fakes import SIDE, tiny_run, tiny_trainer

FROM_ZERO = EMAConfig(enabled=True, decay=0.9998, ramp=10, from_zero=True)


class Small(nn.Module):
    """The layer of the golden file; Paddle's matrix is the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.bn = nn.BatchNorm1d(2)

    def take(self, weights: dict[str, Tensor]) -> None:
        state = {
            name.replace("_mean", "running_mean").replace("_variance", "running_var"): w for name, w in weights.items()
        }
        self.fc.weight.data = state["fc.weight"].clone()
        self.fc.bias.data = torch.zeros(3)
        self.bn.load_state_dict({k[3:]: v for k, v in state.items() if k.startswith("bn.")}, strict=False)


def names_of_paddle(module: nn.Module) -> dict[str, Tensor]:
    names = {"bn.running_mean": "bn._mean", "bn.running_var": "bn._variance"}
    return {names.get(name, name): tensor for name, tensor in module.state_dict().items()}


def test_the_average_from_zero_is_the_reference_s() -> None:
    values = golden("ppyoloe_training")["ema"]
    module = Small()
    ema = EMA(module, replace(FROM_ZERO, decay=values["decay"]))
    for step, given in enumerate(values["steps"], 1):
        module.take(given["weights"])
        ema.update(module, step)
        raw = {
            name.replace("running_mean", "_mean").replace("running_var", "_variance"): t
            for name, t in ema.state_dict().items()
        }
        for name, wanted in given["ema"].items():
            if name != "fc.bias":
                torch.testing.assert_close(raw[name], wanted, rtol=1e-5, atol=1e-6)
    applied = names_of_paddle(ema.averaged())
    for name, wanted in values["applied"].items():
        if name != "fc.bias":
            torch.testing.assert_close(applied[name], wanted, rtol=1e-5, atol=1e-6)


def test_the_average_from_zero_starts_ends_and_goes_on() -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    start = module.weight.clone()
    ema = EMA(module, FROM_ZERO)
    torch.testing.assert_close(ema.averaged().weight, start)  # before any update
    nn.init.constant_(module.weight, 2.0)
    ema.update(module, 1)
    torch.testing.assert_close(ema.averaged().weight, module.weight)  # the start counts for nothing
    ema.update(module, 2, skipped=torch.tensor(True))
    nn.init.constant_(module.weight, 3.0)
    ema.update(module, 2, skipped=torch.tensor(False))
    again = EMA(module, FROM_ZERO)
    again.load_state_dict({name: tensor.clone() for name, tensor in ema.state_dict().items()})
    for one in (ema, again):
        nn.init.constant_(module.weight, 4.0)
        one.update(module, 3)
    assert torch.equal(ema.averaged().weight, again.averaged().weight)
    # Of a run that had no average: begins one.
    fresh = EMA(module, FROM_ZERO)
    fresh.load_state_dict(nn.Linear(3, 2).state_dict())
    fresh.update(module, 1000)
    assert torch.isfinite(fresh.averaged().weight).all()


@pytest.mark.parametrize(("name", "warm_up"), [("ppyoloe_plus_80e", 5 / 80), ("ppyoloe_300e", 5 / 300)])
def test_rates_are_the_reference_s(name: str, warm_up: float) -> None:
    values = golden("ppyoloe_training")["learning_rate"][name]
    config = StretchedCosineScheduleConfig(warm_up_share=warm_up, span=1.2)
    wanted = values["values"].tolist()
    given = [values["base_lr"] * rate_factor(config, step, step / len(wanted)) for step in range(len(wanted))]
    assert given == pytest.approx(wanted, rel=1e-4, abs=1e-9)


def test_impossible_schedules_are_refused() -> None:
    for setting in ({"warm_up_share": 1.0}, {"span": 0.9}):
        with pytest.raises(ToodError, match="schedule"):
            StretchedCosineScheduleConfig(**setting)


@pytest.mark.parametrize("name", ["ppyoloe_s", "ppyoloe_plus_s"])
def test_recipes_are_the_published_ones(name: str) -> None:
    run = run_config(name)
    plus = name == "ppyoloe_plus_s"
    criterion = run.criterion
    epochs, static, rate, images = (80, 30, 0.001, 64) if plus else (300, 100, 0.04, 256)
    assert (run.epochs, criterion.warm_up_epochs, run.optimizer.lr) == (epochs, static, rate)  # type: ignore[attr-defined]
    assert criterion.warm_up_share == pytest.approx(static / epochs)  # type: ignore[attr-defined]
    assert run.ema == FROM_ZERO
    assert run.batches() == (images, 1)
    assert run.augment.find(StretchStep) == StretchStep(640, tuple(range(320, 769, 32)))
    assert [step.kind for step in run.augment.steps] == ["distort", "expand", "crop", "flip", "stretch"]
    # As its file says it.
    assert configuration.from_dict(RunConfig, configuration.to_dict(run)) == run
    groups = build_optimizer(run.optimizer, build_model(EXAMPLES["ppyoloe-plain"]), 0.1).param_groups
    free = {parameter for group in groups if not group["weight_decay"] for parameter in group["params"]}
    model_free = sum(parameter.numel() for parameter in free)
    decayed = [p for group in groups if group["weight_decay"] == 5e-4 for p in group["params"]]
    assert any(parameter.ndim == 1 for parameter in decayed)  # biases and alphas
    assert all(parameter.ndim == 1 for parameter in free)
    assert model_free > 0


@pytest.mark.parametrize(("name", "images"), [("s", 256), ("m", 224), ("l", 160), ("x", 128)])
def test_a_size_s_own_number_of_images_a_step_sets_its_rate(name: str, images: int) -> None:
    rate = run_config(f"ppyoloe_{name}").optimizer
    assert (rate.lr_batch, rate.lr) == (images, pytest.approx(0.01 * images / 64))  # type: ignore[union-attr]
    # Of another recipe they are not.
    assert run_config(f"ppyoloe_{name}", recipe="ppyoloe_plus").batches() == (64, 1)


def test_only_norms_are_spared() -> None:
    model = build_model(EXAMPLES["ppyoloe-plain"])
    run = run_config("ppyoloe_plus_s")
    groups = build_optimizer(run.optimizer, model, 0.1).param_groups
    free = {parameter for group in groups if not group["weight_decay"] for parameter in group["params"]}
    norms = {p for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    assert free == norms


def test_a_run_with_its_average_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """An interrupted run and a whole one end with the same weights and average."""
    model = replace(
        EXAMPLES["ppyoloe-plain"], classes=2, input=replace(EXAMPLES["ppyoloe-plain"].input, short=SIDE, long=SIDE)
    )
    run = run_config("ppyoloe_plus_s")
    config = replace(
        tiny_run(tmp_path / "a"), model=model, criterion=run.criterion, ema=run.ema, schedule=run.schedule, epochs=2
    )
    whole = tiny_trainer(config)
    whole.run()
    state = whole.learner.state_dict()
    second = tiny_trainer(replace(config, out=tmp_path / "b"))
    second.learner.load_state_dict(state)
    one, two = (trainer.learner.averaged.state_dict() for trainer in (whole, second))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.isfinite(tensor.float()).all() for tensor in one.values())


def test_norms_of_several_processes_keep_their_own_variance() -> None:
    model = build_model(EXAMPLES["ppyoloe-plain"])
    norms = [module for module in model.modules() if type(module) is BiasedBatchNorm2d]
    shared = share_batch_statistics(model)
    assert len(shared) == len(norms) > 10
    assert all(norm.biased for norm in shared)
    plain, own = BiasedBatchNorm2d(3).train(), SharedBatchNorm(3).train()
    own.biased = True
    x = torch.randn(2, 3, 2, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tood.training.batch_norm._sum_over_processes", lambda value: value)
        torch.testing.assert_close(own(x), plain(x))
    assert plain.running_var is not None
    assert own.running_var is not None
    torch.testing.assert_close(own.running_var, plain.running_var)
    torch.testing.assert_close(plain.running_var, 0.9 + 0.1 * x.var(dim=(0, 2, 3), unbiased=False))
    torch.testing.assert_close(plain.running_mean, 0.1 * x.mean(dim=(0, 2, 3)))
    assert int(plain.num_batches_tracked) == 1  # type: ignore[arg-type]
