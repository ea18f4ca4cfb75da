"""`tood predict --engine ray` on a cluster of two workers, with SIGKILLs in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.exceptions import RayTaskError

import tood
from cli.test_eval_predict import refused
from cli.test_eval_predict import tood as command
from clusters.conftest import photographs
from tood.cli.predict import PredictOptions
from tood.cli.predict_cluster import _settings
from tood.clusters import Place, Plan, ShardWorker, ShippedModel, WorkerConfig, make_plan, read_plan
from tood.clusters.ray_engine import Beginnings, Node, Workers, _reason, require_few_deaths, share_out
from tood.errors import ToodError

PICTURES, AT_ONCE = 240, 3
# The command, whose workers wait where there are as many files as another file says: what is to be killed in the middle
# stays there until it is, however fast the machine.
HELD = """
import os, time
from pathlib import Path
from tood.clusters import ray_engine
class Held(ray_engine.RayWorker):
    out, most = (Path(os.environ[name]) for name in ("TOOD_TEST_OUT", "TOOD_TEST_MOST"))
    def __call__(self, batch):
        while len(list(self.out.glob("part-*.parquet"))) >= int(self.most.read_text()):
            time.sleep(0.1)
        return super().__call__(batch)
ray_engine.RayWorker = Held
from tood.cli import main
main()
"""


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parts(out)}


def workers_of(driver: psutil.Process) -> list[psutil.Process]:
    """The processes of a run's cluster that look at pictures."""
    found = []
    for process in driver.children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(what: Callable[[], object], running: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 900
    while not what():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_workers_and_runs_leave_what_an_uninterrupted_run_leaves(weights: Path, tmp_path: Path) -> None:
    folder, out = photographs(tmp_path / "photos", PICTURES), tmp_path / "out"
    arguments = ["predict", str(folder), "--model", str(weights), "--engine", "ray", "--out", str(out)]
    arguments += ["--workers", "2", "--threads", "1", "--threshold", "0.1", "--precision", "fp32"]
    arguments += ["--pictures-a-file", str(AT_ONCE), "--device", "cpu", "--resume"]
    environment = {**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1]), "RAY_TMPDIR": "/tmp"}
    # On a machine with other work Ray's processes, which give way to it, start slowly.
    environment |= {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "120"}
    environment.pop("RAY_ADDRESS", None)
    most = tmp_path / "most"
    environment |= {"TOOD_TEST_OUT": str(out), "TOOD_TEST_MOST": str(most)}

    def start(files: int) -> subprocess.Popen[str]:
        most.write_text(str(files))
        return subprocess.Popen(
            [sys.executable, "-c", HELD, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    # The whole run dies, with its cluster.
    running = start(10)
    wait_for(lambda: len(parts(out)) >= 3, running)
    cluster = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    for process in cluster:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    running.communicate()
    before = contents(out)
    assert 3 <= len(before) < PICTURES // AT_ONCE

    # One of two workers dies.
    running = start(len(before) + 10)
    driver = psutil.Process(running.pid)
    wait_for(lambda: len(workers_of(driver)) == 2, running)
    victim = workers_of(driver)[0]
    wait_for(lambda: len(parts(out)) >= len(before) + 2, running)
    os.kill(victim.pid, signal.SIGKILL)
    assert len(parts(out)) < PICTURES // AT_ONCE
    unheld = tmp_path / "unheld"
    unheld.write_text(str(PICTURES))
    unheld.replace(most)
    told, errors = running.communicate(timeout=900)
    assert running.returncode == 2, errors
    assert f"{PICTURES} pictures done. Results: {out}" in told
    bad = len(range(3, PICTURES, 7))
    assert f"tood: {bad} pictures could not be read: the column `error` says why, in their rows of {out}" in errors
    assert "Warning" not in errors
    after = contents(out)
    assert {name: after[name] for name in before} == before

    plan = read_plan(Place.of(str(out)))
    assert plan is not None
    alone = ShardWorker(
        Plan(Place.of(str(tmp_path / "alone")), plan.settings, plan.shards, plan.pictures),
        ShippedModel.of(str(weights)),
        WorkerConfig(threshold=0.1, threads=1),
    )
    for number in range(len(plan.shards)):
        alone(number)
    assert contents(tmp_path / "alone") == after
    names = pq.read_table(out)["image"].to_pylist()
    assert sorted(names) == sorted(str(path) for path in folder.rglob("*.png"))


def test_a_shard_that_kills_its_workers_again_and_again_ends_the_run() -> None:
    begun = Beginnings()
    for _ in range(11):
        for number in (3, 4):
            require_few_deaths(number, begun.add(number))
    with pytest.raises(ToodError, match="11 died over the pictures of shard 4"):
        require_few_deaths(4, begun.add(4))
    require_few_deaths(5, begun.add(5))


def test_wrong_wishes_are_refused_before_anything_starts(weights: Path, tmp_path: Path) -> None:
    given = ("predict", "--model", weights, tmp_path, "--out", tmp_path / "out")
    refused(command(*given, "--engine", "ray", "--csv", "--save-images"), "leave out --save-images, --csv")
    refused(command(*given, "--engine", "ray", "--tiles", "--tile-size", 640), "leave out --tiles, --tile-size")
    refused(command(*given, "--engine", "ray", "--overlap", 0.5), "leave out --overlap")
    refused(command(*given, "--workers", 2), "--workers is of --engine ray")
    refused(command(*given, "--pictures-a-file", 10), "--pictures-a-file is of --engine ray")
    refused(command("predict", "--model", weights, "s3://bucket/in"), "with --engine ray alone")
    refused(command("predict", "--model", weights, tmp_path, "--out", "s3://bucket/out"), "with --engine ray alone")
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_or_done_already_is_told_before_a_cluster_starts(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tood.clusters.ray_engine.connect", lambda *_: pytest.fail("a cluster is started"))
    folder, out = photographs(tmp_path / "photos", 5), tmp_path / "out"
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    given = ("predict", "--model", weights, "--engine", "ray", "--out", out)
    refused(command(*given, tmp_path / "text.parquet"), "no column of pictures")
    refused(command(*given, f"{folder}/*.png"), "there is no picture or folder")
    assert not out.exists()

    asked = PredictOptions([str(folder)], str(weights), 0.3, 1, None, "auto", exif=False, resume=True)
    model = ShippedModel.of(str(weights))
    settings = _settings(asked, model, 2) | {"device": "cpu", "precision": "fp32", "threads": 1}
    plan = make_plan(Place.of(str(out)), [str(folder)], settings, 2)
    given = (*given, folder, "--resume", "--pictures-a-file")
    refused(command(*given, 3), "other settings (pictures a file 2, now 3)")
    refused(command(*given, 2, "--threads", 4), "other settings (threads 1, now 4)")
    refused(command(*given, 2, "--threshold", 0.5), "other settings (threshold 0.3, now 0.5)")
    worker = ShardWorker(plan, model, WorkerConfig(threads=1))
    reports = [worker(number) for number in range(len(plan.shards))]
    # By a second worker, too, who finds what the first has written.
    assert [report.failures for report in reports] == [worker(number).failures for number in range(3)] == [1, 0, 0]
    whole = command(*given, 2)
    refused(whole, f"tood: 1 picture could not be read: the column `error` says why, in their rows of {out}")
    assert "5 pictures done before" in whole.stderr
    assert f"5 pictures done. Results: {out}" in whole.stdout


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ToodError("a.jpg: cut"), "a.jpg: cut"),
        (AssertionError("not so\nFailed to apply UDF\nTo change retry attempts, ..."), "AssertionError: not so"),
    ],
)
def test_a_worker_s_failure_is_told_without_ray_s_advice(raised: Exception, told: str) -> None:
    assert _reason(RayTaskError("worker", "a stack", raised)) == told


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "device", "expected"),
    [
        ([Node(2)] * 4, None, None, None, Workers(4, 2, "cpu")),
        ([Node(2)] * 4, 3, None, None, Workers(3, 2, "cpu")),
        ([Node(2)] * 4, 5, None, None, Workers(5, 1, "cpu")),
        ([Node(0), Node(8), Node(5)], None, None, None, Workers(3, 4, "cpu")),
        ([Node(16, 2), Node(2)], None, None, None, Workers(2, 4, "cuda")),
        ([Node(16, 2), Node(2)], 8, 8, "cuda", Workers(2, 8, "cuda")),
        ([Node(2, 4)], None, None, None, Workers(2, 1, "cuda")),
        ([Node(16, 2)], None, None, "cpu", Workers(4, 4, "cpu")),
    ],
)
def test_each_worker_has_its_place_on_one_machine(
    nodes: list[Node], workers: int | None, threads: int | None, device: str | None, expected: Workers
) -> None:
    assert share_out(nodes, workers, threads, device) == expected


@pytest.mark.parametrize(
    ("nodes", "workers", "threads", "device", "sentence"),
    [
        ([Node(2)] * 4, 1, 4, None, "room for 0 workers of 4 --threads, not for 1: .* there are 4 of 2 cores"),
        ([Node(2), Node(1)], 4, None, None, "room for 3 workers of 1 --threads, not for 4"),
        ([Node(16, 1)], None, 64, "cuda", "room for 0 workers of 64 .* with a GPU, and there are 1 of 16 cores and 1"),
        ([Node(0, 1), Node(16)], None, None, None, "room for 0 workers of 1 --threads"),
        ([Node(16)], None, None, "cuda", "has no GPU"),
    ],
)
def test_workers_that_no_machine_can_hold_are_refused(
    nodes: list[Node], workers: int | None, threads: int | None, device: str | None, sentence: str
) -> None:
    with pytest.raises(ToodError, match=sentence):
        share_out(nodes, workers, threads, device)
