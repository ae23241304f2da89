from __future__ import annotations

import io
import json

from builder.errors import Location
from builder.plan import PlanWarning
from builder.progress import JsonReporter, LineSplitter, PlainReporter


def test_lines_come_whole() -> None:
    lines = LineSplitter()
    assert lines.feed(b"a\nb") == ["a"]
    assert lines.feed(b"c\n10%\r20%\r\n") == ["bc", "20%"]
    assert lines.feed("é\x1b[31mred\x1b[0m\x1b]0;title\a\x1b(".encode()) == []
    assert lines.flush() == ["éred\N{REPLACEMENT CHARACTER}("]
    assert lines.flush() == []


def test_plain() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream, clock=lambda: 1.0)
    reporter.cached(4, "[1/3] FROM base")
    reporter.started(7, "[2/3] RUN make")
    reporter.output(7, b"compiling\nlast")
    reporter.done(7, 0.25, cached=False)
    reporter.started(8, "[internal] document", internal=True)
    reporter.done(8, 0.1, cached=False)
    reporter.started(9, "[3/3] RUN fail")
    reporter.failed(9, "exit code: 1", 0.1)
    reporter.warning(PlanWarning("Rule", "text", Location("Dockerfile", 3, 3)))
    assert stream.getvalue().split("\n") == [
        "#1 [1/3] FROM base",
        "#1 CACHED",
        "",
        "#2 [2/3] RUN make",
        "#2 0.000 compiling",
        "#2 0.000 last",
        "#2 DONE 0.2s",
        "",
        "#3 [3/3] RUN fail",
        "#3 ERROR: exit code: 1",
        "",
        "warning: Rule: text (line 3)",
        "",
    ]


def test_json() -> None:
    stream = io.StringIO()
    reporter = JsonReporter(stream, clock=lambda: 5.0)
    reporter.started(1, "name")
    reporter.output(1, b"\xff\n")
    reporter.done(1, 0.5, cached=True)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert events[0] == {"event": "started", "time": 5.0, "vertex": 1, "name": "name", "internal": False}
    assert events[1]["text"] == "\N{REPLACEMENT CHARACTER}\n"
    assert events[2] == {"event": "done", "time": 5.0, "vertex": 1, "seconds": 0.5, "cached": True}


def test_a_line_without_end_is_cut() -> None:
    lines = LineSplitter()
    chunk = b"x" * (64 << 10)
    shown = [line for _ in range(2000) for line in lines.feed(chunk)] + lines.flush()
    assert sum(map(len, shown)) == 2000 * len(chunk)
    assert max(map(len, shown)) <= 192 << 10
