"""Paddle's .pdparams: read without Paddle and never executed, imported by name, or refused in one sentence."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from golden_values import FOLDER, golden
from tood.cli import app
from tood.errors import ToodError
from tood.models.ppyoloe import PPYOLOE
from tood.weights import export_weights, load_detector_file, load_weights, read_weights_file

FILE = FOLDER / "ppyoloe_plus.pdparams"


class Runs:
    """Pickles as a command to be run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def refused(path: Path, *parts: str) -> None:
    """The command line says one sentence and ends with 2; nothing is written."""
    out = path.parent / "out.safetensors"
    result = CliRunner().invoke(app, ["weights", "import", str(path), str(out)])
    assert result.exit_code == 2, result.output
    text = " ".join(result.output.split())
    assert all(part in text for part in (path.name, *parts)), text
    assert not out.exists()


def dumped(path: Path, data: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(data, protocol))
    return path


def arrays() -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in golden("ppyoloe_plus")["state_dict"].items()}


def test_the_reference_s_file_holds_the_reference_s_tensors() -> None:
    checkpoint = read_weights_file(FILE)
    wanted = golden("ppyoloe_plus")["state_dict"]
    assert checkpoint.tensors.keys() == wanted.keys()
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in wanted.items())


def test_a_detector_of_it_gives_the_reference_s_predictions(tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    result = CliRunner().invoke(app, ["weights", "import", str(FILE), str(out)])
    assert result.exit_code == 0, result.output
    for model, names in (load_detector_file(FILE), load_weights(out)):
        assert isinstance(model, PPYOLOE)
        assert names == tuple(f"class {i}" for i in range(7))
        values = golden("ppyoloe_plus")
        with torch.inference_mode():
            found = model(values["images"])
        order = torch.cat(torch.arange(found.boxes.shape[1]).split(found.priors.level_sizes)[::-1])
        torch.testing.assert_close(found.boxes[:, order], values["boxes"], rtol=1e-4, atol=2e-3)


def test_what_is_exported_is_a_file_of_paddle_s(tmp_path: Path) -> None:
    out = tmp_path / "again.pdparams"
    result = CliRunner().invoke(app, ["weights", "export", str(FILE), str(out)])
    assert result.exit_code == 0, result.output
    written = pickle.loads(out.read_bytes())  # as paddle.load does
    assert all(isinstance(value, np.ndarray) for value in written.values())
    again = read_weights_file(out).tensors
    wanted = golden("ppyoloe_plus")["state_dict"]
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in wanted.items())
    with pytest.raises(ToodError, match="no layout 'mmdet'"):
        export_weights(FILE, tmp_path / "x.pdparams", "mmdet")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_of_every_kind_come_out_as_they_are(dtype: str, protocol: int, tmp_path: Path) -> None:
    values = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)
    given = {
        "rows": values,
        "columns": np.asfortranarray(values),
        "one": values[0, 0, :1].copy(),
        "scalar": np.array(3).astype(dtype),
        "none": np.zeros((0, 4), dtype),
    }
    path = dumped(tmp_path / "x.pdparams", {**given, "StructuredToParameterName@@": {"rows": "linear_0.w_0"}}, protocol)
    read = read_weights_file(path).tensors
    assert read.keys() == given.keys()
    for name, array in given.items():
        assert np.array_equal(read[name].numpy(), array), name
        assert read[name].numpy().dtype == array.dtype


def test_bytes_that_an_old_protocol_spells_as_a_text_are_that_text_s(tmp_path: Path) -> None:
    """Encoded otherwise than as Latin-1, or of other signs, they are none of numpy's."""
    plain = pickle.dumps({"a": np.arange(4, dtype=np.uint8)}, 0)
    path = tmp_path / "x.pdparams"
    path.write_bytes(plain)
    assert read_weights_file(path).tensors["a"].tolist() == [0, 1, 2, 3]
    for old, new in ((b"latin1", b"utf-16"), (b"V\\u0000\x01\x02\x03", b"V\\u0100\x01\x02\x03")):
        assert old in plain
        path.write_bytes(plain.replace(old, new))
        refused(path, "no readable file of weights")


def test_hostile_and_broken_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, whole = tmp_path / "x.pdparams", FILE.read_bytes()
    refused(dumped(path, arrays() | {"extra": Runs()}), "is refused", "system")
    refused(dumped(path, {"extra": Runs(), **arrays()}), "is refused", "system")
    assert not (tmp_path / "executed").exists()
    for end in (1, 2, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        refused(path, "is it complete?")
    path.write_bytes(b"")
    refused(path, "is empty")
    refused(dumped(path, [1, 2]), "no readable file of weights")
    refused(dumped(path, arrays() | {"extra": "text"}), "'extra' in it is a value of type str")
    refused(dumped(path, {"extra": np.array(["a", "b"])}), "no plain numbers")
    refused(dumped(path, {"extra": np.zeros(3, ">f4")}), "no plain numbers")
    refused(dumped(path, {"extra": np.zeros(3, np.complex64)}), "no plain numbers")


class Shaped:
    """An array that is pickled with a shape that it has not."""

    def __init__(self, *shape: Any) -> None:
        self.shape = shape

    def __reduce__(self) -> Any:
        empty = np.zeros(0, np.float32)
        build, arguments, (version, _, dtype, order, content) = empty.__reduce__()  # type: ignore[misc]
        return build, arguments, (version, self.shape, dtype, order, content)


@pytest.mark.parametrize("shape", [(2**61, 2**61, 0), (2**61,) * 60 + (0,), (0, True), (-1,), (1.0,), ("a",)])
def test_shapes_that_nothing_can_have_are_refused(shape: tuple[Any, ...], tmp_path: Path) -> None:
    refused(dumped(tmp_path / "x.pdparams", {"a": Shaped(*shape)}), "the shape of an array in it makes no sense")


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    path, given = tmp_path / "x.pdparams", arrays()
    refused(dumped(path, {"conv.weight": np.zeros((3, 3), np.float32)}), "no detector of a known family")
    name = "yolo_head.pred_cls.1.weight"
    refused(dumped(path, {key: value for key, value in given.items() if key != name}), "1 tensor missing")
    refused(dumped(path, given | {name: given[name][:, :-1]}), "of another shape")
    refused(dumped(path, given | {"yolo_head.more": given[name]}), "1 tensor unexpected", "yolo_head.more")
    refused(dumped(path, {k: v for k, v in given.items() if "pred_reg" not in k}), "does not show its architecture")
    first = "backbone.stem.conv1.conv.weight"
    ours = {"backbone.stem.0.conv.weight": given[first]}
    refused(dumped(path, given | ours), "stands twice in it")


@given(st.data())
def test_changed_bytes_never_do_worse_than_an_error(data: st.DataObject) -> None:
    small = pickle.dumps({"a": np.arange(3.0), "b": np.zeros((2, 2), np.float32)}, 4)
    changed = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"tood-fuzz-{os.getpid()}.pdparams"
    path.write_bytes(bytes(changed))
    try:
        read_weights_file(path)
    except ToodError:
        pass
    finally:
        path.unlink()


def test_arrays_that_are_no_weights_are_left_alone(tmp_path: Path) -> None:
    """A training framework's file with a random generator's state and other things of numpy's."""
    state = np.random.RandomState(0).get_state()
    saved = {
        "state_dict": {"a": torch.ones(3)},
        "random": {"numpy": state, "texts": np.array(["a", None], object), "big": np.zeros(2, ">i4")},
    }
    torch.save(saved, tmp_path / "x.pth")
    assert read_weights_file(tmp_path / "x.pth").tensors["a"].tolist() == [1, 1, 1]


def test_one_array_under_many_names_takes_its_memory_once(tmp_path: Path) -> None:
    shared = np.zeros(1000, np.float32)
    read = read_weights_file(dumped(tmp_path / "x.pdparams", {str(i): shared for i in range(100)})).tensors
    assert len({tensor.data_ptr() for tensor in read.values()}) == 1
    shutil.copy(FILE, tmp_path / "named.pdparams")
    assert load_detector_file(tmp_path / "named.pdparams")[0].config.family == "ppyoloe"
