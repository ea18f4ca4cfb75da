"""What a run on many machines will do, written down before it begins: its settings, and its pictures in shards.

Each shard becomes one parquet file of a name known before, which appears when all of it is there. A shard that was
begun twice, because a machine died or two runs were started, is written twice with the same content under the same
name; and what is left to do is what has no file yet. No lock is needed for that, which buckets do not have.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tood.clusters.pictures import PART, PictureLists, Rows
from tood.clusters.storage import Place
from tood.errors import ToodError

OWN_FOLDER = "_tood"
"""Folder of the output with the plan; readers of parquet folders pass names with an underscore over."""

_VERSION = 1
_PLAN, _SHARDS = "plan.json", "shards.parquet"


@dataclass(frozen=True, eq=False)
class Plan:
    """A run's settings and shards.

    Attributes:
        out: folder of the results.
        settings: whatever decides the results.
        shards: rows of pictures; a shard's number is its place in here.
        pictures: number of all pictures.
    """

    out: Place
    settings: Mapping[str, Any]
    shards: Sequence[Rows]
    pictures: int

    def part(self, number: int) -> Place:
        """The file of a shard's results."""
        return self.out.inside(f"part-{number:08}.parquet")

    def done(self) -> set[int]:
        """Numbers of the shards whose results are written."""
        found = (PART.fullmatch(name) for name in self.out.names())
        return {int(name[1]) for name in found if name and int(name[1]) < len(self.shards)}


def make_plan(out: Place, sources: Sequence[str], settings: Mapping[str, Any], at_once: int) -> Plan:
    """`find_shards` and `write_plan` in one; arguments and errors are theirs."""
    return write_plan(out, sources, settings, find_shards(out, sources, at_once))


def find_shards(out: Place, sources: Sequence[str], at_once: int) -> list[Rows]:
    """Looks for the pictures, and writes lists of those that were not given so into the folder of the results.

    Args:
        out: the folder, without results of an earlier run.
        sources: what `PictureLists.shards` takes.
        at_once: pictures of a shard.

    Raises:
        ToodError: if there is no picture, the folder cannot be written, or has a run's results already.
    """
    own = out.inside(OWN_FOLDER)
    if own.inside(_PLAN).exists():
        raise already_there(out)
    if any(PART.fullmatch(name) for name in out.names()):
        raise ToodError(f"{out.uri} has parquet files of such names, but no plan of theirs: name another --out")
    shards = list(PictureLists(own, at_once).shards(sources))
    if not any(rows.count for rows in shards):
        raise ToodError(f"{', '.join(sources)}: no picture in there")
    return shards


def write_plan(out: Place, sources: Sequence[str], settings: Mapping[str, Any], shards: Sequence[Rows]) -> Plan:
    """Writes down what will be done, in the folder of the results.

    Args:
        out: the folder.
        sources: where the pictures were found.
        settings: whatever decides the results; json.
        shards: of `find_shards`.

    Raises:
        ToodError: if the folder cannot be written.
    """
    own = out.inside(OWN_FOLDER)
    pictures = sum(rows.count for rows in shards)
    _write_shards(own.inside(_SHARDS), shards)
    # Last: a plan that is there is whole.
    content = {"tood": _VERSION, "settings": dict(settings), "sources": list(sources), "pictures": pictures}
    own.inside(_PLAN).write(json.dumps(content, indent=1).encode())
    return Plan(out, settings, shards, pictures)


def already_there(out: Place) -> ToodError:
    """What a new run in a folder with another run's results is refused with."""
    return ToodError(
        f"{out.uri} has the results of a run already: --resume does what is left of it, or name another --out"
    )


def read_plan(out: Place) -> Plan | None:
    """The plan in a folder of results; None if there is none.

    Raises:
        ToodError: if it cannot be read, or is another version's.
    """
    own = out.inside(OWN_FOLDER)
    if not own.inside(_PLAN).exists():
        return None
    try:
        content = json.loads(own.inside(_PLAN).read())
        if content["tood"] != _VERSION:
            raise ValueError
        return Plan(out, content["settings"], _read_shards(own.inside(_SHARDS)), content["pictures"])
    except (ValueError, KeyError, TypeError) as error:
        raise ToodError(f"{own.inside(_PLAN).uri} is no plan of this version of tood: name another --out") from error


def _write_shards(place: Place, shards: Sequence[Rows]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(rows) for rows in shards], _row_columns()), written)
    place.write(written.getvalue())


class _Shards(Sequence[Rows]):
    """The rows of a table of shards, of which there may be millions in each worker: made when they are asked for."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return Rows(**{name: self._table[name][number].as_py() for name in self._table.column_names})


def _read_shards(place: Place) -> Sequence[Rows]:
    import pyarrow.parquet as pq

    return _Shards(pq.read_table(io.BytesIO(place.read()), read_dictionary=["file"]).combine_chunks())


def _row_columns() -> Any:
    import pyarrow as pa

    numbers = [(name, pa.int64()) for name in ("row_group", "first", "count")]
    return pa.schema([("file", pa.string()), *numbers])
