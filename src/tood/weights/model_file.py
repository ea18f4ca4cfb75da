"""From files of weights, ours or published, to detectors, and back into the published layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tood.configuration import apply_overrides
from tood.counted import counted
from tood.errors import ToodError
from tood.models import AnyDetector, AnyModelConfig, build_model
from tood.models.common.published import FamilyWeights, Hints, named
from tood.models.families import family_of as family_of_config
from tood.weights.checkpoint import FRAMEWORK_CONFIG, Checkpoint, read_weights_file
from tood.weights.class_names import ClassMatch, match_classes
from tood.weights.families import family_of, framework_head, said_family, those_called_alike
from tood.weights.framework_config import model_section
from tood.weights.paddle_file import write_pdparams
from tood.weights.published import COCO_CLASSES
from tood.weights.safetensors_file import (
    CONFIG,
    COUNTERS,
    OUR_META,
    SOURCE,
    describe,
    described,
    load_tensors,
    save_weights,
)
from tood.whole_file import remove_unfinished, whole_file

# Settings of a training framework's configuration that make another network of tensors of the same names and shapes.
_UNSUPPORTED: tuple[tuple[tuple[str, ...], object], ...] = (
    (("backbone", "style"), "caffe"),
    (("neck", "add_extra_convs"), "on_input"),
    (("neck", "add_extra_convs"), "on_lateral"),
    (("neck", "relu_before_extra_convs"), True),
)


def load_detector_file(
    path: Path | str, config: AnyModelConfig | None = None, settings: Sequence[str] = ()
) -> tuple[AnyDetector, tuple[str, ...]]:
    """The detector of a file, in evaluation mode, and its class names.

    The file is one of ours, of a family's original repository, of MMDetection 2.x or 3.x, or a plain state dict with
    names of any of these.

    Args:
        path: of the file.
        config: the architecture, if it is known; None takes what the file says, or else what its tensors show.
        settings: changes to it, as in `["head.anchor=based"]`.

    Raises:
        ToodError: if it cannot be read, is of no known family, or does not fit the architecture.
    """
    return _detector_of(read_weights_file(path), config, settings)


def network_of(path: Path | str) -> tuple[AnyModelConfig, bool] | None:
    """The network that a file of any layout is of, and whether the file tells it itself; None if it is no detector's.

    What a file does not tell its tensors show, but for its input.

    Raises:
        ToodError: if it cannot be read, or does not show its network.
    """
    checkpoint = read_weights_file(path)
    if family_of(checkpoint) is None and framework_head(checkpoint) is None:
        return None
    family, tensors = _ours(checkpoint)
    told = described(checkpoint.metadata, checkpoint.path)[0]
    return (_inferred(family, tensors, checkpoint), False) if told is None else (told, True)


def _detector_of(
    checkpoint: Checkpoint, config: AnyModelConfig | None = None, settings: Sequence[str] = ()
) -> tuple[AnyDetector, tuple[str, ...]]:
    """The detector of a file that was read; see `load_detector_file`."""
    path = checkpoint.path
    family, tensors = _ours(checkpoint, config)
    config = config or described(checkpoint.metadata, path)[0] or _inferred(family, tensors, checkpoint)
    config = apply_overrides(config, settings)
    names = checkpoint.class_names or _usual_names(config.classes)
    if len(names) != config.classes:
        raise ToodError(
            f"{path} names {counted(len(names), 'class', 'classes')}, but its classifier knows {config.classes}"
        )
    try:
        model = build_model(config)
    except ToodError as error:
        raise ToodError(f"{path} is of a network that cannot be built: {error}") from error
    load_tensors(model, tensors, f"{path} does not fit {describe_architecture(config)}")
    return model.eval(), names


def import_weights(source: Path, out: Path, settings: Sequence[str] = ()) -> str:
    """Writes a detector file of any layout as ours.

    Args:
        source: the file.
        out: the safetensors file to write, whole or not at all.
        settings: what its tensors do not show, as in `["head.anchor=based"]`.

    Returns:
        What was written, and what had to be assumed, for a person.

    Raises:
        ToodError: as `load_detector_file`, or if `out` cannot be written.
    """
    checkpoint = read_weights_file(source)
    model, class_names = _detector_of(checkpoint, settings=settings)
    remove_unfinished(out.parent)
    save_weights(out, model, class_names, checkpoint.metadata.get(SOURCE) or Path(source).name)
    done = f"{describe_architecture(model.config)}, {len(model.state_dict())} tensors"
    return "; ".join((done, *_assumed(checkpoint, model.config, settings)))


def _assumed(checkpoint: Checkpoint, config: AnyModelConfig, settings: Sequence[str]) -> Iterator[str]:
    """What a file neither says nor shows of its network, each in a few words."""
    if CONFIG in checkpoint.metadata:
        return
    alike = those_called_alike(checkpoint, config.family) if said_family(checkpoint) is None else []
    for name in alike:
        yield (
            f"its tensors do not tell {_article(config.family)} from {_article(name)}: if it is the latter, give the "
            f"file a name that says so, such as {name}_{checkpoint.path.name}"
        )
    if not any(setting.startswith("input.") for setting in settings):
        given = config.input
        yield (
            f"its input is assumed, as no tensor shows it: {given.short} x {given.long} pixels ({given.fit}, "
            f"{given.interpolation}), {given.channels}, mean {_numbers(given.mean)}, std {_numbers(given.std)} (else "
            "--set input.KEY=VALUE)"
        )


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def export_weights(source: Path, out: Path, layout: str | None = None) -> str:
    """Writes a detector file of any layout as one that the published code reads, and `import_weights` without loss.

    Args:
        source: the file.
        out: the file to write, whole or not at all: a .pth of torch.save or, by that name and in the layout "paddle", a
            .pdparams.
        layout: one of the network's, such as "original", "mmdet" or "paddle"; None takes its usual one.

    Returns:
        What was written, for a person.

    Raises:
        ToodError: as `load_detector_file`, or if no published code reads such a network in that layout or `out` cannot
            be written.
    """
    checkpoint = read_weights_file(source)
    model, class_names = _detector_of(checkpoint)
    family = _ours(checkpoint)[0]
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    layouts = family.layouts(tensors.keys())
    layout = layout or layouts[0]
    if layout not in layouts:
        architecture = describe_architecture(model.config)
        raise ToodError(f"there is no layout '{layout}' of {architecture}: choose {' or '.join(layouts)}")
    published = family.to_published(tensors, layout)
    ours = describe(model, class_names) | {SOURCE: checkpoint.metadata.get(SOURCE) or Path(source).name}
    remove_unfinished(out.parent)
    if out.suffix == ".pdparams":
        if layout != "paddle":
            raise ToodError(f"{out} would be a file of Paddle's, which has no layout '{layout}': name a .pth")
        with whole_file(out) as temporary:
            write_pdparams(temporary, published, ours)
        return f"{describe_architecture(model.config)}, {len(tensors)} tensors in the layout '{layout}'"
    saved = {
        "state_dict": published,
        "meta": {"CLASSES": tuple(class_names), OUR_META: ours},
    }
    with whole_file(out) as temporary:
        try:
            torch.save(saved, temporary)
        except RuntimeError as error:
            # So PyTorch reports a failed write.
            raise ToodError(f"{out} cannot be written: {str(error).splitlines()[0]}") from error
    return f"{describe_architecture(model.config)}, {len(tensors)} tensors in the layout '{layout}'"


def initialise(model: AnyDetector, checkpoint: Checkpoint, class_names: Sequence[str] | None = None) -> str:
    """Starts fine-tuning from a detector's weights: all of them, and of the classifier the rows of the same classes.

    Args:
        model: takes them.
        checkpoint: the detector's file. If it tells no class names, 80 classes are COCO's, and as many as the model has
            are taken to be the model's in its order.
        class_names: of the model's classes, by label: each takes the row of its name, and one that the file lacks stays
            as it is. None: the classifier is taken where the number of classes is the same, else stays as it is.

    Returns:
        What was taken and what starts anew, for a person.

    Raises:
        ToodError: if it is of no known family; or lists what does not fit the model, which is then as it was.
    """
    family, tensors = _ours(checkpoint)
    state = model.state_dict()
    classifier = [
        name
        for name in named(tensors, family.CLASSIFIER)
        if name in state and tensors[name].shape[1:] == state[name].shape[1:]
    ]
    if class_names is not None and classifier:
        match, told = _matched(checkpoint, tuple(class_names), len(tensors[classifier[0]]))
        if not match.same:
            tensors |= {name: _rows_of(match, tensors[name], state[name]) for name in classifier}
        complaint = f"{checkpoint.path} does not fit {describe_architecture(model.config)}"
        load_tensors(model, tensors, complaint)
        if match.unchanged and not told:
            return f"starts from all {len(tensors)} tensors of {checkpoint.path}"
        return f"starts from {len(tensors)} tensors of {checkpoint.path}; {told or match}"
    others = {name for name in classifier if tensors[name].shape != state[name].shape}
    taken = {name: tensor for name, tensor in tensors.items() if name not in others}
    complaint = f"{checkpoint.path} does not fit {describe_architecture(model.config)}"
    load_tensors(model, taken, complaint, (*COUNTERS, *others))
    if not others:
        return f"starts from all {len(taken)} tensors of {checkpoint.path}"
    known = len(tensors[classifier[0]])
    return (
        f"starts from {len(taken)} tensors of {checkpoint.path}; it knows {counted(known, 'class', 'classes')} and "
        f"this model {model.config.classes}, so the classifier starts anew"
    )


def _matched(checkpoint: Checkpoint, wanted: tuple[str, ...], rows: int) -> tuple[ClassMatch, str]:
    """The file's classes beside the wanted ones, and what is to be told of them, if it is not the match itself."""
    known, path = checkpoint.class_names, checkpoint.path
    if known is not None and len(known) != rows:
        raise ToodError(f"{path} names {counted(len(known), 'class', 'classes')}, but its classifier knows {rows}")
    if known is not None and known != _placeholders(rows):
        return match_classes(wanted, known), ""
    match = match_classes(wanted, _usual_names(rows))
    if rows == len(COCO_CLASSES):
        return match, "" if match.same else f"it names no classes, COCO's are assumed; {match}"
    if rows != len(wanted):
        told = f"it names none of its {rows} classes and this model has {len(wanted)}, so the classifier starts anew"
        return replace(match, rows=(None,) * len(wanted)), told
    told = (
        f"it names none of its {rows} classes: they are taken to be the dataset's, in its order ({', '.join(wanted)})"
    )
    return match_classes(wanted, wanted), told


def _rows_of(match: ClassMatch, tensor: Tensor, fresh: Tensor) -> Tensor:
    """[C, ...] a classifier's tensor for the wanted classes: their rows of `tensor`, else those of `fresh`."""
    labels = [label for label, row in enumerate(match.rows) if row is not None]
    rows = fresh.clone()
    rows[labels] = tensor[[row for row in match.rows if row is not None]].to(rows)
    return rows


def describe_architecture(config: AnyModelConfig) -> str:
    """A few words on a network, such as "a tood with ResNet-50 and 80 classes"."""
    classes = counted(config.classes, "class", "classes")
    return f"{_article(config.family)} with {config.backbone.description} and {classes}"


def _article(family: str) -> str:
    """A family's name behind its article."""
    return f"{'an' if family[0] in 'aeio' else 'a'} {family}"


def _usual_names(classes: int) -> tuple[str, ...]:
    """Those of a file that has none: as many as COCO's are COCO's."""
    return COCO_CLASSES if classes == len(COCO_CLASSES) else _placeholders(classes)


def _placeholders(classes: int) -> tuple[str, ...]:
    """What classes without names are called."""
    return tuple(f"class {i}" for i in range(classes))


def _ours(
    checkpoint: Checkpoint, config: AnyModelConfig | None = None
) -> tuple[FamilyWeights[AnyModelConfig], dict[str, Tensor]]:
    """The family of a file and its tensors under our names; `config` is the network that it is expected to be of."""
    family = family_of(checkpoint, None if config is None else family_of_config(config))
    if family is None:
        head = framework_head(checkpoint)
        names = f"its tensors have names like {', '.join(list(checkpoint.tensors)[:3])}"
        why = names if head is None else f"its configuration says {head}"
        raise ToodError(f"{checkpoint.path} is no detector of a known family: {why}")
    try:
        return family.weights, family.weights.from_published(checkpoint.tensors)
    except ToodError as error:
        raise ToodError(f"{checkpoint.path} cannot be understood: {error}") from error


def _inferred(
    family: FamilyWeights[AnyModelConfig], tensors: Mapping[str, Tensor], checkpoint: Checkpoint
) -> AnyModelConfig:
    hints = Hints(checkpoint.path.name, model_section(checkpoint.metadata.get(FRAMEWORK_CONFIG, "")))
    for keys, value in _UNSUPPORTED:
        if hints.find(*keys) == value:
            raise ToodError(f"{checkpoint.path} is of a network with {'.'.join(keys)} = {value!r}, which tood has not")
    try:
        return family.infer_config(tensors, hints)
    except ToodError as error:
        raise ToodError(f"{checkpoint.path} does not show its architecture: {error}") from error
