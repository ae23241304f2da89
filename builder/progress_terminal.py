"""Progress for a terminal: lines while everything is cached, the bar from the first vertex that really runs.

The door in front of `progress_bar` and so of tqdm.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TextIO

from builder.plan import PlanWarning
from builder.progress import SAME_STEP, QuietReporter, Reporter
from builder.streams import visible


class TerminalReporter(QuietReporter):
    """For a terminal: a line for each cached vertex, and the bar from the first vertex that really runs."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._cached = 0
        self._bar: Reporter | None = None
        self._lock = threading.Lock()

    def _opened(self) -> Reporter:
        with self._lock:
            if self._bar is None:
                from builder.progress_bar import BarReporter

                self._bar = BarReporter(self._stream, self._total, self._cached)
            return self._bar

    def _line(self, text: str) -> None:
        self._stream.write(visible(text) + "\n")
        self._stream.flush()

    def cached(self, index: int, name: str) -> None:
        self._cached += 1
        if self._bar is None:
            self._line(f" => CACHED {name}")
        else:
            self._bar.cached(index, name)

    def started(self, index: int, name: str, *, internal: bool = False) -> None:
        self._opened().started(index, name, internal=internal)

    def waiting(self, index: int, what: str = SAME_STEP) -> None:
        self._opened().waiting(index, what)

    def output(self, index: int, text: bytes) -> None:
        self._opened().output(index, text)

    def transfer(self, index: int, digest: str, current: int, total: int) -> None:
        self._opened().transfer(index, digest, current, total)

    def done(self, index: int, seconds: float, *, cached: bool) -> None:
        self._opened().done(index, seconds, cached=cached)

    def failed(self, index: int, message: str, seconds: float) -> None:
        self._opened().failed(index, message, seconds)

    def warning(self, warning: PlanWarning) -> None:
        place = f" (line {warning.location.start_line})" if warning.location else ""
        self._line(f" warning: {warning.rule}: {warning.message}{place}")

    def explained(self, event: str, text: str, document: Mapping[str, object]) -> None:
        self._opened().explained(event, text, document)

    def message(self, text: str) -> None:
        if self._bar is None:
            self._line(f" => {text}")
        else:
            self._bar.message(text)

    def paused(self) -> AbstractContextManager[None]:
        return self._opened().paused()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
