"""Settings that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias, TypeVar

import pytest
import torch
from hypothesis import settings

CallT = TypeVar("CallT", bound=Callable[..., Any])
Tracer: TypeAlias = Callable[[FrameType, str, Any], Any] | None

# On a server the same examples each time: a change is judged by itself. New ones are looked for everywhere else.
settings.register_profile("tood", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tood")
# Several test processes share few cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def accelerate_forgets() -> Iterator[None]:
    """Accelerate remembers the precision of a process's first trainer, and refuses the next test another one."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session", autouse=True)
def exporters_without_coverage() -> Iterator[None]:
    """PyTorch's exporters are Python: the measurement of what is covered, which looks at each line, doubles their time.

    What ONNX's calls of ours, the network's `forward`, is measured as all else is. Tests that spend their time in other
    libraries' Python, on lines of ours that others measure, are marked `no_cover`.
    """
    if sys.gettrace() is None:
        yield
        return
    # Here, as what is imported before the measurement begins is not measured.
    from tood.export.network import ExportNetwork

    # The tracer outside of each exporter that is at work: ONNX's calls the other one. None where a test has none.
    outside: list[Tracer] = []

    def exporter(call: CallT) -> CallT:
        @wraps(call)
        def called(*arguments: Any, **named: Any) -> Any:
            outside.append(sys.gettrace())
            try:
                return _with_tracer(lambda: None, call)(*arguments, **named)
            finally:
                outside.pop()

        return called  # type: ignore[return-value]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", exporter(torch.onnx.export))
        patch.setattr(torch.export, "export", exporter(torch.export.export))
        measured = _with_tracer(lambda: outside[0] if outside else sys.gettrace(), ExportNetwork.forward)
        patch.setattr(ExportNetwork, "forward", measured)
        yield


def _with_tracer(tracer: Callable[[], Tracer], call: CallT) -> CallT:
    """The same, called under another trace function, or none."""

    @wraps(call)
    def called(*arguments: Any, **named: Any) -> Any:
        before = sys.gettrace()
        sys.settrace(tracer())
        try:
            return call(*arguments, **named)
        finally:
            sys.settrace(before)
            _begin()

    return called  # type: ignore[return-value]


def _begin() -> None:
    """Coverage's tracer goes on at a call, not at a return."""


@pytest.fixture
def real_data() -> Path:
    """The folder of real photographs, where the environment names one."""
    folder = os.environ.get("TOOD_TEST_DATA")
    if not folder:
        pytest.skip("TOOD_TEST_DATA names no folder of real data")
    return Path(folder)
