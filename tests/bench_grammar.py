"""How long the grammar takes, and how much memory: `python -m tests.bench_grammar`.

Prints a table. Each row runs in a process of its own, so that its peak of memory is its own; the first rows of a group
differ only in size, so that the time per unit shows whether it grows linearly. The last column says what came of it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from grammar.errors import DockerfileError
from grammar.format import format_dockerfile
from grammar.ignore import IgnoreMatcher, read_patterns
from grammar.stages import parse
from grammar.words import Lexer

BOUNDS = {("instructions", 10_000): (1.5, 200.0)}
"""Seconds and MB that a row may take."""

LINES = (
    "RUN echo {0} && touch /file-{0}",
    'ENV KEY{0}=value OTHER="a b" THIRD=$KEY{0}',
    "COPY --chown=1:1 src/{0} /dst/",
    "LABEL org.example.a{0}=b",
    "WORKDIR /w{0}",
    "RUN --mount=type=cache,target=/c a \\\n  && b \\\n  # why\n  && c",
    "ARG A{0}=1",
    'CMD ["a", "b"]',
    "RUN <<EOF\nset -e\necho {0}\nEOF",
    "# about the user\nUSER u{0}",
)


def instructions(count: int) -> bytes:
    """A Dockerfile of as many instructions, of ten kinds."""
    lines = [LINES[number % len(LINES)].format(number) for number in range(count - 1)]
    return "\n".join(["FROM alpine", *lines]).encode()


def line(size: int) -> bytes:
    """One physical line."""
    return b"FROM a\nRUN " + b"x " * (size // 2)


def joined_line(size: int) -> bytes:
    """One logical line of physical lines below their limit."""
    return b"FROM a\nENV " + (b"a=b " * 10_000 + b"\\\n") * (size // 40_000) + b"c=d\n"


def parsed(source: bytes) -> str:
    dockerfile = parse(source)
    return f"{sum(len(stage.commands) + 1 for stage in dockerfile.stages)} instructions"


def formatted(source: bytes) -> str:
    return f"{len(format_dockerfile(source))} bytes"


def expanded(word: str) -> str:
    return f"{len(Lexer().process_word(word, {}))} characters"


def matched(patterns: bytes, path: str) -> str:
    return f"ignored: {IgnoreMatcher(read_patterns(patterns)).ignores(path)}"


CASES: Mapping[str, tuple[Callable[[int], object], Callable[..., str], tuple[int, ...]]] = {
    "instructions": (instructions, parsed, (1_250, 2_500, 5_000, 10_000, 20_000)),
    "instructions formatted": (instructions, formatted, (1_250, 2_500, 5_000, 10_000)),
    "too many instructions": (instructions, parsed, (150_000,)),
    "bytes in one line": (line, parsed, (60_000, 1 << 20)),
    "bytes in joined lines": (joined_line, parsed, (1 << 18, 1 << 19, 1 << 20, 1 << 21)),
    "bytes of a heredoc": (lambda n: b"FROM a\nRUN <<E\n" + b"line\n" * (n // 5) + b"E\n", parsed, (1 << 22, 1 << 23)),
    "bytes of a file": (lambda n: b"FROM a\n" + b"RUN x\n" * (n // 6), parsed, (100 << 20,)),
    "bytes of comments": (lambda n: b"FROM a\n" + b"# comment\n" * (n // 10), parsed, (1 << 22, 1 << 23)),
    "nested ${a:-…}": (lambda n: "${a:-" * n + "x" + "}" * n, expanded, (250, 500, 1_000, 2_000, 4_000)),
    "variables in a word": (lambda n: "$a${b:-c}" * n, expanded, (10_000, 20_000, 40_000)),
}


def measure(name: str, size: int) -> dict[str, object]:
    """Run one row here. `seconds` is without making the input; `mb` is the peak of the process above what the input
    needs."""
    make, run, _ = CASES[name]
    parse(b"FROM a")
    given = make(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    try:
        outcome = run(given)
    except DockerfileError as error:
        outcome = f"refused: {error.message[:60]}"
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "mb": (peak - before) / 1024, "total_mb": peak / 1024, "outcome": outcome}


def main(argv: list[str]) -> int:
    """1 if a row passes its bounds."""
    if argv:
        print(json.dumps(measure(argv[0], int(argv[1]))))
        return 0
    failed = False
    print(f"{'case':<24}{'size':>12}{'seconds':>10}{'µs/unit':>10}{'more MB':>9}{'peak MB':>9}  outcome")
    for name, (_, _, sizes) in CASES.items():
        for size in sizes:
            command = [sys.executable, "-m", "tests.bench_grammar", name, str(size)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            seconds, peak = BOUNDS.get((name, size), (float("inf"), float("inf")))
            over = row["seconds"] > seconds or row["total_mb"] > peak
            failed = failed or over
            print(
                f"{name:<24}{size:>12}{row['seconds']:>10.3f}{row['seconds'] / size * 1e6:>10.3f}{row['mb']:>9.1f}"
                f"{row['total_mb']:>9.1f}  {row['outcome']}{'  OVER ITS BOUND' if over else ''}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
