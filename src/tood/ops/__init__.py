"""Operators that compute the same numbers sooner, each beside its plain definition; one guard chooses between them."""

from tood.ops.activation import Activation
from tood.ops.conv_norm import conv_norm
from tood.ops.deform_conv import deform_conv2d
from tood.ops.group_norm_relu import group_norm_relu
from tood.ops.guard import is_awaited, is_followed, may_stand_in, plain
from tood.ops.inference import CannotFuse, InferenceConv2d, fused_conv, known
from tood.ops.same_conv import SameConv2d
from tood.ops.sampling import sampled_at_offsets
from tood.ops.scaled_product import scaled_product
from tood.ops.shared_conv import shared_conv

__all__ = [
    "Activation",
    "CannotFuse",
    "InferenceConv2d",
    "SameConv2d",
    "conv_norm",
    "deform_conv2d",
    "fused_conv",
    "group_norm_relu",
    "is_awaited",
    "is_followed",
    "known",
    "may_stand_in",
    "plain",
    "sampled_at_offsets",
    "scaled_product",
    "shared_conv",
]
