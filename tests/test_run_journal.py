"""Journals of runs: wherever a file is cut, its whole lines count and nothing else; another's file is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tood.errors import ToodError
from tood.run_journal import RunJournal

HEADER = {"tood test": 3, "settings": {"threshold": 0.5}, "source": "ä\udcff.tif"}
LINES = [{"n": number, "t": "ü" * number} for number in range(4)]


def write(path: Path) -> list[range]:
    journal = RunJournal.begin(path, HEADER)
    journal.open()
    places = [journal.add(line) for line in LINES]
    assert [journal.at(place) for place in places] == LINES
    journal.close()
    return places


def read(path: Path) -> tuple[RunJournal | None, list[Any]]:
    lines: list[Any] = []
    return RunJournal.read(path, "tood test", 3, lines.append), lines


def test_wherever_it_is_cut_its_whole_lines_are_gone_on_with(tmp_path: Path) -> None:
    places = write(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    for size in range(len(content) + 1):
        cut.write_bytes(content[:size])
        journal, lines = read(cut)
        if size < places[0].start:
            assert journal is None
            continue
        count = sum(place.stop <= size for place in places)
        assert lines == LINES[:count]
        assert journal is not None
        assert (journal.header, journal.settings) == (HEADER, HEADER["settings"])
        assert [journal.place(number) for number in range(count)] == places[:count]
        journal.open()
        assert journal.is_empty == (count == 0)
        for line in LINES[count:]:
            journal.add(line)
        journal.close()
        assert cut.read_bytes() == content


def test_of_its_lines_the_first_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path)
    for count in (3, 1, 0):
        journal, _ = read(path)
        assert journal is not None
        journal.open(count)
        assert journal.at(journal.add({"n": "new"})) == {"n": "new"}
        journal.close()
        assert read(path)[1] == [*LINES[:count], {"n": "new"}]


@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (0, 1), (), (1, 2), (0, 3), (3,)])
def test_any_of_its_lines_are_kept(tmp_path: Path, kept: Sequence[int]) -> None:
    path = tmp_path / "journal"
    write(path)
    journal, _ = read(path)
    assert journal is not None
    journal.keep(kept)
    journal.open()
    assert [journal.at(journal.place(at)) for at in range(len(kept))] == [LINES[number] for number in kept]
    journal.add({"n": "new"})
    journal.close()
    assert read(path)[1] == [*(LINES[number] for number in kept), {"n": "new"}]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"mine",
        b"mine\n",
        b"[]\n",
        b"3\n",
        b"\xff\xfe\n",
        b'{"tood test": 2, "settings": {}}\n',  # of another version
        b'{"tood other": 3, "settings": {}}\n',
        b'{"tood test": 3}\n',
        b'{"tood test": 3, "settings": {}}',  # what is added would stand in its line
        b'{"tood test": 3, "settings": {}}\n{"n": 0}\n{"n"\n{"n": 2}\n',
    ],
)
def test_what_is_none_is_not_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    assert read(path)[0] is None
    assert path.read_bytes() == content
    assert read(tmp_path)[0] is read(tmp_path / "nothing")[0] is None


def test_lines_that_are_none_of_the_command_s(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    assert RunJournal.read(tmp_path / "journal", "tood test", 3, lambda line: line["x"]) is None
    assert RunJournal.read(tmp_path / "journal", "tood test", 3) is not None


def test_it_appears_with_its_header(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("as it was")
    with pytest.raises(TypeError):
        RunJournal.begin(tmp_path / "journal", {"tood test": 3, "settings": object()})
    assert (tmp_path / "journal").read_text() == "as it was"
    RunJournal.begin(tmp_path / "journal", HEADER)
    assert (tmp_path / "journal").read_text() == json.dumps(HEADER) + "\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_only_its_own_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = RunJournal.begin(path, HEADER)
    journal.open()
    RunJournal.begin(path, HEADER).close()  # another run, where there are no locks
    journal.remove()
    assert path.exists()
    journal = RunJournal.begin(path, HEADER)
    journal.open()
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    journal = RunJournal.begin(tmp_path / "journal", HEADER)
    (tmp_path / "journal").unlink()
    with pytest.raises(ToodError, match=f"{tmp_path} cannot be written to: No such file"):
        journal.open()
    with pytest.raises(ToodError, match="cannot be written"):
        RunJournal.begin(Path("/proc/nothing/journal"), HEADER)
