"""What was chosen for a run and why, in two lines of its log."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tood.data.transforms import (
    AugmentConfig,
    AugmentStep,
    CanvasStep,
    CropStep,
    DistortStep,
    ExpandStep,
    FitStep,
    FlipStep,
    MixUpStep,
    MosaicStep,
    PhotometricStep,
    StretchStep,
)
from tood.input import InputConfig
from tood.models import AnyDetector
from tood.training.config import RunConfig
from tood.training.schedule import StepScheduleConfig, StretchedCosineScheduleConfig
from tood.training.start import SCRATCH


def how_it_learns(config: RunConfig, model: AnyDetector, rate: float, thawed: bool = False) -> str:
    """Which parts learn at which rates, what BatchNorms do, and what of the weights is kept, with the reasons.

    Args:
        config: of the run, `start_from` decided.
        model: in training mode, with its frozen parts.
        rate: the head's at its peak.
        thawed: whether there were objects enough to let more of the backbone learn (`thaw_from`).
    """
    from_scratch = config.start_from == SCRATCH
    parts = [
        _resting(model, from_scratch, thawed),
        _rates(config, model, rate, from_scratch),
        _norms(model, from_scratch),
    ]
    if config.ema.enabled:
        steps = round(1 / (1 - config.ema.decay))
        parts.append(f"weights are averaged over some {steps:,} steps (EMA {config.ema.decay:g}), which steadies them")
    else:
        parts.append("the last weights are taken as they are (no EMA)")
    return f"learning: {'; '.join(part for part in parts if part)}"


def what_it_sees(config: RunConfig) -> str:
    """How pictures are varied and until when, in which sizes, and how long, with the reasons."""
    augment = config.augment
    varied = [text for step in augment.steps if (text := _variation(step))]
    seen = ", ".join(varied) if varied else "as they are"
    if varied and not any(getattr(step, "until", 1.0) < 1 for step in augment.steps):
        seen += ", to the end of the run"
    parts = [seen, _no_mosaic(augment), _sizes(augment, config.model.input), _length(config)]
    return f"pictures: {'; '.join(part for part in parts if part)}"


# --- learning ------------------------------------------------------------------------------------------------------


def _resting(model: AnyDetector, from_scratch: bool, thawed: bool) -> str:
    *backbone, neck, head = model.stages()
    resting = [_rests(stage) for stage in backbone]
    first = next((i for i, rests in enumerate(resting) if not rests), len(resting))
    names = []
    if first == len(resting):
        names.append("the backbone")
    elif first:
        count = "" if first == 2 else f"{first - 1} "
        names.append(f"the backbone's stem{f' and first {count}of {len(resting) - 1} stages' if first > 1 else ''}")
    names += [name for name, stage in (("the neck", neck), ("the head", head)) if _rests(stage)]
    if not names:
        return _some_rest(model) or "all of it learns"
    told = " and ".join(names)
    several = " and " in told
    # ImageNet has taught the backbone alone, and nothing was taught from scratch.
    if from_scratch or not first or len(names) > 1:
        why = ""
    elif first == 1 and thawed:
        why = ", since edges are edges; there are objects enough for the stages behind it to learn"
    else:
        why = f", since what {'they know' if several else 'it knows'} holds for other pictures too"
    return f"{told} {'rest' if several else 'rests'}{why}"


def _rests(stage: Sequence[nn.Module]) -> bool:
    parameters = [parameter for module in stage for parameter in module.parameters()]
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _some_rest(model: AnyDetector) -> str:
    still = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    return f"{still:,} parameters rest (freeze)" if still else ""


def _rates(config: RunConfig, model: AnyDetector, rate: float, from_scratch: bool) -> str:
    decay = config.optimizer.layer_decay
    if decay == 1:
        return f"one rate for all that learns, {rate:.2g}"
    stages = model.stages()
    first = next((i for i, stage in enumerate(stages) if not _rests(stage)), 0)
    lowest = rate * decay ** (len(stages) - 1 - first)
    told = f"the head learns at {rate:.2g} and each stage before it at {decay:g} of that, down to {lowest:.2g}"
    return told if from_scratch else f"{told}, since what is nearer the picture needs less change"


def _norms(model: AnyDetector, from_scratch: bool) -> str:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    learning = sum(norm.training for norm in norms)
    if not norms:
        return ""
    if not learning:
        kept = "BatchNorms keep the statistics they have"
        return kept if from_scratch else f"{kept}, which are better than a small batch's"
    if learning == len(norms):
        return "BatchNorms learn their statistics"
    return "BatchNorms keep their statistics in what rests and learn them elsewhere"


# --- pictures ------------------------------------------------------------------------------------------------------


def _variation(step: AugmentStep) -> str:
    """What a step does, in words; empty for one that varies nothing."""
    text = _varied(step)
    until = getattr(step, "until", 1.0)
    return f"{text} until {until:.0%} of the run" if text and until < 1 else text


def _varied(step: AugmentStep) -> str:
    if isinstance(step, CanvasStep):
        return "" if step.scale == (1.0, 1.0) else f"scaled {step.scale[0]:g} to {step.scale[1]:g} times"
    if isinstance(step, FitStep):
        return "" if step.shortest is None else f"short sides from {step.shortest} pixels up"
    if isinstance(step, StretchStep):
        return "stretched to a square"
    if isinstance(step, MosaicStep):
        return f"{step.probability:.0%} in mosaics of four" if step.probability else ""
    if isinstance(step, MixUpStep):
        return f"{step.probability:.0%} blended with another" if step.probability else ""
    if isinstance(step, FlipStep):
        sides = [name for name, share in (("sideways", step.horizontal), ("upside down", step.vertical)) if share]
        return f"mirrored {' and '.join(sides)}" if sides else ""
    if isinstance(step, PhotometricStep):
        return "colours varied" if step.strength else ""
    return {DistortStep: "colours varied", ExpandStep: "made smaller", CropStep: "cropped"}[type(step)]


def _no_mosaic(augment: AugmentConfig) -> str:
    return "" if augment.find(MosaicStep) or augment.canvas is None else "no mosaics"


def _sizes(augment: AugmentConfig, size: InputConfig) -> str:
    sides, canvas = augment.sides, augment.canvas
    if len(set(sides)) > 1:
        return f"batches of {min(sides)} to {max(sides)} pixels"
    if canvas is None and not sides:
        return ""
    side = sides[0] if sides or canvas is None else canvas.side
    told = f"all batches of {side} pixels"
    if canvas is None or side >= size.usual_long:
        return told
    whose = "of" if size.usual_long == size.long else "that a 4:3 picture has in"
    told += f", fewer than the {size.usual_long:.0f} {whose} prediction"
    return f"{told}, as scaling shows objects larger than they will be" if canvas.scale[1] > 1 else told


def _length(config: RunConfig) -> str:
    schedule = config.schedule
    if isinstance(schedule, StepScheduleConfig):
        falls = f"the rate falls at {len(schedule.milestones)} milestones"
    elif isinstance(schedule, StretchedCosineScheduleConfig):
        falls = "the rate falls along a cosine"
    else:
        falls = f"the rate falls along a cosine to {schedule.final_ratio:.0%}"
    if config.patience is None:
        return f"{config.length}, in which {falls}"
    until = f"until {config.patience} evaluations bring no higher AP, at most {config.length}"
    if not config.cool_down:
        return f"{until}, in which {falls}"
    return f"{until}, then {config.cool_down:.0%} longer, in which {falls}"
