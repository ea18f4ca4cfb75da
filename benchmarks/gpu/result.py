"""What a part found, as one file of json that is whole at any time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tood.whole_file import whole_file

Status = Literal["running", "done", "failed", "timed out", "skipped", "not started"]
# What a second run does not do again.
SETTLED = ("done", "skipped")


@dataclass(frozen=True)
class Check:
    """Something that must hold, whether it did, and what was seen."""

    name: str
    met: bool
    told: str


@dataclass
class Result:
    """What one part found.

    Attributes:
        part: its name.
        dry_run: whether it only tried itself on a CPU.
        status: how it ended; "running" in the file of a part that did not end.
        why: what went wrong, or why it was left out.
        seconds: that it took.
        facts: by name, of the machine.
        tables: figures with their unit by table, row and column, in the order in which they came.
        checks: what must hold.
        notes: a sentence each.
        left_out: what there was no time for.
    """

    part: str
    dry_run: bool
    status: Status = "running"
    why: str = ""
    seconds: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, dict[str, tuple[float, str]]]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether nothing is gained by doing it again."""
        return self.status in SETTLED

    @property
    def good(self) -> bool:
        """Whether it did all it could, and all that must hold did."""
        return self.settled and all(check.met for check in self.checks)

    def save(self, path: Path) -> None:
        """Writes it."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Result | None:
    """What a part left, None if nothing."""
    return from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def from_json(content: Mapping[str, Any]) -> Result:
    """The result that was written so."""
    found = Result(**content)
    return replace(found, checks=[Check(**check) for check in content["checks"]])
