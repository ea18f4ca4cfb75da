"""What is told of an earlier run where a command begins."""

from __future__ import annotations

import typer


def say_resumed(done: int, noun: str, *, resume: bool, found_unfinished: bool) -> None:
    """Tells what is gone on with, or that it could be.

    Args:
        done: how many were done before.
        noun: what these are.
        resume: whether it was asked for.
        found_unfinished: whether a run that did not end has left something.
    """
    if resume:
        typer.echo(f"{done:,} {noun} done before" if done else "nothing to resume: from the start", err=True)
    elif found_unfinished:
        typer.echo("what an earlier run left undone here is begun anew (with --resume it would go on)", err=True)
