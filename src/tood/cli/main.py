"""The `tood` command: its sub-commands, and what becomes of their errors.

Everything heavy is imported inside the commands, so that `tood --help` answers at once.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tood.cli.data import app as data_app
from tood.cli.demo import demo
from tood.cli.doctor import doctor
from tood.cli.eval import evaluate
from tood.cli.export import bench, export
from tood.cli.models import models
from tood.cli.predict import predict
from tood.cli.serve import serve
from tood.cli.train import TrainCommand, train
from tood.cli.video import video
from tood.cli.weights import app as weights_app
from tood.errors import SharedError, ToodError
from tood.machine import settle_threads
from tood.stop import StoppedError, stopped_at_once

# Exit code of everything that the person can mend, wrong options included.
USER_ERROR = 2
INTERRUPTED = 130
# Seconds that the process of several that says a mistake has for it, before the others that met it end.
_HEAD_START = 5


class Commands(TyperGroup):
    """Turns the errors that are meant for a person, and signals, into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command.

        SIGTERM and a closed terminal end it as Ctrl-C does, so that it tidies up. What is to be kept of work that was
        stopped, or must not be half done, sees to that by itself (`StopSignal`, `stopped_after`).
        """
        try:
            with stopped_at_once("stopped; what was not finished is removed"):
                return super().invoke(ctx)
        except ToodError as error:
            if _speaks(error):
                typer.echo(f"tood: {error}", err=True)
            else:
                # torchrun ends all processes when the first one ends: the one that says it is to be that.
                time.sleep(_HEAD_START)
            raise typer.Exit(USER_ERROR) from error
        except StoppedError as error:
            with suppress(OSError):  # where the terminal is gone
                typer.echo(f"tood: {error}", err=True)
            raise typer.Exit(128 + error.number) from error
        except KeyboardInterrupt as error:
            typer.echo("tood: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            # Whoever read the output has seen enough; nothing more can be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(1) from error
        except OSError as error:
            # A full disk, a folder that may not be written: mended outside of this program.
            where = f": {error.filename}" if error.filename else ""
            typer.echo(f"tood: {error.strerror or error}{where}", err=True)
            raise typer.Exit(USER_ERROR) from error


def _speaks(error: ToodError) -> bool:
    """Whether this process, of those that torchrun started, is the one to say it."""
    if isinstance(error, SharedError):
        from tood.processes import speaks

        return speaks()
    # Met before they could speak to each other: by all on this machine alike. Met later: by this one alone.
    joined = "torch" in sys.modules and sys.modules["torch"].distributed.is_initialized()
    return joined or os.environ.get("LOCAL_RANK", "0") == "0"


app = typer.Typer(
    cls=Commands,
    name="tood",
    help="Task-aligned one-stage object detection: train, evaluate, predict.",
    epilog="Begin with `tood demo`. Help of a command: `tood train --help`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import tood

        typer.echo(f"tood {tood.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Task-aligned one-stage object detection: train, evaluate, predict."""


app.command(no_args_is_help=False, cls=TrainCommand)(train)
app.command(name="eval")(evaluate)
app.command()(predict)
app.command()(serve)
app.command()(video)
app.add_typer(data_app, name="data")
app.command()(export)
app.command()(bench)
app.command()(models)
app.add_typer(weights_app, name="weights")
app.command()(demo)
app.command()(doctor)


def main() -> None:
    """Entry point of the `tood` command."""
    # PyTorch alone makes half a million objects that stay: to look through them again and again is a tenth of a second.
    gc.set_threshold(20_000)
    _speak_utf8()
    settle_threads()
    try:
        app()
    finally:
        # They need not be looked through when the process ends either, which takes a third of a second.
        gc.freeze()


def _speak_utf8() -> None:
    """Lets paths and output be in any script wherever the program is started.

    The locale C, as cron, containers and ssh leave it, says nothing about letters; Python then cannot open a file
    whose name is not ASCII, nor print it. PYTHONUTF8=0 with it has the same effect. What encoding it is to be instead
    must be known when Python starts, so it starts anew, as the same process.
    """
    own = Path(sys.argv[0]).stem in ("tood", "__main__")  # not a script that calls this function
    if os.name == "posix" and own and sys.executable and codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that is no UTF-8, or a terminal of few letters, is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
