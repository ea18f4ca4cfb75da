"""A Triton model repository of ONNX files, parsed as the server does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from half_written import half_written
from tood.errors import ToodError
from tood.export.triton import TritonConfig, write_triton_repository


def onnx_file(path: Path, output: tuple[str | int, ...] = ("batch", 100), batch: str | int = "batch") -> Path:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["boxes"]), helper.make_node("Identity", ["k"], ["labels"])],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, "height", "width", 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 100, 4]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, list(output)),
        ],
        [numpy_helper.from_array(np.zeros((1, 100), np.int64), "k")],
    )
    model = helper.make_model(graph)
    helper.set_model_props(model, {"class_names": json.dumps(["red cell", "white\ncell"])})
    onnx.save(model, path)
    return path


def test_a_model_that_takes_any_batch(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "cells.onnx")
    folder = write_triton_repository(source, tmp_path / "repository", config=TritonConfig("gpu", 2, 16, 500))
    assert (folder / "1" / "model.onnx").read_bytes() == source.read_bytes()
    assert (folder / "labels.txt").read_text() == "red cell\nwhite cell\n"
    assert (
        (folder / "config.pbtxt").read_text()
        == """\
name: "cells"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 16
input [
  { name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }
]
output [
  { name: "boxes" data_type: TYPE_FP32 dims: [ 100, 4 ] },
  { name: "labels" data_type: TYPE_INT64 dims: [ 100 ] label_filename: "labels.txt" }
]
instance_group [ { count: 2 kind: KIND_GPU } ]
dynamic_batching { max_queue_delay_microseconds: 500 }
"""
    )


def test_papers_are_named_for_what_the_file_is_called_there(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "cells.onnx")
    papers = [tmp_path / "cells.onnx.certificate.md", tmp_path / "licence.txt"]
    for paper in papers:
        paper.write_text(paper.name)
    folder = write_triton_repository(source, tmp_path / "repository", papers=papers)
    left = {path.name: path.read_text() for path in folder.glob("[lm]*") if path.name != "labels.txt"}
    assert left == {"model.onnx.certificate.md": papers[0].name, "licence.txt": papers[1].name}


@pytest.mark.parametrize("name", ["model.xml", "model.pt2", "model.onnx"])
def test_files_of_other_engines_are_told_apart(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<net/>")
    with pytest.raises(ToodError, match=f"{name} is no ONNX file, (as|or)") as raised:
        write_triton_repository(tmp_path / name, tmp_path / "repository")
    assert "ModelProto" not in str(raised.value)


def test_what_a_killed_one_left_is_gone_the_next_time(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "cells.onnx")
    repository = tmp_path / "repository"
    repository.mkdir()
    half_written(repository / "cells", "whole_folder")
    folder = write_triton_repository(source, repository)
    assert list(repository.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("output", "batch"), [(("found", 3), "batch"), ((1, 100), 1), ((100,), "batch")], ids=["rows", "fixed", "other"]
)
def test_other_models_are_run_as_they_are(tmp_path: Path, output: tuple[str | int, ...], batch: str | int) -> None:
    folder = write_triton_repository(onnx_file(tmp_path / "a.onnx", output, batch), tmp_path, "found")
    text = (folder / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in text
    assert "dynamic_batching" not in text
    sizes = ", ".join("-1" if isinstance(size, str) else str(size) for size in output)
    assert f'"labels" data_type: TYPE_INT64 dims: [ {sizes} ]' in text
    first = "-1" if isinstance(batch, str) else batch
    assert f'"images" data_type: TYPE_UINT8 dims: [ {first}, -1, -1, 3 ]' in text


def test_a_number_a_picture_has_a_dimension_named(tmp_path: Path) -> None:
    folder = write_triton_repository(onnx_file(tmp_path / "a.onnx", ("batch",)), tmp_path / "out")
    assert "dims: [ 1 ] reshape: { shape: [ ] }" in (folder / "config.pbtxt").read_text()


def test_tensors_in_files_beside_it_come_along(tmp_path: Path) -> None:
    model = onnx.load(onnx_file(tmp_path / "a.onnx"))
    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    folder = write_triton_repository(tmp_path / "b.onnx", tmp_path / "out")
    assert onnx.load(folder / "1" / "model.onnx").graph.initializer[0].raw_data == bytes(800)
    (tmp_path / "b.data").unlink()
    with pytest.raises(ToodError, match="not beside it"):
        write_triton_repository(tmp_path / "b.onnx", tmp_path / "out", "c")


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    source, out = onnx_file(tmp_path / "a.onnx"), tmp_path / "out"
    (tmp_path / "no.onnx").write_bytes(b"no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for path, name, sentence in (
        (tmp_path / "b.onnx", None, "there is no ONNX file"),
        (tmp_path / "no.onnx", None, "is no ONNX file"),
        (tmp_path / "empty.onnx", None, "is no ONNX file"),
        (source, "../up", "is no name for a model"),
    ):
        with pytest.raises(ToodError, match=sentence):
            write_triton_repository(path, out, name)
    with pytest.raises(ToodError, match="at least 1"):
        write_triton_repository(source, out, config=TritonConfig(instances=0))
    assert not out.exists()
    write_triton_repository(source, out)
    with pytest.raises(ToodError, match="exists already"):
        write_triton_repository(source, out)
