"""Plans, lists of pictures and shards, in this process: without Ray."""

from __future__ import annotations

import io
import os
import sys
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.conftest import photographs
from tood.claimed_folder import require_same_settings
from tood.clusters import SCHEMA, PictureLists, Place, ShardWorker, ShippedModel, WorkerConfig, make_plan, read_plan
from tood.clusters.pictures import Picture, read_rows
from tood.errors import ToodError
from tood.inference import Detector

CONFIG = WorkerConfig(threshold=0.1, batch_size=2, readers=3)


def somewhere(kind: str, tmp_path: Path) -> Place:
    """A new folder: on the disk, in memory, or in the bucket of a server that the environment names."""
    if kind == "disk":
        return Place.of(str(tmp_path / "out"))
    if kind == "memory":
        return Place.of(f"memory://{uuid.uuid4()}/out")
    bucket = os.environ.get("TOOD_TEST_BUCKET")  # such as s3://bucket, with AWS_ENDPOINT_URL and keys beside it
    if not bucket:
        pytest.skip("TOOD_TEST_BUCKET names no bucket")
    return Place.of(f"{bucket}/{uuid.uuid4()}")


@pytest.mark.parametrize("kind", ["disk", "memory", "bucket"])
def test_each_picture_has_one_row_and_what_is_written_is_not_done_again(
    kind: str, weights: Path, tmp_path: Path
) -> None:
    folder, out = photographs(tmp_path / "photos", 20), somewhere(kind, tmp_path)
    if kind != "disk":  # pictures from there, too
        source = out.inside("ü #1?x=%20")
        for path in folder.rglob("*.png"):
            source.inside(f"{path.parent.name}/{path.name}").write(path.read_bytes())
        out = out.inside("out #1?")
    else:
        source = Place.of(str(folder))
    model = ShippedModel.of(str(weights))
    plan = make_plan(out, [source.uri, f"{source.uri}/1"], {"threshold": 0.1}, at_once=3)
    assert (plan.pictures, len(plan.shards)) == (20, 7)
    assert read_plan(out) is not None

    worker = ShardWorker(plan, model, CONFIG)
    reports = [worker(number) for number in range(4)]
    resumed = read_plan(out)
    assert resumed is not None
    assert list(resumed.shards) == list(plan.shards)
    assert resumed.done() == {0, 1, 2, 3}
    reports += [ShardWorker(resumed, model, CONFIG)(number) for number in range(7)]
    assert [report.seconds == 0 for report in reports[4:8]] == [True] * 4

    rows = [row for number in range(7) for row in pq.read_table(io.BytesIO(plan.part(number).read())).to_pylist()]
    names = Counter(row["image"] for row in rows)
    assert names == Counter(f"{source.uri}/{number % 3}/{number:04}.png" for number in range(20))
    broken = {row["image"][-8:-4] for row in rows if row["error"] is not None}
    assert broken == {"0003", "0010", "0017"}
    reasons = {row["error"] for row in rows if row["error"]}
    assert all(reason.startswith("the image is truncated") for reason in reasons), reasons
    assert all(row["boxes"] is None for row in rows if row["error"])

    # The same as one by one in this process.
    detector = Detector(weights, "cpu", 0.1, precision="fp32")
    whole = next(row for row in rows if row["image"].endswith("0008.png"))
    found = detector(folder / "2" / "0008.png")
    assert whole["names"] == found.names
    assert (whole["width"], whole["height"]) == (64, 51)


class _Refusing(BaseHTTPRequestHandler):
    """A server that refuses everything, as S3 does where keys are wrong."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_bucket_that_is_out_of_reach_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "wrong"),
            ("AWS_SECRET_ACCESS_KEY", "wrong"),
        ):
            monkeypatch.setenv(name, value)
        with suppress(ImportError):  # s3fs, where it is, keeps its clients of other tests
            fsspec.get_filesystem_class("s3").clear_instance_cache()
        bucket = Place.of("S3://bucket/ü #1?/")
        assert (bucket.uri, bucket.path) == ("s3://bucket/ü #1?", "bucket/ü #1?")
        for asks in (bucket.exists, bucket.is_folder, bucket.names, lambda: list(bucket.files()), bucket.read):
            with pytest.raises(ToodError, match=r"s3://bucket/ü #1\? cannot be .*: access is denied"):
                asks()
        with pytest.raises(ToodError, match="cannot be looked at"):
            make_plan(Place.of(str(tmp_path / "out")), [bucket.uri], {}, 10)
        server.shutdown()
    with suppress(ImportError):
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(ToodError, match="s3:// names no bucket"):
        Place.of("s3://")


def test_parts_are_one_table_to_its_readers(weights: Path, tmp_path: Path) -> None:
    out = Place.of(str(tmp_path / "out"))
    plan = make_plan(out, [str(photographs(tmp_path / "photos", 5))], {}, at_once=2)
    worker = ShardWorker(plan, ShippedModel.of(str(weights)), CONFIG)
    for number in range(3):
        worker(number)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.num_rows == 5
    assert table.column_names == [name for name, _ in SCHEMA]


def test_pictures_in_parquet(weights: Path, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 4)
    paths = sorted(folder.rglob("*.png"))
    contents = [path.read_bytes() for path in paths]
    tables = {
        "bytes": pa.table({"image": contents, "id": [10, 11, 12, 13]}),
        "datasets": pa.table({"image": [{"bytes": c, "path": p.name} for c, p in zip(contents, paths, strict=True)]}),
        "paths": pa.table({"path": [str(path) for path in paths]}),
        "relative": pa.table({"url": [f"photos/{path.relative_to(folder)}" for path in paths]}),
    }
    model, results = ShippedModel.of(str(weights)), {}
    for name, table in tables.items():
        source = tmp_path / f"{name}.parquet"
        pq.write_table(table, source, row_group_size=3)
        plan = make_plan(Place.of(str(tmp_path / name)), [str(source)], {}, at_once=2)
        assert [rows.count for rows in plan.shards] == [2, 1, 1]
        worker = ShardWorker(plan, model, CONFIG)
        results[name] = [row for shard in plan.shards for row in worker.look(read_rows(shard))]
    assert [row["image"] for row in results["bytes"]] == ["10", "11", "12", "13"]
    assert [row["image"] for row in results["datasets"]] == [path.name for path in paths]
    assert [row["image"] for row in results["paths"]] == [str(path) for path in paths]
    for rows in results.values():
        assert [row["scores"] for row in rows] == [row["scores"] for row in results["paths"]]
        assert [row["error"] is None for row in rows].count(False) == 1


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4), at_once=st.integers(1, 12), group=st.integers(1, 9))
def test_shards_hold_each_row_once(
    sizes: list[int], at_once: int, group: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    wanted = []
    for number, size in enumerate(sizes):
        names = [f"/{number}/{row}.jpg" for row in range(size)]
        pq.write_table(pa.table({"path": pa.array(names, pa.string())}), folder / f"{number}.parquet", group)
        wanted += names
    shards = list(PictureLists(Place.of(str(folder / "own")), at_once).shards([str(folder)]))
    found = [picture.name for rows in shards for picture in read_rows(rows)]
    assert found == wanted
    assert all(1 <= rows.count <= at_once for rows in shards)


def test_refusals(weights: Path, tmp_path: Path) -> None:
    out = Place.of(str(tmp_path / "out"))
    folder = str(photographs(tmp_path / "photos", 2))
    for source, sentence in (
        (str(tmp_path / "nothing"), "there is no picture or folder"),
        (str(weights.parent), "neither a picture nor a parquet file"),
        ("wrong://bucket/x", "no file system is called wrong"),
    ):
        with pytest.raises(ToodError, match=sentence):
            make_plan(out, [source], {}, 10)
        assert not (tmp_path / "out").exists()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    with pytest.raises(ToodError, match=r"no column of pictures.*it has text"):
        make_plan(out, [str(tmp_path / "text.parquet")], {}, 10)
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(ToodError, match="cannot be read as parquet"):
        make_plan(out, [str(tmp_path / "no.parquet")], {}, 10)
    plan = make_plan(out, [folder], {"threshold": 0.1}, 10)
    with pytest.raises(ToodError, match="has the results of a run already: --resume"):
        make_plan(out, [folder], {"threshold": 0.1}, 10)
    with pytest.raises(ToodError, match=r"other settings \(threshold 0.1, now 0.2\): give the same, or name another"):
        require_same_settings(out.uri, plan.settings, {"threshold": 0.2}, otherwise="name another --out")
    pq.write_table(pa.table({"path": ["0/0000.png"]}), f"{folder}/list.parquet")
    with pytest.raises(ToodError, match=r"has pictures and parquet files, such as .*/list\.parquet"):
        make_plan(Place.of(str(tmp_path / "mixed")), [folder], {}, 10)
    assert not (tmp_path / "mixed").exists()
    with pytest.raises(ToodError, match="check the path"):
        ShippedModel.of(str(tmp_path / "no.safetensors"))
    with pytest.raises(ToodError, match="check the path"):
        ShippedModel.of(str(tmp_path / "no.onnx"))
    (tmp_path / "half.xml").touch()
    with pytest.raises(ToodError, match=r"there is no file .*half\.bin"):
        ShippedModel.of(str(tmp_path / "half.xml"))
    (tmp_path / "out" / "_tood" / "plan.json").write_text("{}")
    with pytest.raises(ToodError, match="no plan of this version"):
        read_plan(out)


def test_a_model_is_the_same_when_it_has_arrived(weights: Path, tmp_path: Path) -> None:
    model = ShippedModel.of(str(weights.parent))
    assert model.unpack(tmp_path).read_bytes() == weights.read_bytes()
    assert model.digest == ShippedModel.of(str(weights)).digest


def test_an_exported_model_is_found_as_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "model.ONNX").write_bytes(b"graph")
    model = ShippedModel.of("~/model.ONNX")
    assert (model.files, model.is_exported) == ({"model.ONNX": b"graph"}, True)


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_pictures_beside_results_of_earlier_runs_are_not_mixed_with_other_tables(kind: str, tmp_path: Path) -> None:
    folder = somewhere(kind, tmp_path)
    for name in ("photos/a.png", "part-00000000.parquet", "old/part-00000000.parquet"):
        folder.inside(name).write(b"x")
    lists = PictureLists(Place.of(str(tmp_path / "lists")), 10)
    assert [rows.count for rows in lists.shards([folder.uri])] == [1]
    for name in ("a.parquet", "z.parquet"):  # before the pictures, and after them
        folder.inside(name).write(b"x")
        with pytest.raises(ToodError, match=rf"has pictures and parquet files, such as .*/{name}"):
            list(lists.shards([folder.uri]))
        folder.system.rm(folder.inside(name).path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows renames nothing over a file that is read")
def test_no_writer_publishes_the_half_file_of_another(tmp_path: Path) -> None:
    """`local://` is fsspec's, of which nothing is known here: as for hdfs and sftp, files are renamed into place."""
    part = Place.of(f"local://{tmp_path}/part-00000000.parquet")
    content = bytes(range(256)) * (2 << 12)
    seen: set[int] = set()
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(part.write, content) for _ in range(40)]
        while not all(writer.done() for writer in writers):
            if part.exists():
                seen.add(len(part.read()))
    assert [writer.exception() for writer in writers] == [None] * 40
    assert seen | {len(part.read())} == {len(content)}
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000000.parquet"]


def test_what_a_writer_that_died_left_is_removed(tmp_path: Path) -> None:
    out = Place.of(f"local://{tmp_path}/out")
    with pytest.raises(ToodError, match="cannot be written"):
        out.inside("part-00000000.parquet").write("the file is open, and no bytes come")  # type: ignore[arg-type]
    (left,) = out.names()
    assert left.startswith(".part-00000000.parquet.")
    out.inside("part-00000001.parquet").write(b"1")
    out.remove_unfinished()
    assert out.names() == ["part-00000001.parquet"]


class _Unsteady(BaseHTTPRequestHandler):
    """A server that fails a few times at each path before it answers, each in its own way."""

    picture = b""
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        way, _, times = self.path.strip("/").partition("-")
        if self.asked[self.path] > int(times):
            self._answer(200, len(self.picture))
        elif way == "reset":
            return
        elif way == "half":
            self._answer(200, 2 * len(self.picture))
        else:
            self._answer(int(way), 0)

    def _answer(self, code: int, length: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if length:
            self.wfile.write(self.picture)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_downloads_that_fail_in_passing_are_tried_again(weights: Path, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 1)
    _Unsteady.picture = (folder / "0" / "0000.png").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Unsteady)
    Thread(target=server.serve_forever, daemon=True).start()
    names = ["503-1", "reset-1", "half-2", "429-3", "503-9", "404-1"]
    pictures = [Picture(name, f"http://127.0.0.1:{server.server_port}/{name}") for name in names]
    try:
        plan = make_plan(Place.of(str(tmp_path / "out")), [str(folder)], {}, 10)
        worker = ShardWorker(plan, ShippedModel.of(str(weights)), replace(CONFIG, waits=(0.01, 0.02, 0.03)))
        rows = worker.look(pictures)
    finally:
        server.shutdown()
        server.server_close()
    assert [row["error"] is None for row in rows] == [True] * 4 + [False] * 2
    assert "503" in rows[4]["error"]
    assert _Unsteady.asked == {"/503-1": 2, "/reset-1": 2, "/half-2": 3, "/429-3": 4, "/503-9": 4, "/404-1": 1}


def test_a_name_that_is_no_unicode_is_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    try:
        (tmp_path / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has names in Unicode alone")
    with pytest.raises(ToodError, match="no name in Unicode"):
        make_plan(Place.of(str(tmp_path / "out")), [str(tmp_path)], {}, 10)
