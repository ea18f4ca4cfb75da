"""Checkpoints as the original repository and MMDetection write them, framework objects included."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

# The original repository's names of what the port calls otherwise.
ORIGINAL = (
    (".layer_attention.0.", ".la_conv1."),
    (".layer_attention.2.", ".la_conv2."),
    (".cls_prob_module.0.", ".cls_prob_conv1."),
    (".cls_prob_module.2.", ".cls_prob_conv2."),
    (".reg_offset_module.0.", ".reg_offset_conv1."),
    (".reg_offset_module.2.", ".reg_offset_conv2."),
)

CONFIG = """
dataset_type = 'CocoDataset'
model = dict(
    type='TOOD',
    backbone=dict(type='ResNet', depth=50, style='pytorch', init_cfg=dict(type='Pretrained')),
    neck=dict(type='FPN', add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(
        type='TOODHead',
        anchor_type='{anchor}',
        norm_cfg=dict(type='GN', num_groups={groups}),
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=8)))
optimizer = dict(type='SGD', lr=0.01)
"""


def original_names(state: dict[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    renamed = OrderedDict()
    for name, tensor in state.items():
        for port, original in ORIGINAL:
            name = name.replace(port, original)
        renamed[name] = tensor
    return renamed


@contextmanager
def framework() -> Iterator[types.SimpleNamespace]:
    """Classes of a training framework that are importable only within."""
    packages = [types.ModuleType(name) for name in ("mmengine", "mmengine.logging", "mmcv", "mmcv.utils")]
    history, config = types.ModuleType("mmengine.logging.history_buffer"), types.ModuleType("mmcv.utils.config")

    class HistoryBuffer:
        def __init__(self, values: list[float]) -> None:
            self._log_history = np.array(values)
            self._count_history = np.ones(len(values))
            # torch.save writes a class's function as a call of getattr on the class.
            self.statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self) -> float:
            return float(self._log_history.mean())

    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = history.__name__, "HistoryBuffer.mean"

    class ConfigDict(dict[str, Any]):
        pass

    class Hooks(list[Any]):
        def __reduce_ex__(self, protocol: Any) -> Any:
            return Hooks, (), {"priority": 3}, iter(self)

    made = types.SimpleNamespace(HistoryBuffer=HistoryBuffer, ConfigDict=ConfigDict, Hooks=Hooks)
    for module, classes in ((history, [HistoryBuffer]), (config, [ConfigDict, Hooks])):
        for cls in classes:
            cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
            setattr(module, cls.__name__, cls)
    modules = {module.__name__: module for module in (*packages, history, config)}
    assert not modules.keys() & sys.modules.keys()
    sys.modules.update(modules)
    try:
        yield made
    finally:
        for name in modules:
            del sys.modules[name]


def write_checkpoint(
    path: Path, layout: str, state: dict[str, torch.Tensor], classes: list[str], config: str = "", legacy: bool = False
) -> Path:
    """Writes `state` (in the port's names) as the layout has it: "original", "mmdet2", "mmdet3" or "plain"."""
    saved: Any
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.01, "params": [0]}]}
    with framework() as made:
        if layout == "original":
            saved = {
                "meta": {"CLASSES": tuple(classes), "epoch": 12, "mmdet_version": "2.8.0", "config": config},
                "state_dict": original_names(state),
                "optimizer": optimizer,
            }
        elif layout == "mmdet2":
            parallel = OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
            saved = {
                "meta": {"CLASSES": classes, "hook_msgs": made.ConfigDict(a=1), "config": config},
                "state_dict": parallel,
                "optimizer": optimizer,
            }
        elif layout == "mmdet3":
            saved = {
                "meta": {"dataset_meta": {"classes": tuple(classes), "palette": [(1, 2, 3)]}, "cfg": config},
                "state_dict": OrderedDict(state) | {"data_preprocessor.mean": torch.zeros(3, 1, 1)},
                "message_hub": {
                    "log_scalars": OrderedDict({"train/loss": made.HistoryBuffer([3.0, 2.0])}),
                    "runtime_info": OrderedDict(iter=7, hooks=made.Hooks([1, 2])),
                    "resumed_keys": OrderedDict(),
                },
                "optimizer": optimizer,
            }
        else:
            saved = state
        torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    return path
