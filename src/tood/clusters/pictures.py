"""Lists of pictures as parquet: found in folders and buckets, or given."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tood.clusters.storage import Place, telling
from tood.data.files import IMAGE_SUFFIXES, find_images
from tood.errors import ToodError
from tood.inference import is_url

# Columns in which pictures are looked for, by the names that datasets use; the first that there is.
_PICTURES = ("image", "bytes", "content", "data", "path", "uri", "url", "file", "file_name")
_NAMES = ("path", "file_name", "name", "uri", "url", "id", "image_id", "key")
PART = re.compile(r"part-(\d{8})\.parquet")
"""Names of the files that results are written to."""

# Paths in one file of a list, which is made in memory.
_LISTED_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Rows:
    """Some rows of a parquet file of pictures.

    Attributes:
        file: its address.
        row_group: number of the row group.
        first, count: rows of that group.
    """

    file: str
    row_group: int
    first: int
    count: int


@dataclass(frozen=True)
class Picture:
    """A picture to be looked at.

    Attributes:
        name: what it is called in the results.
        content: its address, or the bytes of its file.
    """

    name: str
    content: str | bytes


@dataclass(frozen=True)
class PictureLists:
    """Pictures as parquet files, divided into shards of rows; written to a folder where they were not given so.

    Args:
        folder: for lists of what is found.
        at_once: pictures of a shard.
    """

    folder: Place
    at_once: int

    def shards(self, sources: Sequence[str]) -> Iterator[Rows]:
        """The shards of all pictures of the sources, each picture in one; lists are written on the way.

        Args:
            sources: folders, buckets, files of pictures, and parquet files or folders of them.

        Raises:
            ToodError: if there is no such thing, or no picture in it, or a folder has both pictures and parquet files.
        """
        found: list[Iterable[str]] = []
        seen: set[str] = set()
        for source in _outermost(sources):
            if is_url(source):
                found.append([source])
                continue
            place = Place.of(source)
            tables = [place] if place.uri.endswith(".parquet") and not place.is_folder() else []
            if tables or not place.is_folder():
                if not place.exists():
                    raise ToodError(f"there is no picture or folder {place.uri}: check the address")
                if not tables:
                    found.append([place.uri])
            else:
                paths = _pictures_below(place)
                first = list(islice(paths, 1))
                if first:
                    found.append(chain(first, paths))
                else:
                    tables = [file for file in place.files() if file.uri.endswith(".parquet")]
                    tables = [file for file in tables if not file.uri.startswith(f"{self.folder.uri}/")]
                    if not tables:
                        raise ToodError(
                            f"there is neither a picture nor a parquet file in {place.uri}: looked for "
                            f"{', '.join(sorted(IMAGE_SUFFIXES))}, .parquet"
                        )
            for table in tables:
                if table.uri not in seen:
                    seen.add(table.uri)
                    yield from self._of_table(table)
        yield from self._listed(path for paths in found for path in paths)

    def _of_table(self, table: Place) -> Iterator[Rows]:
        import pyarrow.parquet as pq

        with telling(table.uri, "be read as parquet"), table.system.open(table.path, "rb") as file:
            metadata = pq.ParquetFile(file)
            _columns(table.uri, metadata.schema_arrow)
            sizes = [metadata.metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        for group, size in enumerate(sizes):
            for first in range(0, size, self.at_once):
                yield Rows(table.uri, group, first, min(self.at_once, size - first))

    def _listed(self, paths: Iterator[str]) -> Iterator[Rows]:
        """Writes paths as parquet files, a row group a shard."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        at_once = max(1, _LISTED_AT_ONCE // self.at_once) * self.at_once
        number = 0
        while some := list(islice(paths, at_once)):
            file = self.folder.inside(f"pictures-{number:06}.parquet")
            written = io.BytesIO()
            pq.write_table(pa.table({"path": some}), written, row_group_size=self.at_once)
            file.write(written.getvalue())
            for group, first in enumerate(range(0, len(some), self.at_once)):
                yield Rows(file.uri, group, 0, min(self.at_once, len(some) - first))
            number += 1


def read_rows(rows: Rows) -> list[Picture]:
    """The pictures of a shard, in order.

    Raises:
        ToodError: if the parquet file cannot be read.
    """
    import pyarrow.parquet as pq

    place = Place.of(rows.file)
    with telling(rows.file, "be read as parquet"), place.system.open(place.path, "rb") as file:
        table = pq.ParquetFile(file)
        column, name = _columns(rows.file, table.schema_arrow)
        wanted = [column] if name is None else [column, name]
        before = sum(table.metadata.row_group(group).num_rows for group in range(rows.row_group)) + rows.first
        found = table.read_row_group(rows.row_group, columns=list(dict.fromkeys(wanted)))
    found = found.slice(rows.first, rows.count)
    contents = found[column].to_pylist()
    names: list[Any] = found[name].to_pylist() if name else [None] * len(contents)
    return [
        _picture(content, told, f"{rows.file}#{before + row}", place)
        for row, (content, told) in enumerate(zip(contents, names, strict=True))
    ]


def _picture(content: Any, told: Any, otherwise: str, table: Place) -> Picture:
    if isinstance(content, dict):  # as Hugging Face's datasets have pictures
        told = told or content.get("path")
        content = content.get("bytes") or content.get("path")
    if isinstance(content, str) and content:
        remote = is_url(content) or "://" in content or content.startswith("/")
        # A relative path is meant from where the list lies.
        whole = content if remote else f"{table.uri.rpartition('/')[0]}/{content}"
        return Picture(content if remote else whole, whole)
    return Picture(otherwise if told is None else str(told), content or b"")


def _columns(uri: str, schema: Any) -> tuple[str, str | None]:
    """The column of the pictures and that of their names, if there is one."""
    import pyarrow as pa

    def holds(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(at).name in ("bytes", "path") for at in range(kind.num_fields))
        return bool(
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
        )

    picture = next((name for name in _PICTURES if name in schema.names and holds(schema.field(name).type)), None)
    if picture is None:
        raise ToodError(
            f"{uri} has no column of pictures: looked for {', '.join(_PICTURES)} (bytes of files, or addresses); it "
            f"has {', '.join(schema.names) or 'none'}"
        )
    return picture, next((name for name in _NAMES if name in schema.names and name != picture), None)


def _pictures_below(place: Place) -> Iterator[str]:
    """Addresses of the pictures, none where there are parquet files alone; both is an error."""
    if place.is_local:  # as everywhere here: links that lead in circles too
        images = find_images(Path(place.path)).images
        if len(images) and (table := next(_local_tables(place.path), None)):
            raise _mixed(place, table)
        for path in images:
            name = path.as_posix()
            if not name.isascii() and name.encode("utf-8", "replace") != os.fsencode(path):
                raise ToodError(f"{name!r} is no name in Unicode, as results must have: rename that file")
            yield name
        return
    table, pictures = "", False
    for file in place.files():
        if "." + file.uri.rpartition(".")[2].lower() in IMAGE_SUFFIXES:
            pictures = True
            if not table:
                yield file.uri
        elif not table and _is_table(file.uri.rpartition("/")[2]):
            table = file.uri
        if table and pictures:
            raise _mixed(place, table)


def _local_tables(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_tood")))
        yield from (f"{parent}/{name}" for name in sorted(names) if not name.startswith(".") and _is_table(name))


def _is_table(name: str) -> bool:
    """Whether a file of that name may have pictures: results of earlier runs have none."""
    return name.endswith(".parquet") and not PART.fullmatch(name)


def _mixed(place: Place, table: str) -> ToodError:
    return ToodError(
        f"{place.uri} has pictures and parquet files, such as {table}, which may be of the same pictures: name the "
        "pictures' folder or the parquet files alone"
    )


def _outermost(sources: Sequence[str]) -> list[str]:
    """The addresses of the sources, without those that lie inside another: no picture is to be found twice."""
    places = list(dict.fromkeys(source if is_url(source) else Place.of(source).uri for source in sources))
    return [place for place in places if not any(place.startswith(f"{other.rstrip('/')}/") for other in places)]
