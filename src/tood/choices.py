"""What may be chosen in several rooms and on the command line, which lists it without importing any of them."""

from __future__ import annotations

from enum import Enum
from typing import Literal

Exif = Literal["auto", "stored", "turned"]
"""What the labels of pictures with an EXIF orientation were made on: the pixels as stored, or the turned picture."""

PredictionPrecision = Literal["auto", "fp32", "bf16"]
"""What a network computes in when it predicts."""

TrainingPrecision = Literal["auto", "fp32", "bf16", "fp16"]
"""What a network computes in when it learns."""

Tracker = Literal["bytetrack", "ocsort", "botsort"]
"""How objects are followed through a video: ByteTrack, OC-SORT, or BoT-SORT, which sees the camera move."""

DatasetFormat = Literal["coco", "yolo", "voc"]
"""The dataset formats that are written."""

ExportFormat = Literal["onnx", "openvino", "torch"]
"""Kinds of files that models are exported as: ONNX's, OpenVINO's, PyTorch's exported programs."""

ExportDestination = Literal["onnx", "openvino", "torch", "triton"]
"""What `tood export` writes: a file of an `ExportFormat`, or an ONNX file in a model repository of Triton's."""

ExportGraph = Literal["dense", "nms", "topk"]
"""Where an exported graph ends: with a prediction of every prior, with those that non-maximum suppression leaves, or
with the best of a head that gives each object once.
"""

ExportPrecision = Literal["fp32", "fp16", "int8"]
"""What an exported model's convolutions compute in; pictures, boxes and post-processing stay in fp32."""

ExportTarget = Literal["onnxruntime", "tensorrt"]
"""What an ONNX file is to run on: operators differ in which of them knows them."""

PRETRAINED_MODEL, LARGER_MODEL, PLAIN_MODEL = "tood_lite0", "tood_lite2", "tood_tiny"
"""What `tood train` takes where no model is named: one of the first two where their backbones' ImageNet weights are on
this machine, the larger one from `MANY_OBJECTS` on; the third for all else.
"""

MANY_OBJECTS = 1_000
"""Objects to learn from, from which on a small pretrained model may be the larger one, and more of it may learn."""


class ImageTransfer(str, Enum):
    """How image files get into a new folder: hard links (copies where that cannot be), copies, or symlinks."""

    HARDLINK = "hardlink"
    COPY = "copy"
    SYMLINK = "symlink"
