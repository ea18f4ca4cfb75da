"""`tood weights` and `tood predict` on files of other origin, good and bad."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from golden_values import NARROW, golden
from half_written import half_written
from tood.cli import app
from tood.weights import load_weights

CLASSES = tuple("abcdefg")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def checkpoint(path: Path) -> Path:
    torch.save({"state_dict": golden("anchor_free")["state_dict"], "meta": {"CLASSES": CLASSES}}, path)
    return path


def test_import_and_export(tmp_path: Path) -> None:
    source, ours = checkpoint(tmp_path / "a.pth"), tmp_path / "new" / "ours.safetensors"
    done = run("weights", "import", source, ours)
    assert done.exit_code == 0, done.output
    assert "ResNet-50 and 7 classes" in done.output
    assert load_weights(ours)[0].config == NARROW
    assert run("weights", "export", ours, tmp_path / "b.pth", "--layout", "mmdet").exit_code == 0
    back = torch.load(tmp_path / "b.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(back[name], tensor) for name, tensor in golden("anchor_free")["state_dict"].items())


def test_what_killed_ones_left_is_gone_the_next_time(tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path / "a.pth"), tmp_path / "out"
    out.mkdir()
    names = ("ours.safetensors", "b.pth")
    for command, taken, name in zip(("import", "export"), (source, out / names[0]), names, strict=True):
        half_written(out / name)
        assert run("weights", command, taken, out / name).exit_code == 0
        assert not list(out.glob(".*"))
    assert {path.name for path in out.iterdir()} == set(names)


def test_import_takes_what_the_tensors_do_not_show(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    done = run(
        "weights", "import", checkpoint(tmp_path / "a.pth"), out, "--anchor", "based", "--set", "head.norm_groups=4"
    )
    assert done.exit_code == 0, done.output
    head = load_weights(out)[0].config.head
    assert (head.anchor, head.norm_groups) == ("based", 4)


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path / "a.pth"), tmp_path / "b.safetensors"
    out.write_bytes(b"precious")
    done = run("weights", "import", source, out)
    assert (done.exit_code, out.read_bytes()) == (2, b"precious")
    assert "--force" in done.output
    assert run("weights", "import", source, out, "--force").exit_code == 0
    assert load_weights(out)[1] == CLASSES
    other = run("weights", "export", out, tmp_path / "c.safetensors")
    assert other.exit_code == 2
    assert ".pth" in other.output


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def write_bad(path: Path, kind: str) -> None:
    if kind == "hostile":
        torch.save({"state_dict": golden("anchor_free")["state_dict"], "x": Evil()}, path)
    elif kind == "truncated":
        path.write_bytes(checkpoint(path).read_bytes()[:-5000])
    elif kind == "text":
        path.write_text("not weights\n" * 1000)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no tensors":
        torch.save({"state_dict": {"a": [1, 2]}}, path)
    elif kind == "classifier":
        save_file({"conv1.weight": torch.ones(64, 3, 7, 7), "fc.weight": torch.ones(10, 512)}, path)
    elif kind == "class count":
        torch.save({"state_dict": golden("anchor_free")["state_dict"], "meta": {"CLASSES": ("a",)}}, path)


BAD = ("hostile", "truncated", "text", "empty", "no tensors", "classifier", "class count", "missing")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_sentence_exit_code_2_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.pth"
    write_bad(bad, kind)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("x.png")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for command in (
        ("weights", "import", bad, "out/a.safetensors"),
        ("weights", "export", bad, "out/a.pth"),
        ("predict", "x.png", "--model", bad, "--out", "out"),
    ):
        done = run(*command)
        assert done.exit_code == 2, done.output
        assert done.output.count("\n") == 1, done.output
        assert done.output.startswith("tood: ")
        assert "bad.pth" in done.output
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_predict_with_a_published_file(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / "x.png")
    done = run(
        "predict", tmp_path / "x.png", "--model", checkpoint(tmp_path / "a.pth"), "--out", tmp_path / "out",
        "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
