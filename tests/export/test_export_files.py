"""`tood export` from weights to files that `Detector`, `tood eval` and `tood predict` take, with their certificates."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner, Result

from narrow_models import EXAMPLES, lively
from tood.boxes import iou_matrix
from tood.cli import app
from tood.data.digits import load_scans, render_scene
from tood.errors import ToodError, quoted
from tood.export import (
    BenchRow,
    ExportConfig,
    Origin,
    Proof,
    advice,
    bench_engines,
    certificate_files,
    export_model,
    not_timed,
    onnx_graph,
)
from tood.export.config import SUFFIXES
from tood.export.export import put_in_place
from tood.export.parity import Tolerance
from tood.inference import Detector
from tood.input import InputConfig
from tood.models import AnyDetector, build_model
from tood.models.atss import ATSSConfig
from tood.weights import load_weights, save_weights
from training.pictures import coco_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two classes and a dataset of them."""
    folder = tmp_path_factory.mktemp("export")
    plain = EXAMPLES["atss-plain"]
    assert isinstance(plain, ATSSConfig)
    # Of two levels and a layer a tower: PyTorch's exporter takes its time for each layer of each level.
    neck, head = replace(plain.neck, levels=2), replace(plain.head, tower_layers=1)
    model = replace(plain, classes=2, neck=neck, head=head, input=InputConfig(64, 96))
    save_weights(folder / "model.safetensors", lively(build_model(model)), ("cat", "dog"))
    coco_folder(folder / "data")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_graph() -> Iterator[None]:
    """PyTorch's exporter takes seconds: the network's own graph, the same in all files of a size, is made once."""
    made: dict[object, onnx.ModelProto] = {}

    def network_graph(model: AnyDetector, config: ExportConfig) -> onnx.ModelProto:
        key = (model.config, config.size, config.batch, config.opset)
        if key not in made:
            made[key] = onnx_graph.network_graph(model, config)
        copied = onnx.ModelProto()
        copied.CopyFrom(made[key])
        return copied

    with pytest.MonkeyPatch.context() as patch:
        for module in ("export", "bench"):
            patch.setattr(f"tood.export.{module}.network_graph", network_graph)
        yield


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    out = folder / "out" / "model.onnx"
    arguments = ("--graph", "nms", "--data", folder / "data", "--split", "val", "--workers", 0, "--out", out)
    result = _run("export", folder / "model.safetensors", *arguments)
    assert result.exit_code == 0, result.output
    return out


def test_the_certificate_says_what_was_measured(exported: Path) -> None:
    told = json.loads(certificate_files(exported)[0].read_text())
    assert told["within_tolerance"]
    assert told["sha256"] == {"model.onnx": hashlib.sha256(exported.read_bytes()).hexdigest()}
    assert len({(*case["picture"], case["batch"]) for case in told["cases"]}) == 9
    assert len({tuple(case["input"]) for case in told["cases"]}) == 3
    assert told["ap"]["before"] == pytest.approx(told["ap"]["after"], abs=0.001)
    assert told["operators"]["NonMaxSuppression"] == 1
    assert {"tood", "torch", "onnx", "onnxruntime"} <= told["versions"].keys()
    page = certificate_files(exported)[1].read_text()
    assert f"run by ONNX Runtime {told['versions']['onnxruntime']} on the CPU" in page
    assert "onnxruntime" not in page
    assert "Within the tolerance" in page
    assert told["sha256"]["model.onnx"] in page
    assert len(list(exported.parent.iterdir())) == 3


def test_a_detector_of_the_file_finds_what_the_model_finds(folder: Path, exported: Path) -> None:
    pictures = [render_scene(load_scans("test"), np.random.default_rng(seed)).image for seed in (0, 1)]
    ours, theirs = (Detector(path, "cpu", precision="fp32") for path in (folder / "model.safetensors", exported))
    assert (theirs.class_names, theirs.precision) == (("cat", "dog"), "fp32 by ONNX Runtime")
    for one, other in zip(ours(pictures), theirs(pictures), strict=True):
        assert len(one) == len(other) > 50
        torch.testing.assert_close(other.scores, one.scores, rtol=0, atol=1e-4)
        # The last of those that there is room for may be another one of the same score.
        assert iou_matrix(one.boxes[:50], other.boxes).amax(dim=1).min() > 0.99
    few = theirs.with_threshold(0.3)(pictures[0])
    assert len(few) == int((theirs(pictures[0]).scores > 0.3).sum()) > 0


def test_eval_and_predict_take_the_file(folder: Path, exported: Path, tmp_path: Path) -> None:
    figures = []
    for model in (folder / "model.safetensors", exported):
        out = tmp_path / f"{model.suffix}.json"
        options = ("--data", folder / "data", "--split", "val", "--json", out, "--workers", 0)
        result = _run("eval", "--model", model, *options)
        assert result.exit_code == 0, result.output
        figures.append(json.loads(out.read_text()))
    assert figures[1]["ap"] == pytest.approx(figures[0]["ap"], abs=1e-3)
    picture = next((folder / "data" / "val2017").glob("*.png"))
    result = _run("predict", picture, "--model", exported, "--out", tmp_path / "found", "--json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "found" / "predictions.json").is_file()
    refused = _run("eval", "--model", exported, "--data", folder / "data", "--precision", "bf16")
    assert (refused.exit_code, "leave --precision out" in refused.output) == (2, True)


def test_nothing_is_overwritten_unasked(folder: Path, exported: Path) -> None:
    before = exported.read_bytes()
    result = _run("export", folder / "model.safetensors", "--out", exported)
    assert result.exit_code == 2
    assert "--force" in result.output
    assert exported.read_bytes() == before


def test_a_file_beyond_the_tolerance_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tolerance is narrowed so that fp32's own rounding is beyond it."""
    monkeypatch.setattr("tood.export.certificate.TOLERANCES", {"fp32": Tolerance(1e-9, 1e-9)})
    out = tmp_path / "model.onnx"
    result = _run("export", folder / "model.safetensors", "--out", out)
    assert result.exit_code == 2
    assert "--allow-loss" in result.output
    assert not list(tmp_path.iterdir())
    result = _run("export", folder / "model.safetensors", "--out", out, "--allow-loss")
    assert result.exit_code == 0, result.output
    assert not json.loads(certificate_files(out)[0].read_text())["within_tolerance"]


def test_of_fp16_the_ap_may_decide_instead(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tood.export.certificate.TOLERANCES", {"fp16": Tolerance(1e-9, 1e-9)})
    result = _run("export", folder / "model.safetensors", "--precision", "fp16", "--out", tmp_path / "model.onnx")
    assert (result.exit_code, "with --data the AP decides" in result.output) == (2, True), result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "said"), [
    (("--graph", "topk"), "--graph nms"),
    (("--precision", "int8"), "--calibrate"),
    (("--size", 60, 64), "multiples of 32"),
    (("--size", 64, 64, "--dynamic"), "give one of them"),
    (("--to", "torch", "--precision", "int8"), "--to onnx"),
    (("--to", "torch", "--opset", 20), "--opset is of ONNX"),
    (("--to", "torch", "--target", "onnxruntime"), "--target is of ONNX"),
    (("--to", "openvino", "--target", "tensorrt"), "--target is of ONNX"),
    (("--calibrate", "data"), "--calibrate is of int8"),
    (("--precision", "fp16", "--calibrate", "data"), "--calibrate is of int8"),
    (("--out", "model.xml"), ".onnx"),
    (("--opset", 9), "18 to 23"),
    (("--batch", 0), "--batch"),
])  # fmt: skip
def test_what_cannot_be_is_told_in_a_sentence(
    folder: Path, tmp_path: Path, options: tuple[object, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _run("export", folder / "model.safetensors", "--out", "x.onnx", *options)
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def openvino_bytes(folder: Path) -> int:
    """Size of the weights of OpenVINO's file in fp32."""
    out = folder / "fp32.xml"
    result = _run("export", folder / "model.safetensors", "--to", "openvino", "--out", out)
    assert result.exit_code == 0, result.output
    assert Detector(out).precision == "fp32 by OpenVINO"
    return out.with_suffix(".bin").stat().st_size


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_on_onnx_runtime(folder: Path, tmp_path: Path, precision: str) -> None:
    """Of random weights nobody knows what is lost; that files run is all that is asked here."""
    _lower_precision(folder, tmp_path / "model.onnx", "onnx", precision, "ONNX Runtime")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_on_openvino(folder: Path, tmp_path: Path, precision: str, openvino_bytes: int) -> None:
    out = tmp_path / "model.xml"
    _lower_precision(folder, out, "openvino", precision, "OpenVINO")
    assert out.with_suffix(".bin").stat().st_size < 0.9 * openvino_bytes


def test_int8_of_raw_pictures_on_openvino(folder: Path, tmp_path: Path) -> None:
    """Its compiler joins what is last, and gives the outputs further names."""
    options = ("--to", "openvino", "--precision", "int8", "--raw", "--calibrate", folder / "data", "--allow-loss")
    result = _run(
        "export", folder / "model.safetensors", *options, "--size", "64", "64", "--out", tmp_path / "model.xml"
    )
    assert result.exit_code == 0, result.output


def _lower_precision(folder: Path, out: Path, to: str, precision: str, engine: str) -> None:
    calibrate = ("--calibrate", folder / "data") if precision == "int8" else ()
    options = ("--to", to, "--precision", precision, *calibrate, "--allow-loss")
    result = _run("export", folder / "model.safetensors", *options, "--out", out)
    assert result.exit_code == 0, result.output
    detector = Detector(out)
    assert detector.precision == f"{precision} by {engine}"
    assert len(detector(next((folder / "data" / "val2017").glob("*.png"))))


def test_pictures_are_looked_at_before_the_exporter_begins(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tood.export.export.network_graph", lambda *_: pytest.fail("the exporter has begun"))
    note, cut = tmp_path / "note.py", tmp_path / "pictures" / "cut.png"
    note.write_text("print()")
    cut.parent.mkdir()
    cut.write_bytes(next((folder / "data" / "val2017").glob("*.png")).read_bytes()[:60])
    int8 = ("--precision", "int8", "--allow-loss", "--calibrate")
    for options, name in ((("--pictures", note), note), (("--pictures", cut.parent), cut), ((*int8, cut.parent), cut)):
        result = _run("export", folder / "model.safetensors", "--out", tmp_path / "model.onnx", *options)
        assert (result.exit_code, name.name in result.output) == (2, True), result.output


def test_pytorchs_own_program(folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    out = tmp_path / "model.pt2"
    options = ("--to", "torch", "--graph", "nms", "--raw", "--pictures", folder / "data" / "val2017", "--out", out)
    result = _run("export", folder / "model.safetensors", *options)
    assert result.exit_code == 0, result.output
    assert not recwarn.list, "PyTorch's, of its own inner things"
    told = json.loads(certificate_files(out)[0].read_text())
    assert told["pictures"].endswith(f"pictures of {folder / 'data' / 'val2017'}")
    assert told["operators"]["while_loop"] == 1
    picture = next((folder / "data" / "val2017").glob("*.png"))
    ours, theirs = (Detector(path, precision="fp32")(picture) for path in (folder / "model.safetensors", out))
    assert len(ours) == len(theirs) > 10
    torch.testing.assert_close(theirs.boxes, ours.boxes, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_a_fixed_batch_is_filled_and_what_filled_it_is_dropped(folder: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"model{SUFFIXES[to]}"
    model, size = folder / "model.safetensors", ("--size", 64, 96)
    result = _run("export", model, "--to", to, "--graph", "nms", *size, "--batch", 3, "--out", out)
    assert result.exit_code == 0, result.output
    told = json.loads(certificate_files(out)[0].read_text())
    assert ({case["batch"] for case in told["cases"]}, told["description"]["batch"]) == ({3}, "3")
    assert "in batches of 3" in certificate_files(out)[1].read_text()
    pictures = [render_scene(load_scans("test"), np.random.default_rng(seed)).image for seed in range(4)]
    detector = Detector(out)
    whole = detector(pictures[:3], batch_size=3)
    for batch in (1, 2, 4):
        found = detector(pictures[:3] if batch < 4 else pictures, batch_size=batch)
        for one, other in zip(found, whole, strict=False):
            assert len(one) == len(other) > 10
            torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-3)
    assert len(found) == 4
    if to == "onnx":
        assert [value.type.tensor_type.shape.dim[0].dim_value for value in _values(onnx.load(out))] == [3] * 6


def _values(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*proto.graph.input, *proto.graph.output]


def test_files_that_are_none(exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.onnx").write_bytes(exported.read_bytes()[:1000])
    (tmp_path / "alone.xml").write_text("<net/>")
    (tmp_path / "broken.pt2").write_bytes(b"PK")
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(2),)), tmp_path / "foreign.pt2")
    for name in ("broken.onnx", "alone.xml", "broken.pt2", "missing.onnx", "foreign.pt2"):
        with pytest.raises(ToodError, match=name.partition(".")[0]) as told:
            Detector(tmp_path / name)
        if name == "foreign.pt2":
            assert "was not written by `tood export`" in str(told.value)
    assert not [record for record in caplog.records if record.name == "torch.export"], "what its reader tries"


def test_int8_without_a_dataset_is_not_written_unasked(folder: Path, tmp_path: Path) -> None:
    model = load_weights(folder / "model.safetensors")[0]
    with pytest.raises(ToodError, match="--data"):
        export_model(
            Origin(model, ("cat", "dog")),
            tmp_path / "x.onnx",
            ExportConfig(precision="int8"),
            Proof(calibration=str(folder / "data")),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_package_that_is_missing_is_told_with_the_command(
    folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime" if command == "predict" else "onnxscript", None)
    picture = next((folder / "data" / "val2017").glob("*.png"))
    result = {
        "predict": lambda: _run("predict", picture, "--model", exported, "--out", tmp_path / "found"),
        "export": lambda: _run("export", folder / "model.safetensors", "--out", tmp_path / "x.onnx"),
    }[command]()
    assert (result.exit_code, "pip install 'tood[export]'" in result.output) == (2, True), result.output
    assert not list(tmp_path.iterdir())


def test_bad_input_is_told_in_a_sentence(folder: Path, exported: Path, tmp_path: Path) -> None:
    model, out = folder / "model.safetensors", tmp_path / "out" / "x.onnx"
    bad = tmp_path / "bad"
    (bad / "empty").mkdir(parents=True)
    (bad / "none.safetensors").write_bytes(b"no weights")
    (bad / "cut.safetensors").write_bytes(model.read_bytes()[:2000])
    (bad / "cut.onnx").write_bytes(exported.read_bytes()[:-1000])
    onnx.save(_foreign(), bad / "foreign.onnx")
    picture = next((folder / "data" / "val2017").glob("*.png"))
    int8 = ("export", model, "--out", out, "--precision", "int8", "--calibrate")
    for arguments, said in (
        (("export", bad / "missing.safetensors", "--out", out), "there is no"),
        (("export", bad / "none.safetensors", "--out", out), "none.safetensors"),
        (("export", bad / "cut.safetensors", "--out", out), "cut.safetensors"),
        (("export", exported, "--out", out), "exported already"),
        (("export", model, "--out", out, "--split", "val"), "--data"),
        (("export", model, "--out", out, "--name", "x"), "--to triton"),
        ((*int8, bad / "empty"), "empty"),
        ((*int8, bad / "missing"), "missing"),
        (("export", model, "--out", out, "--pictures", bad / "empty"), "empty"),
        (("export", bad / "foreign.onnx", "--to", "triton", "--raw", "--out", out), "exported already"),
        (("export", bad / "missing.onnx", "--to", "triton", "--out", out), "there is no weights file"),
        (("export", bad / "cut.onnx", "--to", "triton", "--out", out), "is no ONNX file"),
        (("export", model, "--to", "triton", "--name", "../x", "--out", out), "is no name"),
        (("bench", exported), "exported already"),
        (("predict", picture, "--model", bad / "cut.onnx", "--out", out), "no model that ONNX Runtime can run"),
        (("predict", picture, "--model", bad / "foreign.onnx", "--out", out), "not written by `tood export`"),
        (("eval", "--model", bad / "foreign.onnx", "--data", folder / "data"), "not written by `tood export`"),
    ):
        result = _run(*arguments)
        text = " ".join(result.output.split())
        assert (result.exit_code, said in text) == (2, True), (arguments, result.output)
        assert "Traceback" not in text
        assert not out.parent.exists(), arguments


def test_a_kill_leaves_no_model_beside_what_belongs_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every place that a file takes, and before the first, a child process kills itself."""
    names = ("model.bin", "model.xml", "model.xml.certificate.json", "model.xml.certificate.md")
    new = tmp_path / "new"
    new.mkdir()
    for name in names[:2]:
        (new / name).write_text("new")
    left = []
    for last in range(len(names) + 1):
        out = tmp_path / str(last) / "model.xml"
        out.parent.mkdir()
        for name in names:
            (out.parent / name).write_text("old")
        child = os.fork()
        if child == 0:
            try:
                _kill_at_replacement(last, monkeypatch)
                put_in_place([new / "model.xml", new / "model.bin"], out, ("new", "new"))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == (0 if last == len(names) else signal.SIGKILL)
        left.append({(out.parent / name).read_text() for name in names if (out.parent / name).exists()})
        assert len(left[-1]) == 1 or not out.exists(), last
        # The next time nothing of it is left.
        put_in_place([new / "model.xml", new / "model.bin"], out, ("new", "new"))
        assert sorted(path.name for path in out.parent.iterdir()) == sorted(names)
    assert left[-1] == {"new"}


def _kill_at_replacement(last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process, when the file that is the last in place would take it."""
    places = iter(range(100))
    replace_file = Path.replace

    def replacing(path: Path, target: Path) -> Path:
        if next(places) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", replacing)


def test_a_stop_signal_leaves_nothing_but_the_old_file(folder: Path, tmp_path: Path) -> None:
    """While the file is there, and held against PyTorch."""
    temporary, out = tmp_path / "temporary", tmp_path / "out" / "model.pt2"
    temporary.mkdir()
    out.parent.mkdir()
    out.write_text("old")
    words = ["export", folder / "model.safetensors", "--to", "torch", "--out", out, "--force"]
    # PyTorch keeps a cache of its own where temporary files go.
    environment = {**os.environ, "TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    # The comparison goes on until the signal comes.
    code = "import time; from tood.export import export; export.compare = lambda *_: time.sleep(600)"
    code += "; from tood.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stderr is not None
    while (line := process.stderr.readline()) and not line.startswith("comparison with PyTorch"):
        pass
    assert line
    assert [path.name for path in temporary.rglob("*.pt2")] == ["model.pt2"]
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=600)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "tood: stopped; what was not finished is removed" in told
    assert list(temporary.iterdir()) == []
    assert [(path.name, path.read_text()) for path in out.parent.iterdir()] == [("model.pt2", "old")]


def test_files_that_take_their_places_are_not_stopped_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, out = tmp_path / "built.pt2", tmp_path / "out" / "model.pt2"
    built.write_text("new")
    out.parent.mkdir()
    out.write_text("old")
    replace_file, to_come = Path.replace, [signal.SIGINT]

    def replacing(path: Path, target: Path) -> Path:
        while to_come:
            signal.raise_signal(to_come.pop())
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", replacing)
    with pytest.raises(KeyboardInterrupt):
        put_in_place([built], out, ("new", "new"))
    assert {path.read_text() for path in (out, *certificate_files(out))} == {"new"}
    assert len(list(out.parent.iterdir())) == 3


def test_a_file_that_cannot_be_written_leaves_the_old_ones(folder: Path, tmp_path: Path) -> None:
    """A folder stands where one of them is to be."""
    out = tmp_path / "model.onnx"
    out.write_text("old")
    certificate_files(out)[1].mkdir()
    result = _run("export", folder / "model.safetensors", "--out", out, "--force")
    assert (result.exit_code, "is a folder" in " ".join(result.output.split())) == (2, True), result.output
    assert out.read_text() == "old"


def _foreign() -> onnx.ModelProto:
    """A sound ONNX model that somebody else wrote."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])


def test_triton_gets_a_model_and_its_certificate(folder: Path, exported: Path, tmp_path: Path) -> None:
    for model, name in ((folder / "model.safetensors", "made"), (exported, "taken")):
        graph = ("--graph", "nms") if name == "made" else ()
        result = _run("export", model, "--to", "triton", *graph, "--out", tmp_path, "--name", name)
        assert result.exit_code == 0, result.output
        assert "tritonserver --model-repository" in result.output
        assert (tmp_path / name / "labels.txt").read_text() == "cat\ndog\n"
        assert "max_batch_size: 8" in (tmp_path / name / "config.pbtxt").read_text()
        # Named for what they are of there.
        papers = certificate_files(tmp_path / name / "model.onnx")
        assert sorted((tmp_path / name).glob("*.certificate.*")) == sorted(papers)
        (digest,) = json.loads(papers[0].read_text())["sha256"].values()
        assert digest == hashlib.sha256((tmp_path / name / "1" / "model.onnx").read_bytes()).hexdigest()
        again = _run("export", model, "--to", "triton", *graph, "--out", tmp_path, "--name", name)
        assert (again.exit_code, "exists already" in " ".join(again.output.split())) == (2, True)
    picture = next((folder / "data" / "val2017").glob("*.png"))
    found = [Detector(path)(picture) for path in (exported, tmp_path / "made" / "1" / "model.onnx")]
    torch.testing.assert_close(found[1].boxes, found[0].boxes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "taken"]


def test_importing_takes_no_engine() -> None:
    code = (
        "import sys, tood.inference, tood.export; print({'onnx', 'onnxruntime', 'openvino', 'nncf'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_bench_says_which_engine_to_take(folder: Path) -> None:
    result = _run("bench", folder / "model.safetensors", "--repeats", 1)
    assert result.exit_code == 0, result.output
    for engine in ("PyTorch, fp32", "ONNX Runtime, fp32", "OpenVINO, fp32", "PyTorch's program, fp32"):
        assert engine in result.output
    assert "Take " in result.output
    assert "int8 learns from pictures: it is timed with --calibrate" in " ".join(result.output.split())
    assert "on cuda" not in result.output or torch.cuda.is_available()
    refused = _run("bench", folder / "model.safetensors", "--device", "nowhere")
    assert (refused.exit_code, "there is no device 'nowhere'" in refused.output) == (2, True), refused.output


def test_bench_measures_the_device_that_is_asked_for_too(folder: Path) -> None:
    """Whether there is a GPU here or not: each engine has a row for it, with a time or what is missing."""
    model, names = load_weights(folder / "model.safetensors")
    picture = render_scene(load_scans("test"), np.random.default_rng(0)).image
    calibration = str(folder / "data")
    rows = bench_engines(Origin(model.eval(), names), picture, 1, torch.device("cuda"), calibration=calibration)
    gpu = {row.engine: row for row in rows if row.device == "cuda"}
    assert {"PyTorch, fp32 on cuda", "ONNX Runtime, fp32 on cuda", "ONNX Runtime, fp16 on cuda"} <= gpu.keys()
    whole = {row.engine: row.command for row in rows if row.precision == "int8"}
    assert whole.keys() == {"ONNX Runtime, int8", "OpenVINO, int8"}
    learns = f"--to openvino --precision int8 --calibrate {quoted(calibration)} --data DATASET"
    assert whole["OpenVINO, int8"].endswith(learns)
    assert not_timed(rows) == ""
    assert all((row.seconds is None) == bool(row.problem) for row in rows)
    assert all(row.seconds is not None for row in rows if row.device == "cpu")
    assert torch.cuda.is_available() == (gpu["PyTorch, fp32 on cuda"].seconds is not None)
    assert next(model.parameters()).device.type == "cpu"


def test_the_advice_of_bench_is_beside_what_a_detector_does_by_itself() -> None:
    cpu, onnx_cpu = BenchRow("PyTorch, fp32", 0.2), BenchRow("ONNX Runtime, fp32", 0.1, "tood export m --to onnx")
    assert advice([onnx_cpu, cpu]).endswith("2.00 times as fast as PyTorch in fp32: tood export m --to onnx")
    gpu = BenchRow("PyTorch, fp32 on cuda", 0.02, device="cuda")
    missing = replace(gpu, seconds=None, problem="no GPU")
    assert advice([onnx_cpu, cpu, missing]) == advice([onnx_cpu, cpu])
    assert advice([gpu, onnx_cpu, cpu]).startswith("Take PyTorch in fp32 on cuda, without a file")
    half = BenchRow("PyTorch, bf16 on cuda", 0.01, device="cuda", precision="bf16")
    assert advice([half, gpu, cpu]).endswith("fp32 on cuda: --device cuda --precision bf16")
    onnx_gpu = BenchRow("ONNX Runtime, fp32 on cuda", 0.01, "tood export m --to onnx", device="cuda")
    assert advice([onnx_gpu, gpu, cpu]).endswith("tood export m --to onnx, then --device cuda")
