"""Reading pickles without running them.

A pickle is a program: its opcodes may name any importable function and have it called. This reader is a stack machine
of its own that neither imports nor calls anything, whatever the file says. Text, numbers and containers come out as
they are, tensors as records of where their values lie, numpy's arrays as records of their bytes, and every other object
as the `Inert` name of its class, whose construction and filling do nothing. Python's own `pickletools` splits the
program into opcodes and describes them.
"""

from __future__ import annotations

import math
import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any

import torch

from tood.weights import stored_arrays


class HostileError(Exception):
    """The pickle asks for something that no file of weights needs; the text names it."""


class DamagedError(Exception):
    """The bytes are no whole pickle of data."""


@dataclass(frozen=True)
class Inert:
    """An object, class or function that the file names and that is not built.

    Attributes:
        name: module and name of the class or function.
        found: by `getattr` on a class, as old protocols write a class's own functions.
    """

    name: str
    found: bool = False


@dataclass(frozen=True)
class Storage:
    """A run of values in a file that tensors share.

    Attributes:
        key: its name in the file.
        dtype: of its elements; uint8 if it is untyped.
        elements: how many there are.
    """

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not read yet; it lies within its storage.

    Attributes:
        storage: where its values are.
        dtype: of the elements.
        offset, size, stride: in elements, as `torch.as_strided` takes them.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Pickled:
    """What a pickle describes, and the storages that it refers to, by their key."""

    data: Any
    storages: Mapping[str, Storage]


def read_pickle(file: IO[bytes]) -> Pickled:
    """The data that the pickle at the file's position describes; afterwards the position is behind it.

    Raises:
        HostileError: if it names a function or class of the standard library that is no plain data.
        DamagedError: if it is cut off or makes no sense.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
        return Pickled(machine.stack.pop(), MappingProxyType(machine.storages))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error


class _Mark:
    """Lies on the stack where the items of the next container begin."""


class _Machine:
    """The stack, and the memory of what the program may use again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Runs one opcode."""
        if opcode in _ARGUMENTS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in _CONTAINERS:
            build, items = _CONTAINERS[opcode]
            self.stack.append(build(self.take(items)))
        elif opcode in _FILLINGS:
            added = self.take(_FILLINGS[opcode])
            _fill(self.stack[-1], added)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            self.object_step(opcode, argument)

    def object_step(self, opcode: str, argument: Any) -> None:
        """Opcodes that would import, call, or change an object."""
        if opcode in ("GLOBAL", "INST"):
            name = _named(*argument.split(" ", 1))
            self.stack.append(name if opcode == "GLOBAL" else _constructed(name, self.take()))
        elif opcode == "STACK_GLOBAL":
            self.stack.append(_named(*self.take(2)))
        elif opcode in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            called, arguments, *_ = self.take(3 if opcode == "NEWOBJ_EX" else 2)
            self.stack.append(_constructed(called, arguments))
        elif opcode == "OBJ":
            called, *arguments = self.take()
            self.stack.append(_constructed(called, arguments))
        elif opcode == "BUILD":
            state = self.take(1)[0]
            stored_arrays.set_state(self.stack[-1], state)  # nothing needs any other object's
        elif opcode == "BINPERSID":
            self.stack.append(self.persistent(self.stack.pop()))
        elif opcode == "DUP":
            self.stack.append(self.stack[-1])
        elif opcode in ("POP", "POP_MARK"):
            self.take(1 if opcode == "POP" else None)
        else:
            raise DamagedError(f"the pickle opcode {opcode} has no place in a file of weights")

    def take(self, items: int | None = None) -> list[Any]:
        """Removes the topmost items, or those above the topmost mark together with it."""
        marked = items is None
        if items is None:
            items = next((i for i, item in enumerate(reversed(self.stack)) if isinstance(item, _Mark)), len(self.stack))
        start = len(self.stack) - items
        if start < marked:
            raise DamagedError("the pickle takes more from its stack than there is")
        taken = self.stack[start:]
        del self.stack[start - marked :]
        return taken

    def persistent(self, reference: Any) -> Any:
        """What torch.save puts outside of the pickle: a storage, or (long ago) the source text of a class."""
        if not isinstance(reference, tuple) or not 2 <= len(reference) <= _MOST:
            raise DamagedError("it refers to something outside of it that is no storage")
        if reference[0] == "module":
            return reference[1]
        _, kind, key, _, elements, *view = reference
        dtype = _STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Inert) else None
        if dtype is None or not isinstance(key, str) or not _is_size(elements) or any(view):
            raise DamagedError("it refers to something outside of it that is no storage")
        return self.storages.setdefault(key, Storage(key, dtype, elements))


def _named(module: Any, name: Any) -> Any:
    """A reference to something importable: its name, and nothing more than that."""
    if not (isinstance(module, str) and isinstance(name, str)):
        raise DamagedError("the name of a class in it is no text")
    _require_short(module, name)
    # Up to protocol 2, torch.save's own, modules have the names that they had in Python 2.
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    full = f"{module}.{name}"
    if full in _DTYPES:
        return _DTYPES[full]
    standard = any(part in sys.stdlib_module_names for part in (module.partition(".")[0], *name.split(".")[:-1]))
    if standard and full not in _PLAIN:
        raise HostileError(full)
    return Inert(full)


def _constructed(called: Any, arguments: Any) -> Any:
    """What that function or class makes of the arguments, as far as weights need it."""
    name = called.name if isinstance(called, Inert) else ""
    if not isinstance(arguments, Sequence):
        raise DamagedError(f"the arguments of {name} in it are no list")
    if isinstance(called, Inert) and called.found:
        raise HostileError(name)
    if name == "builtins.getattr":
        return _attribute(*arguments)
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
        return _tensor(*arguments[:4])
    if name == "torch._utils._rebuild_tensor_v3":
        return _tensor(*arguments[:4], dtype=arguments[6])
    if name == "torch._tensor._rebuild_from_type_v2":  # a subclass of Tensor
        return _constructed(arguments[0], arguments[2])
    first = arguments[0] if arguments else None
    # So protocols before 3 spell bytes. They stay the text that they are written as, however often it is used.
    if name == "_codecs.encode" and len(arguments) == 2 and isinstance(first, str) and arguments[1] == "latin1":
        return first
    if name == "builtins.bytes" and not arguments:
        return b""
    array = stored_arrays.constructed(name, arguments, first.name if isinstance(first, Inert) else "")
    if array is not None:
        return array
    if name in _PARAMETERS and isinstance(first, StoredTensor):
        return first
    if name in ("torch.Size", "builtins.list", "builtins.tuple") and isinstance(first, list | tuple):
        return first
    if name in ("collections.OrderedDict", "collections.defaultdict", "builtins.dict"):
        return dict(_drained(first if isinstance(first, list) else []))
    return Inert(name)


def _attribute(owner: Any, name: Any) -> Inert:
    """What `getattr` would find.

    MMEngine's histories refer by it to functions of their class, which stay a name. Everything else that a pickle could
    want it for is a way to a function that it dares not name.
    """
    if not isinstance(owner, Inert) or not isinstance(name, str):
        # Without a word on what it holds, which may be exponentially larger than the file once it is written out.
        raise HostileError("builtins.getattr")
    _require_short(name)
    module, _, last = owner.name.rpartition(".")
    if owner.found or {module.partition(".")[0], last, name} & sys.stdlib_module_names or name.startswith("__"):
        raise HostileError(f"builtins.getattr of {name!r} in {owner.name}")
    return Inert(f"{owner.name}.{name}", found=True)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *, dtype: Any = None) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise DamagedError("a tensor in it has no storage")
    dtype = storage.dtype if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or len(size) != len(stride) or len(size) > _MOST:
        raise DamagedError("the shape of a tensor in it makes no sense")
    if not all(map(_is_size, (offset, *size, *stride))):
        raise DamagedError("the shape of a tensor in it makes no sense")
    available = storage.elements * storage.dtype.itemsize
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if all(size) else offset
    # No tensor may be larger than what is stored of it, as one expanded by strides of zero would be.
    if max(end, math.prod(size)) * dtype.itemsize > available:
        raise DamagedError("a tensor in it reaches beyond its storage")
    return StoredTensor(storage, dtype, offset, tuple(size), tuple(stride))


def _fill(container: Any, items: list[Any]) -> None:
    """Adds to a list or a dict; whatever else is there stays as it is."""
    if isinstance(container, list):
        container.extend(items)
    elif isinstance(container, dict):
        container.update(_entries(items))


def _entries(items: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Key, value, key, value ... as pairs; entries whose key is no text are nothing that is looked for."""
    return ((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str))


def _drained(pairs: list[Any]) -> Iterator[tuple[str, Any]]:
    """The pairs whose key is text, taken out of the list: who builds from one list again and again gets them once,
    or a small file could ask for memory that is quadratic in its size.
    """
    taken = pairs[:]
    pairs.clear()
    for pair in taken:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DamagedError("a dict in it is made of something other than pairs")
        if isinstance(pair[0], str):
            yield pair[0], pair[1]


def _require_short(*names: str) -> None:
    """Names are joined, anew at each use of the same text."""
    if sum(map(len, names)) > _LONGEST_NAME:
        raise DamagedError("the name of a class in it is endless")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**62


def _dict(items: list[Any]) -> dict[str, Any]:
    return dict(_entries(items))


def _set(_: list[Any]) -> Inert:
    return Inert("builtins.set")


# Dimensions of a tensor, parts of a reference to a storage: what a program may use again and again must be short, since
# it is gone through each time.
_MOST = 64
_LONGEST_NAME = 1000
# Opcodes whose argument is the value.
_ARGUMENTS = frozenset(
    f"{prefix}{kind}"
    for kind, prefixes in (
        ("INT", ("", "BIN")),
        ("INT1", ("BIN",)),
        ("INT2", ("BIN",)),
        ("LONG", ("",)),
        ("LONG1", ("",)),
        ("LONG4", ("",)),
        ("FLOAT", ("", "BIN")),
        ("STRING", ("", "BIN", "SHORT_BIN")),
        ("BYTES", ("BIN", "SHORT_BIN")),
        ("BYTES8", ("BIN",)),
        ("BYTEARRAY8", ("",)),
        ("UNICODE", ("", "BIN", "SHORT_BIN")),
        ("UNICODE8", ("BIN",)),
    )
    for prefix in prefixes
)
_CONSTANTS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "MARK": _Mark,
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "EMPTY_DICT": dict,
        "EMPTY_SET": lambda: Inert("builtins.set"),
    }
)
# The container that an opcode makes, and of how many items: those above the mark if it is None.
_CONTAINERS: Mapping[str, tuple[Callable[[list[Any]], Any], int | None]] = MappingProxyType(
    {
        "LIST": (list, None),
        "TUPLE": (tuple, None),
        "TUPLE1": (tuple, 1),
        "TUPLE2": (tuple, 2),
        "TUPLE3": (tuple, 3),
        "DICT": (_dict, None),
        "FROZENSET": (_set, None),
    }
)
_FILLINGS: Mapping[str, int | None] = MappingProxyType(
    {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "ADDITEMS": None}
)

# Of the standard library: plain data that checkpoints hold, and the two functions by which old protocols spell it.
_PLAIN = frozenset(
    f"{module}.{name}"
    for module, names in (
        ("builtins", "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"),
        ("builtins", "getattr"),  # see _attribute
        ("collections", "Counter OrderedDict defaultdict deque"),
        ("datetime", "date datetime time timedelta timezone"),
        ("pathlib", "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"),
        ("argparse", "Namespace"),
        ("types", "SimpleNamespace"),
        ("decimal", "Decimal"),
        ("uuid", "UUID"),
        ("copyreg", "_reconstructor"),
        ("_codecs", "encode"),
    )
    for name in names.split()
)
_PARAMETERS = frozenset(
    {
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
    }
)
_DTYPES = MappingProxyType({str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)})
_STORAGES = MappingProxyType(
    {
        "DoubleStorage": torch.float64,
        "FloatStorage": torch.float32,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ShortStorage": torch.int16,
        "CharStorage": torch.int8,
        "ByteStorage": torch.uint8,
        "BoolStorage": torch.bool,
        "UntypedStorage": torch.uint8,
    }
)
