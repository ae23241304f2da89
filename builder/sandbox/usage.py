"""What a step has used: from its control groups as far as they count it, else from its process (getrusage(2)).

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,cpuacct}.rst. Runs under
`python -I -S`.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable, Iterator
from typing import Any

from cache.namedtuple import NamedTuple

_SECTOR = 512
_SIZE_UNIT = 1024
"""Of ru_inblock, and of ru_maxrss."""


class Usage(NamedTuple):
    """Seconds and bytes. The program's sandbox is made in the same process, and counts."""

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    peak_memory: int = 0
    read: int = 0
    """From devices: what came from the page cache does not count."""
    written: int = 0
    is_whole_memory: bool = False
    """Whether `peak_memory` is that of all processes together, with their page cache; else that of the largest one."""


def usage(groups: Iterable[str], process: resource.struct_rusage) -> Usage:
    """What the processes of the groups used; `process` is the step's first one, with all that it waited for."""
    found = Usage(
        process.ru_utime,
        process.ru_stime,
        process.ru_maxrss * _SIZE_UNIT,
        process.ru_inblock * _SECTOR,
        process.ru_oublock * _SECTOR,
    )
    for group in groups:
        found = found._replace(**_processor(group), **_memory(group), **_transferred(group, found))
    return found


def _processor(group: str) -> dict[str, Any]:
    for file, user, system, unit in (
        ("cpu.stat", "user_usec", "system_usec", 1e-6),
        ("cpuacct.stat", "user", "system", 1 / os.sysconf("SC_CLK_TCK")),
    ):
        rows = dict(line.split(" ", 1) for line in _lines(f"{group}/{file}"))
        if user in rows and system in rows:
            return {"user_seconds": int(rows[user]) * unit, "system_seconds": int(rows[system]) * unit}
    return {}


def _memory(group: str) -> dict[str, Any]:
    for file in ("memory.peak", "memory.max_usage_in_bytes"):
        for line in _lines(f"{group}/{file}"):
            return {"peak_memory": int(line), "is_whole_memory": True}
    return {}


def _transferred(group: str, process: Usage) -> dict[str, Any]:
    """Bytes of all devices: `8:0 rbytes=1 wbytes=2 …`. What is written back later is not among them yet, but counts for
    the process that wrote it."""
    fields = [field.partition("=") for line in _lines(f"{group}/io.stat") for field in line.split()[1:]]
    return {"read": max(_sum(fields, "rbytes"), process.read), "written": max(_sum(fields, "wbytes"), process.written)}


def _sum(fields: list[tuple[str, str, str]], key: str) -> int:
    return sum(int(value) for name, _, value in fields if name == key)


def _lines(path: str) -> Iterator[str]:
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        yield from file.read().splitlines()
