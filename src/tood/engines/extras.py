"""Packages that engines need, which are not installed with this one by themselves."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from tood.errors import ToodError, first_line


def needed(module: str, extra: str, purpose: str) -> ModuleType:
    """A module of an optional package.

    Args:
        module: its name.
        extra: the extra of this package that has it.
        purpose: what it is needed for, as the sentence begins: "to run x.onnx".

    Raises:
        ToodError: if it is not installed, or does not load.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise ToodError(f"{purpose}, {error.name} is missing: pip install 'tood[{extra}]'") from error
        package = module.partition(".")[0]
        raise ToodError(f"{purpose}, {package} is missing: pip install 'tood[{extra}]'") from error
    except ImportError as error:
        raise ToodError(f"{module} does not load here ({first_line(error)}): install it again") from error
