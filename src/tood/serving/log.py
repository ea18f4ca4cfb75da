"""One line of json for each thing that happens, on the standard error stream."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import TextIO


class JsonLog:
    """Writes events as lines of json.

    Args:
        stream: where to; None for the standard error stream.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def __call__(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Writes one event; a stream that nobody reads any more is no reason to stop serving."""
        moment = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "level": level, "event": event, **fields}, ensure_ascii=True, default=str)
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return


class LoggingToJson(logging.Handler):
    """What libraries log, as events of the same form."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record, an exception's stack among its fields."""
        fields: dict[str, object] = {"message": record.getMessage(), "logger": record.name}
        if record.exc_info:
            fields["trace"] = logging.Formatter().formatException(record.exc_info)
        self._log(record.levelname.lower(), "log", fields)
