"""What PaddleDetection calls the tensors of blocks that several parts of a network are made of."""

from __future__ import annotations


def conv_norm_names(published: str, ours: str) -> tuple[tuple[str, str], ...]:
    """Pairs, for `Names`, of a convolution with its BatchNorm, below two beginnings of names."""
    return (
        (f"{published}bn._mean", f"{ours}norm.running_mean"),
        (f"{published}bn._variance", f"{ours}norm.running_var"),
        (f"{published}bn.", f"{ours}norm."),
        (f"{published}conv.", f"{ours}conv."),
    )


def csp_names(published: str, ours: str, blocks: str) -> tuple[tuple[str, str], ...]:
    """Pairs, for `Names`, of a CSP stage below two beginnings of names; its blocks are called `blocks` there."""
    theirs, own = f"{published}{blocks}.#.", f"{ours}blocks.#."
    return (
        *conv_norm_names(f"{published}conv1.", f"{ours}past."),
        *conv_norm_names(f"{published}conv2.", f"{ours}through."),
        *conv_norm_names(f"{published}conv3.", f"{ours}out."),
        *conv_norm_names(f"{theirs}conv1.", f"{own}conv."),
        *conv_norm_names(f"{theirs}conv2.conv1.", f"{own}rep.dense."),
        *conv_norm_names(f"{theirs}conv2.conv2.", f"{own}rep.pointwise."),
        (f"{theirs}conv2.alpha", f"{own}rep.alpha"),
    )
