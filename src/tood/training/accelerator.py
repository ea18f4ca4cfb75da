"""The device, precision and processes of a run, and what their failures mean for a person."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tood.errors import ToodError
from tood.ops.allocator import keep_freed_memory
from tood.precision import ChosenPrecision, choose_precision
from tood.processes import join_restarted
from tood.torch_errors import is_lost_connection, is_too_little_to_normalise
from tood.training.config import RunConfig


def run_device(config: RunConfig) -> torch.device:
    """The device that a run computes on: what it names, or the machine's accelerator if it has one, else the CPU."""
    if config.device != "auto":
        return torch.device(config.device)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


@contextmanager
def accelerated(config: RunConfig) -> Iterator[tuple[Accelerator, ChosenPrecision]]:
    """What computes a run, and in which precision; freed at the end, so that the next run may choose anew.

    Raises:
        ToodError: if the machine cannot do what is configured, or, while this lasts, for what PyTorch raises where its
            memory does not hold a batch, a batch is too small, or another process is lost.
    """
    device = run_device(config)
    precision = choose_precision(config.precision, device, training=True)
    accelerator = _accelerator(device, precision)
    try:
        yield accelerator, precision
    except torch.OutOfMemoryError as error:
        size, _ = config.batches(accelerator.num_processes)
        raise ToodError(
            f"the GPU's memory does not hold the training on {size} images at once: give a smaller --batch-size (the "
            "published recipes then take as many batches a step as make up their own number of images)"
        ) from error
    except ValueError as error:
        if not is_too_little_to_normalise(error):
            raise
        raise ToodError(
            "a batch of one picture this small leaves a BatchNorm a single value to learn from: give a larger --size "
            "or --batch-size"
        ) from error
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not is_lost_connection(error):
            raise
        raise ToodError(f"process {accelerator.process_index} lost the others, one of which ended: {error}") from error
    finally:
        # Accelerate remembers device and precision for the whole process: the next run may want others.
        accelerator.free_memory()
        if accelerator.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)


def _accelerator(device: torch.device, precision: ChosenPrecision) -> Accelerator:
    on_cpu = device.type == "cpu"
    try:
        if on_cpu and precision.name == "fp16":
            raise ToodError("precision is 'fp16', which only a GPU computes in: use bf16, fp32 or auto")
        if on_cpu:
            keep_freed_memory()
        join_restarted(on_cpu)
        # Without `cpu`, processes launched together on a machine that has no GPU would each train alone.
        return Accelerator(mixed_precision="no" if precision.name == "fp32" else precision.name, cpu=on_cpu)
    except ValueError as error:
        AcceleratorState._reset_state(reset_partial_state=True)
        raise ToodError(f"precision is '{precision.name}', which this machine cannot do ({error}): use auto") from error


def require_device(config: RunConfig, accelerator: Accelerator) -> None:
    """Raise a ToodError if the run names a device that is not here."""
    if config.device not in ("auto", "cpu") and accelerator.device.type != config.device:
        raise ToodError(f"device is '{config.device}', but this machine has none: leave it out or use cpu")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same numbers every time, while this lasts."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
