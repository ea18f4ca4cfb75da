"""`tood models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tood.zoo import ModelCard

COLUMNS = ("parameters", "trainable", "GFLOPs", "weights", "memory", "recipe", "AP val", "test-dev", "to be had from")
NOTE = """\
GFLOPs are multiply-adds, as in MMDetection's tables (twice as many operations), by torch's own counter: convolutions
and matrix products at the model's input size. Memory is what weights and maps hold at most while one image is
predicted in fp32 by plain PyTorch, without the runtime's own; prediction on a CPU takes less for maps. AP is as
published, in percent, on COCO minival (val2017) and test-dev."""


def models(
    name: Annotated[
        str | None, typer.Argument(help="Only this one, with exact figures.", show_default=False, metavar="[NAME]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print exact figures as JSON.")] = False,
) -> None:
    """List the named models with their cost, their published AP and whether their weights are published.

    Example: tood models tood_r50_fpn_1x
    """
    from tood.zoo import named_model, named_models

    chosen = named_models() if name is None else {name: named_model(name)}
    facts = {key: _facts(card) for key, card in chosen.items()}
    if json:
        import json as json_module

        rows = [{"name": key, **row} for key, row in facts.items()]
        typer.echo(json_module.dumps(rows[0] if name else rows, indent=2))
    elif name is None:
        _print_table(facts)
    else:
        width = max(map(len, facts[name]))
        for key, value in facts[name].items():
            typer.echo(f"{key.replace('_', ' '):{width}}  {_exact(value)}")


def _facts(card: ModelCard) -> dict[str, object]:
    from tood.models.measure import measure

    config, weights = card.config(), card.weights
    cost = measure(config)
    return {
        "family": config.family,
        "input": [config.input.short, config.input.long],
        "strides": list(config.strides),
        "classes": config.classes,
        "recipe": card.recipe,
        "parameters": cost.parameters,
        "trainable": cost.trainable,
        "measured_at": list(cost.size),
        "multiply_adds": cost.multiply_adds,
        "operations": 2 * cost.multiply_adds,
        "weight_bytes": cost.weight_bytes,
        "map_bytes": cost.map_bytes,
        "ap_minival": card.published_ap,
        "ap_test_dev": card.published_ap_test_dev,
        "weights": weights.hosted.url if weights and weights.hosted else None,
        "authors_weights": weights.authors_url if weights else None,
        "licence": weights.licence if weights else None,
    }


def _print_table(facts: dict[str, dict[str, object]]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    # Whole lines for a file or a pipe, which have no width.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("model", no_wrap=True)
    for title in COLUMNS:
        table.add_column(title, justify="left" if title == COLUMNS[-1] else "right", no_wrap=True)
    for name, row in facts.items():
        weight_bytes, map_bytes = (_number(row[key]) for key in ("weight_bytes", "map_bytes"))
        table.add_row(
            name,
            f"{_number(row['parameters']):,}",
            f"{_number(row['trainable']):,}",
            f"{_number(row['multiply_adds']) / 1e9:.1f}",
            f"{weight_bytes / 1e6:.0f} MB",
            f"{(weight_bytes + map_bytes) / 1e6:.0f} MB",
            str(row["recipe"]),
            *("" if row[key] is None else f"{row[key]:.1f}" for key in ("ap_minival", "ap_test_dev")),
            "its name" if row["weights"] else "its authors" if row["authors_weights"] else "",
        )
    console.print(table)
    console.print(f"\n{NOTE}", highlight=False)


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _exact(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " x ".join(map(str, value)) if len(value) == 2 else ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
