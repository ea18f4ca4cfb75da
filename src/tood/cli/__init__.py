"""The command line: one module a command, each a plain function that `main` registers."""

from tood.cli.main import app, main

__all__ = ["app", "main"]
