"""`tood models`."""

from __future__ import annotations


def models() -> None:
    """List the named models.

    Parameters are those of the whole network at its usual number of classes; AP is the published one on COCO minival,
    in percent, where there is one.

    Example: tood train --model tood_tiny --data my_pictures
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from tood.models import build_model, named_models

    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title in ("parameters", "input", "strides", "recipe", "published AP"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, named in named_models().items():
        config = named.config()
        with torch.device("meta"):
            model = build_model(config)
        table.add_row(
            name,
            f"{sum(parameter.numel() for parameter in model.parameters()):,}",
            f"{config.input.short} x {config.input.long}",
            f"{config.strides[0]}..{config.strides[-1]}",
            named.recipe,
            "" if named.published_ap is None else f"{named.published_ap:.1f}",
        )
    Console().print(table)
