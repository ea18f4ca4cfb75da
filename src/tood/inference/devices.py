"""Where networks compute."""

from __future__ import annotations

import torch

from tood.errors import ToodError, first_line


def default_device() -> torch.device:
    """The machine's accelerator if it has one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_device(device: torch.device | str | None) -> torch.device:
    """The device of that name, or the default.

    Raises:
        ToodError: if this machine has no such device.
    """
    place = parse_device(device)
    if device is not None:
        try:
            torch.zeros(1, device=place)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise _no_device(device, error) from error
    return place


def parse_device(device: torch.device | str | None) -> torch.device:
    """The device of that name, or the default, without a look whether it is there.

    Raises:
        ToodError: if no device is called so.
    """
    try:
        return default_device() if device is None else torch.device(device)
    except RuntimeError as error:
        raise _no_device(device, error) from error


def _no_device(device: torch.device | str | None, error: Exception) -> ToodError:
    # The first line is the reason, the rest a stack.
    return ToodError(f"there is no device '{device}' here: {first_line(error)}")
