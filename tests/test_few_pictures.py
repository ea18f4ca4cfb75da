"""AP by number of pictures: which rows are whose, and what cannot be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.few_pictures import MODELS, STARTED, main

from training.pictures import coco_folder


def rows(**of: object) -> list[dict[str, object]]:
    """A row a model, of 2 pictures and seed 0."""
    return [{"pictures": 2, "seed": 0, "model": model, "AP": 0.5, "AP50": 0.75, **of} for model in MODELS]


def curve(data: Path, out: Path, found: list[dict[str, object]], *options: str) -> str:
    """The table of what the rows say, in which nothing is missing."""
    out.mkdir()
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    main([str(data), "--pictures", "2", "--seeds", "0", "--out", str(out), *options])
    return (out / "few_pictures.md").read_text()


def test_the_table_is_of_this_dataset_and_of_so_many_images_shown(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "mine")
    others = rows(dataset="theirs", shown=50, AP=0.1) + rows(dataset="mine", shown=60, AP=0.2) + rows(AP=0.3)
    table = curve(data, tmp_path / "out", others + rows(dataset="mine", shown=50), "--shown", "50")
    assert f"| {STARTED} | 2 | 1 | 0.500 |" in table
    assert not any(ap in table for ap in ("0.100", "0.200", "0.300"))
    assert table.count("\n") == 2 + len(MODELS)


def test_rows_that_do_not_say_it_are_of_the_first_dataset(tmp_path: Path) -> None:
    assert f"| {STARTED} | 2 | 1 | 0.500 |" in curve(coco_folder(tmp_path / "raccoon"), tmp_path / "out", rows())


def test_peers_that_are_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = [row for row in rows(dataset="mine", shown=50) if row["model"] != MODELS[-1]]
    peers = tmp_path / "nothing"
    table = curve(coco_folder(tmp_path / "mine"), tmp_path / "out", ours, "--shown", "50", "--peers", str(peers))
    assert MODELS[-1] not in table
    assert f"{MODELS[-1]} is left out: there is no {peers / 'python'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--pictures", "7"], "--pictures: expected 1 to 6"),
        (["--pictures", "0", "2"], "--pictures: expected 1 to 6"),
        (["--shown", "0", "--pictures", "2"], "expected 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = coco_folder(tmp_path / "mine"), tmp_path / "out"
    with pytest.raises(SystemExit, match="2"):
        main([str(data), "--out", str(out), *options])
    assert told in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "nowhere"), "--out", str(out)])
    assert not out.exists()
