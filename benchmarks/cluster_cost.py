"""What a billion pictures cost on a cluster, and which part of it is the slowest: a model of a run, not a run.

    python -m benchmarks.cluster_cost                                   # the table of docs/clusters.md
    python -m benchmarks.cluster_cost --network 45 --price 3.2 --cores 16

Rates of one machine are measured ones (`tood bench`, docs/benchmarks.md) or given; everything beyond one machine is
arithmetic on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

_HOUR = 3600.0


@dataclass(frozen=True)
class Machine:
    """One machine of a cluster.

    Attributes:
        network: pictures a second that its engine computes, post-processing included.
        decode: pictures a second that one of its cores reads and lays out.
        cores: of it; where the network runs on them too, both share them.
        computes_on_cores: whether the network does (no GPU).
        gigabits: a second from the bucket.
        gets: pictures that are fetched at a time.
        latency: seconds of one request to the bucket.
        price: of an hour, in any currency.
    """

    network: float
    decode: float
    cores: int
    computes_on_cores: bool
    gigabits: float
    gets: int
    latency: float
    price: float


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        pictures: how many.
        megabytes: of one, on average.
        at_once: pictures of a shard.
        requests: a second that the bucket answers, all machines together; 0 for no limit.
        start: seconds until a worker has its model and computes.
        lost: share of the machines that is taken away each hour; half a shard is done anew each time.
        listing: seconds of one request that lists 1,000 names.
        listed: whether names are listed at all, and not given as parquet.
        request_price: of 1,000 requests to the bucket.
    """

    pictures: float = 1e9
    megabytes: float = 0.3
    at_once: int = 1000
    requests: float = 0.0
    start: float = 60.0
    lost: float = 0.0
    listing: float = 0.1
    listed: bool = False
    request_price: float = 0.0004


@dataclass(frozen=True)
class Cost:
    """What comes out.

    Attributes:
        hours: from the start to the last file.
        price: of machines and requests.
        limit: what is slowest.
        rates: pictures a second of the whole cluster, by part.
    """

    hours: float
    price: float
    limit: str
    rates: dict[str, float]


def rates_of(machine: Machine) -> dict[str, float]:
    """Pictures a second of one machine, by the part that would limit it."""
    decode = machine.decode * machine.cores
    if machine.computes_on_cores:
        # The same cores do both: times add up.
        compute = {"cores (decode and network)": 1 / (1 / machine.network + 1 / decode)}
    else:
        compute = {"GPU": machine.network, "decoding on the cores": decode}
    return {**compute, "waiting for the bucket": machine.gets / machine.latency}


def cost(machine: Machine, machines: int, job: Job) -> Cost:
    """Hours, price and the slowest part of a job on so many machines."""
    rates = {name: rate * machines for name, rate in rates_of(machine).items()}
    rates["network cards"] = machine.gigabits * 1e9 / 8 / (job.megabytes * 1e6) * machines
    if job.requests:
        rates["the bucket's requests"] = job.requests
    limit = min(rates, key=lambda name: rates[name])
    rate = rates[limit]
    # Of a machine that is lost: the half of a shard that it had done, and a new start.
    per_machine = rate / machines
    wasted = job.lost / _HOUR * (job.at_once / 2 / per_machine + job.start)
    seconds = job.pictures / (rate * max(1e-9, 1 - wasted)) + job.start + job.at_once / per_machine
    listing = job.pictures / 1000 * job.listing if job.listed else 0.0
    if listing > seconds:
        limit = "listing the names"
    hours = (seconds + listing) / _HOUR
    requests = job.pictures + (job.pictures / 1000 if job.listed else 0) + job.pictures / job.at_once
    return Cost(hours, hours * machines * machine.price + requests / 1000 * job.request_price, limit, rates)


# Measured on the two cores of an Intel Xeon with AMX, in bf16 (docs/benchmarks.md).
_TWO_CORES = Machine(
    network=3.1,  # tood_r50_fpn_1x at 800 x 1344, 319 ms
    decode=87.1,  # JPEG to 800 x 1333, one thread
    cores=2,
    computes_on_cores=True,
    gigabits=1.0,
    gets=16,
    latency=0.05,
    price=0.08,
)


def scaled(machine: Machine, cores: int) -> Machine:
    """The same machine with more cores of the kind: independent workers, so rates grow by as much."""
    times = cores / machine.cores
    return replace(
        machine,
        network=machine.network * times if machine.computes_on_cores else machine.network,
        cores=cores,
        gigabits=max(machine.gigabits * times, 10.0),
        gets=max(1, round(machine.gets * times)),
        price=machine.price * times,
    )


def scenarios() -> dict[str, tuple[Machine, Job]]:
    """The rows of the table: one thing changes from each to the next."""
    big = scaled(_TWO_CORES, 32)
    small_model = replace(big, network=32 / 2 * 60)
    gpu = Machine(
        network=400,
        decode=_TWO_CORES.decode,
        cores=16,
        computes_on_cores=False,
        gigabits=25,
        gets=128,
        latency=0.05,
        price=4.0,
    )
    job = Job()
    return {
        "R50, 32 cores": (big, job),
        "a small model (assumed: 60 a second on 2 cores), 32 cores": (small_model, job),
        "one GPU (assumed: 400 a second), 16 cores": (gpu, job),
        "the same, four cores": (replace(gpu, cores=4), job),
        "the same, pictures of 5 MB over 10 Gbit/s": (replace(gpu, gigabits=10), replace(job, megabytes=5.0)),
        "the same, one bucket prefix (5,500 requests a second)": (gpu, replace(job, requests=5500)),
        "the same, names listed": (gpu, replace(job, listed=True)),
        "the same, a tenth of the machines lost an hour": (gpu, replace(job, lost=0.1)),
    }


def table(counts: Sequence[int]) -> str:
    """All scenarios on so many machines, as markdown."""
    lines = ["| machine | machines | hours | cost | slowest |", "|---|---:|---:|---:|---|"]
    for name, (machine, job) in scenarios().items():
        for machines in counts:
            found = cost(machine, machines, job)
            lines.append(f"| {name} | {machines:,} | {_hours(found.hours)} | {found.price:,.0f} | {found.limit} |")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, or one machine's cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=float, help="pictures a second that one machine's engine computes")
    parser.add_argument("--decode", type=float, default=_TWO_CORES.decode, help="pictures a second a core reads")
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--gpu", action="store_true", help="the network is not computed on the cores")
    parser.add_argument("--gigabits", type=float, default=10.0)
    parser.add_argument("--megabytes", type=float, default=0.3, help="of a picture")
    parser.add_argument("--price", type=float, default=1.0, help="of a machine's hour")
    parser.add_argument("--pictures", type=float, default=1e9)
    parser.add_argument("--machines", type=int, nargs="+", default=[10, 100, 1000])
    asked = parser.parse_args(arguments)
    if asked.network is None:
        print(table(asked.machines))
        return
    machine = Machine(
        network=asked.network,
        decode=asked.decode,
        cores=asked.cores,
        computes_on_cores=not asked.gpu,
        gigabits=asked.gigabits,
        gets=8 * asked.cores,
        latency=0.05,
        price=asked.price,
    )
    job = Job(pictures=asked.pictures, megabytes=asked.megabytes)
    for machines in asked.machines:
        found = cost(machine, machines, job)
        print(f"{machines:>6,} machines: {found.hours:>10,.1f} hours, {found.price:>12,.0f}, slowest: {found.limit}")


if __name__ == "__main__":
    main()
