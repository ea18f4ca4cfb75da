"""Reading json that comes from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tood.errors import ToodError


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
