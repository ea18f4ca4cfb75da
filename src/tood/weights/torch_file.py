"""The two containers that torch.save writes, and the one of paddle.save, read without running anything.

Since PyTorch 1.6 it is a zip archive of a pickle and one record a storage, all uncompressed; before that, five pickles
one after the other and then the storages. paddle.save writes one pickle that holds all. Values of torch.save stay in
the mapped file until somebody copies them.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from tood.weights.inert_pickle import DamagedError, Storage, StoredTensor, read_pickle
from tood.weights.paddle_file import ArrayValues, arrays_in
from tood.weights.stored_arrays import StoredArray

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class TorchFile:
    """A file of torch.save or paddle.save.

    Attributes:
        data: what was saved, with `StoredTensor` and `StoredArray` for tensors and `Inert` for objects.
        read: the values of one of these, shared with the file's pages until they are written to; it raises
            DamagedError where they are not all there.
    """

    data: Any
    read: Callable[[StoredTensor | StoredArray], Tensor]


def read_torch_file(path: Path) -> TorchFile:
    """What torch.save or paddle.save wrote to that file, which is not empty.

    Raises:
        HostileError: if its pickle asks to run something.
        DamagedError: if it is cut off, damaged, or of neither.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        # Private pages: who writes to a tensor does not write to the file.
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return _read_zip(path, pages) if pages[:4] == b"PK\3\4" else _read_legacy(pages)


def _read_zip(path: Path, pages: mmap.mmap) -> TorchFile:
    try:
        with zipfile.ZipFile(path) as archive:
            records = {record.filename: record for record in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise DamagedError(f"it is no whole zip archive: {error}") from error
    pickles = [name for name in records if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise DamagedError("it is a zip archive that torch.save did not write")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in records:
        raise DamagedError("it is a TorchScript program, not a file of weights; save its state_dict() instead")
    order = records.get(f"{folder}byteorder")
    if order is not None and bytes(_record(pages, order)) != b"little":
        raise DamagedError("its numbers are stored big end first")
    data = read_pickle(io.BytesIO(_record(pages, records[pickles[0]]))).data

    def find(storage: Storage) -> memoryview:
        name = f"{folder}data/{storage.key}"
        if name not in records:
            raise DamagedError(f"its record {name} is missing")
        return _record(pages, records[name])

    return TorchFile(data, _Values(find).read)


def _record(pages: mmap.mmap, record: zipfile.ZipInfo) -> memoryview:
    """The bytes of an uncompressed record, checked."""
    start = record.header_offset
    header = pages[start : start + 30]
    if len(header) < 30 or header[:4] != b"PK\3\4" or record.compress_type != zipfile.ZIP_STORED:
        raise DamagedError(f"its record {record.filename} is no plain one")
    start += 30 + sum(struct.unpack("<HH", header[26:]))
    content = memoryview(pages)[start : start + record.file_size]
    if len(content) != record.file_size or zlib.crc32(content) != record.CRC:
        raise DamagedError(f"its record {record.filename} is damaged")
    return content


def _read_legacy(pages: mmap.mmap) -> TorchFile:
    stream = cast(IO[bytes], pages)  # it reads, seeks and tells like a file
    first = read_pickle(stream).data
    arrays = arrays_in(first)
    if arrays is not None:
        return TorchFile(arrays, _Values(_nowhere).read)
    if not isinstance(first, int) or first != _LEGACY_MAGIC:
        raise DamagedError("it is a pickle that torch.save did not write, nor paddle.save")
    read_pickle(stream)  # the protocol's version
    system = read_pickle(stream).data
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise DamagedError("its numbers are stored big end first")
    pickled = read_pickle(stream)
    keys = read_pickle(stream).data
    regions: dict[str, memoryview] = {}
    position = pages.tell()
    for key in keys if isinstance(keys, list) else []:
        storage = pickled.storages.get(key) if isinstance(key, str) else None
        if storage is None or position + 8 > len(pages):
            raise DamagedError("it is cut off, or its list of storages is wrong")
        start, (elements,) = position + 8, struct.unpack("<q", pages[position : position + 8])
        position = start + elements * storage.dtype.itemsize
        if elements < 0 or position > len(pages):
            raise DamagedError("it is cut off")
        regions[key] = memoryview(pages)[start:position]
    return TorchFile(pickled.data, _Values(lambda storage: _region(regions, storage)).read)


def _nowhere(storage: Storage) -> memoryview:
    raise DamagedError(f"its storage {storage.key} is missing")


def _region(regions: Mapping[str, memoryview], storage: Storage) -> memoryview:
    if storage.key not in regions:
        raise DamagedError(f"its storage {storage.key} is missing")
    return regions[storage.key]


class _Values:
    """Tensors on the file's pages; those that shared a storage share it again. Arrays bring their own bytes."""

    def __init__(self, find: Callable[[Storage], memoryview]) -> None:
        self.find = find
        self.found: dict[str, Tensor] = {}
        self.arrays = ArrayValues()

    def read(self, tensor: StoredTensor | StoredArray) -> Tensor:
        if isinstance(tensor, StoredArray):
            return self.arrays.read(tensor)
        key = tensor.storage.key
        if key not in self.found:
            self.found[key] = _bytes(self.find(tensor.storage))
        values = self.found[key]
        if len(values) < tensor.storage.elements * tensor.storage.dtype.itemsize:
            raise DamagedError(f"its storage {key} is cut off")
        itemsize = tensor.dtype.itemsize
        values = values[: len(values) // itemsize * itemsize]
        if values.data_ptr() % itemsize:
            values = values.clone()
        return values.view(tensor.dtype).as_strided(tensor.size, tensor.stride, tensor.offset)


def _bytes(content: memoryview) -> Tensor:
    if not len(content):
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8)
