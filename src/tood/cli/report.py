"""The json that commands leave."""

from __future__ import annotations

import json
from pathlib import Path


def write_json(path: Path, content: object) -> None:
    """The content as a json file, whole or not at all."""
    from tood.whole_file import remove_unfinished, whole_file

    remove_unfinished(path.parent)
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
