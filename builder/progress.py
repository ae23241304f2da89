"""Telling the user what a build does, on stderr: plain lines, JSON for programs, or nothing but errors.

A Reporter is called from the threads that work; each call is one complete event. The bar for a terminal is in
`progress_bar`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TextIO

from builder.plan import PlanWarning
from builder.streams import visible
from cache.mutex import Lock

if TYPE_CHECKING:
    from builder.sandbox.usage import Usage

KINDS = ("auto", "tty", "plain", "json", "quiet")
SAME_STEP = "another build of the same step"
_TRANSFER_SECONDS = 5.0


class Reporter(Protocol):
    """The events of a build. `index` is the vertex's place in the plan; seconds are wall time."""

    def cached(self, index: int, name: str) -> None:
        """The vertex needs nothing done: its result was there."""

    def started(self, index: int, name: str, *, internal: bool = False) -> None:
        """The vertex has begun."""

    def waiting(self, index: int, what: str = SAME_STEP) -> None:
        """The vertex waits for what somebody else is doing: building the same, or using what it needs alone."""

    def output(self, index: int, text: bytes) -> None:
        """Bytes that the vertex's process wrote, as they come."""

    def used(self, index: int, usage: Usage) -> None:
        """What the vertex's process has used, right after its end."""

    def done(self, index: int, seconds: float, *, cached: bool) -> None:
        """The vertex has its result."""

    def failed(self, index: int, message: str, seconds: float) -> None:
        """The vertex has failed, or was cancelled."""

    def transfer(self, index: int, digest: str, current: int, total: int) -> None:
        """Of a blob that comes from a registry or goes to one `current` bytes of `total` have passed."""

    def warning(self, warning: PlanWarning) -> None:
        """A remark about the Dockerfile."""

    def explained(self, event: str, text: str, document: Mapping[str, object]) -> None:
        """Why a vertex was found or was not: `event` is `miss` for the first that ran, `explanation` for each that was
        asked about; `text` says it in a line, `document` in plain values."""

    def message(self, text: str) -> None:
        """A step that is not a vertex, such as writing an output."""

    def paused(self) -> AbstractContextManager[None]:
        """Inside the block nothing is written: the terminal is somebody else's. Other threads' events wait."""

    def close(self) -> None:
        """Nothing more comes; lines that are still open are ended."""


def usage_fields(usage: Usage) -> dict[str, object]:
    """What a step has used, as programs read it: seconds and bytes."""
    return {
        "user_seconds": round(usage.user_seconds, 6),
        "system_seconds": round(usage.system_seconds, 6),
        "peak_memory": usage.peak_memory,
        "peak_memory_of": "step" if usage.is_whole_memory else "process",
        "read": usage.read,
        "written": usage.written,
    }


LONGEST_LINE = 64 << 10
"""What is longer is cut: a step may print without ever ending a line."""


class LineSplitter:
    """Bytes in, whole lines out; the rest, if it is not too long, stays for the next call."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, text: bytes) -> list[str]:
        """The lines that are complete now, without their ends; a carriage return starts a line over."""
        lines: list[bytes] = []
        if b"\n" in text:
            *lines, self._rest = (self._rest + text).split(b"\n")
        else:
            self._rest += text  # most of it has been looked through
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        return [shown_line(line) for line in lines]

    def flush(self) -> list[str]:
        """The unfinished last line, if there is one."""
        rest, self._rest = self._rest, b""
        return [shown_line(rest)] if rest else []


_PLAIN = bytes(range(32, 127))
"""Bytes that mean themselves: to know that of a line this way is much faster than to ask for each character."""
_SEQUENCE = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))"
"""ECMA-48's control sequences, and xterm's titles."""


def shown_line(line: bytes) -> str:
    """A program's line as it is shown: what a carriage return left of it, without what a terminal would obey."""
    line = line.rstrip(b"\r").rpartition(b"\r")[2]
    if not line.translate(None, _PLAIN):
        return line.decode("ascii")
    text = line.decode("utf-8", "replace")
    return text if text.isprintable() else re.sub(_SEQUENCE, "", text).translate(_PRINTABLE)


class _Printable(dict[int, int]):
    """What is shown for each character, found out once."""

    def __missing__(self, code: int) -> int:
        is_shown = chr(code).isprintable() or code == ord("\t")
        self[code] = code if is_shown else ord("\N{REPLACEMENT CHARACTER}")
        return self[code]


_PRINTABLE = _Printable()


class QuietReporter:
    """Says nothing: the error that ends a failed build is printed by the command line."""

    def cached(self, index: int, name: str) -> None: ...

    def started(self, index: int, name: str, *, internal: bool = False) -> None: ...

    def waiting(self, index: int, what: str = SAME_STEP) -> None: ...

    def output(self, index: int, text: bytes) -> None: ...

    def used(self, index: int, usage: Usage) -> None: ...

    def done(self, index: int, seconds: float, *, cached: bool) -> None: ...

    def failed(self, index: int, message: str, seconds: float) -> None: ...

    def transfer(self, index: int, digest: str, current: int, total: int) -> None: ...

    def warning(self, warning: PlanWarning) -> None: ...

    def explained(self, event: str, text: str, document: Mapping[str, object]) -> None: ...

    def message(self, text: str) -> None: ...

    def paused(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None: ...


class PlainReporter(QuietReporter):
    """A line for every event, in the form that BuildKit's plain progress has: `#3 [2/4] RUN make`, `#3 DONE 0.4s`."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.perf_counter) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = Lock()
        self._numbers: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._begun: dict[int, float] = {}
        self._hidden: set[int] = set()
        self._lines: dict[int, LineSplitter] = {}
        self._transfers: dict[str, tuple[float, float]] = {}

    def _number(self, index: int) -> int:
        return self._numbers.setdefault(index, len(self._numbers) + 1)

    def _write(self, *lines: str) -> None:
        self._put([visible(line) for line in lines])

    def _put(self, lines: list[str]) -> None:
        self._stream.write("".join(line + "\n" for line in lines))
        self._stream.flush()

    def cached(self, index: int, name: str) -> None:
        with self._lock:
            number = self._number(index)
            self._write(f"#{number} {name}", f"#{number} CACHED", "")

    def started(self, index: int, name: str, *, internal: bool = False) -> None:
        with self._lock:
            self._begun[index] = self._clock()
            self._names[index] = name
            if internal:
                self._hidden.add(index)
            else:
                self._write(f"#{self._number(index)} {name}")

    def waiting(self, index: int, what: str = SAME_STEP) -> None:
        with self._lock:
            if index not in self._hidden:
                self._write(f"#{self._number(index)} waiting for {what}")

    def output(self, index: int, text: bytes) -> None:
        with self._lock:
            self._print_output(index, self._lines.setdefault(index, LineSplitter()).feed(text))

    def _print_output(self, index: int, lines: list[str]) -> None:
        after = self._clock() - self._begun.get(index, self._clock())
        self._put([f"#{self._number(index)} {after:.3f} {line}" for line in lines])

    def done(self, index: int, seconds: float, *, cached: bool) -> None:
        self._end(index, "CACHED" if cached else f"DONE {seconds:.1f}s")

    def failed(self, index: int, message: str, seconds: float) -> None:
        with self._lock:
            if index in self._hidden:
                self._hidden.discard(index)
                self._write(f"#{self._number(index)} {self._names[index]}")
        self._end(index, f"ERROR: {message}")

    def _end(self, index: int, text: str) -> None:
        with self._lock:
            if index in self._lines:
                self._print_output(index, self._lines[index].flush())
            if index not in self._hidden:
                self._write(f"#{self._number(index)} {text}", "")

    def transfer(self, index: int, digest: str, current: int, total: int) -> None:
        """A line at the end of each blob, and every few seconds until then."""
        from builder.image.describe import human_size

        with self._lock:
            now = self._clock()
            begun, told = self._transfers.setdefault(digest, (now, now))
            if current < total and now - told < _TRANSFER_SECONDS:
                return
            self._transfers[digest] = (begun, now)
            end = " done" if current >= total else ""
            shown = f"{digest[:19]} {human_size(current)} / {human_size(total)}"
            self._write(f"#{self._number(index)} {shown} {now - begun:.1f}s{end}")

    def warning(self, warning: PlanWarning) -> None:
        with self._lock:
            place = f" (line {warning.location.start_line})" if warning.location else ""
            self._write(f"warning: {warning.rule}: {warning.message}{place}")

    def explained(self, event: str, text: str, document: Mapping[str, object]) -> None:
        self.message(text)

    def message(self, text: str) -> None:
        with self._lock:
            self._write(text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        with self._lock:
            yield


class JsonReporter(QuietReporter):
    """One JSON object a line: `{"event": "started", "vertex": 3, "name": …, "time": seconds since the epoch}`."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = Lock()

    def _event(self, event: str, **fields: object) -> None:
        line = json.dumps({"event": event, "time": round(self._clock(), 6), **fields})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def cached(self, index: int, name: str) -> None:
        self._event("cached", vertex=index, name=name)

    def started(self, index: int, name: str, *, internal: bool = False) -> None:
        self._event("started", vertex=index, name=name, internal=internal)

    def waiting(self, index: int, what: str = SAME_STEP) -> None:
        self._event("waiting", vertex=index, what=what)

    def output(self, index: int, text: bytes) -> None:
        self._event("output", vertex=index, text=text.decode("utf-8", "replace"))

    def used(self, index: int, usage: Usage) -> None:
        self._event("usage", vertex=index, **usage_fields(usage))

    def done(self, index: int, seconds: float, *, cached: bool) -> None:
        self._event("done", vertex=index, seconds=round(seconds, 6), cached=cached)

    def failed(self, index: int, message: str, seconds: float) -> None:
        self._event("failed", vertex=index, message=message, seconds=round(seconds, 6))

    def transfer(self, index: int, digest: str, current: int, total: int) -> None:
        self._event("transfer", vertex=index, digest=digest, current=current, total=total)

    def warning(self, warning: PlanWarning) -> None:
        line = warning.location.start_line if warning.location else None
        self._event("warning", rule=warning.rule, message=warning.message, line=line)

    def explained(self, event: str, text: str, document: Mapping[str, object]) -> None:
        self._event(event, text=text, **document)

    def message(self, text: str) -> None:
        self._event("message", text=text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        with self._lock:
            yield


def progress_kind(text: str) -> str:
    """A value of --progress; `none` is buildx's word for quiet."""
    return "quiet" if text == "none" else text


def new_reporter(wanted: str, stream: TextIO, total: int) -> Reporter:
    """The reporter that `wanted` names; `auto` is a bar for `total` vertices on a terminal, lines elsewhere."""
    if wanted == "auto":
        wanted = "tty" if stream.isatty() else "plain"
    if wanted == "tty":
        from builder.progress_terminal import TerminalReporter

        return TerminalReporter(stream, total)
    if wanted == "json":
        return JsonReporter(stream)
    return QuietReporter() if wanted == "quiet" else PlainReporter(stream)
