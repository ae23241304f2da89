"""Progress on a terminal: one bar for the build, and a line with its time for every vertex that runs.

The only importer of tqdm; opened when something really runs on a terminal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from builder.image.describe import human_size
from builder.plan import PlanWarning
from builder.progress import SAME_STEP, LineSplitter
from builder.streams import visible

if TYPE_CHECKING:
    from builder.sandbox.usage import Usage

_REFRESH_SECONDS = 0.1
_LINES_AT_MOST = 8


class BarReporter:
    """See the module. Finished vertices and their output scroll above the bar."""

    def __init__(self, stream: TextIO, total: int, done: int = 0) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            file=stream,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc} {bar} {n}/{total} {elapsed}",
        )
        self._bar.set_description_str("building", refresh=False)
        self._running: dict[int, tuple[str, float]] = {}
        self._rows: list[Any] = []
        self._tails: dict[int, str] = {}
        self._transfers: dict[int, dict[str, tuple[int, int]]] = {}
        self._splitters: dict[int, LineSplitter] = {}
        self._closed = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        while not self._closed.wait(_REFRESH_SECONDS):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        now = time.perf_counter()
        shown = sorted(self._running.items(), key=lambda item: item[1][1])[:_LINES_AT_MOST]
        while len(self._rows) < len(shown):
            row = tqdm(total=0, file=self._stream, position=len(self._rows) + 1, leave=False, bar_format="{desc}")
            self._rows.append(row)
        width = _columns(self._stream) - 1
        for place, row in enumerate(self._rows):
            text = ""
            if place < len(shown):
                index, (name, begun) = shown[place]
                text = _row(name, self._tails.get(index, ""), f" {now - begun:.1f}s", width)
            row.set_description_str(text, refresh=True)
        self._bar.refresh()

    def _say(self, text: str) -> None:
        tqdm.write(visible(text)[: _columns(self._stream) * 20], file=self._stream)

    def cached(self, index: int, name: str) -> None:
        with self._lock:
            self._say(f" => CACHED {name}")
            self._bar.update()

    def started(self, index: int, name: str, *, internal: bool = False) -> None:
        with self._lock:
            self._running[index] = (name, time.perf_counter())
            self._bar.total += index < 0  # a push has no place in the plan
            self._draw()

    def waiting(self, index: int, what: str = SAME_STEP) -> None:
        with self._lock:
            self._tails[index] = f"waiting for {what}"

    def output(self, index: int, text: bytes) -> None:
        with self._lock:
            lines = self._splitters.setdefault(index, LineSplitter()).feed(text)
            if lines:
                self._tails[index] = lines[-1]

    def used(self, index: int, usage: Usage) -> None: ...

    def transfer(self, index: int, digest: str, current: int, total: int) -> None:
        """Behind the vertex: what all its blobs come to, and how fast."""
        with self._lock:
            blobs = self._transfers.setdefault(index, {})
            blobs[digest] = (current, total)
            came, whole = (sum(numbers) for numbers in zip(*blobs.values(), strict=True))
            begun = self._running.get(index, ("", 0.0))[1]
            rate = came / max(time.perf_counter() - begun, 0.001)
            self._tails[index] = f"{human_size(came)} / {human_size(whole)}  {human_size(int(rate))}/s"

    def done(self, index: int, seconds: float, *, cached: bool) -> None:
        with self._lock:
            name = self._running.pop(index)[0]
            text, width = f"CACHED {name}" if cached else name, _columns(self._stream) - 1
            self._say(_row(text, "", "" if cached else f" {seconds:.1f}s", width).rstrip())
            self._bar.update()
            self._draw()

    def failed(self, index: int, message: str, seconds: float) -> None:
        with self._lock:
            name = self._running.pop(index)[0]
            self._say(f" => ERROR {name} {seconds:.1f}s")
            self._draw()

    def warning(self, warning: PlanWarning) -> None:
        with self._lock:
            place = f" (line {warning.location.start_line})" if warning.location else ""
            self._say(f" warning: {warning.rule}: {warning.message}{place}")

    def explained(self, event: str, text: str, document: Mapping[str, object]) -> None:
        from textwrap import wrap

        with self._lock:
            self._say("\n".join(wrap(f" => {text}", _columns(self._stream) - 1, subsequent_indent="    ")))

    def message(self, text: str) -> None:
        with self._lock:
            self._say(f" => {text}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        with self._lock:
            for row in (*self._rows, self._bar):
                row.clear()
            yield

    def close(self) -> None:
        self._closed.set()
        self._ticker.join()
        with self._lock:
            for row in reversed(self._rows):
                row.close()
            self._bar.close()


def _row(name: str, tail: str, seconds: str, width: int) -> str:
    """One line of the terminal: the vertex, the last line that it printed, and the time at the right edge."""
    room = width - len(seconds)
    shown = visible(f" => {name}")
    if tail:
        shown = f"{_cut(shown, room * 3 // 5)} | {tail}"
    return _cut(shown, room).ljust(room) + seconds


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
