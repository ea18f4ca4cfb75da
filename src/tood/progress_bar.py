"""The one progress bar of everything that takes long, except a training's live line, which shows more than a share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    title: str, total: int | None = None, *, shown: bool = True, in_bytes: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error while this lasts, and what moves it; nothing where that is no terminal.

    Args:
        title: of the bar.
        total: how much there is to do, where that is known before.
        shown: False shows nothing, as for all processes of a run but one.
        in_bytes: what is counted are bytes, shown with their rate.

    Yields:
        What takes how much is done, and how much there is to do (None where that is unknown or told before).
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counted: tuple[ProgressColumn, ...] = (MofNCompleteColumn(),)
    if in_bytes:
        counted = (DownloadColumn(), TransferSpeedColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total)
        # A total of None leaves the bar's as it is.
        yield lambda done, of: bar.update(task, completed=done, total=of)
