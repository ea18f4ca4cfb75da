"""`tood models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from tood.zoo import ModelCard

COLUMNS = (
    "parameters",
    "merged",
    "GFLOPs",
    "weights",
    "memory",
    "recipe",
    "AP val",
    "test-dev",
    "licence",
    "published at",
)
BY_HAND = "drive.google.com"
NOTE = f"""\
Merged are the parameters once re-parameterisable blocks are one convolution each. GFLOPs are multiply-adds, as in
MMDetection's tables (twice as many operations), by torch's own counter: convolutions and matrix products at the
model's input size. Memory is what weights and maps hold at most while one image is predicted in fp32 by plain PyTorch,
without the runtime's own; prediction on a CPU takes less for maps. AP is as published, in percent, on COCO minival
(val2017) and test-dev. What is published is fetched by the model's name, but from {BY_HAND} only a person
downloads; `tood models NAME` has addresses and exact figures."""


def models(
    name: Annotated[
        str | None, typer.Argument(help="Only this one, with exact figures.", show_default=False, metavar="[NAME]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print exact figures as JSON.")] = False,
) -> None:
    """List the named models with their cost, their published AP, and where their weights are published.

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
    from tood.zoo import cost_of

    config, weights = card.config(), card.weights
    cost = cost_of(card)
    return {
        "family": config.family,
        "input": [config.input.short, config.input.long],
        "strides": list(config.strides),
        "classes": config.classes,
        "recipe": card.recipe,
        "parameters": cost.parameters,
        "trainable": cost.trainable,
        "merged": cost.merged,
        "measured_at": list(cost.size),
        "multiply_adds": cost.multiply_adds,
        "operations": 2 * cost.multiply_adds,
        "weight_bytes": cost.weight_bytes,
        "map_bytes": cost.map_bytes,
        "ap_minival": card.published_ap,
        "ap_test_dev": card.published_ap_test_dev,
        "ap_differs": card.differs,
        "weights": weights.hosted.url if weights and weights.hosted else None,
        "authors_weights": weights.authors_url if weights else None,
        "licence": weights.licence if weights else None,
    }


def _print_table(facts: dict[str, dict[str, object]]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    # Whole lines for a file or a pipe, which have no width.
    console = Console() if sys.stdout.isatty() else Console(width=220)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("model", no_wrap=True)
    for title in COLUMNS:
        table.add_column(title, justify="left" if title == COLUMNS[-1] else "right", no_wrap=True)
    remarks = list(dict.fromkeys(str(row["ap_differs"]) for row in facts.values() if row["ap_differs"]))
    for name, row in facts.items():
        weight_bytes, map_bytes = (_number(row[key]) for key in ("weight_bytes", "map_bytes"))
        table.add_row(
            name,
            f"{_number(row['parameters']):,}",
            f"{_number(row['merged']):,}",
            f"{_number(row['multiply_adds']) / 1e9:.1f}",
            f"{weight_bytes / 1e6:.0f} MB",
            f"{(weight_bytes + map_bytes) / 1e6:.0f} MB",
            str(row["recipe"]),
            *(
                "" if row[key] is None else f"{row[key]:.1f}{_mark(row, remarks)}"
                for key in ("ap_minival", "ap_test_dev")
            ),
            str(row["licence"] or ""),
            _place(row),
        )
    console.print(table)
    notes = "".join(f"\n{'*' * number} {remark}." for number, remark in enumerate(remarks, 1))
    console.print(f"\n{NOTE}{notes}", highlight=False)


def _mark(row: dict[str, object], remarks: list[str]) -> str:
    """Asterisks that lead to the remark on what was measured, if there is one."""
    return "*" * (remarks.index(str(row["ap_differs"])) + 1) if row["ap_differs"] else ""


def _place(row: dict[str, object]) -> str:
    """The host of the published file."""
    if row["weights"]:
        return urlsplit(str(row["weights"])).netloc
    return BY_HAND if row["authors_weights"] else ""


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _exact(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " x ".join(map(str, value)) if len(value) == 2 else ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
