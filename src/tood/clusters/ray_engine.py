"""Shards on the workers of a Ray cluster, by Ray Data; of all files here this one alone needs Ray."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tood.clusters.model import ShippedModel
from tood.clusters.plan import Plan, read_plan
from tood.clusters.shard import ShardReport, ShardWorker, WorkerConfig
from tood.clusters.storage import Place
from tood.errors import ToodError, first_line
from tood.machine import usable_cores
from tood.stop import handlers_kept

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shards that a worker is given at a time. One that dies begins its last one anew: what is written is not done again.
_SHARDS_A_TASK = 4
# Ray Data makes a block of each task's shards before the first begins.
_MOST_TASKS = 20_000
# A shard that is begun anew so often ends the run: it would kill workers for ever.
_TRIES = 10
_CORES_A_WORKER = 4
_STORE_BYTES = 256 << 20


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has: CPU cores and GPUs."""

    cores: int
    gpus: int = 0


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes:
        count: workers.
        cores: CPU cores of each.
        device: that each computes on.
    """

    count: int
    cores: int
    device: str


def require_ray() -> None:
    """Looks for Ray, before anything is done for a run.

    Raises:
        ToodError: if it is not installed.
    """
    # Read when it is imported: nobody is told of runs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ToodError("--engine ray needs Ray: pip install 'tood[ray]' on every machine of the cluster") from error


def connect(workers: int | None, threads: int | None, device: str | None, model: ShippedModel) -> Workers:
    """Joins the cluster that RAY_ADDRESS names, or starts one of this machine alone.

    Args:
        model: that the workers will be sent.
        workers: how many; None takes all that there is room for.
        threads: cores of a worker; None takes up to 4.
        device: "cpu" or "cuda"; None takes GPUs where the cluster has any.

    Raises:
        ToodError: if Ray is not installed, the cluster is not reached, or has no room.
    """
    require_ray()
    import ray

    own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": max(usable_cores(), workers or 1)}
    if own:
        own |= {"object_store_memory": _STORE_BYTES + sum(map(len, model.files.values()))}
    try:
        with handlers_kept():  # Ray's would end a run that is stopped with another exit code
            ray.init(include_dashboard=False if own else None, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ToodError(f"the Ray cluster cannot be joined: {first_line(error)}") from error
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return share_out([Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in nodes], workers, threads, device)


def share_out(nodes: Sequence[Node], workers: int | None, threads: int | None, device: str | None) -> Workers:
    """How many workers there will be, and of how many cores: such that each has its place on one machine.

    Ray would wait for ever, and in silence, for a machine that has what no machine has.

    Args:
        nodes: machines of the cluster.
        workers, threads, device: as of `connect`.

    Raises:
        ToodError: if there is no room.
    """
    gpus = sum(node.gpus for node in nodes)
    chosen = device or ("cuda" if gpus else "cpu")
    on_gpu = chosen.startswith("cuda")
    if on_gpu and not gpus:
        raise ToodError("--device cuda: the Ray cluster has no GPU")

    def room(cores: int) -> int:
        return sum(min(node.cores // cores, node.gpus) if on_gpu else node.cores // cores for node in nodes)

    wanted = min(workers or gpus, gpus) if on_gpu else workers
    # The most cores with which there is room for the workers; if their number is free, for half of the cores at least.
    half = sum(node.cores for node in nodes) / 2
    sizes = range(_CORES_A_WORKER, 0, -1)
    fitting = (size for size in sizes if (room(size) >= wanted if wanted else room(size) * size >= half))
    cores = threads or next(fitting, 1)
    least = wanted if workers and wanted else 1
    if room(cores) < least:
        machines = ", ".join(
            f"{count} of {node.cores} cores" + (f" and {node.gpus} GPUs" if on_gpu else "")
            for node, count in Counter(nodes).items()
        )
        raise ToodError(
            f"the Ray cluster has room for {room(cores)} workers of {cores} --threads, not for {least}: all cores of "
            f"one are on one machine{' with a GPU' if on_gpu else ''}, and there are {machines}"
        )
    count = min(wanted, room(cores)) if wanted else room(cores)
    return Workers(count, cores, "cuda" if on_gpu else chosen)


def disconnect() -> None:
    """Leaves the cluster; one that `connect` started ends."""
    import ray

    ray.shutdown()


class Beginnings:
    """Counts how often each shard was begun, in a process of its own that outlives the workers."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, number: int) -> int:
        """A worker begins a shard: how many did before."""
        self._counts[number] += 1
        return self._counts[number] - 1


def require_few_deaths(number: int, died: int) -> None:
    """Raises a ToodError if too many workers died over a shard for another one to try it."""
    if died > _TRIES:
        raise ToodError(
            f"{died} died over the pictures of shard {number}, one after the other: with fewer --workers each has more "
            "memory; else leave out the picture that it is"
        )


class RayWorker:
    """A `ShardWorker` as Ray Data wants it: batches of columns in, batches of columns out."""

    def __init__(self, out: str, model: Any, config: WorkerConfig, begun: Any) -> None:
        import ray

        plan = read_plan(Place.of(out))
        if plan is None:
            raise ToodError(f"{out} has no plan: every machine of the cluster must see that folder")

        def begins(number: int) -> None:
            require_few_deaths(number, ray.get(begun.add.remote(number)))

        self._work = ShardWorker(plan, ray.get(model[0]), config, begins)

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[Any]]:
        """The reports of the shards in a batch."""
        reports = [asdict(self._work(int(number))) for number in batch["number"]]
        return {name: [report[name] for report in reports] for name in reports[0]}


def run(
    plan: Plan, to_do: Sequence[int], model: ShippedModel, config: WorkerConfig, workers: Workers
) -> Iterator[ShardReport]:
    """Has the shards looked at; gives each one's report when its results are written, in no order.

    A worker that dies is replaced, as Ray Data does by itself, and its shard is begun anew by another. What those that
    died left unfinished is removed.

    Raises:
        ToodError: if a worker cannot do its work, or too many die over one shard.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    # Its bars and its remarks on each run are not for the person.
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Else a worker's sentence stays with it: what it is wrapped in comes without its cause.
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    wanted = min(workers.count, len(to_do))
    blocks = max(wanted, min(-(-len(to_do) // _SHARDS_A_TASK), _MOST_TASKS))
    gpu = workers.device != "cpu"
    # In a list: a bare reference among the arguments would be taken for its value. What a worker begins with, this and
    # what Ray Data itself puts there, is this process's own and stays in its machine's store until the run ends: one
    # that begins anew finds it, whatever Ray warns of "constructor arguments in the object store and max_restarts".
    shipped = [ray.put(model)]
    begun = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Beginnings).remote()
    numbers = ray.data.from_items([{"number": number} for number in to_do], override_num_blocks=blocks)
    reports = numbers.map_batches(
        RayWorker,
        batch_size=1,
        compute=ActorPoolStrategy(size=wanted),
        num_cpus=workers.cores,
        num_gpus=1 if gpu else None,
        fn_constructor_args=(
            plan.out.uri,
            shipped,
            replace(config, threads=workers.cores, device=workers.device),
            begun,
        ),
    )
    try:
        for row in reports.iter_rows():
            yield ShardReport(**row)
        plan.out.remove_unfinished()
    except RayError as error:
        raise ToodError(f"a worker failed: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The sentence of the error that was raised on a worker, or the last line that Ray has on it."""
    from ray.exceptions import RayError

    cause = getattr(error, "cause", None) or error.__cause__
    while cause is not None:
        if isinstance(cause, ToodError):
            return first_line(cause)  # Ray Data adds how it could be told to try again
        error, cause = cause, getattr(cause, "cause", None) or cause.__cause__
    if not isinstance(error, RayError):
        return f"{type(error).__name__}: {first_line(error)}"  # no more than this: Ray Data adds its advice here too
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
