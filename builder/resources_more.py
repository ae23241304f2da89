"""Limits that `docker run` has and builders do not: processes, I/O, and processors as a number of them.

Said as --resource NAME=VALUE like the others, or as an option each. Source: docker run reference.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.sandbox.spec import Limits

_RATES = {
    "device-read-bps": "rbps",
    "device-write-bps": "wbps",
    "device-read-iops": "riops",
    "device-write-iops": "wiops",
}
_MOST_PROCESSES = 1 << 22
"""PID_MAX_LIMIT of 64-bit kernels (proc(5), pid_max)."""
_PERIOD = 100_000
NAMES = ("cpus", "pids-limit", "blkio-weight", *_RATES)


def add_arguments(parser: argparse.ArgumentParser, written: Callable[[str], Callable[[str], str]]) -> None:
    """Declare an option for each; `written(name)` makes a value into a word of --resource."""
    for name in NAMES:
        metavar = "DEVICE:RATE" if name in _RATES else "VALUE"
        note = f"--resource {name}={metavar}"
        parser.add_argument(
            f"--{name}", dest="resource", action="append", type=written(name), metavar=metavar, help=note
        )


def with_more(limits: Limits, fields: dict[str, list[str]]) -> Limits:
    """The limits with those of `fields`: NAMES with what was said of each, in order. Raises UsageError."""
    found: dict[str, Any] = {}
    for name, values in fields.items():
        if name == "cpus":
            if limits.cpu_quota is not None or limits.cpu_period is not None:
                raise UsageError("cpus and cpu-quota say the same", hint="leave one of them out")
            found |= {"cpu_quota": _quota(values[-1]), "cpu_period": _PERIOD}
        elif name == "pids-limit":
            found["pids"] = -1 if values[-1] == "-1" else _number(name, values[-1], 1, _MOST_PROCESSES)
        elif name == "blkio-weight":
            found["io_weight"] = _number(name, values[-1], 10, 1000)
    rates = {rate[:2]: rate for name in _RATES for rate in (_rate(name, text) for text in fields.get(name, ()))}
    return limits._replace(**found, io_rates=tuple(rates.values()))


def _quota(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}(\.\d{0,9})?|\.\d{1,9}", text) or float(text) < 0.01:
        raise UsageError(f'cpus "{text}" is not a number of processors', hint="for example 1.5; 0.01 is the least")
    return round(float(text) * _PERIOD)


def _number(name: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise UsageError(f'{name} "{text}" is not a number from {low} to {high}')
    return int(text)


def _rate(name: str, text: str) -> tuple[str, str, int]:
    """`/dev/sda:1mb` as major:minor, kind, and what it may be in a second."""
    path, _, value = text.rpartition(":")
    if not path.startswith("/") or not value:
        raise UsageError(f'{name} "{text}" is not DEVICE:RATE', hint=f"for example {name}=/dev/sda:10mb")
    try:
        device = os.stat(path)
    except OSError as error:
        raise UsageError(f'{name} "{path}": {(error.strerror or str(error)).lower()}') from error
    if not stat.S_ISBLK(device.st_mode):
        raise UsageError(f'{name} "{path}" is not a block device')
    kind = _RATES[name]
    rate = _size(name, value) if kind.endswith("bps") else _number(name, value, 1, 1 << 32)
    return f"{os.major(device.st_rdev)}:{os.minor(device.st_rdev)}", kind, rate


def _size(name: str, text: str) -> int:
    from grammar.errors import DockerfileError
    from grammar.values import parse_size

    try:
        size = parse_size(text)
    except DockerfileError as error:
        raise UsageError(f'{name} "{text}" is not a size', hint="for example 10mb") from error
    if size <= 0:
        raise UsageError(f'{name} "{text}" is not more than nothing')
    return size
