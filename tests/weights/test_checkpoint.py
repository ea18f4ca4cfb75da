"""Files of weights are read whole or refused in one sentence, and never executed."""

from __future__ import annotations

import builtins
import functools
import io
import operator
import os
import pickle
import struct
import subprocess
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tood.errors import ToodError
from tood.weights import read_weights_file

MARKER = "executed"


class Calls:
    """Pickles as a call of `function` on `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __call__(self) -> None:
        """Whatever is called must look callable to the pickler."""

    def __reduce__(self) -> Any:
        return self.call


class Nested:
    def __reduce__(self) -> Any:
        return list, ([Calls(os.system, f"touch {MARKER}")],)


def tensors() -> dict[str, torch.Tensor]:
    numbers = torch.arange(24, dtype=torch.float32)
    return {
        "float": numbers.clone(),
        "whole": numbers,
        "part": numbers[4:10],
        "transposed": numbers.view(4, 6).t(),
        "half": torch.randn(3, 5).half(),
        "bfloat": torch.randn(7).bfloat16(),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "count": torch.tensor(41),
        "flags": torch.tensor([True, False, True]),
        "scalar": torch.tensor(0.5),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "ema"])
def test_tensors_of_every_kind(tmp_path: Path, legacy: bool, wrap: str | None) -> None:
    state = OrderedDict(tensors())
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    path = tmp_path / "a.pth"
    torch.save({wrap: state, "epoch": 3} if wrap else state, path, _use_new_zipfile_serialization=not legacy)
    read = read_weights_file(path).tensors
    assert list(read) == list(state)
    for name, tensor in state.items():
        assert read[name].dtype == tensor.dtype
        torch.testing.assert_close(read[name], tensor.detach(), rtol=0, atol=0)


def test_every_protocol_of_pickle(tmp_path: Path) -> None:
    for protocol in range(2, 6):
        torch.save({"state_dict": tensors()}, tmp_path / "a.pth", pickle_protocol=protocol)
        torch.testing.assert_close(read_weights_file(tmp_path / "a.pth").tensors["half"].shape, torch.Size([3, 5]))


def test_who_writes_to_a_tensor_does_not_write_to_the_file(tmp_path: Path) -> None:
    torch.save(tensors(), tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    read_weights_file(tmp_path / "a.pth").tensors["float"].zero_()
    assert (tmp_path / "a.pth").read_bytes() == before


@pytest.mark.parametrize(
    "saved",
    [
        {"meta": {"CLASSES": ("cat", "dog")}},
        {"meta": {"CLASSES": ["cat", "dog"]}},
        {"meta": {"dataset_meta": {"classes": ("cat", "dog")}}},
        {"meta": {"dataset_meta": {"CLASSES": ("cat", "dog")}}},
        {"dataset_meta": {"classes": ["cat", "dog"]}},
    ],
)
def test_class_names(tmp_path: Path, saved: dict[str, Any]) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, **saved}, tmp_path / "a.pth")
    assert read_weights_file(tmp_path / "a.pth").class_names == ("cat", "dog")


def test_safetensors_of_others(tmp_path: Path) -> None:
    save_file({"module.a": torch.ones(2)}, tmp_path / "a.safetensors", {"format": "pt"})
    read = read_weights_file(tmp_path / "a.safetensors")
    assert list(read.tensors) == ["a"]
    assert read.class_names is None
    assert read.metadata["format"] == "pt"
    # The content counts, not the name.
    (tmp_path / "a.safetensors").rename(tmp_path / "a.bin")
    assert list(read_weights_file(tmp_path / "a.bin").tensors) == ["a"]


HOSTILE = {
    "system": (Calls(os.system, f"touch {MARKER}"), r"run (posix|nt)\.system"),
    "eval": (Calls(eval, f"open('{MARKER}', 'w')"), r"run builtins\.eval"),
    "exec": (Calls(exec, f"open('{MARKER}', 'w')"), r"run builtins\.exec"),
    "import": (Calls(__import__, "this"), r"run builtins\.__import__"),
    "getattr": (Calls(getattr, Calls(__import__, "os"), "system"), r"run builtins\.__import__"),
    "method": (Calls(Calls(getattr, Path, "touch"), MARKER), r"run builtins\.getattr of 'touch' in pathlib\.Path"),
    "popen": (Calls(subprocess.Popen, ["touch", MARKER]), r"run subprocess\.Popen"),
    "partial": (Calls(functools.partial, builtins.print, "x"), r"run functools\.partial"),
    "caller": (Calls(operator.methodcaller, "system", "true"), r"run operator\.methodcaller"),
    "open": (Calls(open, MARKER, "w"), r"run (io|_io|builtins)\.open"),
    "nested": (Nested(), r"run (posix|nt)\.system"),
}


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, container: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    evil, reason = HOSTILE[name]
    # Somewhere in what is never used, beside honest weights.
    saved = {"state_dict": {"a": torch.ones(2)}, "optimizer": {"state": [evil]}}
    if container == "pickle":
        path.write_bytes(pickle.dumps({"optimizer": evil}))
    else:
        torch.save(saved, path, _use_new_zipfile_serialization=container == "zip")
    with pytest.raises(ToodError, match=rf"evil\.pth is refused.*{reason}"):
        read_weights_file(path)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(S'touch executed'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch executed'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
        b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93\x8c\x0etouch executed\x85R.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n(ctorch.serialization\nos\nS'system'\ntR(S'touch executed'\ntR.",
        b"c__builtin__\ngetattr\n(cnet\nNet\nS'run'\ntR(S'touch executed'\ntR.",
        b"c__builtin__\ngetattr\n(cnet\nNet\nS'__init__'\ntR.",
        b"c__builtin__\ngetattr\n(c__builtin__\nobject\nS'mro'\ntR.",
    ],
)
def test_every_way_of_naming_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(program)
    with pytest.raises(ToodError, match="is refused"):
        read_weights_file(tmp_path / "evil.pth")
    assert not (tmp_path / MARKER).exists()


def test_functions_of_installed_packages_are_not_run_either(tmp_path: Path) -> None:
    inner = pickle.dumps(Calls(os.system, f"touch {tmp_path / MARKER}"))
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Calls(torch.storage._load_from_bytes, inner)}, tmp_path / "a")
    assert list(read_weights_file(tmp_path / "a").tensors) == ["a"]
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memory of 2^31 places
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.",  # a petabyte of text
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 50) + b".",
        b"\x80\x02" + b"\x85" * 50 + b".",  # more taken than there is
        b"\x80\x02N" + b"\x85" * 100_000 + b"}q\x00h\x00N\x86R.",  # a very deep tuple
        b"\x80\x02}" + b"N" + b"\x85" * 100_000 + b"Ns.",  # as a key
        b"\x80\x02].",
        b"\x80\x02t.",
    ],
)
def test_programs_that_would_exhaust_the_machine(tmp_path: Path, program: bytes) -> None:
    (tmp_path / "bomb.pth").write_bytes(program)
    with pytest.raises(ToodError, match=r"bomb\.pth"):
        read_weights_file(tmp_path / "bomb.pth")


def text(content: bytes) -> bytes:
    """The opcode that pushes it."""
    return b"X" + struct.pack("<I", len(content)) + content


USES = 3000
OTHER_USES = b"h\x01h\x02R" * USES + b"l."  # of the function and the arguments in these places of the memory
STORAGE = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + b"K\x01tQ"
COPIED = {
    "pairs that are one long list": b"\x80\x02]q\x02("
    + b"N" * USES
    + b"eccollections\nOrderedDict\n]("
    + b"h\x02" * USES
    + b"e\x85R.",
    "dicts of one list of pairs": b"\x80\x02ccollections\nOrderedDict\nq\x01]("
    + b"".join(text(b"%d" % key) + b"N\x86" for key in range(USES))
    + b"e\x85q\x02("
    + OTHER_USES,
    "classes of one long name": b"\x80\x04" + text(b"x" * 100_000) + b"q\x01(" + b"h\x01h\x01\x93" * USES + b"l.",
    "functions of one long name": b"\x80\x02c__builtin__\ngetattr\nq\x01cnet\nNet\n"
    + text(b"x" * 100_000)
    + b"\x86q\x02("
    + OTHER_USES,
    "a name that is lists in lists": b"\x80\x02Nq\x02"
    + b"".join(b"(h%ch%clq%c" % (i, i, i + 1) for i in range(2, 24))
    + b"c__builtin__\ngetattr\ncnet\nNet\nh\x18\x86R.",
    "tensors of one long shape": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x01("
    + STORAGE
    + b"K\x00]("
    + b"K\x01" * USES
    + b"e]("
    + b"K\x00" * USES
    + b"etq\x02("
    + OTHER_USES,
}


@pytest.mark.parametrize("name", COPIED)
def test_what_is_used_again_and_again_is_not_copied_each_time(tmp_path: Path, name: str) -> None:
    (tmp_path / "bomb.pth").write_bytes(COPIED[name])
    tracemalloc.start()
    try:
        with pytest.raises(ToodError, match=r"bomb\.pth"):
            read_weights_file(tmp_path / "bomb.pth")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pair", [b"N", b"N\x85", b"NNN\x87", b"}", text(b"ab")])
def test_a_dict_is_made_of_pairs(tmp_path: Path, pair: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x02ccollections\nOrderedDict\n](" + pair + b"e\x85R.")
    with pytest.raises(ToodError, match="something other than pairs"):
        read_weights_file(tmp_path / "a.pth")


def test_a_tensor_stays_within_its_storage(tmp_path: Path) -> None:
    class Beyond:
        def __init__(self, *layout: Any) -> None:
            self.layout = layout

        def __reduce__(self) -> Any:
            storage = torch.ones(4).untyped_storage()
            return torch._utils._rebuild_tensor_v2, (
                torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True),
                *self.layout,
                False,
                OrderedDict(),
            )

    for layout in ((0, (5,), (1,)), (2, (3,), (1,)), (0, (1000, 1000), (0, 0)), (-1, (2,), (1,)), (0, (2,), (-1,))):
        torch.save({"a": Beyond(*layout)}, tmp_path / "a.pth")
        with pytest.raises(ToodError, match="a tensor in it"):
            read_weights_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ({"state_dict": {"a": 1, "b": "x"}}, "'a' in it is a value of type int, not a plain tensor"),
        ({"epoch": 3}, "holds no tensors: its keys are epoch"),
        ({}, "holds no tensors: its keys are none"),
        ({"state_dict": {}}, "holds no tensors of a network"),
        ([torch.ones(1)], "holds a value of type list"),
        (torch.ones(1), "holds a single tensor"),
        ({"model": torch.nn.Linear(1, 1)}, r"holds under 'model' an object of torch\.nn\.modules\.linear\.Linear"),
        ({"a": torch.ones(2, 2).to_sparse(), "b": torch.ones(1)}, "'a' in it is an object of torch"),
    ],
)
def test_what_holds_no_state_dict_is_one_sentence(tmp_path: Path, saved: Any, sentence: str) -> None:
    torch.save(saved, tmp_path / "a.pth")
    with pytest.raises(ToodError, match=sentence):
        read_weights_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"Once upon a time\n" * 100, "no readable file of weights"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer"),
        (b"\x89PNG\r\n" + bytes(100), "no readable file of weights"),
        (b"PK\3\4" + bytes(100), "no whole zip archive"),
        (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
        (bytes(200), "no readable file of weights"),
    ],
)
def test_what_is_no_file_of_weights_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ToodError, match=sentence):
        read_weights_file(tmp_path / "a.pth")


def test_other_zip_archives_are_one_sentence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ToodError, match="zip archive that torch"):
        read_weights_file(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/net.py"):
            archive.writestr(f"net/{name}", "x")
    with pytest.raises(ToodError, match="TorchScript"):
        read_weights_file(tmp_path / "b.pth")
    with pytest.raises(ToodError, match="no weights file"):
        read_weights_file(tmp_path)


def whole(legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(
        {"state_dict": {"a": torch.arange(6.0)}, "meta": {"epoch": 1}},
        buffer,
        _use_new_zipfile_serialization=not legacy,
    )
    return buffer.getvalue()


WHOLE = {legacy: whole(legacy) for legacy in (False, True)}


@pytest.mark.parametrize("legacy", [False, True])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, legacy: bool, share: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.pth"
    path.write_bytes(WHOLE[legacy][: int(len(WHOLE[legacy]) * share)])
    with pytest.raises(ToodError, match=r"a\.pth"):
        read_weights_file(path)


@pytest.mark.parametrize("legacy", [False, True])
@given(data=st.data())
def test_damage_anywhere_is_a_sentence_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, legacy: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.pth"
    content = bytearray(WHOLE[legacy])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(ToodError):
        read_weights_file(path)


def test_a_flipped_bit_among_the_numbers_is_found(tmp_path: Path) -> None:
    torch.save({"a": torch.full((1000,), 3.0)}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.index(struct.pack("<ff", 3.0, 3.0)) + 400] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ToodError, match="damaged"):
        read_weights_file(tmp_path / "a.pth")
