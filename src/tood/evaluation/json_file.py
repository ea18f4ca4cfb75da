"""Reading json that comes from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tood.errors import ToodError


def is_id(value: object) -> bool:
    """Whether a value may name an image or a category: a whole number of 64 bits, as 5.0 is, too."""
    if isinstance(value, float):
        return value.is_integer() and abs(value) < 2**53  # beyond, a float stands for several whole numbers
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def read_json(path: Path, what: str, remedy: str) -> Any:
    """The content of a json file.

    Args:
        path: the file.
        what: what it is to hold, for the messages: "annotations", "detections".
        remedy: what to do about broken json.

    Raises:
        ToodError: if it is missing, cannot be read or is no json.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ToodError(f"there is no {what} file {path}: check the path") from error
    except OSError as error:
        raise ToodError(f"the {what} file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ToodError(f"the {what} file {path} is not valid json ({error}): {remedy}") from error
