"""Which files of a model are looked at, and by what a changed one is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from bright_square import BrightRectangle
from tood import Detector
from tood.cli.options import model_identity
from tood.errors import ToodError
from tood.serving.served_model import ModelSource, ServedModel


def put(path: Path, content: bytes) -> None:
    """Replaces a file in one step."""
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def test_all_files_of_a_model_are_looked_at(tmp_path: Path) -> None:
    graph, numbers = tmp_path / "model.xml", tmp_path / "model.bin"
    graph.write_bytes(b"graph")
    numbers.write_bytes(b"graph")

    def load(path: str) -> Detector:
        assert path == str(graph)
        if graph.read_bytes()[-1:] != numbers.read_bytes()[-1:]:
            raise ToodError("they do not belong together")
        return Detector.from_model(BrightRectangle(), ["small", "bright"], "cpu")

    served = ServedModel(ModelSource("it", str(graph)), load, lambda detector: None)
    versions, identities = [served.current.version], [model_identity(str(graph))]
    put(numbers, b"other graph")
    assert not served.refresh(), "it may be written still"
    assert served.refresh()
    versions.append(served.current.version)
    identities.append(model_identity(str(graph)))

    put(graph, b"graph 2")
    assert not served.refresh()
    with pytest.raises(ToodError, match="belong together"):
        served.refresh()
    assert not served.refresh()
    assert served.current.version == versions[-1]
    put(numbers, b"numbers 2")
    assert not served.refresh()
    assert served.refresh()
    versions.append(served.current.version)
    identities.append(model_identity(str(graph)))
    assert len(set(versions)) == len(set(map(str, identities))) == 3
    numbers.unlink()
    assert not served.refresh()
