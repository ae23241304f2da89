"""RFC 3339 times as image documents have them, to and from nanoseconds since 1970.

Go writes them in UTC with as many digits of a second as are needed (`time.RFC3339Nano`).
"""

from __future__ import annotations

import re
import time
from functools import cache


def format_time(time_ns: int) -> str:
    """Return e.g. `2024-01-02T03:04:05.6Z`; no fraction for whole seconds."""
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    parts = time.gmtime(seconds)
    text = f"{parts.tm_year:04d}-{parts.tm_mon:02d}-{parts.tm_mday:02d}"
    text += f"T{parts.tm_hour:02d}:{parts.tm_min:02d}:{parts.tm_sec:02d}"
    if fraction:
        text += "." + f"{fraction:09d}".rstrip("0")
    return text + "Z"


def parse_time(text: str) -> int | None:
    """Return nanoseconds since 1970, or None for text that is no RFC 3339 time."""
    match = _pattern().fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    seconds = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    if match[8]:
        offset = int(match[9]) * 3600 + int(match[10]) * 60
        seconds -= offset if match[8] == "+" else -offset
    return seconds * 1_000_000_000 + int((match[7] or "").ljust(9, "0"))


@cache
def _pattern() -> re.Pattern[str]:
    """Compiled at the first use, which a cached build has not."""
    date, time_of_day = r"(\d{4})-(\d\d)-(\d\d)", r"(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?"
    return re.compile(rf"{date}[Tt]{time_of_day}(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the Gregorian calendar; years start in March here, so that leap days come last."""
    year, month = (year - 1, month + 9) if month <= 2 else (year, month - 3)
    return year * 365 + year // 4 - year // 100 + year // 400 + (month * 153 + 2) // 5 + day - 719469
