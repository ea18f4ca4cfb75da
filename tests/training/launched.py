"""Runs a function in several processes that can speak to each other, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from tood.errors import ToodError

# A hang is a failure; a busy machine is none.
PATIENCE = 900


def on_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the function returns in each process, or the `ToodError` that it ends with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tood.training", "tood.evaluation", "accelerate", "torch.utils.tensorboard"])
    queue = context.Queue()
    with socket.socket() as held:
        # Bound here to the end, so that nobody else is given the port before the processes listen there.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        ours = (count, held.getsockname()[1], queue, function, arguments)
        processes = [context.Process(target=_process, args=(rank, *ours)) for rank in range(count)]
        for process in processes:
            process.start()
        try:
            results = dict(queue.get(timeout=PATIENCE) for _ in processes)
            for process in processes:
                process.join(PATIENCE)
        finally:
            for process in processes:
                process.kill()
    return [results[rank] for rank in range(count)]


def _process(rank: int, count: int, port: int, queue: Any, function: Callable[..., Any], arguments: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    result: Any = "died"
    try:
        result = function(*arguments)
    except ToodError as error:
        result = error
    finally:
        queue.put((rank, result))
        if dist.is_initialized():
            dist.destroy_process_group()
