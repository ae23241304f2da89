"""--resource, and the older options for the same: text to Limits.

Source: docker buildx build reference, --resource; docker build reference for --memory and its relatives.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.sandbox.spec import Limits

_SIZES = ("memory", "memory-swap")
_SETS = ("cpuset-cpus", "cpuset-mems")
_BOUNDS = {"cpu-shares": (2, 262144), "cpu-period": (1000, 1_000_000), "cpu-quota": (1000, 1 << 62)}
"""What the kernel takes (cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst); times are microseconds."""
NAMES = (*_SIZES, *_BOUNDS, *_SETS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --resource, --cgroup-parent and the options of `docker build` that say one resource each."""
    add = parser.add_argument
    what = f"limit what each RUN may use: {', '.join(NAMES)}; a limit that cannot be set is an error"
    add("--resource", action="append", default=[], metavar="NAME=VALUE,…", help=what)
    add("--cgroup-parent", default="", metavar="GROUP", help="the control group below which each RUN gets its own")
    short = {"memory": ("-m",), "cpu-shares": ("-c",)}
    for name in NAMES:
        written = f'"{name}={{}}"'.format
        flags = (*short.get(name, ()), f"--{name}")
        add(*flags, dest="resource", action="append", type=written, metavar="VALUE", help=f"--resource {name}=VALUE")


def parse_limits(texts: Iterable[str]) -> Limits:
    """The limits of all --resource; of one that is said twice the last counts. Raises UsageError."""
    from builder.sandbox.spec import Limits

    found: dict[str, Any] = {}
    for text in texts:
        for field in _fields(text):
            name, equals, value = field.partition("=")
            if name not in NAMES or not equals:
                known = ", ".join(NAMES)
                raise UsageError(f'--resource "{field}" is not known', hint=f"write NAME=VALUE, NAME one of {known}")
            found[name.replace("-", "_")] = _value(name, value)
    limits = Limits(**found)
    if limits.memory_swap is not None and limits.memory_swap != -1 and limits.memory_swap < (limits.memory or 1 << 62):
        raise UsageError(
            "--resource memory-swap is memory and swap together: it needs memory, and to be no less",
            hint="for example --resource memory=512m,memory-swap=1g",
        )
    return limits


def _fields(text: str) -> list[str]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f'--resource "{text}" is not valid CSV: {error}') from error
    return rows[0] if rows else []


def _value(name: str, value: str) -> int | str:
    if name in _SETS:
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
            raise UsageError(f'{name} "{value}" is not a list of numbers', hint='for example 0-2, or quoted: "0,2"')
        return value
    if name in _SIZES:
        return _size(name, value)
    low, high = _BOUNDS[name]
    if value == "-1" and name == "cpu-quota":
        return -1
    if not (value.isascii() and value.isdecimal() and low <= int(value) <= high):
        raise UsageError(f'{name} "{value}" is not a number from {low} to {high}')
    return int(value)


def _size(name: str, value: str) -> int:
    if value == "-1" and name == "memory-swap":
        return -1
    from grammar.errors import DockerfileError
    from grammar.values import parse_size

    try:
        size = parse_size(value)
    except DockerfileError as error:
        raise UsageError(f'{name} "{value}" is not a size', hint="for example 512m or 2g") from error
    if size <= 0:
        raise UsageError(f'{name} "{value}" is not more than nothing')
    return size
