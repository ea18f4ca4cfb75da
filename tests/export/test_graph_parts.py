"""What stands before and behind a network in a file, of ONNX or of PyTorch, against what `tood` and OpenCV do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim

from tood.engines import FixedInput
from tood.engines.onnx_file import onnx_session
from tood.export import torch_suppression
from tood.export.config import rows_of
from tood.export.onnx_nodes import OnnxNodes
from tood.export.onnx_pictures import add_pictures
from tood.export.onnx_suppression import Dense, add_suppression, add_top_k
from tood.export.torch_pictures import laid_pictures
from tood.inference.postprocess import postprocess
from tood.input import InputConfig, normalise, prepare, stacked
from tood.models.common import AnyPostprocessConfig, PostprocessConfig, ScoreVotingConfig, TopKConfig
from tood.structures import DensePredictions, Priors

CLASSES = 3
LEVELS = (12, 5, 1)

Part: TypeAlias = Callable[[Mapping[str, NDArray[np.generic]]], list[NDArray[np.generic]]]
"""A part of a graph alone, on its engine: inputs by name, in their order, to its outputs."""

Kind = Literal["onnx", "torch"]
KINDS: tuple[Kind, ...] = ("onnx", "torch")


def _program(part: nn.Module, inputs: Mapping[str, Tensor], free: Mapping[str, tuple[int, ...]]) -> Part:
    """PyTorch's program of a part, whose inputs have free axes."""
    lengths = tuple(dict.fromkeys(free[name], Dim.AUTO) for name in inputs)
    program = torch.export.export(part, tuple(inputs.values()), dynamic_shapes=(lengths,), strict=False)
    module = program.module()

    def run(given: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        return [output.numpy() for output in module(*(torch.from_numpy(given[name]) for name in inputs))]

    return run


def _session(nodes: OnnxNodes, inputs: Mapping[str, tuple[int, list[object]]], outputs: Mapping[str, int]) -> Part:
    graph = helper.make_graph(
        [],
        "part",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    nodes.add_to(model)
    session = onnx_session(model.SerializeToString(), torch.device("cpu"))
    return lambda given: session.run(None, dict(given))  # type: ignore[no-any-return]


def _onnx_post(config: AnyPostprocessConfig, judges: bool) -> Part:
    nodes = OnnxNodes("postprocess")
    dense = Dense("in/boxes", "in/scores", "in/quality" if judges else None, "windows" if config.clip else None)
    if isinstance(config, TopKConfig):
        add_top_k(nodes, dense._replace(windows=None), config, CLASSES)
    else:
        add_suppression(nodes, dense, config, CLASSES, [nodes.integer([size]) for size in LEVELS])
    inputs: dict[str, tuple[int, list[object]]] = {
        "in/boxes": (TensorProto.FLOAT, ["b", "n", 4]),
        "in/scores": (TensorProto.FLOAT, ["b", "n", CLASSES]),
    }
    if judges:
        inputs["in/quality"] = (TensorProto.FLOAT, ["b", "n"])
    if dense.windows and not isinstance(config, TopKConfig):
        inputs["windows"] = (TensorProto.FLOAT, ["b", 4])
    whole = TensorProto.INT64
    return _session(
        nodes, inputs, {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "labels": whole, "counts": whole}
    )


class _Post(nn.Module):
    def __init__(self, config: AnyPostprocessConfig, judges: bool) -> None:
        super().__init__()
        self.config, self.judges = config, judges

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        boxes, scores, *others = inputs
        quality = others[0] if self.judges else None
        dense = torch_suppression.Dense(boxes, scores, quality, list(LEVELS), others[-1] if self.config.clip else None)
        if isinstance(self.config, TopKConfig):
            return tuple(torch_suppression.top_k(dense, self.config))
        return tuple(torch_suppression.suppressed(dense, self.config))


def _torch_post(config: AnyPostprocessConfig, judges: bool) -> Part:
    count = sum(LEVELS)
    inputs = {"in/boxes": torch.zeros(2, count, 4), "in/scores": torch.zeros(2, count, CLASSES)}
    if judges:
        inputs["in/quality"] = torch.zeros(2, count)
    if config.clip:
        inputs["windows"] = torch.zeros(2, 4)
    return _program(_Post(config, judges), inputs, dict.fromkeys(inputs, (0,)))


CONFIGS: dict[str, tuple[AnyPostprocessConfig, bool]] = {
    "as TOOD": (PostprocessConfig(0.3, per_level=4, max_detections=6), False),
    "cut, with a quality": (PostprocessConfig(0.3, per_level=4, clip=True), True),
    "as YOLOX": (
        PostprocessConfig(0.2, threshold_on="ranked", best_class=True, per_level=None, max_detections=None),
        True,
    ),
    "as PP-YOLOE": (PostprocessConfig(0.2, per_class=5, iou_threshold=0.7), False),
    "no limit": (PostprocessConfig(0.2, per_level=None, ranking="geometric_mean"), True),
    "over all classes": (PostprocessConfig(0.2, per_level=None, class_agnostic=True), False),
    "over the best of all classes": (PostprocessConfig(0.2, per_level=3, class_agnostic=True), False),
    "as PAA": (ScoreVotingConfig(0.3, per_level=4, max_detections=8, clip=True), True),
    "as TOOD, with votes": (PostprocessConfig(0.2, per_level=6, max_detections=6, voting_sigma=0.1), False),
    "over all classes, with votes": (PostprocessConfig(0.2, per_level=6, class_agnostic=True, voting_sigma=0.05), True),
    "one to one": (TopKConfig(0.2, max_detections=7), False),
    "one to one, with a quality": (TopKConfig(0.2, max_detections=7), True),
}


@pytest.fixture(scope="module", params=[(kind, name) for kind in KINDS for name in CONFIGS], ids=" ".join)
def configured(request: pytest.FixtureRequest) -> tuple[AnyPostprocessConfig, bool, Part]:
    kind, name = request.param
    config, judges = CONFIGS[name]
    return config, judges, {"onnx": _onnx_post, "torch": _torch_post}[kind](config, judges)


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3), few=st.booleans(), empty=st.booleans())
def test_post_processing_finds_what_ours_finds(
    configured: tuple[AnyPostprocessConfig, bool, Part], seed: int, batch: int, few: bool, empty: bool
) -> None:
    """Few values of scores have many ties, whose order decides what is kept."""
    config, judges, part = configured
    random = np.random.default_rng(seed)
    count = sum(LEVELS)
    corners = random.integers(-8, 40, (batch, count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.integers(-1, 24, (batch, count, 2))], 2).astype(np.float32)
    scores = random.random((batch, count, CLASSES), np.float32)
    if few and not judges:
        scores = np.floor(scores * 4) / 4
    quality = random.uniform(0.01, 0.99, (batch, count)).astype(np.float32)
    windows = np.array([[0, 0, 32, 24]] * batch, np.float32)
    if empty:
        scores[0] = 0
    inputs = {"in/boxes": boxes, "in/scores": scores}
    if judges:
        inputs["in/quality"] = quality
    if config.clip:
        inputs["windows"] = windows
    priors = Priors(torch.zeros(count, 2), torch.ones(count), torch.ones(count), tuple((1, size) for size in LEVELS))
    dense = DensePredictions(
        torch.from_numpy(scores),
        torch.from_numpy(boxes),
        priors,
        quality=torch.from_numpy(quality).logit() if judges else None,
    )
    limited = replace(config, max_detections=rows_of(config))
    wanted = postprocess(dense, None, limited, torch.tensor([[24.0, 32.0]] * batch))
    given_boxes, given_scores, labels, counts = part(inputs)
    assert given_scores.shape == (batch, rows_of(config))
    for found, number, *rows in zip(wanted, counts, given_boxes, given_scores, labels, strict=True):
        assert number == len(found.scores)
        np.testing.assert_allclose(rows[1][:number], found.scores, rtol=1e-5)
        np.testing.assert_array_equal(rows[2][:number], found.labels)
        np.testing.assert_allclose(rows[0][:number], found.boxes, rtol=1e-4, atol=1e-3)
        assert not rows[1][number:].any()
        assert (rows[2][number:] == -1).all()


INPUTS: dict[str, InputConfig] = {
    "keep ratio": InputConfig(64, 96),
    "keep ratio, padding of a colour, BGR": InputConfig(64, 96, channels="bgr", pad=(1, 2, 3)),
    "letterbox in the middle": InputConfig(64, 64, fit="letterbox"),
    "letterbox in the corner, BGR": InputConfig(
        64, 96, fit="letterbox", letterbox="corner", pad=(114, 114, 113), channels="bgr"
    ),
    "stretched": InputConfig(64, 96, fit="stretch", divisor=64),
    "fixed": FixedInput.of(InputConfig(), 64, 96),
    "fixed letterbox": FixedInput.of(InputConfig(fit="letterbox"), 64, 32),
    "fixed and stretched": FixedInput.of(InputConfig(fit="stretch"), 96, 64),
}


@pytest.fixture(scope="module", params=[(kind, name) for kind in KINDS for name in INPUTS], ids=" ".join)
def laid(request: pytest.FixtureRequest) -> tuple[InputConfig, Part]:
    kind, name = request.param
    return INPUTS[name], _input_part(kind, INPUTS[name])


def _input_part(kind: Kind, config: InputConfig) -> Part:
    return _onnx_input(config) if kind == "onnx" else _torch_input(config)


def _onnx_input(config: InputConfig) -> Part:
    nodes = OnnxNodes("preprocess")
    made = add_pictures(nodes, "pictures", config)
    named = {"prepared": made.images, "offset": made.offset, "scale": made.scale, "window": made.window}
    for name, value in named.items():
        nodes.named(value, name)
    pictures = {"pictures": (TensorProto.UINT8, ["b", "h", "w", 3])}
    return _session(nodes, pictures, dict.fromkeys(named, TensorProto.FLOAT))


class _Pictures(nn.Module):
    def __init__(self, config: InputConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, *pictures: Tensor) -> tuple[Tensor, ...]:
        return tuple(laid_pictures(pictures[0], self.config))


def _torch_input(config: InputConfig) -> Part:
    example = torch.zeros(2, 70, 101, 3, dtype=torch.uint8)
    return _program(_Pictures(config), {"pictures": example}, {"pictures": (0, 1, 2)})


def _given_and_wanted(config: InputConfig, part: Part, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    images, offset, scale, window = part({"pictures": pictures})
    prepared = [prepare(picture, config) for picture in pictures]
    geometry = prepared[0][1]
    np.testing.assert_allclose(scale, np.array(geometry.scale * 2, np.float32))
    np.testing.assert_array_equal(offset, np.array(geometry.offset[::-1] * 2, np.float32))
    np.testing.assert_array_equal(window, [[0, 0, pictures.shape[2], pictures.shape[1]]])
    pixels = torch.from_numpy(stacked([image for image, _ in prepared], config)).permute(0, 3, 1, 2)
    wanted = normalise(pixels, torch.tensor([geometry.canvas] * len(pictures)), config)
    return images, wanted.numpy()


@given(height=st.integers(1, 200), width=st.integers(1, 200), batch=st.integers(1, 2), seed=st.integers(0, 9))
def test_whole_pictures_are_laid_out_as_ours_are(
    laid: tuple[InputConfig, Part], height: int, width: int, batch: int, seed: int
) -> None:
    config, part = laid
    pictures = np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)
    images, wanted = _given_and_wanted(config, part, pictures)
    # Divisions of numbers of 32 bits, by engines of their own.
    np.testing.assert_allclose(images, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (427, 640), (333, 200), (60, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_interpolation_is_opencvs(kind: Kind, height: int, width: int) -> None:
    config = InputConfig(448, 448, mean=(0, 0, 0), std=(1, 1, 1))
    pictures = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    images, wanted = _given_and_wanted(config, _input_part(kind, config), pictures)
    np.testing.assert_array_equal(images, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_scaled_by_cubic_interpolation(kind: Kind) -> None:
    config = InputConfig(96, 96, fit="stretch", interpolation="cubic", mean=(0, 0, 0), std=(1, 1, 1))
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (1, 70, 130, 3), np.uint8)[0], (5, 5), 0)
    images, wanted = _given_and_wanted(config, _input_part(kind, config), picture[None])
    assert np.abs(images - wanted).max() <= 1
    assert (images != wanted).mean() < 0.01
