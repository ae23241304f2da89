"""Sizes, shares of a disk and spans of time as people write them in options and configuration files.

Units are those of Docker and BuildKit: `10GB` is 10 * 2^30 bytes, `20%` a share of the disk, `1h30m` a Go duration.
"""

from __future__ import annotations

import re

from builder.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])i?)?b?", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_space(text: str, what: str, disk_size: int) -> int:
    """Bytes of `512MB`, `10GiB`, `1.5g`, `4096` or `20%` of `disk_size`. UsageError names `what`."""
    share = text.strip().removesuffix("%")
    if share != text.strip():
        if re.fullmatch(r"\d+(\.\d+)?", share) and float(share) <= 100:
            return int(disk_size * float(share) / 100)
    elif found := _SIZE.fullmatch(text.strip()):
        return int(float(found[1]) * 1024 ** " kmgtp".index((found[2] or " ").lower()))
    raise UsageError(f'{what} "{text}" is not a size', hint="write bytes, 512MB, 10GB, or 20% of the disk")


def shown_size(size: int) -> str:
    """Bytes in the largest unit that says them exactly."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def parse_duration(text: str, what: str) -> int:
    """Nanoseconds of `48h`, `1h30m`, `14d`, or a number of seconds. UsageError names `what`."""
    if text.isascii() and text.isdigit():
        return int(text) * 10**9
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f'{what} "{text}" is not a duration', hint="write 48h, 1h30m or 14d")
    return int(sum(float(number) * _SECONDS[unit] for number, unit in parts) * 1e9)
