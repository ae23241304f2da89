"""How long the cache takes, and how much memory, as what it holds grows: `python -m tests.bench_cache`.

Prints a table. Each row is a whole process. Needs root. Returns 1 if a row passes its bounds: a context
of 100,000 unchanged files, and a store of 100,000 records, which must take no longer than one of 100 (by half, for the
noise of the machine).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from cache.keynotes import KeyNote
from cache.keys import key_of, readable
from cache.records import CacheRecord
from cache.store import Store

FILES = (100, 1_000, 10_000, 100_000)
RECORDS = (100, 1_000, 10_000, 100_000)
MOST_SECONDS, MOST_MB = 0.5, 150
TIMES = 7
DOCKERFILE = "FROM scratch\nCOPY src /src\n"


class Row:
    """The figures of one command, run several times: medians of its seconds and of its processor time, peak memory."""

    def __init__(self, run: Callable[[], tuple[float, float, float]]) -> None:
        rows = [run() for _ in range(TIMES)]
        self.seconds = median(row[0] for row in rows)
        self.processor = median(row[1] for row in rows)
        self.mb = max(row[2] for row in rows)


def measured(argv: list[str], root: Path) -> tuple[float, float, float]:
    """Run a command in a process of its own, which measures its only child: wall and processor seconds, MB."""
    environment = os.environ | {"PYBUILD_ROOT": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, sys.executable, "-m", *argv], env=environment, capture_output=True, check=True
    )
    wall, processor, kib = json.loads(done.stderr.splitlines()[-1])
    return wall, processor, kib / 1024


_MEASURE = """
import json, resource, subprocess, sys, time
begun = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
wall = time.perf_counter() - begun
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss]), file=sys.stderr)
"""


def make_files(directory: Path, count: int) -> None:
    """A context of as many small files, a hundred in a directory."""
    for number in range(count // 100):
        here = directory / f"src/package{number % 100:02d}/module{number // 100:03d}"
        here.mkdir(parents=True)
        for file in range(100):
            (here / f"file_{file:03d}.py").write_text(f"content {number} {file}\n")
    (directory / "Dockerfile").write_text(DOCKERFILE)


def fill(root: Path, count: int) -> None:
    """Records of steps that nobody asks for, of a hundred projects, with their notes."""
    with Store.open(str(root)) as store, store.database.transaction():
        for number in range(count):
            manifest = {"op": "exec", "argv": ["/bin/sh", "-c", f"make {number}"], "env": [], "inputs": [{"key": "x"}]}
            key = key_of(manifest)
            store.records.put(CacheRecord(key, f"sha256:{number:064x}", readable(manifest), number, 1.0))
            note = KeyNote(key, "definition", f"/p{number % 100}", "", "RUN ExecOp", key, key, number, b"{}")
            store.notes.put(note)


def context_rows(scratch: Path) -> bool:
    """The curve over files: a build of which nothing has changed."""
    print(f"{'files, unchanged':<28}{'seconds':>10}{'processor':>11}{'MB':>8}")
    for count in FILES:
        context = scratch / f"context{count}"
        make_files(context, count)
        command = ["builder", "build", "-q", str(context)]
        measured(command, scratch / "files")
        time.sleep(2.1)  # files younger than that are read again
        measured(command, scratch / "files")
        row = Row(partial(measured, command, scratch / "files"))
        print(f"{count:<28,}{row.seconds:>10.3f}{row.processor:>11.3f}{row.mb:>8.1f}", flush=True)
        shutil.rmtree(context)
    return row.seconds <= MOST_SECONDS and row.mb <= MOST_MB


def record_rows(scratch: Path) -> bool:
    """The curve over records: a warm build, and the explanation of a miss."""
    print(f"\n{'records':<28}{'seconds':>10}{'processor':>11}{'MB':>8}{'explain a miss':>16}")
    context = scratch / "one"
    context.mkdir()
    (context / "file").write_text("text")
    rows = []
    for count in RECORDS:
        root = scratch / f"records{count}"
        fill(root, count)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\nCOPY file /other\n")
        command = ["builder", "build", "-q", str(context)]
        measured(command, root)
        row = Row(partial(measured, command, root))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\nCOPY file /another\n")
        explained = Row(partial(measured, ["builder", "explain", str(context)], root))
        rows.append((row.processor, explained.processor))
        figures = f"{row.seconds:>10.3f}{row.processor:>11.3f}{row.mb:>8.1f}{explained.processor:>16.3f}"
        print(f"{count:<28,}{figures}", flush=True)
        shutil.rmtree(root)
    return all(last <= 1.5 * first for first, last in zip(rows[0], rows[-1], strict=True))


def main() -> int:
    """1 if a bound is passed."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-cache-"))
    try:
        is_fine = [context_rows(scratch), record_rows(scratch)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not all(is_fine):
        print("OVER A BOUND")
    return int(not all(is_fine))


if __name__ == "__main__":
    sys.exit(main())
